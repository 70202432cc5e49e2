//! Triton's model configuration, as far as it means something here: read from JSON or `config.pbtxt`, turned into how
//! a model is served, and shown to clients.

mod ensemble;
mod fil;
mod ignored;
mod number;
mod show;
mod text;
mod warm_up;

use std::collections::BTreeMap;

use inference::EngineChoice;
use serde::Deserialize;
use serde_json::Value;
use types::{Batching, Isolation, PredictionCache, QueuePolicy, Serving};

pub use ensemble::EnsembleScheduling;
pub(crate) use show::{show, show_json};
pub use warm_up::WarmUp;

/// A model's configuration. What isn't known here is skipped, but for what would change a model's answers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ModelConfig {
    /// The model; empty stands for the name of its folder.
    pub name: String,
    /// Such as `onnxruntime_onnx`.
    pub platform: String,
    /// What runs it: `onnxruntime`, or one of our engines.
    pub backend: String,
    /// Most samples in one run; 0 or 1 merges nothing.
    #[serde(deserialize_with = "number::read")]
    pub max_batch_size: u64,
    /// How long requests wait for each other.
    pub dynamic_batching: Option<DynamicBatching>,
    /// How many runs may go on at once.
    pub instance_group: Vec<InstanceGroup>,
    /// Whether equal requests get kept answers.
    pub response_cache: ResponseCache,
    /// Further settings; `intra_op_thread_count` is used.
    pub parameters: BTreeMap<String, Parameter>,
    /// Which versions are loaded.
    pub version_policy: Option<VersionPolicy>,
    /// The file or folder in each version's folder; empty stands for `model.onnx` and its like.
    pub default_model_filename: String,
    /// The inputs, which the model has to have.
    pub input: Vec<Tensor>,
    /// The outputs, which the model has to have, and their label files.
    pub output: Vec<Tensor>,
    /// The steps of an ensemble; absent for a model with a file.
    pub ensemble_scheduling: Option<EnsembleScheduling>,
    /// Requests that each version answers before anybody else's.
    pub model_warmup: Vec<WarmUp>,
    sequence_batching: Option<Value>,
    model_transaction_policy: TransactionPolicy,
    /// What it says that isn't followed here.
    #[serde(skip)]
    ignored: Vec<String>,
}

/// See [`ModelConfig::dynamic_batching`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DynamicBatching {
    /// Longest wait for others, in microseconds.
    #[serde(deserialize_with = "number::read")]
    pub max_queue_delay_microseconds: u64,
    /// Shown, and of no effect: batches are as large as what waits.
    #[serde(deserialize_with = "number::read_list")]
    pub preferred_batch_size: Vec<u64>,
    /// Shown, and of no effect.
    pub preserve_ordering: bool,
    /// Shown, and of no effect: there are 32 levels.
    #[serde(deserialize_with = "number::read")]
    pub priority_levels: u64,
    /// The priority of requests that don't say; 1 is the most urgent.
    #[serde(deserialize_with = "number::read")]
    pub default_priority_level: u64,
    /// Which requests may wait.
    pub default_queue_policy: Policy,
}

/// See [`DynamicBatching::default_queue_policy`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// Longest wait of a request that doesn't say; 0 is no limit.
    #[serde(deserialize_with = "number::read")]
    pub default_timeout_microseconds: u64,
    /// Most requests that wait; 0 is no limit.
    #[serde(deserialize_with = "number::read")]
    pub max_queue_size: u64,
}

/// See [`ModelConfig::instance_group`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct InstanceGroup {
    /// Runs at once; 0 stands for 1.
    #[serde(deserialize_with = "number::read")]
    pub count: u64,
}

/// See [`ModelConfig::response_cache`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ResponseCache {
    /// Whether answers are kept.
    pub enable: bool,
}

/// See [`ModelConfig::parameters`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Parameter {
    /// Its value.
    pub string_value: String,
}

