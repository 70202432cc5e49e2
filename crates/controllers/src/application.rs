//! `Application` → `ApplicationRevision`s → `Assignment`s, site by site, and their reports back into its status.
//!
//! What is wanted becomes a revision first. Everything else follows from what is stored: the revisions, what the
//! application's status says was gone back from, and of which revision each assignment is. A hub that ends at any
//! step goes on from there.

mod content;
mod drive;
mod report;
mod sites;
mod target;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use planner::rollout::{Outcome, Step};
use types::{
    Application, ApplicationRevision, Assignment, Rejected, Rollout, RolloutStatus, Site, names::label,
};

use content::{Wanted, is_same, new_revision, plan, wanted};
use drive::{Assigned, Drive, Planned, revision_of};
pub use sites::{Moment, note_report};
use target::{Target, instruction};

use crate::{Snapshot, Write};

/// Where an application is: namespace and name.
type Place<'a> = (&'a str, &'a str);

pub(crate) fn reconcile(snapshot: &Snapshot, moment: Moment) -> Vec<Write> {
    let mut writes = Vec::new();
    let sites: BTreeMap<&str, &Site> = snapshot.sites.iter().map(|site| (site.name(), site)).collect();
    let mut assigned: BTreeMap<Place, Assigned> = BTreeMap::new();
    let is_ours = |assignment: &&Assignment| !assignment.metadata.labels.contains_key(label::ORIGIN);
    for assignment in snapshot.assignments.iter().filter(is_ours) {
        let spec = &assignment.spec;
        let place = (spec.application_namespace.as_str(), spec.application.as_str());
        let here = assigned.entry(place).or_default().entry(assignment.namespace()).or_default();
        here.insert(&spec.component, assignment);
    }
    let mut revisions: HashMap<Place, Vec<&ApplicationRevision>> = HashMap::new();
    for revision in &snapshot.revisions {
        revisions.entry((revision.namespace(), &revision.spec.application)).or_default().push(revision);
    }
    for application in snapshot.applications.iter().filter(|application| !application.is_deleting()) {
        let place = (application.namespace(), application.name());
        let here = assigned.remove(&place).unwrap_or_default();
        let revisions = own(application, revisions.remove(&place).unwrap_or_default());
        let controller = Controller {
            snapshot,
            application,
            revisions: &revisions,
            assigned: &here,
            sites: &sites,
            moment,
        };
        controller.reconcile(&mut writes);
    }
    for left in assigned.into_values().flat_map(BTreeMap::into_values).flat_map(BTreeMap::into_values) {
        writes.push(Write::delete(left));
    }
    writes
}

/// The revisions of an application, oldest first: not those of another one that had its name.
fn own<'a>(
    application: &Application,
    mut named: Vec<&'a ApplicationRevision>,
) -> Vec<&'a ApplicationRevision> {
    named.retain(|revision| {
        revision.metadata.owner_references.iter().any(|owner| owner.uid == application.metadata.uid)
    });
    named.sort_by_key(|revision| revision.spec.number);
    named
}

/// One application, and all that it depends on.
struct Controller<'a> {
    snapshot: &'a Snapshot,
    application: &'a Application,
    /// Oldest first.
    revisions: &'a [&'a ApplicationRevision],
    assigned: &'a Assigned<'a>,
    sites: &'a BTreeMap<&'a str, &'a Site>,
    moment: Moment,
}

/// How many revisions are kept if nobody says.
const HISTORY: usize = 10;

