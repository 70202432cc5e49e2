//! `Placement` → `PlacementDecision`.
//!
//! Neither an empty selection nor a spec that can't be followed takes away what runs: the last good decision is kept,
//! and the condition says so and what to do (promise 1).

mod conditions;
mod outlook;
mod planning;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use planner::{PlacementKey, groups};
use types::{
    DecisionGroup, ObjectMeta, OwnerReference, Placement, PlacementDecision, PlacementDecisionSpec,
    PlacementDecisionStatus, SiteDecision, Time, names::label, set_condition,
};

pub use outlook::{Outlook, outlook};
use planning::Planned;
pub(crate) use planning::Planning;

use crate::{Measurements, Occurrence, Snapshot, Write};

pub(crate) fn reconcile(
    planning: &mut Planning,
    snapshot: &Snapshot,
    measurements: &Measurements,
    now: Time,
) -> Vec<Write> {
    let mut writes = Vec::new();
    planning.look(snapshot);
    for placement in snapshot.placements.iter().filter(|placement| !placement.is_deleting()) {
        match snapshot_decision(snapshot, placement.namespace(), placement.name()) {
            None => writes.push(Write::create(&new_decision(placement))),
            Some(decision) => {
                let planned = planning.plan(snapshot, placement, Some(decision), measurements, now);
                decide(snapshot, placement, decision, &planned, now, &mut writes);
            }
        }
    }
    for decision in &snapshot.decisions {
        let placement = Snapshot::named(&snapshot.placements, decision.namespace(), &decision.spec.placement);
        if placement.is_none() {
            writes.push(Write::delete(decision));
        }
    }
    writes
}

fn key(placement: &Placement) -> PlacementKey {
    (placement.namespace().to_owned(), placement.name().to_owned())
}

/// The decision of a placement. It has its name, but for those that others made.
pub(crate) fn snapshot_decision<'a>(
    snapshot: &'a Snapshot,
    namespace: &str,
    placement: &str,
) -> Option<&'a PlacementDecision> {
    let by_name = Snapshot::named(&snapshot.decisions, namespace, placement);
    by_name.filter(|decision| decision.spec.placement == placement).or_else(|| {
        let first = snapshot.decisions.partition_point(|decision| decision.namespace() < namespace);
        let of_namespace = snapshot.decisions.get(first..).unwrap_or_default().iter();
        let mut of_namespace = of_namespace.take_while(|decision| decision.namespace() == namespace);
        of_namespace.find(|decision| decision.spec.placement == placement)
    })
}

fn decide(
    snapshot: &Snapshot,
    placement: &Placement,
    decision: &PlacementDecision,
    planned: &Planned,
    now: Time,
    writes: &mut Vec<Write>,
) {
    let mut misconfigured = planned.misconfigured.clone();
    let mut decided = Cow::Borrowed(decision);
    if let Some(selected) = &planned.selected {
        decided.to_mut().status = selection(decision, selected, placement.metadata.generation, now);
    }
    if placement.spec.decision_groups.is_some() || !decided.status.groups.is_empty() {
        let mut status = decided.status.clone();
        match divide(snapshot, placement, &mut status) {
            Ok(()) if status != decided.status => decided.to_mut().status = status,
            Ok(()) => {}
            Err(wrong) => misconfigured = Some(wrong),
        }
    }
    if let Cow::Owned(decided) = &decided
        && decided != decision
    {
        let told = tell_decision(placement, decision, decided);
        writes.push(Write::status(decided).telling(told));
    }
    let mut reported = placement.clone();
    reported.status.observed_generation = placement.metadata.generation;
    reported.status.number_of_selected_sites =
        u32::try_from(decided.status.decisions.len()).unwrap_or(u32::MAX);
    reported.status.decision_groups.clone_from(&decided.status.groups);
    let standing = conditions::Standing {
        placement,
        kept: &decided.status.decisions,
        is_kept: planned.is_kept,
        wanted: planned.wanted,
        misconfigured: misconfigured.as_ref(),
        now,
    };
    set_condition(&mut reported.status.conditions, standing.satisfied());
    if let Some(condition) = standing.misconfigured() {
        set_condition(&mut reported.status.conditions, condition);
    }
    if reported != *placement {
        let told = conditions::tell(placement, &reported);
        writes.push(Write::status(&reported).telling(told));
    }
}

