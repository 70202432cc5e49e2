//! What must hold after every step, whatever goes wrong.

use std::collections::{BTreeMap, BTreeSet};

use types::names::label;
use types::{Assignment, ConditionStatus, Kind, RolloutStatus, condition};

use super::clocks::{self, Clocks};
use super::faults::{DEADLINE, FAILURES};
use super::hub::GRACE;
use super::tree::Tree;
use crate::placement::Decision;
use crate::{Action, Snapshot, Write};

/// What is remembered to see whether promises are kept.
#[derive(Default)]
pub struct Promises {
    /// How many sites the rollout may change at once.
    pub concurrency: usize,
    pub labels_changed: usize,
    /// How often a site came into a decision.
    pub selected: usize,
    pub clocks: Clocks,
    /// When each site was told which revision.
    told_at: BTreeMap<String, (i64, i64)>,
}

/// The applications, and where they run.
const APPLICATIONS: [(&str, &str); 2] = [("changes", "all"), ("moves", "some")];

/// What was before the controllers wrote.
pub struct Before {
    rollout: RolloutStatus,
    is_paused: bool,
    /// Whether the decision of the placement whose waits are judged followed its spec.
    pub is_settled: bool,
    /// Of which revision sites are, and what they told of it.
    sites: BTreeMap<String, (i64, Option<bool>)>,
    /// The selected sites, by application.
    selected: BTreeMap<&'static str, Vec<String>>,
}

fn revision(assignment: &Assignment) -> i64 {
    assignment.metadata.labels.get(label::REVISION).map_or(0, |number| number.parse().unwrap())
}

/// What the site told last of this generation: whether it runs it, or can't.
fn told(assignment: &Assignment) -> Option<bool> {
    let found = condition(&assignment.status.conditions, "Available")
        .filter(|found| found.observed_generation == assignment.metadata.generation)?;
    match found.status {
        ConditionStatus::True => Some(true),
        _ if found.reason == "Preparing" => None,
        _ => Some(false),
    }
}

fn of<'a>(snapshot: &'a Snapshot, application: &str) -> impl Iterator<Item = &'a Assignment> {
    snapshot.assignments.iter().filter(move |one| one.spec.application == application)
}

fn selected(snapshot: &Snapshot, placement: &str) -> Vec<String> {
    Decision::of(snapshot, "default", placement).names()
}

impl Before {
    pub fn new(tree: &mut Tree) -> Self {
        let application = tree.application("changes");
        let (snapshot, _) = tree.seen.read(&tree.store);
        let sites = of(snapshot, "changes");
        Self {
            is_settled: clocks::is_settled(snapshot),
            is_paused: application.spec.rollout.is_some_and(|rollout| rollout.paused),
            rollout: application.status.rollout.unwrap_or_default(),
            sites: sites.map(|one| (one.namespace().to_owned(), (revision(one), told(one)))).collect(),
            selected: APPLICATIONS
                .iter()
                .map(|(app, placement)| (*app, selected(snapshot, placement)))
                .collect(),
        }
    }
}

/// Judges a write before it is made.
pub fn allow(tree: &mut Tree, before: &Before, write: &Write) {
    if write.key.plural != types::AssignmentSpec::PLURAL {
        return;
    }
    let site = &write.key.namespace;
    match &write.action {
        Action::Put(manifest) => {
            let new: Assignment = serde_json::from_value(manifest.clone()).unwrap();
            let (snapshot, _) = tree.seen.read(&tree.store);
            let Some(old) = Snapshot::named(&snapshot.assignments, site, new.name()) else {
                let selected = &before.selected[new.spec.application.as_str()];
                assert!(selected.contains(site), "{} is created outside of the selection", write.key);
                return;
            };
            let is_out = snapshot.site(site).unwrap().spec.rollout_opt_out;
            assert!(old.spec == new.spec || !is_out, "{site} opted out, and is changed");
        }
        Action::Delete { .. } => allow_deletion(tree, before, write),
        Action::Status(_) | Action::Tell => {}
        Action::Create(_) | Action::Spec(_) | Action::Together(_) => {
            panic!("{} is changed in a way that nobody judges", write.key)
        }
    }
}

/// What runs is taken away only where as many sites run it afterwards as are selected, or as did before.
fn allow_deletion(tree: &mut Tree, before: &Before, write: &Write) {
    let (site, name) = (&write.key.namespace, &write.key.name);
    let (snapshot, _) = tree.seen.read(&tree.store);
    let Some(gone) = Snapshot::named(&snapshot.assignments, site, name) else { return };
    let all = of(snapshot, &gone.spec.application);
    let serving: Vec<&str> =
        all.map(|one| one.namespace()).filter(|site| tree.sites[*site].runs.contains_key(name)).collect();
    let left = serving.iter().filter(|serving| *serving != site).count();
    let selected = before.selected[gone.spec.application.as_str()].len();
    assert!(
        left >= serving.len().min(selected),
        "{} is deleted: it runs at {serving:?}, and {selected} are selected",
        write.key
    );
}

