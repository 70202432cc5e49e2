//! Brings a revision of an application to its sites, site by site.

use std::collections::{BTreeMap, BTreeSet};

use planner::ComponentPlan;
use planner::rollout::{Budget, Haste, Member, Outcome, Stage, State, Step, advance, stage_of, stages};
use types::{ApplicationRevision, Assignment, AssignmentSpec, ObjectMeta, Rollout, Site, Time, names::label};

use super::sites::{self, Moment};
use super::target::Target;
use crate::Write;

/// What sites have to run: by site and component.
type Desired = BTreeMap<String, BTreeMap<String, AssignmentSpec>>;
/// The assignments of an application: by site and component.
pub(super) type Assigned<'a> = BTreeMap<&'a str, BTreeMap<&'a str, &'a Assignment>>;

/// A revision, and what it is for sites.
pub(super) struct Planned<'a> {
    pub revision: &'a ApplicationRevision,
    /// Each with why it can't be planned now, if so: what is assigned of it stays as it is.
    pub components: BTreeMap<String, Option<String>>,
    desired: Desired,
}

impl<'a> Planned<'a> {
    pub fn new(revision: &'a ApplicationRevision, plans: Vec<ComponentPlan>) -> Self {
        let (mut desired, mut components) = (Desired::new(), BTreeMap::new());
        for ComponentPlan { component, assignments } in plans {
            let (sites, problem) = match assignments {
                Ok(sites) => (sites, None),
                Err(problem) => (BTreeMap::new(), Some(problem)),
            };
            for (site, spec) in sites {
                desired.entry(site).or_default().insert(component.clone(), spec);
            }
            components.insert(component, problem);
        }
        Self { revision, components, desired }
    }

    fn is_blocked(&self, component: &str) -> bool {
        self.components.get(component).is_some_and(Option::is_some)
    }
}

/// Everything that bringing a revision to sites depends on.
pub(super) struct Drive<'a> {
    pub target: Target<'a>,
    pub plan: &'a Planned<'a>,
    /// Other revisions that sites run still.
    pub others: &'a BTreeMap<i64, Planned<'a>>,
    pub assigned: &'a Assigned<'a>,
    pub sites: &'a BTreeMap<&'a str, &'a Site>,
    /// Components of which nobody knows what they should be: they stay as they are.
    pub unknown: BTreeSet<&'a str>,
    pub rollout: &'a Rollout,
    pub moment: Moment,
}

/// What is decided for all sites together before each of them is written to.
struct Round<'a> {
    is_complete: bool,
    /// Sites and components that stay until those that come run.
    stays: BTreeSet<(&'a str, &'a str)>,
}

/// How an assignment is to be.
enum Change<'a> {
    Create(&'a str, &'a AssignmentSpec),
    Become(&'a Assignment, &'a AssignmentSpec),
    Delete(&'a Assignment),
}

