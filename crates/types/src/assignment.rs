//! `Assignment`: what one site must run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{BucketPath, Condition, Digest, FunctionSpec, Kind, ModelSpec, Offload, Resource, SiteProgress};

/// What one site must run of one component; its namespace is the site's name. Controllers write it, the
/// site's agent reads it and reports back.
pub type Assignment = Resource<AssignmentSpec>;

/// All that the site needs to know, resolved: it never has to look anything else up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AssignmentSpec {
    /// The application's namespace.
    #[schemars(length(max = 63))]
    pub application_namespace: String,
    /// The application.
    #[schemars(length(max = 253))]
    pub application: String,
    /// The application's UID: tells it from a later one of the same name.
    #[schemars(length(max = 63))]
    pub application_uid: String,
    /// The component.
    #[schemars(length(max = 63))]
    pub component: String,
    /// The function to run for each new input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<AssignedFunction>,
    /// The models to serve.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub models: Vec<AssignedModel>,
    /// New objects there invoke the function.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub inputs: Vec<BucketPath>,
    /// Where the function's outputs go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub outputs: Vec<AssignedOutput>,
    /// Whether and which others may run its invocations when the site is busy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offload: Option<Offload>,
}

/// A function as it was when it was assigned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AssignedFunction {
    /// The function's name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// The function's spec.
    pub spec: FunctionSpec,
}

impl AssignedFunction {
    /// Tells this very version of the function from every other.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(serde_json::to_string(self).unwrap_or_default().as_bytes())
    }
}

/// A model as it was when it was assigned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AssignedModel {
    /// The model's name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// The model's spec; of a pinned one just that version.
    pub spec: ModelSpec,
    /// Whether the component pins the version, so that it is none of those that all requests may go to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
}

/// A path that outputs go to, and where it lives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AssignedOutput {
    /// The path, and which names go there.
    pub to: BucketPath,
    /// The sites whose bucket receives it.
    #[schemars(inner(length(max = 253)))]
    pub sites: Vec<String>,
}

/// How the assignment stands on its site.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AssignmentStatus {
    /// `Available`: artifacts are there, models answer, triggers are armed.
    pub conditions: Vec<Condition>,
    /// How far the site is, as the hub saw it; the hub's to write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<SiteProgress>,
    /// Invocations of its function so far.
    pub invocations: InvocationCounts,
    /// The generation that this status is about.
    pub observed_generation: i64,
}

/// Counts of invocations by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct InvocationCounts {
    /// Waiting or running.
    pub pending: u64,
    /// Exited with 0 and published its outputs.
    pub succeeded: u64,
    /// Failed for good, until replayed.
    pub failed: u64,
    /// Outputs that wait to reach another site.
    pub undelivered: u64,
    /// Of those that succeeded, how many ran at another site.
    #[serde(skip_serializing_if = "is_zero")]
    pub offloaded: u64,
    /// How many times another site had taken one and fell silent or gave it back.
    #[serde(skip_serializing_if = "is_zero")]
    pub reclaimed: u64,
    /// Of those that failed, how many were forgotten because there were too many: they can't be replayed any more.
    #[serde(skip_serializing_if = "is_zero")]
    pub forgotten: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl std::ops::AddAssign for InvocationCounts {
    fn add_assign(&mut self, other: Self) {
        self.pending += other.pending;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.undelivered += other.undelivered;
        self.offloaded += other.offloaded;
        self.reclaimed += other.reclaimed;
        self.forgotten += other.forgotten;
    }
}

impl Kind for AssignmentSpec {
    const KIND: &'static str = "Assignment";
    const PLURAL: &'static str = "assignments";
    type Status = AssignmentStatus;
}
