//! `Placement` → `PlacementDecision`.
//!
//! Neither an empty selection nor a spec that can't be followed takes away what runs: the last good decision is kept,
//! and the condition says so and what to do (promise 1).

mod conditions;
mod outlook;
mod parts;
mod planning;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use planner::{Misconfigured, PlacementKey, first_of, groups};
use types::{Placement, SiteDecision, Time, set_condition};

pub use outlook::{Outlook, Overlay, Unfit, explain, simulate, tell_changes, tell_explanation};
pub(crate) use parts::Decision;
use parts::Layout;
pub(crate) use planning::Planning;
use planning::{Choice, Planned};

use crate::{Measurements, Occurrence, Snapshot, Write};

/// What is to be written at `now`, by the hub's clock that never jumps: how long a site was selected, or a taint was
/// tolerated, is measured by it.
pub(crate) fn reconcile(
    planning: &mut Planning,
    snapshot: &Snapshot,
    measurements: &Measurements,
    now: Time,
) -> Vec<Write> {
    let mut writes = Vec::new();
    planning.look(snapshot);
    for placement in snapshot.placements.iter().filter(|placement| !placement.is_deleting()) {
        let decision = Decision::of(snapshot, placement.namespace(), placement.name());
        let planned = planning.plan(snapshot, placement, &decision, measurements, now);
        writes.extend(decide(snapshot, placement, &decision, &planned, now));
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

/// What is to be written of a decision, all of it together with what the placement tells of it.
fn decide(
    snapshot: &Snapshot,
    placement: &Placement,
    before: &Decision,
    planned: &Planned,
    now: Time,
) -> Option<Write> {
    let generation = placement.metadata.generation;
    let (chosen, observed) = match &planned.selected {
        Some(selected) => (selection(before, selected, now), generation),
        None => (before.sites().map(|chosen| told(chosen, now)).collect(), before.observed_generation()),
    };
    let mut reported = placement.clone();
    let (mut writes, mut misconfigured) = (Vec::new(), planned.misconfigured.clone());
    match divide(snapshot, placement, chosen) {
        Ok(groups) => {
            let layout = Layout::new(groups, observed);
            (writes, reported.status.decision_groups) = layout.writes(snapshot, placement, before);
            if let Some(first) = writes.first_mut() {
                first.told = tell_decision(placement, before.sites(), layout.sites());
            }
        }
        Err(wrong) => misconfigured = Some(wrong),
    }
    let sites = reported.status.decision_groups.iter().map(|group| group.sites);
    reported.status.number_of_selected_sites = sites.fold(0, u32::saturating_add);
    reported.status.observed_generation = generation;
    let standing = conditions::Standing {
        placement,
        selected: reported.status.number_of_selected_sites as usize,
        kept: conditions::first(before.sites()),
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
    Write::together(writes)
}

/// These sites, those that were selected before since they were.
fn selection<'a>(before: &Decision<'a>, selected: &[Choice], now: Time) -> Vec<Cow<'a, SiteDecision>> {
    let known: HashMap<&str, &SiteDecision> =
        before.sites().map(|chosen| (chosen.site.as_str(), chosen)).collect();
    let decisions = selected.iter().map(|choice| match known.get(choice.site.as_str()) {
        Some(same) if same.reason == choice.reason && same.unmatched_since.is_some() == choice.is_held => {
            told(same, now)
        }
        known => {
            let unmatched_since = known.and_then(|known| known.unmatched_since).unwrap_or(now).min(now);
            Cow::Owned(SiteDecision {
                site: choice.site.clone(),
                reason: choice.reason.clone(),
                since: known.map_or(Some(now), |known| known.since).map(|since| since.min(now)),
                unmatched_since: choice.is_held.then_some(unmatched_since),
                group: known.map_or(0, |known| known.group),
            })
        }
    });
    decisions.collect()
}

/// A site as it was selected. What was noted for a time to come was noted by a hub before this one, of which the clock
/// was ahead: that counts from now, so that nothing waits for longer than it is to.
fn told(chosen: &SiteDecision, now: Time) -> Cow<'_, SiteDecision> {
    let is_ahead = |noted: Option<Time>| noted.is_some_and(|noted| noted > now);
    if !is_ahead(chosen.since) && !is_ahead(chosen.unmatched_since) {
        return Cow::Borrowed(chosen);
    }
    let mended = |noted: Option<Time>| noted.map(|noted| noted.min(now));
    Cow::Owned(SiteDecision {
        since: mended(chosen.since),
        unmatched_since: mended(chosen.unmatched_since),
        ..chosen.clone()
    })
}

/// A group's name and its sites.
type Group<'a> = (String, Vec<Cow<'a, SiteDecision>>);

/// Divides the selected sites into groups: one, unless the spec asks for more.
fn divide<'a>(
    snapshot: &Snapshot,
    placement: &Placement,
    chosen: Vec<Cow<'a, SiteDecision>>,
) -> Result<Vec<Group<'a>>, Misconfigured> {
    let (mut divided, mut group_of) = (vec![(String::new(), vec![])], HashMap::new());
    if let Some(wanted) = &placement.spec.decision_groups {
        let sites: Vec<_> = chosen.iter().filter_map(|chosen| snapshot.site(&chosen.site)).collect();
        let groups = groups::divide(wanted, &sites)?;
        divided = groups.iter().map(|group| (group.name.clone(), vec![])).collect();
        let sites =
            groups.into_iter().flat_map(|group| group.sites.into_iter().map(move |site| (site, group.index)));
        group_of = sites.collect();
    }
    for chosen in chosen {
        let group = group_of.get(&chosen.site).copied().unwrap_or(0);
        let is_same = chosen.group == group;
        let chosen = if is_same { chosen } else { Cow::Owned(SiteDecision { group, ..chosen.into_owned() }) };
        if let Some((_, sites)) = divided.get_mut(group as usize) {
            sites.push(chosen);
        }
    }
    Ok(divided)
}

/// Which sites came, and which went.
fn tell_decision<'a>(
    placement: &Placement,
    old: impl Iterator<Item = &'a SiteDecision>,
    new: impl Iterator<Item = &'a SiteDecision>,
) -> Vec<Occurrence> {
    let old: BTreeSet<&str> = old.map(|chosen| chosen.site.as_str()).collect();
    let new: BTreeSet<&str> = new.map(|chosen| chosen.site.as_str()).collect();
    let named = |sites: Vec<&str>| first_of(&sites, 20, ", ");
    let came: Vec<&str> = new.difference(&old).copied().collect();
    let went: Vec<&str> = old.difference(&new).copied().collect();
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
