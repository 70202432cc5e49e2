//! `PlacementScore`: what others tell of a site.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Kind, NoStatus, Resource, Time};

/// Scores of one site, in its namespace, told by whoever knows; placements name them in their `prioritizerPolicy`.
pub type PlacementScore = Resource<PlacementScoreSpec>;

/// What is told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PlacementScoreSpec {
    /// The scores.
    #[schemars(length(max = 64))]
    pub scores: Vec<Score>,
    /// After this they count as 0; absent for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Time>,
}

/// One score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// What placements name it.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The greater, the better.
    #[schemars(range(min = -100, max = 100))]
    pub value: i32,
}

impl Kind for PlacementScoreSpec {
    const KIND: &'static str = "PlacementScore";
    const PLURAL: &'static str = "placementscores";
    type Status = NoStatus;
}