impl Drive<'_> {
    /// How the rollout stands and which sites are next; and notes of how far they are.
    pub fn step(&self, writes: &mut Vec<Write>) -> Step {
        let budget = Budget::of(self.rollout, self.haste());
        let stages = stages(self.rollout, self.haste());
        let mut members = Vec::new();
        for site in self.plan.desired.keys() {
            let state = self.state(site, &budget, writes);
            members.push(Member { site: site.clone(), stage: self.stage_of(site, &stages), state });
        }
        let budget = Budget { leaving: self.leaving(&budget, writes), ..budget };
        advance(&stages, &members, &budget, self.moment.now.0)
    }

    /// How far sites are that were told of the target, and are not to run it any more.
    fn leaving(&self, budget: &Budget, writes: &mut Vec<Write>) -> Vec<State> {
        let sites = self.assigned.keys().filter(|site| !self.plan.desired.contains_key(**site));
        let told = sites.filter(|site| self.sites.contains_key(**site) && self.is_told(site));
        told.map(|site| self.state(site, budget, writes)).collect()
    }

    /// Whether failures are no reason to stop: there is nothing better to go back to.
    fn may_fail(&self) -> bool {
        self.target.is_rollback || self.target.is_proven
    }

    fn haste(&self) -> Haste {
        let is_fast = self.target.is_rollback || self.target.is_promoted;
        Haste { is_fast, may_fail: self.may_fail() }
    }

    /// The stage of the first group that selects a site; the last one for all others.
    fn stage_of(&self, name: &str, stages: &[Stage]) -> usize {
        let Some(site) = self.sites.get(name).filter(|_| !self.rollout.groups.is_empty()) else {
            return stage_of(None, stages);
        };
        let mut labels = site.metadata.labels.clone();
        labels.insert(label::TIER.into(), site.spec.tier.clone());
        let group = self.rollout.groups.iter().find(|group| group.site_selector.matches(&labels));
        stage_of(group.map(|group| group.name.as_str()), stages)
    }

    /// How far a site is with the target. A site that has all of it by another name has it.
    fn state(&self, name: &str, budget: &Budget, writes: &mut Vec<Write>) -> State {
        let site = self.sites.get(name).copied();
        if !self.is_told(name) && !self.has_all(name) {
            return sites::untold(site, !self.target.is_rollback, self.moment);
        }
        let desired = self.desired(name);
        let mut components = Vec::new();
        for (component, assignment) in self.assigned.get(name).into_iter().flatten() {
            if !(desired.contains_key(*component) || desired.is_empty() && self.is_of_target(assignment)) {
                continue;
            }
            let (progress, note) = sites::progress(assignment, self.moment.now, !self.may_fail());
            // What is to be written anyhow is noted of next time.
            writes.extend(note);
            components.push(progress);
        }
        let is_whole = desired.is_empty() || components.len() == desired.len();
        sites::told(site, &components, is_whole, budget.soak, self.moment)
    }

    fn desired(&self, site: &str) -> &BTreeMap<String, AssignmentSpec> {
        static NOTHING: BTreeMap<String, AssignmentSpec> = BTreeMap::new();
        self.plan.desired.get(site).unwrap_or(&NOTHING)
    }

    /// Whether a site was told of the target: some of its assignments are of it.
    fn is_told(&self, site: &str) -> bool {
        let here = self.assigned.get(site).into_iter().flatten();
        here.filter(|(component, _)| !self.stays(component))
            .any(|(_, assignment)| self.is_of_target(assignment))
    }

    fn is_of_target(&self, assignment: &Assignment) -> bool {
        revision_of(assignment) == self.plan.revision.spec.number
    }

    /// Whether a site's assignments say just what the target does.
    fn has_all(&self, site: &str) -> bool {
        let Some(here) = self.assigned.get(site) else { return false };
        let here: BTreeMap<&str, &AssignmentSpec> = here
            .iter()
            .filter(|(component, _)| !self.stays(component))
            .map(|(component, assignment)| (*component, &assignment.spec))
            .collect();
        let desired = self.desired(site);
        here.len() == desired.len()
            && desired.iter().all(|(component, spec)| here.get(component.as_str()) == Some(&spec))
    }

    /// Whether what is assigned of a component is to stay as it is.
    fn stays(&self, component: &str) -> bool {
        self.plan.is_blocked(component) || self.unknown.contains(component)
    }

    /// Makes the assignments of all sites what they should be after this step. Sites that are recalled go back to
    /// `former`, if there is one.
    pub fn assign(&self, step: &Step, former: Option<&Planned>, writes: &mut Vec<Write>) {
        let names: BTreeSet<&str> =
            self.plan.desired.keys().map(String::as_str).chain(self.assigned.keys().copied()).collect();
        let next: BTreeSet<&str> = step.start.iter().map(String::as_str).collect();
        let recalled: BTreeSet<&str> = step.recall.iter().map(String::as_str).collect();
        let is_complete = step.outcome == Outcome::Complete;
        let round = Round { is_complete, stays: self.stayers() };
        let may_start = !self.rollout.paused || self.target.is_rollback;
        let goes_back = |name: &str| {
            let former = former.filter(|former| recalled.contains(name) && former.desired.contains_key(name));
            former.filter(|_| !self.is_held(name))
        };
        // First what gives places free: a hub that ends in between has told nobody too many.
        let (back, others): (Vec<&str>, Vec<&str>) =
            names.into_iter().partition(|name| goes_back(name).is_some());
        for name in back {
            if let Some(former) = goes_back(name) {
                self.write(name, former, &round, writes);
            }
        }
        for name in others {
            let starts = may_start && (next.contains(name) || self.must_go_back(name));
            if self.is_told(name) || self.has_all(name) || starts {
                self.write(name, self.plan, &round, writes);
            } else {
                self.keep(name, &round, writes);
            }
        }
    }

    /// What sites are not to run any more, but do, for as many sites as are to run it and don't yet. Those that run it
    /// stay longest.
    pub fn stayers(&self) -> BTreeSet<(&str, &str)> {
        let mut coming: BTreeMap<&str, usize> = BTreeMap::new();
        for (site, desired) in &self.plan.desired {
            let here = self.assigned.get(site.as_str());
            for component in desired.keys() {
                let is_there =
                    here.and_then(|here| here.get(component.as_str())).is_some_and(|one| sites::runs(one));
                *coming.entry(component).or_default() += usize::from(!is_there);
            }
        }
        let mut going: BTreeMap<&str, Vec<(bool, &str)>> = BTreeMap::new();
        for (site, here) in self.assigned.iter().filter(|(site, _)| self.sites.contains_key(**site)) {
            for (component, assignment) in here {
                if !self.desired(site).contains_key(*component) {
                    going.entry(component).or_default().push((!sites::runs(assignment), site));
                }
            }
        }
        let mut stays = BTreeSet::new();
        for (component, mut sites) in going {
            sites.sort_unstable();
            let count = coming.get(component).copied().unwrap_or_default();
            stays.extend(sites.into_iter().take(count).map(|(_, site)| (site, component)));
        }
        stays
    }

    /// Whether a site that can't be reached would find what was gone back from when it is back.
    fn must_go_back(&self, name: &str) -> bool {
        let is_bad = |assignment: &&Assignment| revision_of(assignment) == self.target.candidate.spec.number;
        let here = self.assigned.get(name).into_iter().flat_map(BTreeMap::values);
        self.target.is_rollback
            && !self.is_held(name)
            && self.plan.desired.contains_key(name)
            && here.copied().any(|one| is_bad(&one))
    }

    /// Whether nothing is to be changed at a site, not even back.
    fn is_held(&self, name: &str) -> bool {
        self.sites.get(name).is_some_and(|site| sites::is_opted_out(site))
    }

    /// Makes a site's assignments those of a revision.
    fn write(&self, name: &str, planned: &Planned, round: &Round, writes: &mut Vec<Write>) {
        static NOTHING: BTreeMap<String, AssignmentSpec> = BTreeMap::new();
        let desired = planned.desired.get(name).unwrap_or(&NOTHING);
        let here = self.assigned.get(name);
        for (component, spec) in desired {
            let change = match here.and_then(|here| here.get(component.as_str())) {
                None => Change::Create(name, spec),
                Some(old) => Change::Become(old, spec),
            };
            writes.extend(change.write(planned.revision, self.moment.now));
        }
        for (component, old) in here.into_iter().flatten() {
            if desired.contains_key(*component) || self.stays(component) {
                continue;
            }
            // What the revision doesn't have at all goes together with what takes its place.
            if !planned.components.contains_key(*component) || self.may_go(name, component, round) {
                writes.extend(Change::Delete(old).write(planned.revision, self.moment.now));
            }
        }
    }

    /// Keeps a site at what it runs, wherever its outputs go now.
    fn keep(&self, name: &str, round: &Round, writes: &mut Vec<Write>) {
        let is_member = self.plan.desired.contains_key(name);
        for (component, old) in self.assigned.get(name).into_iter().flatten() {
            let other = self.others.get(&revision_of(old));
            if self.stays(component) || other.is_some_and(|other| other.is_blocked(component)) {
                continue;
            }
            let spec = other.and_then(|other| Some((other, other.desired.get(name)?.get(*component)?)));
            let goes = match spec {
                Some(_) => !is_member && self.may_go(name, component, round),
                // Nobody knows what it is of: it goes with its site.
                None => (other.is_some() || !is_member) && self.may_go(name, component, round),
            };
            if goes {
                writes.extend(Change::Delete(old).write(self.plan.revision, self.moment.now));
            } else if let Some((other, spec)) = spec {
                writes.extend(Change::Become(old, spec).write(other.revision, self.moment.now));
            }
        }
    }

    /// Whether a site may stop to run what it isn't to run any more: with the site itself, or when the rollout is
    /// through and those that are to run it instead do.
    fn may_go(&self, name: &str, component: &str, round: &Round) -> bool {
        !self.sites.contains_key(name) || round.is_complete && !round.stays.contains(&(name, component))
    }
}

