//! How a placement puts sites in order, and when the order moves something.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether the defaults count beside what is configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PrioritizerMode {
    /// What is configured replaces or joins the defaults: Balance 1, Steady 1, and Latency 3, Bandwidth 1 and
    /// Metrics 3 where `near` and `metrics` are given.
    #[default]
    Additive,
    /// Only what is configured counts.
    Exact,
}

/// How sites that match are put in order: the weighted sum of scores from -100 to 100.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PrioritizerPolicy {
    /// Whether the defaults count.
    pub mode: PrioritizerMode,
    /// Scores and their weights.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub configurations: Vec<Prioritizer>,
}

impl PrioritizerPolicy {
    /// Whether nothing is stated.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One score and its weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Prioritizer {
    /// The score.
    pub score_coordinate: ScoreCoordinate,
    /// How much it counts; 0 turns it off, less than 0 turns it around.
    #[serde(default)]
    #[schemars(range(min = -10, max = 10))]
    pub weight: i32,
}

/// Where a score comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ScoreType {
    /// Worked out by Avocet.
    #[default]
    BuiltIn,
    /// Told by somebody else in a PlacementScore.
    AddOn,
}

/// Names a score.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ScoreCoordinate {
    /// Where it comes from.
    #[serde(rename = "type")]
    pub kind: ScoreType,
    /// Balance, Steady, ResourceAllocatableCPU, ResourceAllocatableMemory, Packing, Latency, Bandwidth, Cost, Energy
    /// or Metrics.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub built_in: String,
    /// Which told score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add_on: Option<AddOnScore>,
}

/// A score that somebody else tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AddOnScore {
    /// The PlacementScore's name, in the namespace of each site.
    #[schemars(length(min = 1, max = 253))]
    pub resource_name: String,
    /// The score in it.
    #[schemars(length(min = 1, max = 253))]
    pub score_name: String,
}

/// When a selected site gives way to a better one. Without this, a better site must win by 5 points, and not within a
/// minute after the last move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Migration {
    /// False: a selected site never gives way to a better one.
    pub enabled: bool,
    /// By how many points of the average score, which is from -100 to 100, a better site must win.
    #[schemars(range(min = 0, max = 200))]
    pub minimum_gain: f64,
    /// Points that one move costs: what it has to win beside `minimumGain`. State more for what is slow to move.
    #[schemars(range(min = 0, max = 200))]
    pub cost: f64,
    /// For so many seconds after a site was selected, it gives way to no better one.
    #[schemars(range(min = 0, max = 31_536_000))]
    pub minimum_dwell_seconds: u32,
    /// For so many seconds after a selected site stopped to match it stays, unless it is removed or has a taint that
    /// isn't tolerated. If it matches again meanwhile, nothing moves.
    #[schemars(range(min = 0, max = 31_536_000))]
    pub hold_seconds: u32,
}

impl Default for Migration {
    fn default() -> Self {
        Self { enabled: true, minimum_gain: 5.0, cost: 0.0, minimum_dwell_seconds: 60, hold_seconds: 0 }
    }
}

impl Migration {
    /// Whether nothing is stated.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
