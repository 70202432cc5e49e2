//! `Service`: there never is one here. The kind is served, and empty, because kubectl asks for it by itself: for
//! `get all` and `cluster-info`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Kind, NoStatus};

/// What a service would be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// How it is reached.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its address.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// The labels of what it leads to.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub selector: BTreeMap<String, String>,
}

impl Kind for ServiceSpec {
    const GROUP: &'static str = "";
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "Service";
    const PLURAL: &'static str = "services";
    type Status = NoStatus;
}
