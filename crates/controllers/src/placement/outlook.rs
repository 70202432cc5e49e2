//! What is decided over a snapshot, by the functions that decide at the hub, without writing anything.

mod overlay;
mod told;

use planner::{Misconfigured, Outcome, PlacementKey};
use types::Time;

use super::{Decision, Planning, key};
use crate::{Measurements, Snapshot};

pub use overlay::{Overlay, Unfit};
pub use told::{tell_changes, tell_explanation};

/// What is decided for one placement.
#[derive(Debug)]
pub struct Outlook {
    /// Its namespace and name.
    pub placement: PlacementKey,
    /// The sites that are selected already.
    pub decided: Vec<String>,
    /// The sites that are selected now, best first; or what is wrong with the spec.
    pub now: Result<Vec<String>, Misconfigured>,
    /// Why, where that was asked.
    pub outcome: Option<Outcome>,
}

impl Outlook {
    /// Whether the last decision is kept because nothing can be decided now.
    pub fn is_kept(&self) -> bool {
        self.now.as_ref().map_or(true, Vec::is_empty) && !self.decided.is_empty()
    }

    /// The sites that will be selected.
    pub fn selected(&self) -> &[String] {
        match &self.now {
            Ok(selected) if !selected.is_empty() => selected,
            _ => &self.decided,
        }
    }
}

/// What is decided for one placement of a snapshot beside what was decided for the others, and why. `None` if it isn't
/// there or is being removed.
pub fn explain(
    snapshot: &Snapshot,
    (namespace, name): (&str, &str),
    measurements: &Measurements,
    now: Time,
) -> Option<Outlook> {
    let placement = Snapshot::named(&snapshot.placements, namespace, name)?;
    if placement.is_deleting() {
        return None;
    }
    let mut planning = Planning::default();
    planning.look(snapshot);
    let decision = Decision::of(snapshot, namespace, name);
    Some(planning.outlook(snapshot, placement, &decision, measurements, now, |_| true))
}

/// What is decided for each placement of a snapshot, in the order in which the hub decides, and why where it is not what
/// was decided before. `None` if `is_over` says that there is no more time.
pub fn simulate(
    snapshot: &Snapshot,
    measurements: &Measurements,
    now: Time,
    is_over: impl Fn() -> bool,
) -> Option<Vec<Outlook>> {
    let mut planning = Planning::default();
    planning.look(snapshot);
    let mut outlooks = Vec::new();
    for placement in snapshot.placements.iter().filter(|placement| !placement.is_deleting()) {
        if is_over() {
            return None;
        }
        let key = key(placement);
        let decision = Decision::of(snapshot, &key.0, &key.1);
        let before: std::collections::HashSet<String> = decision.names().into_iter().collect();
        let differs =
            |now: &[String]| now.len() != before.len() || now.iter().any(|site| !before.contains(site));
        outlooks.push(planning.outlook(snapshot, placement, &decision, measurements, now, differs));
    }
    Some(outlooks)
}