/// Judges what was written in one look.
pub fn after(tree: &mut Tree, before: &Before) {
    let (snapshot, _) = tree.seen.read(&tree.store);
    let now: BTreeSet<String> = selected(snapshot, clocks::PLACEMENT).into_iter().collect();
    let gone: Vec<&String> = before.selected["changes"].iter().filter(|site| !now.contains(*site)).collect();
    clocks::may_leave(tree, before, &gone);
    let (snapshot, _) = tree.seen.read(&tree.store);
    let promises = &mut tree.promises;
    for (application, placement) in APPLICATIONS {
        let (was, now) = (&before.selected[application], selected(snapshot, placement));
        promises.selected += now.iter().filter(|site| !was.contains(site)).count();
        assert!(!now.is_empty() || was.is_empty(), "an empty selection took {placement} away");
    }
    let target = before.rollout.number;
    let mut starts = BTreeSet::new();
    for one in of(snapshot, "changes") {
        let (site, number) = (one.namespace(), revision(one));
        if before.sites.get(site).is_none_or(|(known, _)| *known != number) {
            promises.told_at.insert(site.to_owned(), (number, tree.now));
            if number == target {
                starts.insert(site);
            }
        }
    }
    if starts.is_empty() || before.rollout.rejected.is_some() {
        return;
    }
    assert!(!before.is_paused, "paused, but told: {starts:?}");
    judge_failures(before, &starts);
    let is_in_flight = |one: &&Assignment| {
        let site = &tree.sites[one.namespace()];
        let told_at = promises.told_at.get(one.namespace()).map_or(0, |(_, told_at)| *told_at);
        // Its time begins anew when it was away for so long that it was missed.
        let back = site.connected_since();
        let was_missed = back - told_at > 2 * i64::try_from(GRACE).unwrap();
        let since = if was_missed && back <= tree.now { told_at.max(back) } else { told_at };
        revision(one) == target && told(one).is_none() && tree.now - since < DEADLINE
    };
    let in_flight: Vec<&str> =
        of(snapshot, "changes").filter(is_in_flight).map(|one| one.namespace()).collect();
    assert!(
        in_flight.len() <= promises.concurrency,
        "{} are in flight, and {} may: {in_flight:?}; told now: {starts:?}",
        in_flight.len(),
        promises.concurrency
    );
}

/// Nobody is told while more failed than may.
fn judge_failures(before: &Before, starts: &BTreeSet<&str>) {
    let rollout = &before.rollout;
    if rollout.proven && rollout.last_good == rollout.revision {
        return;
    }
    let failed: Vec<&String> = before.selected["changes"]
        .iter()
        .filter(|site| before.sites.get(*site) == Some(&(rollout.number, Some(false))))
        .collect();
    assert!(
        failed.len() <= FAILURES,
        "{} failed, and {FAILURES} may: {failed:?}; and still told: {starts:?}",
        failed.len()
    );
}

/// What must hold some time after the last thing went wrong.
pub fn at_rest(tree: &mut Tree) {
    let rollouts = APPLICATIONS.map(|(name, _)| tree.application(name).status.rollout.unwrap());
    let (snapshot, _) = tree.seen.read(&tree.store);
    for ((application, placement), rollout) in APPLICATIONS.into_iter().zip(rollouts) {
        assert!(rollout.complete, "{application} does not come to its end: {rollout:?}");
        let selected = selected(snapshot, placement);
        let runs = |one: &&Assignment| {
            let version = one.spec.function.as_ref().map(|function| &function.spec.handler);
            revision(one) == rollout.number && tree.sites[one.namespace()].runs.get(one.name()) == version
        };
        let running: BTreeSet<&str> =
            of(snapshot, application).filter(runs).map(|one| one.namespace()).collect();
        let missing: Vec<&String> = selected.iter().filter(|site| !running.contains(site.as_str())).collect();
        assert!(missing.len() <= FAILURES, "{application} does not run at {missing:?}: {rollout:?}");
        let is_other = |site: &&str| !selected.iter().any(|selected| selected == site);
        let others: Vec<&str> =
            of(snapshot, application).map(|one| one.namespace()).filter(is_other).collect();
        assert!(others.len() <= missing.len(), "{application} runs on at {others:?}; missing {missing:?}");
    }
    let numbers: BTreeSet<(&str, i64)> =
        snapshot.revisions.iter().map(|one| (one.spec.application.as_str(), one.spec.number)).collect();
    assert_eq!(numbers.len(), snapshot.revisions.len(), "two revisions have one number");
    // Each change of a label moves one site of each placement at most, in and out.
    let most = 2 * (tree.promises.labels_changed + tree.sites.len());
    assert!(tree.promises.selected <= most, "{} sites were selected anew", tree.promises.selected);
}
