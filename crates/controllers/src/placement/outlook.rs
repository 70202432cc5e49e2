//! What is decided over a snapshot, by the functions that decide at the hub, without writing anything.

use planner::{Misconfigured, Outcome, PlacementKey};
use types::Time;

use super::{Decision, Planning, key};
use crate::{Measurements, Snapshot};

/// What is decided for one placement.
#[derive(Debug)]
pub struct Outlook {
    /// Its namespace and name.
    pub placement: PlacementKey,
    /// The sites that are selected already.
    pub decided: Vec<String>,
    /// What is decided now, and why; or what is wrong with the spec.
    pub outcome: Result<Outcome, Misconfigured>,
}

impl Outlook {
    /// Whether the last decision is kept because nothing can be decided now.
    pub fn is_kept(&self) -> bool {
        let selects_none = self.outcome.as_ref().map_or(true, |outcome| outcome.selected.is_empty());
        selects_none && !self.decided.is_empty()
    }

    /// The sites that will be selected.
    pub fn selected(&self) -> &[String] {
        match &self.outcome {
            Ok(outcome) if !outcome.selected.is_empty() => &outcome.selected,
            _ => &self.decided,
        }
    }
}

/// What is decided for each placement of a snapshot, in the order in which the hub decides. Those of `sites`,
/// `placements`, `decisions`, `applications` and `scores` must be in the order of their namespaces and names.
pub fn outlook(snapshot: &Snapshot, measurements: &Measurements, now: Time) -> Vec<Outlook> {
    let mut planning = Planning::default();
    planning.look(snapshot);
    let placements = snapshot.placements.iter().filter(|placement| !placement.is_deleting());
    let outlooks = placements.map(|placement| {
        let key = key(placement);
        let decision = Decision::of(snapshot, &key.0, &key.1);
        Outlook {
            decided: decision.names(),
            outcome: planning.explain(snapshot, placement, &decision, measurements, now),
            placement: key,
        }
    });
    outlooks.collect()
}