impl Controller<'_> {
    fn reconcile(&self, writes: &mut Vec<Write>) {
        let revisions = self.revisions;
        let status = self.application.status.rollout.clone().unwrap_or_default();
        let running = revisions.iter().find(|revision| revision.name() == status.revision);
        let Wanted { mut content, problems } =
            wanted(self.snapshot, self.application, running.map(|revision| &revision.spec));
        let known = revisions.iter().copied().find(|revision| is_same(&revision.spec, &content));
        let is_new = known.is_none() && !content.components.is_empty();
        if is_new {
            content.number = self.newest(&status) + 1;
            writes.push(Write::create(&new_revision(self.application, content)));
        }
        // Until it is stored, and where nothing can be run, what runs stays.
        let Some(wanted) = known.or(running.copied()) else {
            self.report_nothing(&problems, writes);
            return;
        };
        let target = Target::choose(self.application, revisions, wanted);
        let planned =
            Planned::new(target.revision, plan(self.snapshot, self.application, &target.revision.spec));
        let others = self.others(target.revision);
        let default = Rollout::default();
        let drive = Drive {
            target,
            plan: &planned,
            others: &others,
            assigned: self.assigned,
            sites: self.sites,
            unknown: problems.keys().map(String::as_str).collect(),
            rollout: self.application.spec.rollout.as_ref().unwrap_or(&default),
            moment: self.moment,
        };
        let step = drive.step(writes);
        // What is gone back from is noted before any site is: a hub that ends in between goes on going back.
        let rejected = self.reject(&drive, &step);
        if rejected.is_none() && !is_new {
            let former = self.former(&drive, &step);
            drive.assign(&step, former.as_ref(), writes);
        }
        self.report(&drive, &step, rejected, &problems, writes);
        if step.outcome == Outcome::Complete && !is_new {
            self.prune(&drive, writes);
        }
    }

    /// The highest number that a revision ever had.
    fn newest(&self, status: &RolloutStatus) -> i64 {
        let kept = self.revisions.iter().map(|revision| revision.spec.number);
        kept.chain([status.newest, status.number, status.wanted]).max().unwrap_or_default()
    }

    /// Where sites go back to from a revision; empty where there is nothing better.
    fn last_good(&self, status: &RolloutStatus, from: &ApplicationRevision) -> String {
        target::last_good(status, self.revisions, from).to_owned()
    }

    /// What sites that are recalled ran before.
    fn former(&self, drive: &Drive, step: &Step) -> Option<Planned<'_>> {
        let target = drive.target;
        if step.recall.is_empty() || target.is_rollback || target.is_promoted {
            return None;
        }
        let status = self.application.status.rollout.clone().unwrap_or_default();
        let name = self.last_good(&status, target.revision);
        let former = self.revisions.iter().find(|revision| revision.name() == name);
        let former = former.filter(|former| former.name() != target.revision.name())?;
        Some(Planned::new(former, plan(self.snapshot, self.application, &former.spec)))
    }

    /// The revisions but this one that sites run.
    fn others(&self, target: &ApplicationRevision) -> BTreeMap<i64, Planned<'_>> {
        let numbers: BTreeSet<i64> =
            self.assigned.values().flat_map(BTreeMap::values).copied().map(revision_of).collect();
        let run = self.revisions.iter().filter(|revision| {
            numbers.contains(&revision.spec.number) && revision.spec.number != target.spec.number
        });
        run.map(|revision| {
            let plan = plan(self.snapshot, self.application, &revision.spec);
            (revision.spec.number, Planned::new(revision, plan))
        })
        .collect()
    }

    /// Whether the candidate is to be gone back from now, and why.
    fn reject(&self, drive: &Drive, step: &Step) -> Option<Rejected> {
        let status = self.application.status.rollout.clone().unwrap_or_default();
        let target = drive.target;
        let is_breached = step.outcome == Outcome::Breached && !drive.rollout.no_rollback;
        let instead = self.last_good(&status, target.candidate);
        let is_better = !instead.is_empty() && instead != target.candidate.name();
        let can_go_back = !target.is_rollback && !target.is_proven && is_better;
        // Also of a paused one: going back waits for nothing.
        if !can_go_back || !(is_breached || target.is_aborted) {
            return None;
        }
        let (reason, message) = if target.is_aborted {
            ("Aborted", "somebody asked for it".to_owned())
        } else {
            ("FailureBudgetExceeded", step.message.clone())
        };
        Some(Rejected {
            revision: target.candidate.name().to_owned(),
            instead,
            reason: reason.to_owned(),
            message,
            instruction: instruction(self.application).to_owned(),
        })
    }

    /// Deletes the oldest revisions that nobody wants, runs or may go back to.
    fn prune(&self, drive: &Drive, writes: &mut Vec<Write>) {
        let limit = drive.rollout.revision_history_limit;
        let limit = limit.map_or(HISTORY, |limit| usize::try_from(limit).unwrap_or(HISTORY));
        let status = self.application.status.rollout.clone().unwrap_or_default();
        let instead = status.rejected.as_ref().map(|rejected| rejected.instead.as_str());
        let needed = |revision: &ApplicationRevision| {
            let runs = |assignment: &Assignment| revision_of(assignment) == revision.spec.number;
            revision.spec.number == drive.target.wanted
                || revision.name() == drive.target.revision.name()
                || revision.name() == drive.target.candidate.name()
                || revision.name() == status.last_good
                || Some(revision.name()) == instead
                || self.assigned.values().flat_map(BTreeMap::values).copied().any(runs)
        };
        let surplus = self.revisions.len().saturating_sub(limit);
        let old = self.revisions.iter().filter(|revision| !needed(revision)).take(surplus);
        writes.extend(old.map(|revision| Write::delete(*revision)));
    }
}
