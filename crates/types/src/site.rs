//! `Site`: a place where Avocet runs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, FieldError, Kind, MaintenanceWindow, Resource, names};

/// A place where Avocet runs: a cloud region, a plant, a gateway.
pub type Site = Resource<SiteSpec>;

/// What a site should be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SiteSpec {
    /// The site's place in the landscape, for example cloud, region, edge or device.
    #[schemars(regex(pattern = names::LABEL_VALUE), length(max = 63))]
    pub tier: String,
    /// The site that this one is joined to; empty for a root.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub parent: String,
    /// Keeps away placements that don't tolerate them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub taints: Vec<Taint>,
    /// Cordoned: what runs there stays, nothing new is placed there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unschedulable: bool,
    /// When rollouts may change it; empty for at any time. Roll-backs don't wait.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub maintenance: Vec<MaintenanceWindow>,
    /// Keeps what runs there as it is: rollouts leave it out. The site itself can say so too, see `status.rolloutOptOut`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rollout_opt_out: bool,
}

/// What a taint does to placements that don't tolerate it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TaintEffect {
    /// Not selected, and dropped where it was.
    NoSelect,
    /// Not selected anew; stays where it was.
    NoSelectIfNew,
    /// Selected only after untainted sites.
    PreferNoSelect,
}

/// Keeps placements away from a site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Taint {
    /// What the taint is about.
    #[schemars(regex(pattern = names::LABEL_KEY), length(max = 317))]
    pub key: String,
    /// A value for the key.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub value: String,
    /// What it does.
    pub effect: TaintEffect,
}

/// Lets a placement use sites with a taint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Toleration {
    /// The taint's key; empty tolerates every key.
    #[schemars(length(max = 317))]
    pub key: String,
    /// The taint's value; absent tolerates every value.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,
    /// The taint's effect; absent tolerates every effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
}

impl Toleration {
    /// Whether this tolerates the taint.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        (self.key.is_empty() || self.key == taint.key)
            && self.value.as_ref().is_none_or(|value| *value == taint.value)
            && self.effect.is_none_or(|effect| effect == taint.effect)
    }
}

/// What a site reports of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SiteStatus {
    /// `Ready`: heartbeats arrive.
    pub conditions: Vec<Condition>,
    /// Version of the program there.
    pub version: String,
    /// Where its services listen.
    pub endpoints: Endpoints,
    /// What the machine has.
    pub capacity: Capacity,
    /// CPU architecture, for example `x86_64`.
    pub architecture: String,
    /// Operating system, for example `linux`.
    pub operating_system: String,
    /// Inference engines that work there, preferred first.
    pub engines: Vec<String>,
    /// Function runtimes that work there.
    pub runtimes: Vec<String>,
    /// Measured connections to other sites.
    pub links: Vec<Link>,
    /// The site's operator wants it left out of rollouts (`avocet agent --rollout-opt-out`).
    pub rollout_opt_out: bool,
}

/// Where a site's services listen, as URLs; empty where off.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoints {
    /// Open Inference Protocol, functions and invocations.
    pub inference: String,
    /// S3.
    pub objects: String,
}

/// What a machine has.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Capacity {
    /// Logical CPUs.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
}

/// A measured connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// The site at the other end.
    pub site: String,
    /// Median round-trip time in milliseconds.
    pub round_trip_milliseconds: f64,
}

impl Kind for SiteSpec {
    const KIND: &'static str = "Site";
    const PLURAL: &'static str = "sites";
    const NAMESPACED: bool = false;
    type Status = SiteStatus;

    fn check(&self, errors: &mut Vec<FieldError>) {
        for (index, window) in self.maintenance.iter().enumerate() {
            window.check(&format!("spec.maintenance[{index}]"), errors);
        }
    }
}