/// See [`ModelConfig::input`] and [`ModelConfig::output`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Such as `TYPE_FP32`; empty says nothing.
    pub data_type: String,
    /// Its dimensions without that of the batch, -1 where any size goes; empty says nothing.
    pub dims: Vec<i64>,
    reshape: Option<Value>,
    /// A file beside the configuration with the name of one class a line.
    pub label_filename: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct TransactionPolicy {
    decoupled: bool,
}

/// Which of the versions in a repository are loaded.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionPolicy {
    /// The newest.
    Latest {
        /// How many; 0 stands for 1.
        #[serde(default, deserialize_with = "number::read")]
        num_versions: u64,
    },
    /// Every one.
    All {},
    /// These.
    Specific {
        /// Their numbers.
        #[serde(default, deserialize_with = "number::read_list")]
        versions: Vec<u64>,
    },
}

/// Why a configuration can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No JSON, or not of this form.
    #[error("the configuration can't be read: {0}")]
    Json(String),
    /// Not protobuf's text format.
    #[error("line {line}: {problem}")]
    Text {
        /// From 1.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
    /// A number out of its range.
    #[error("{field} is {given}, but at most {limit} is possible")]
    Range {
        /// Where.
        field: &'static str,
        /// What it says.
        given: u64,
        /// What it may say.
        limit: u64,
    },
    /// Something that would change the model's answers.
    #[error("{0} is not offered here; serve a model without it")]
    NotOffered(&'static str),
    /// A backend or platform of another sort.
    #[error(
        "backend `{0}` is not offered here; use onnxruntime, tensorflow or fil, or export the model to ONNX and leave \
         backend and platform out"
    )]
    Backend(String),
    /// A type of elements that isn't one.
    #[error("data_type `{0}` is none of Triton's that are served here")]
    DataType(String),
    /// A thread count that is no number, an isolation that is none, and so on.
    #[error("parameter `{name}` can't be `{value}`")]
    Parameter {
        /// Which.
        name: String,
        /// What it says.
        value: String,
    },
}

impl ModelConfig {
    /// Reads Triton's JSON form.
    ///
    /// # Errors
    /// When it isn't one.
    pub fn from_json(json: &[u8]) -> Result<ModelConfig, ConfigError> {
        let value = serde_json::from_slice(json).map_err(|error| ConfigError::Json(error.to_string()))?;
        ModelConfig::from_value(value)
    }

    /// Reads `config.pbtxt`.
    ///
    /// # Errors
    /// When it isn't one, or is larger than 1 MiB or nested deeper than 32 levels.
    pub fn from_text(text: &[u8]) -> Result<ModelConfig, ConfigError> {
        ModelConfig::from_value(text::read(text)?)
    }

    fn from_value(value: Value) -> Result<ModelConfig, ConfigError> {
        let ignored = ignored::fields(&value);
        let config = serde_json::from_value(value).map_err(|error| ConfigError::Json(error.to_string()))?;
        Ok(ModelConfig { ignored, ..config })
    }