impl Change<'_> {
    /// The write that makes it so, if it isn't. With it goes the note of when the site was told.
    fn write(&self, revision: &ApplicationRevision, now: Time) -> Option<Write> {
        match self {
            Change::Create(site, spec) => {
                let mut new = new_assignment(site, spec, revision);
                new.status.progress = Some(sites::just_told(1, now));
                Some(Write::put(&new))
            }
            Change::Become(old, spec) => {
                let is_other = old.spec != **spec;
                if !is_other && revision_of(old) == revision.spec.number {
                    return None;
                }
                let mut changed = Assignment { spec: (*spec).clone(), ..(*old).clone() };
                changed.metadata.labels.insert(label::REVISION.to_owned(), revision.spec.number.to_string());
                if is_other {
                    changed.status.progress = Some(sites::just_told(old.metadata.generation + 1, now));
                }
                Some(Write::put(&changed))
            }
            Change::Delete(old) => Some(Write::delete(*old)),
        }
    }
}

/// The number of the revision that an assignment is of; 0 if nobody noted it.
pub(super) fn revision_of(assignment: &Assignment) -> i64 {
    let noted = assignment.metadata.labels.get(label::REVISION);
    noted.and_then(|number| number.parse().ok()).unwrap_or_default()
}

fn new_assignment(site: &str, spec: &AssignmentSpec, revision: &ApplicationRevision) -> Assignment {
    // Dots can't be in these names' parts except the application's, so the whole is unambiguous.
    let metadata = ObjectMeta {
        name: format!("{}.{}.{}", spec.component, spec.application, spec.application_namespace),
        namespace: site.to_owned(),
        labels: [
            (label::APPLICATION.to_owned(), spec.application.clone()),
            (label::APPLICATION_NAMESPACE.to_owned(), spec.application_namespace.clone()),
            (label::COMPONENT.to_owned(), spec.component.clone()),
            (label::REVISION.to_owned(), revision.spec.number.to_string()),
        ]
        .into(),
        ..ObjectMeta::default()
    };
    Assignment::new(metadata, spec.clone())
}
