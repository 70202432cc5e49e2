//! `Placement` and `PlacementDecision`: which sites.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, Kind, LabelSelector, Resource, Toleration};

/// A policy that selects sites.
pub type Placement = Resource<PlacementSpec>;

/// Which sites are wanted. All terms must hold; a placement without terms selects every site.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PlacementSpec {
    /// Selects by the labels of sites.
    pub site_selector: LabelSelector,
    /// Selects by tier; empty takes any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub tiers: Vec<String>,
    /// How many sites at most; absent takes all that match.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub number_of_sites: Option<u32>,
    /// Taints that are accepted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub tolerations: Vec<Toleration>,
    /// Prefers sites with a short round trip to a given one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub near: Option<Near>,
}

/// A preference for low latency.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Near {
    /// The site to be near to.
    #[schemars(length(min = 1, max = 253))]
    pub site: String,
    /// Sites farther away than this are not selected, nor are those whose distance isn't known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0, "exclusiveMinimum" = true))]
    pub max_round_trip_milliseconds: Option<f64>,
}

/// How a placement stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PlacementStatus {
    /// `Satisfied`: as many sites as wanted are selected.
    pub conditions: Vec<Condition>,
    /// How many sites are selected.
    pub number_of_selected_sites: u32,
    /// The generation that this status is about.
    pub observed_generation: i64,
}

impl Kind for PlacementSpec {
    const KIND: &'static str = "Placement";
    const PLURAL: &'static str = "placements";
    type Status = PlacementStatus;
}

/// The sites that a placement selected.
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

/// The selected sites.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PlacementDecisionStatus {
    /// Selected sites, best first.
    pub decisions: Vec<SiteDecision>,
}

/// One selected site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SiteDecision {
    /// The site's name.
    pub site: String,
    /// Why it was selected.
    pub reason: String,
}

impl Kind for PlacementDecisionSpec {
    const KIND: &'static str = "PlacementDecision";
    const PLURAL: &'static str = "placementdecisions";
    type Status = PlacementDecisionStatus;
}