    /// The fields that say something and are not followed here, such as `dynamic_batching.preserve_ordering`.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// How such a model is served.
    ///
    /// # Errors
    /// When a number is out of range, or the model asks for what isn't there.
    pub fn serving(&self) -> Result<Serving, ConfigError> {
        let refused = [
            ("sequence_batching", self.sequence_batching.is_some()),
            ("a decoupled model_transaction_policy", self.model_transaction_policy.decoupled),
        ];
        if let Some((what, _)) = refused.into_iter().find(|(_, asked)| *asked) {
            return Err(ConfigError::NotOffered(what));
        }
        let instances =
            self.instance_group.iter().fold(0_u64, |sum, group| sum.saturating_add(group.count.max(1)));
        let batching = self.dynamic_batching.clone().unwrap_or_default();
        let policy = batching.default_queue_policy;
        let delay =
            within("max_queue_delay_microseconds", batching.max_queue_delay_microseconds, 10_000_000)?;
        let max_size = within("max_batch_size", self.max_batch_size, 65_536)?;
        // What an ensemble says of batches is said for its clients: its models have their own.
        let merges = max_size > 1 && self.ensemble_scheduling.is_none();
        let timeout = policy.default_timeout_microseconds.div_ceil(1000);
        Ok(Serving {
            instances: within("instance_group.count", instances, 1024)?,
            threads: self.threads()?,
            isolation: self.isolation()?,
            batching: merges.then_some(Batching { max_size, max_delay_microseconds: delay }),
            queue: QueuePolicy {
                max_requests: within("max_queue_size", policy.max_queue_size, 1_000_000)?,
                timeout_milliseconds: within("default_timeout_microseconds / 1000", timeout, 86_400_000)?,
                default_priority: within("default_priority_level", batching.default_priority_level, 32)?,
            },
            cache: self.response_cache.enable.then(PredictionCache::default),
            ..Serving::default()
        })
    }

    fn threads(&self) -> Result<u32, ConfigError> {
        let name = "intra_op_thread_count";
        let Some(Parameter { string_value: value }) = self.parameters.get(name) else { return Ok(0) };
        let threads = value.trim().parse().map_err(|_| ConfigError::Parameter {
            name: name.into(),
            value: value.chars().take(64).collect(),
        })?;
        within("intra_op_thread_count", threads, 1024)
    }

    /// The parameter `isolation` is `none` or, for a model that isn't trusted, `process`.
    fn isolation(&self) -> Result<Isolation, ConfigError> {
        let name = "isolation";
        match self.parameters.get(name).map(|parameter| parameter.string_value.trim()) {
            None | Some("none") => Ok(Isolation::None),
            Some("process") => Ok(Isolation::Process),
            Some(value) => {
                Err(ConfigError::Parameter { name: name.into(), value: value.chars().take(64).collect() })
            }
        }
    }

    /// The engine that its backend or platform stands for.
    ///
    /// # Errors
    /// When there is none.
    pub fn engine(&self) -> Result<EngineChoice, ConfigError> {
        let backend = if self.backend.is_empty() { &self.platform } else { &self.backend };
        match backend.as_str() {
            "" | "ensemble" => Ok(EngineChoice::Auto),
            // Where the library isn't there another engine does as well.
            "onnx" | "onnxruntime" | "onnxruntime_onnx" => Ok(EngineChoice::Auto),
            "tensorflow_savedmodel" | "tensorflow_graphdef" => Ok(EngineChoice::Tensorflow),
            // What they are said to be read by is told by the files themselves.
            "fil" | "lightgbm" | "xgboost" | "armnn_tflite" | "tflite" | "tensorflow_lite" => {
                Ok(EngineChoice::Auto)
            }
            // As configurations are shown here.
            shown => {
                let engine = shown.strip_suffix("_onnx").unwrap_or(shown);
                engine.parse().map_err(|_| ConfigError::Backend(shown.chars().take(64).collect()))
            }
        }
    }
}

