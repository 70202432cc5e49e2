//! `Placement` and `PlacementDecision`: which sites.

mod decision;
mod metrics;
mod order;
mod terms;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Amount, Condition, FieldError, Kind, LabelSelector, Resource, Toleration};

pub use decision::{
    DecisionGroup, PlacementDecision, PlacementDecisionSpec, PlacementDecisionStatus, SiteDecision,
};
pub use metrics::{HttpJson, Metric, MetricProvider, PrometheusQuery, SiteMetric, SiteUsage};
pub use order::{
    AddOnScore, Migration, Prioritizer, PrioritizerMode, PrioritizerPolicy, ScoreCoordinate, ScoreType,
};
pub use terms::{
    AntiAffinity, ComponentReference, Constraints, DecisionGroups, GroupSelector, GroupSize, Near, Predicate,
    Spread, WhenUnsatisfiable,
};

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
    /// Selects sites that meet at least one of these; empty takes any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub predicates: Vec<Predicate>,
    /// Selects sites that meet all of these.
    #[serde(skip_serializing_if = "Constraints::is_empty")]
    pub constraints: Constraints,
    /// How many sites at most; absent takes all that match.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub number_of_sites: Option<u32>,
    /// Sites that are taken before all others, whatever their score. Without `numberOfSites`, only these are taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(min = 1, max = 253)))]
    pub pinned_sites: Vec<String>,
    /// Taints that are accepted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub tolerations: Vec<Toleration>,
    /// Prefers sites with a good connection to somewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub near: Option<Near>,
    /// What a site must have free, by resource: `cpu`, `memory` or any other that sites report. What other
    /// placements request on their sites is not free.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub requests: BTreeMap<String, Amount>,
    /// How sites that match are put in order.
    #[serde(skip_serializing_if = "PrioritizerPolicy::is_default")]
    pub prioritizer_policy: PrioritizerPolicy,
    /// Measurements that count in the order and can be constrained.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub metrics: Vec<Metric>,
    /// Spreads the selected sites over regions, zones, or whatever a label names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub spread: Vec<Spread>,
    /// Keeps away from sites of other placements or applications.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub anti_affinity: Vec<AntiAffinity>,
    /// When a selected site gives way to a better one.
    #[serde(skip_serializing_if = "Migration::is_default")]
    pub migration: Migration,
    /// Divides the selected sites into groups, for example for a rollout in steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision_groups: Option<DecisionGroups>,
}

/// How a placement stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PlacementStatus {
    /// `Satisfied`: as many sites as wanted are selected. `Misconfigured`: the spec can't be followed, and the
    /// last good decision is kept.
    pub conditions: Vec<Condition>,
    /// How many sites are selected.
    pub number_of_selected_sites: u32,
    /// The groups that they are divided into; one of all where the spec asks for none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub decision_groups: Vec<DecisionGroup>,
    /// The generation that this status is about.
    pub observed_generation: i64,
}

impl Kind for PlacementSpec {
    const KIND: &'static str = "Placement";
    const PLURAL: &'static str = "placements";
    type Status = PlacementStatus;

    fn check(&self, errors: &mut Vec<FieldError>) {
        terms::check(self, errors);
    }
}
