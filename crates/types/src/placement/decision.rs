//! `PlacementDecision`: what was decided.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Kind, Resource, Time};

/// Sites that a placement selected, a hundred at most: the others are in further decisions of that placement, named
/// `PLACEMENT-decision-NUMBER`. All sites of one are of the same group.
pub type PlacementDecision = Resource<PlacementDecisionSpec>;

/// Which placement is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlacementDecisionSpec {
    /// The placement, in the same namespace.
    #[schemars(
        length(min = 1, max = 253),
        extend("x-kubernetes-validations" = [{"rule": "self == oldSelf", "message": "Value is immutable"}])
    )]
    pub placement: String,
}

/// Selected sites.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PlacementDecisionStatus {
    /// Selected sites, best first.
    pub decisions: Vec<SiteDecision>,
    /// The generation of the placement that was followed; 0 where it isn't known.
    pub observed_generation: i64,
}

/// A group of selected sites.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DecisionGroup {
    /// From 0, in the order in which a rollout takes them.
    pub index: u32,
    /// The name it has in `spec.decisionGroups`; empty for the rest.
    pub name: String,
    /// How many sites are in it.
    pub sites: u32,
    /// The PlacementDecisions that name them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<String>,
}

/// One selected site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SiteDecision {
    /// The site's name.
    pub site: String,
    /// Why it was selected.
    pub reason: String,
    /// Since when it is selected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Since when it does not match any more, where `migration.holdSeconds` keeps it selected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmatched_since: Option<Time>,
    /// The index of its group.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub group: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Kind for PlacementDecisionSpec {
    const KIND: &'static str = "PlacementDecision";
    const PLURAL: &'static str = "placementdecisions";
    type Status = PlacementDecisionStatus;
}
