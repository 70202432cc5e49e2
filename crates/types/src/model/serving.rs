//! How a model is run: instances, batches, queue, cache, content.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Postprocessing, Preprocessing};

/// How a model is run at a site. All of it may be left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// Refuses requests with a NaN or an infinity in a floating-point input.
    pub finite_inputs: bool,
    /// Watches how far inputs are from those that the model was made for; absent doesn't look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
    /// Logs requests with their answers in the site's `logs/payloads/`; absent logs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payloads: Option<Payloads>,
    /// Loads the model when the first request asks for it, and lets the site unload it when memory is short.
    pub lazy: bool,
    /// Lets the model take plain pictures or tables; absent takes tensors alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preprocessing: Option<Box<Preprocessing>>,
    /// Lets the model answer with classes or boxes; absent answers with tensors alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postprocessing: Option<Box<Postprocessing>>,
    /// Where the engine runs.
    pub isolation: Isolation,
    /// Longest run in milliseconds of a model in a process of its own, which is then stopped; 0 is a minute.
    #[schemars(range(max = 86_400_000))]
    pub run_timeout_milliseconds: u32,
}

/// Where the engine runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// In the site's own process: the fastest.
    #[default]
    None,
    /// In a confined process of its own, for models that aren't trusted: a crash or a hang harms nothing else, and
    /// unloading gives all memory back. Costs a copy of inputs and outputs and two switches of processes a run.
    Process,
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

/// Compares the distribution of inputs of late with a baseline, feature by feature, by population stability index
/// and Kolmogorov-Smirnov statistic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Drift {
    /// Values of each feature that make the baseline: the first ones after the version was loaded.
    #[schemars(range(min = 10, max = 100_000))]
    pub baseline_values: u32,
    /// Values of late of each feature that are compared with it.
    #[schemars(range(min = 10, max = 100_000))]
    pub window_values: u32,
}

impl Default for Drift {
    fn default() -> Self {
        Drift { baseline_values: 1000, window_values: 1000 }
    }
}

/// Which requests are logged with their answers, and how much of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Payloads {
    /// Percentage of the requests, picked at random.
    #[schemars(range(min = 1, max = 100))]
    pub percent: u32,
    /// Names of inputs and outputs whose values are never written.
    #[schemars(length(max = 256), inner(length(max = 256)))]
    pub redact: Vec<String>,
    /// Most elements of one input or output that are written: its first ones.
    #[schemars(range(max = 65536))]
    pub max_elements: u32,
}

impl Default for Payloads {
    fn default() -> Self {
        Payloads { percent: 100, redact: Vec::new(), max_elements: 256 }
    }
}

impl Serving {
    /// Whether nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Serving::default()
    }
}
