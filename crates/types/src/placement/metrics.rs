//! Measurements that a placement looks at.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A measurement of each site. It counts as (value − min) / (max − min), from 0 to 1; a site whose value is missing or
/// out of range is not selected anew, and stays where it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "self.min < self.max", "message": "must be greater than min", "fieldPath": ".max"},
]))]
pub struct Metric {
    /// What `constraints.metrics` names it.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^\w([\w\-.]*\w)?$"))]
    pub name: String,
    /// The value that counts as 0.
    pub min: f64,
    /// The value that counts as 1.
    pub max: f64,
    /// The only values there are; empty for all from min to max.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub allowed_values: Vec<f64>,
    /// How much it counts beside other metrics; less than 0 where small values are good.
    #[serde(default = "one")]
    #[schemars(range(min = -1000, max = 1000))]
    pub weight: f64,
    /// Where values come from.
    pub provider: MetricProvider,
}

fn one() -> f64 {
    1.0
}

/// Where values come from: exactly one of these.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.prometheus), has(self.http), has(self.site), has(self.claim), has(self.static)]\
             .filter(one, one).size() == 1",
    "message": "exactly one of prometheus, http, site, claim and static is needed",
}]))]
pub struct MetricProvider {
    /// Asks a Prometheus server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusQuery>,
    /// Reads a number from a JSON document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpJson>,
    /// What each site measures of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteUsage>,
    /// The claim of each site that holds the number: what its operator says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub claim: Option<String>,
    /// Values by site.
    #[serde(rename = "static", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 10_000))]
    pub fixed: Option<BTreeMap<String, f64>>,
}

/// How busy sites are, as they tell it themselves, in `status.usage`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SiteUsage {
    /// What of it.
    pub metric: SiteMetric,
}

/// What a site measures of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SiteMetric {
    /// How many processes want a CPU, by CPU, in the mean of five minutes: 1 where all are busy, more where some wait.
    Cpu,
    /// The share of the memory that is in use, from 0 to 1.
    Memory,
    /// The share of the disk that is in use, from 0 to 1.
    Disk,
    /// How many invocations wait for their turn.
    Invocations,
}

impl SiteMetric {
    /// Its name in `status.usage`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Invocations => "invocations",
        }
    }
}

/// A query to a Prometheus server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrometheusQuery {
    /// The server, without `/api/v1/query`.
    #[schemars(length(max = 2048), regex(pattern = r"^https?://"))]
    pub url: String,
    /// Answers one sample a site.
    #[schemars(length(min = 1, max = 4096))]
    pub query: String,
    /// The label of samples that names the site.
    #[serde(default = "site")]
    #[schemars(length(min = 1, max = 253))]
    pub label: String,
}

fn site() -> String {
    "site".to_owned()
}

/// A JSON document with numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpJson {
    /// Where it is.
    #[schemars(length(max = 2048), regex(pattern = r"^https?://"))]
    pub url: String,
    /// A JSON pointer to an object of numbers by site, for example `/load`; empty for the document itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub pointer: String,
}
