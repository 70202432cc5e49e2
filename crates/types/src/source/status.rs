//! What is told of a Source.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, Time};

/// What is told of a Source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SourceStatus {
    /// The `metadata.generation` that was acted on last.
    #[serde(skip_serializing_if = "is_zero")]
    pub observed_generation: i64,
    /// Ready, Reconciling, Stalled and Drifted.
    pub conditions: Vec<Condition>,
    /// The commit that was tried last, such as `main@sha1:…`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_attempted_revision: String,
    /// The commit whose manifests were all applied last.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_applied_revision: String,
    /// When that was, or when objects were made right again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_applied_time: Option<Time>,
    /// The `avocet.dev/reconcile-at` that was acted on last.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_handled_reconcile_at: String,
    /// How many bytes of manifests were read.
    #[serde(skip_serializing_if = "is_nothing")]
    pub artifact_bytes: u64,
    /// How many objects are kept applied.
    pub objects: u32,
    /// The objects that are kept applied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2000))]
    pub inventory: Vec<AppliedObject>,
    /// Objects that are not as the repository says, the first 50 of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub drift: Vec<SourceDrift>,
    /// What could not be applied or deleted, the first 20.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub failures: Vec<FailedObject>,
}

fn is_zero(generation: &i64) -> bool {
    *generation == 0
}

fn is_nothing(bytes: &u64) -> bool {
    *bytes == 0
}

/// An object that is kept applied.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppliedObject {
    /// Group and version of its kind.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace; empty for kinds without.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The commit that made it what it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// Whether it was there before the Source: then it is not deleted with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
}

impl AppliedObject {
    /// Whether both are the same object.
    pub fn is(&self, other: &Self) -> bool {
        let group =
            |version: &str| version.split_once('/').map_or(String::new(), |(group, _)| group.to_owned());
        (&self.kind, &self.namespace, &self.name) == (&other.kind, &other.namespace, &other.name)
            && group(&self.api_version) == group(&other.api_version)
    }
}

/// `Kind namespace/name`, or `Kind name`.
impl std::fmt::Display for AppliedObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// An object that is not as the repository says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceDrift {
    /// `Kind namespace/name`.
    pub object: String,
    /// The fields that differ, the first 8 of them; empty where the object is missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub fields: Vec<String>,
    /// When it was seen.
    pub seen: Option<Time>,
    /// Whether it was made right again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub corrected: bool,
}

/// What could not be applied or deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailedObject {
    /// `Kind namespace/name`.
    pub object: String,
    /// File and line in the repository where it is stated; empty where it is no longer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub origin: String,
    /// What is wrong.
    pub message: String,
}