fn within(field: &'static str, given: u64, limit: u32) -> Result<u32, ConfigError> {
    let fits = u32::try_from(given).ok().filter(|number| *number <= limit);
    fits.ok_or(ConfigError::Range { field, given, limit: u64::from(limit) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = br#"
        # An example.
        name: "detector"
        platform: "onnxruntime_onnx"
        max_batch_size: 8
        input [ { name: "x" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] } ]
        output { name: "y", data_type: TYPE_FP32, dims: [ -1 ], label_filename: "labels.txt" }
        instance_group [ { count: 2 kind: KIND_CPU }, { count: 1 } ]
        dynamic_batching {
            preferred_batch_size: [ 4, 8 ]
            max_queue_delay_microseconds: 100
            default_priority_level: 2
            default_queue_policy { default_timeout_microseconds: 1500 max_queue_size: 64 }
        }
        response_cache { enable: true }
        parameters { key: "intra_op_thread_count" value { string_value: "3" } }
        version_policy: { specific: { versions: [1, 3] } };
    "#;

    #[test]
    fn text_and_json_mean_the_same() {
        let text = ModelConfig::from_text(TEXT).unwrap();
        let json = ModelConfig::from_json(
            br#"{"name": "detector", "platform": "onnxruntime_onnx", "max_batch_size": 8,
                "input": [{"name": "x", "dims": [3, 224, 224]}],
                "output": [{"name": "y", "label_filename": "labels.txt"}],
                "instance_group": [{"count": 2}, {}],
                "dynamic_batching": {"max_queue_delay_microseconds": "100", "default_priority_level": 2,
                    "default_queue_policy": {"default_timeout_microseconds": "1500", "max_queue_size": 64}},
                "response_cache": {"enable": true},
                "parameters": {"intra_op_thread_count": {"string_value": "3"}},
                "version_policy": {"specific": {"versions": ["1", 3]}}}"#,
        );
        assert_eq!(text.serving(), json.unwrap().serving());
        let expected = Serving {
            instances: 3,
            threads: 3,
            batching: Some(Batching { max_size: 8, max_delay_microseconds: 100 }),
            queue: QueuePolicy { max_requests: 64, timeout_milliseconds: 2, default_priority: 2 },
            cache: Some(PredictionCache::default()),
            ..Serving::default()
        };
        assert_eq!(text.serving().unwrap(), expected);
        assert_eq!(text.version_policy, Some(VersionPolicy::Specific { versions: vec![1, 3] }));
        assert_eq!(text.output[0].label_filename, "labels.txt");
        assert_eq!(text.engine(), Ok(EngineChoice::Auto));
    }

    #[test]
    fn what_would_change_answers_is_refused_and_the_rest_skipped() {
        let serving = |json: &str| ModelConfig::from_json(json.as_bytes()).unwrap().serving();
        assert_eq!(serving(r#"{"sequence_batching":{}}"#), Err(ConfigError::NotOffered("sequence_batching")));
        assert!(serving(r#"{"model_transaction_policy":{"decoupled":true}}"#).is_err());
        assert!(serving(r#"{"max_batch_size":100000}"#).is_err());
        assert!(serving(r#"{"parameters":{"intra_op_thread_count":{"string_value":"x"}}}"#).is_err());
        assert_eq!(serving(r#"{"model_warmup":[],"optimization":{}}"#), Ok(Serving::default()));
        let platform =
            |platform: &str| ModelConfig { platform: platform.into(), ..Default::default() }.engine();
        for (name, engine) in [
            ("onnxruntime_onnx", EngineChoice::Auto),
            ("tensorflow_savedmodel", EngineChoice::Tensorflow),
            ("tensorflow_graphdef", EngineChoice::Tensorflow),
            ("tensorflow", EngineChoice::Tensorflow),
            ("fil", EngineChoice::Auto),
            ("lightgbm", EngineChoice::Auto),
            ("rten_onnx", EngineChoice::Rten),
            ("ensemble", EngineChoice::Auto),
        ] {
            assert_eq!(platform(name), Ok(engine), "{name}");
        }
        for name in ["tensorrt_plan", "pytorch_libtorch"] {
            assert_eq!(platform(name), Err(ConfigError::Backend(name.into())));
        }
        let both =
            ModelConfig { platform: "x".into(), backend: "onnxruntime_onnx".into(), ..Default::default() };
        assert_eq!(both.engine(), Ok(EngineChoice::Auto));
        let engine = |backend: &str| ModelConfig { backend: backend.into(), ..Default::default() }.engine();
        assert_eq!(engine("rten"), Ok(EngineChoice::Rten));
        assert_eq!(engine("python"), Err(ConfigError::Backend("python".into())));
    }
}
