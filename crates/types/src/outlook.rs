//! What placements decide, and would decide, as a hub tells who asks. None of it is stored.

use serde::{Deserialize, Serialize};

/// The kind of what tells why a placement selects the sites that it does: `placements/NAME/explanation`.
pub const PLACEMENT_EXPLANATION: &str = "PlacementExplanation";
/// The kind of what tells what would change if manifests were applied, and where it is asked.
pub const PLACEMENT_SIMULATION: &str = "PlacementSimulation";
/// Its plural.
pub const PLACEMENT_SIMULATIONS: &str = "placementsimulations";

/// Why a placement selects the sites that it does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlacementExplanation {
    /// The placement.
    pub placement: String,
    /// The sites that are selected already.
    pub decided: Vec<String>,
    /// Whether they stay because nothing else can be decided now.
    pub last_decision_kept: bool,
    /// Why nothing can be decided, where the spec can't be followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub misconfigured: Option<String>,
    /// What did not count though it was asked for.
    pub warnings: Vec<String>,
    /// One verdict a site: selected ones first, best first, then the others that match, then the rest.
    pub sites: Vec<SiteVerdict>,
    /// How many more sites there are than are told.
    #[serde(default, skip_serializing_if = "is_none")]
    pub left_out: usize,
}

/// What was decided about one site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SiteVerdict {
    /// The site.
    pub site: String,
    /// Whether it is selected.
    pub selected: bool,
    /// What filtered it out.
    pub filter: Option<String>,
    /// Why, and for a site that is not selected: what would have to change.
    pub reason: String,
    /// Round trip to what `near` names, where known.
    pub round_trip_milliseconds: Option<f64>,
    /// The scores of a site that matches.
    pub scores: Vec<ScoreTerm>,
    /// Their weighted sum.
    pub total: Option<i64>,
}

/// One of the scores of a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoreTerm {
    /// What scores.
    pub name: String,
    /// How much it counts.
    pub weight: i64,
    /// From -100 to 100.
    pub score: Option<i64>,
}

/// What would become of one placement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlacementChange {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub placement: String,
    /// The sites that are selected already.
    pub before: Vec<String>,
    /// Those that would be.
    pub after: Vec<String>,
    /// Those that come, and why.
    pub added: Vec<SiteChange>,
    /// Those that go, and why.
    pub removed: Vec<SiteChange>,
    /// Each site that comes for one that goes.
    pub moves: Vec<SiteMove>,
    /// Whether the last decision would be kept because nothing could be decided.
    pub last_decision_kept: bool,
    /// Why it would be.
    pub note: Option<String>,
    /// How many more names of sites there are than are told.
    #[serde(default, skip_serializing_if = "is_none")]
    pub left_out: usize,
}

/// A site that comes or goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteChange {
    /// The site.
    pub site: String,
    /// Why.
    pub reason: String,
}

/// A site that comes for one that goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteMove {
    /// The one that goes.
    pub from: String,
    /// The one that comes.
    pub to: String,
}

fn is_none(number: &usize) -> bool {
    *number == 0
}
