//! `Placement` → `PlacementDecision`.
//!
//! An empty selection never takes away what runs: the last good decision is kept, and the condition says so and
//! what to do (promise 1).

use planner::Outcome;
use types::{
    Condition, ConditionStatus, ObjectMeta, OwnerReference, Placement, PlacementDecision,
    PlacementDecisionSpec, PlacementDecisionStatus, SiteDecision, Time, condition, names::label,
    set_condition,
};

use crate::{Occurrence, Snapshot, Write};

pub(crate) fn reconcile(snapshot: &Snapshot, now: Time) -> Vec<Write> {
    let mut writes = Vec::new();
    for placement in snapshot.placements.iter().filter(|placement| !placement.is_deleting()) {
        decide(snapshot, placement, now, &mut writes);
    }
    for decision in &snapshot.decisions {
        let answered = snapshot.placements.iter().any(|placement| {
            placement.namespace() == decision.namespace() && placement.name() == decision.spec.placement
        });
        if !answered {
            writes.push(Write::delete(decision));
        }
    }
    writes
}

fn decide(snapshot: &Snapshot, placement: &Placement, now: Time, writes: &mut Vec<Write>) {
    let decision = snapshot.decisions.iter().find(|decision| {
        decision.namespace() == placement.namespace() && decision.spec.placement == placement.name()
    });
    let Some(decision) = decision else {
        writes.push(Write::create(&new_decision(placement)));
        return;
    };
    let current: Vec<String> = decision.status.decisions.iter().map(|chosen| chosen.site.clone()).collect();
    let outcome = planner::place(&placement.spec, &snapshot.sites, &current);
    let frozen = outcome.selected.is_empty() && !current.is_empty();
    let mut decided = decision.clone();
    if !frozen {
        let chosen = outcome
            .verdicts
            .iter()
            .filter(|verdict| verdict.selected)
            .map(|verdict| SiteDecision { site: verdict.site.clone(), reason: verdict.reason.clone() });
        decided.status = PlacementDecisionStatus { decisions: chosen.collect() };
    }
    if decided != *decision {
        let told = tell_decision(placement, &current, &decided);
        writes.push(Write::status(&decided).telling(told));
    }
    let mut reported = placement.clone();
    reported.status.observed_generation = placement.metadata.generation;
    reported.status.number_of_selected_sites =
        u32::try_from(decided.status.decisions.len()).unwrap_or(u32::MAX);
    set_condition(
        &mut reported.status.conditions,
        satisfied(placement, &outcome, frozen.then_some(&current), now),
    );
    if reported != *placement {
        let told = tell_unsatisfied(placement, &reported);
        writes.push(Write::status(&reported).telling(told));
    }
}

/// Which sites came, and which went.
fn tell_decision(placement: &Placement, old: &[String], decided: &PlacementDecision) -> Vec<Occurrence> {
    let new: Vec<&String> = decided.status.decisions.iter().map(|chosen| &chosen.site).collect();
    let came: Vec<&str> = new.iter().filter(|site| !old.contains(site)).map(|site| site.as_str()).collect();
    let went: Vec<&str> = old.iter().filter(|site| !new.contains(site)).map(String::as_str).collect();
    let mut parts = Vec::new();
    if !came.is_empty() {
        parts.push(format!("selected {}", came.join(", ")));
    }
    if !went.is_empty() {
        parts.push(format!("no longer selects {}", went.join(", ")));
    }
    if parts.is_empty() {
        vec![]
    } else {
        vec![Occurrence::normal(placement, "DecisionChanged", parts.join("; "))]
    }
}

/// What keeps a placement from being satisfied, if that is new.
fn tell_unsatisfied(old: &Placement, new: &Placement) -> Vec<Occurrence> {
    let unsatisfied = |placement: &Placement| {
        let found = condition(&placement.status.conditions, "Satisfied").cloned();
        found.filter(|found| found.status == ConditionStatus::False).map(|found| found.message)
    };
    match unsatisfied(new) {
        Some(message) if unsatisfied(old).as_ref() != Some(&message) => {
            vec![Occurrence::warning(new, "Unsatisfied", message)]
        }
        _ => vec![],
    }
}

fn satisfied(placement: &Placement, outcome: &Outcome, kept: Option<&Vec<String>>, now: Time) -> Condition {
    let explain = format!("see `avocet explain placement/{}`", placement.name());
    let (status, reason, message) = match kept {
        Some(kept) => (
            ConditionStatus::False,
            "LastDecisionKept",
            format!("selects no site now; what was decided before is kept ({}); {explain}", kept.join(", ")),
        ),
        None if outcome.is_satisfied() => (ConditionStatus::True, "AllDecisionsScheduled", String::new()),
        None if outcome.selected.is_empty() => {
            (ConditionStatus::False, "NoSiteMatched", format!("selects no site; {explain}"))
        }
        None => (
            ConditionStatus::False,
            "NotAllDecisionsScheduled",
            format!(
                "selects {} of {} wanted sites; {explain}",
                outcome.selected.len(),
                outcome.wanted.unwrap_or_default()
            ),
        ),
    };
    Condition {
        kind: "Satisfied".into(),
        status,
        observed_generation: placement.metadata.generation,
        last_transition_time: now,
        reason: reason.into(),
        message,
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
