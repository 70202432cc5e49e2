//! `Site`: a place where Avocet runs.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Amount, Condition, FieldError, Kind, MaintenanceWindow, Resource, SmallMap, Time, names};

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
    /// Where it is: sites of one location are at no distance from one another.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub location: String,
    /// Locations that it measures the way to, every five minutes, beside those that its own operator names. Is followed
    /// where it is stated at the hub that the site joined.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub measure: Vec<MeasuredLocation>,
    /// What an hour of it costs, in a currency that is the same for all sites.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0))]
    pub cost_per_hour: Option<f64>,
    /// Watts that it draws, or whatever else is to be saved, in a unit that is the same for all sites.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0))]
    pub energy_watts: Option<f64>,
}

/// A location that a site measures the way to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MeasuredLocation {
    /// Its name, as placements say it in `near.location`.
    #[schemars(length(min = 1, max = 253))]
    pub location: String,
    /// Where something listens there, as `HOST:PORT`: a connection is opened and closed again. An IPv6 address is
    /// written in brackets.
    #[schemars(length(max = 300), regex(pattern = HOST_AND_PORT))]
    pub address: String,
    /// A document there that is fetched once a day, 1 MiB of it at most, to see how wide the way is. Without it nobody
    /// knows the bandwidth, and no placement that asks for `minMegabitsPerSecond` selects the site by this way.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 2048), regex(pattern = r"^(https?://.+)?$"))]
    pub probe: String,
}

/// A name or address and a port from 1 to 65535.
const HOST_AND_PORT: &str = concat!(
    r"^([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])",
    ":([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$",
);

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
    /// Since when the site has it, for tolerations with a limit; filled in by the hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_added: Option<Time>,
}

/// How a toleration compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TolerationOperator {
    /// The taint has just this value; none stated is the empty one.
    Equal,
    /// The taint may have any value.
    Exists,
}

/// Lets a placement use sites with a taint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Toleration {
    /// The taint's key; empty tolerates every key.
    #[schemars(length(max = 317))]
    pub key: String,
    /// How to compare; absent tolerates the value that is stated, or every one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<TolerationOperator>,
    /// The taint's value; absent tolerates every value.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,
    /// The taint's effect; absent tolerates every effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
    /// For how many seconds after the site got the taint; absent tolerates it for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

impl Toleration {
    /// Whether this tolerates the taint, for as long as `toleration_seconds` allow.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        let value = match self.operator {
            Some(TolerationOperator::Exists) => None,
            Some(TolerationOperator::Equal) => Some(self.value.as_deref().unwrap_or_default()),
            None => self.value.as_deref(),
        };
        (self.key.is_empty() || self.key == taint.key)
            && value.is_none_or(|value| value == taint.value)
            && self.effect.is_none_or(|effect| effect == taint.effect)
    }
}

/// What a site reports of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SiteStatus {
    /// `Ready`: heartbeats arrive.
    #[serde(deserialize_with = "exact")]
    pub conditions: Vec<Condition>,
    /// Version of the program there.
    pub version: String,
    /// Where its services listen.
    pub endpoints: Endpoints,
    /// What the machine has.
    pub capacity: Capacity,
    /// What of it can be given to components, by resource: `cpu`, `memory` and others; what is absent is all there is.
    #[serde(skip_serializing_if = "SmallMap::is_empty")]
    pub allocatable: SmallMap<Amount>,
    /// What the site says of itself, for selectors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[serde(deserialize_with = "exact")]
    pub claims: Vec<Claim>,
    /// How busy it is, for metrics of placements: `cpu`, `memory` and `disk` as shares of what there is, and how many
    /// `invocations` wait. Told again where it changed much, once a minute at most.
    #[serde(skip_serializing_if = "SmallMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub usage: SmallMap<f64>,
    /// CPU architecture, for example `x86_64`.
    pub architecture: String,
    /// Operating system, for example `linux`.
    pub operating_system: String,
    /// Inference engines that work there, preferred first.
    #[serde(deserialize_with = "exact")]
    pub engines: Vec<String>,
    /// Function runtimes that work there.
    #[serde(deserialize_with = "exact")]
    pub runtimes: Vec<String>,
    /// Measured connections to other sites.
    #[serde(deserialize_with = "exact")]
    pub links: Vec<Link>,
    /// The site's operator wants it left out of rollouts (`avocet agent --rollout-opt-out`).
    pub rollout_opt_out: bool,
    /// What goes wrong at the site, as it says itself: the hub makes conditions of it.
    #[schemars(length(max = 16))]
    #[serde(deserialize_with = "exact")]
    pub complaints: Vec<Complaint>,
    /// Outputs for other sites that it could not get rid of.
    pub outputs: OutputsStatus,
}

/// A list that takes no more space than its entries: a hub keeps those of all sites.
fn exact<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let mut list = Vec::deserialize(deserializer)?;
    list.shrink_to_fit();
    Ok(list)
}

/// Something that goes wrong at a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Complaint {
    /// The condition's type: `StoragePressure` where the disk is nearly full. Others are not made conditions of.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// What follows from it, and what to do.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// Outputs for other sites that a site could not get rid of. It keeps them, and goes on trying.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OutputsStatus {
    /// How many have waited for more than ten minutes.
    pub late: u64,
    /// How many bytes those are.
    pub late_bytes: u64,
    /// How many the hub refused.
    pub refused: u64,
    /// Why it refused one of them, in its own words; empty if it refused none.
    #[schemars(length(max = 1024))]
    pub reason: String,
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
    /// Other resources by name, for example `gpu`.
    #[serde(skip_serializing_if = "SmallMap::is_empty")]
    pub extended: SmallMap<Amount>,
}

/// Something that a site says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Claim {
    /// What is said.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its value.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub value: String,
}

/// A measured connection.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// The site at the other end; empty where a location is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub site: String,
    /// The location at the other end; empty where a site is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub location: String,
    /// Median round-trip time in milliseconds.
    pub round_trip_milliseconds: f64,
    /// How far round-trip times are from the median, in milliseconds, in the median; absent where too few were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter_milliseconds: Option<f64>,
    /// Megabits per second; absent where it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub megabits_per_second: Option<f64>,
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
