//! `Namespace`: a scope for names; what sites run lives in the namespace of the site's name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, Kind};

/// What a namespace is held by.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespaceSpec {
    /// Who must act before the namespace goes; `kubernetes` empties it first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub finalizers: Vec<String>,
}

/// How far along a namespace is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespaceStatus {
    /// `Active`, or `Terminating` while it is being emptied.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub phase: String,
    /// What keeps it from going.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

impl Kind for NamespaceSpec {
    const GROUP: &'static str = "";
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "Namespace";
    const PLURAL: &'static str = "namespaces";
    const NAMESPACED: bool = false;
    type Status = NamespaceStatus;
}
