//! `ApplicationRevision`: what an application was at one time, to go back to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AssignedFunction, AssignedModel, Component, Kind, Resource, Time};

/// What an application was at one time: its components with the functions and models of that time. Controllers write
/// it; it never changes.
pub type ApplicationRevision = Resource<ApplicationRevisionSpec>;

/// All that sites are told of an application, but for where things run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{"rule": "self == oldSelf", "message": "Value is immutable"}]))]
pub struct ApplicationRevisionSpec {
    /// The application, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub application: String,
    /// Counts the application's revisions.
    pub number: i64,
    /// Its parts.
    #[schemars(length(max = 256))]
    pub components: Vec<Component>,
    /// The functions that they name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub functions: Vec<AssignedFunction>,
    /// The models that they name; of a pinned one just the pinned version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub models: Vec<AssignedModel>,
}

/// How a revision fared.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ApplicationRevisionStatus {
    /// When all sites ran it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub succeeded: Option<Time>,
    /// Why it was gone back from last, if it was.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rejected: String,
}

impl Kind for ApplicationRevisionSpec {
    const KIND: &'static str = "ApplicationRevision";
    const PLURAL: &'static str = "applicationrevisions";
    type Status = ApplicationRevisionStatus;
}