/// These sites, those that were selected before since they were.
fn selection(
    before: &PlacementDecision,
    selected: &[(String, String)],
    generation: i64,
    now: Time,
) -> PlacementDecisionStatus {
    let since: HashMap<&str, Option<Time>> =
        before.status.decisions.iter().map(|chosen| (chosen.site.as_str(), chosen.since)).collect();
    let decisions = selected.iter().map(|(site, reason)| SiteDecision {
        site: site.clone(),
        reason: reason.clone(),
        since: since.get(site.as_str()).copied().unwrap_or(Some(now)),
        group: 0,
    });
    PlacementDecisionStatus {
        decisions: decisions.collect(),
        groups: vec![],
        observed_generation: generation,
    }
}

/// Divides the selected sites into groups, where that is asked for.
fn divide(
    snapshot: &Snapshot,
    placement: &Placement,
    status: &mut PlacementDecisionStatus,
) -> Result<(), planner::Misconfigured> {
    let Some(wanted) = &placement.spec.decision_groups else {
        status.groups.clear();
        return Ok(());
    };
    let sites: Vec<_> = status.decisions.iter().filter_map(|chosen| snapshot.site(&chosen.site)).collect();
    let divided = groups::divide(wanted, &sites)?;
    let group_of: HashMap<&str, u32> = divided
        .iter()
        .flat_map(|group| group.sites.iter().map(|site| (site.as_str(), group.index)))
        .collect();
    for chosen in &mut status.decisions {
        chosen.group = group_of.get(chosen.site.as_str()).copied().unwrap_or(0);
    }
    let groups = divided.into_iter().map(|group| DecisionGroup {
        index: group.index,
        sites: u32::try_from(group.sites.len()).unwrap_or(u32::MAX),
        name: group.name,
    });
    status.groups = groups.collect();
    Ok(())
}

/// Which sites came, and which went.
fn tell_decision(placement: &Placement, old: &PlacementDecision, new: &PlacementDecision) -> Vec<Occurrence> {
    let sites = |decision: &PlacementDecision| -> BTreeSet<String> {
        decision.status.decisions.iter().map(|chosen| chosen.site.clone()).collect()
    };
    let (old, new) = (sites(old), sites(new));
    let named = |sites: Vec<&String>| {
        const MOST: usize = 20;
        let names: Vec<&str> = sites.iter().take(MOST).map(|site| site.as_str()).collect();
        let more = sites.len().saturating_sub(MOST);
        if more == 0 { names.join(", ") } else { format!("{} and {more} more", names.join(", ")) }
    };
    let came: Vec<&String> = new.difference(&old).collect();
    let went: Vec<&String> = old.difference(&new).collect();
    let mut parts = Vec::new();
    if !came.is_empty() {
        parts.push(format!("selected {}", named(came)));
    }
    if !went.is_empty() {
        parts.push(format!("no longer selects {}", named(went)));
    }
    if parts.is_empty() {
        vec![]
    } else {
        vec![Occurrence::normal(placement, "DecisionChanged", parts.join("; "))]
    }
}

fn new_decision(placement: &Placement) -> PlacementDecision {
    let owner = OwnerReference {
        api_version: placement.api_version.clone(),
        kind: placement.kind.clone(),
        name: placement.name().to_owned(),
        uid: placement.metadata.uid.clone(),
        controller: true,
        block_owner_deletion: true,
    };
    let metadata = ObjectMeta {
        name: placement.name().to_owned(),
        namespace: placement.namespace().to_owned(),
        labels: [(label::PLACEMENT.to_owned(), placement.name().to_owned())].into(),
        owner_references: vec![owner],
        ..ObjectMeta::default()
    };
    PlacementDecision::new(metadata, PlacementDecisionSpec { placement: placement.name().to_owned() })
}
