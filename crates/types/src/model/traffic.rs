//! How requests are shared among a model's versions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How requests that name no version are shared among versions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Traffic {
    /// Versions and their shares; empty sends everything to the default version.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub split: Vec<Share>,
    /// A version that gets copies of requests; its answers are compared and thrown away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
    /// When versions other than the default one lose their share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
}

/// The share of one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Share {
    /// The version's name.
    #[schemars(length(max = 63))]
    pub version: String,
    /// Its share relative to the sum of all weights.
    #[schemars(range(max = 1_000_000))]
    pub weight: u32,
}

/// A version that is tried on copies of real requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Shadow {
    /// The version's name.
    #[schemars(length(max = 63))]
    pub version: String,
    /// Percentage of requests that are copied.
    #[serde(default = "all")]
    #[schemars(range(max = 100))]
    pub percent: u32,
}

fn all() -> u32 {
    100
}

/// When a version is worse than can be borne. A version that crosses a bound gets no more requests that don't name
/// it, until its share is changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rollback {
    /// Largest share of failed requests in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub max_error_percent: Option<u32>,
    /// Largest 99th percentile of the time to answer, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 86_400_000))]
    pub max_latency_milliseconds: Option<u32>,
    /// Requests that must have been answered before a version is judged; 0 stands for 20.
    #[schemars(range(max = 1_000_000))]
    pub min_requests: u32,
}
