//! How a model is run: instances, batches, queue, cache.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a model is run at a site. All of it may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Serving {
    /// Runs that may go on at once; 0 leaves it to the site.
    #[schemars(range(max = 1024))]
    pub instances: u32,
    /// Threads that one run may use; 0 leaves it to the site.
    #[schemars(range(max = 1024))]
    pub threads: u32,
    /// Merges waiting requests into one run; absent runs each by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batching: Option<Batching>,
    /// Which requests may wait, and for how long.
    pub queue: QueuePolicy,
    /// Answers equal requests without running the model; absent always runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<PredictionCache>,
    /// Loads the model when the first request asks for it, and lets the site unload it when memory is short.
    pub lazy: bool,
}

/// Dynamic batching: requests of one shape are merged along their first dimension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Batching {
    /// Most samples in one run.
    #[schemars(range(min = 1, max = 65536))]
    pub max_size: u32,
    /// Longest that a request waits for others, in microseconds; 0 merges only what waits anyway.
    #[serde(default)]
    #[schemars(range(max = 10_000_000))]
    pub max_delay_microseconds: u32,
}

/// Which requests may wait.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct QueuePolicy {
    /// Most requests of this model that wait; more are refused as overload. 0 is bounded by the site alone.
    #[schemars(range(max = 1_000_000))]
    pub max_requests: u32,
    /// Longest wait in milliseconds of a request that doesn't say; then it is refused. 0 is no limit.
    #[schemars(range(max = 86_400_000))]
    pub timeout_milliseconds: u32,
    /// Priority of a request that doesn't say: 1 is the most urgent. 0 stands for 16, in the middle.
    #[schemars(range(max = 32))]
    pub default_priority: u32,
}

/// Answers kept for equal requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PredictionCache {
    /// How long an answer is good, in seconds; 0 is until it is pushed out or the version changes.
    #[schemars(range(max = 31_536_000))]
    pub ttl_seconds: u32,
}

impl Serving {
    /// Whether nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Serving::default()
    }
}
