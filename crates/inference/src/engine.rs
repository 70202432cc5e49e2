//! The port that an inference library fills: load a file, run tensors.

use std::error::Error as StdError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use types::ModelSignature;

use crate::{Format, InvalidInput, LoadError, Signature, Tensor};

/// Name of an engine: lower case, as in a resource's field `engine`.
pub type Name = &'static str;

/// Which engine a model wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EngineChoice {
    /// The fastest of those that take the model and agree, by a short trial when it is loaded.
    #[default]
    Auto,
    /// Avocet's own arithmetic for trees, linear models and their pipelines, or an error.
    Native,
    /// `rten`, pure Rust, or an error.
    Rten,
    /// ONNX Runtime, or an error.
    OnnxRuntime,
    /// TensorFlow, or an error.
    Tensorflow,
}

impl EngineChoice {
    /// The engine's name; `None` for [`EngineChoice::Auto`].
    pub fn engine(self) -> Option<Name> {
        match self {
            EngineChoice::Auto => None,
            EngineChoice::Native => Some("native"),
            EngineChoice::Rten => Some("rten"),
            EngineChoice::OnnxRuntime => Some("onnxruntime"),
            EngineChoice::Tensorflow => Some("tensorflow"),
        }
    }
}

impl fmt::Display for EngineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.engine().unwrap_or("auto"))
    }
}

/// A text that names no engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown engine `{0}`; use `auto`, `native`, `rten`, `onnxruntime` or `tensorflow`")]
pub struct UnknownEngine(pub String);

impl FromStr for EngineChoice {
    type Err = UnknownEngine;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" | "auto" => Ok(EngineChoice::Auto),
            "native" => Ok(EngineChoice::Native),
            "rten" => Ok(EngineChoice::Rten),
            "onnxruntime" => Ok(EngineChoice::OnnxRuntime),
            "tensorflow" => Ok(EngineChoice::Tensorflow),
            other => Err(UnknownEngine(other.chars().take(64).collect())),
        }
    }
}

/// How engines are found and set up, once per process.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// ONNX Runtime's shared library or the folder that holds it; unset searches the usual places.
    pub onnxruntime: Option<PathBuf>,
    /// TensorFlow's shared library or the folder that holds it; unset searches the usual places.
    pub tensorflow: Option<PathBuf>,
    /// Threads that one run may use, 0 or 1 for one. More lowers the latency of a lone large model and costs CPU.
    pub threads_per_run: usize,
}

/// What an engine says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineInfo {
    pub name: Name,
    /// Empty as long as a library has not been opened and its file's name doesn't tell.
    pub version: String,
    /// The library file it runs from; `None` where it is part of the program.
    pub path: Option<PathBuf>,
}

/// How one model is loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Threads that will call [`LoadedModel::run`] at once.
    pub workers: usize,
    /// Threads that one run may use; 0 is [`EngineOptions::threads_per_run`].
    pub threads: usize,
    /// Runs that are to go on at once, whatever memory that takes; 0 leaves it to the engine. More than `workers` would
    /// never do.
    pub instances: usize,
}

/// An inference library.
pub trait Engine: Send + Sync {
    fn info(&self) -> EngineInfo;

    /// Whether models of this format are for this engine.
    fn takes(&self, format: Format) -> bool {
        format.is_onnx()
    }

    /// Whether a model that it loads needs no comparison with other engines.
    fn is_exact(&self) -> bool {
        false
    }

    /// Whether the worst that a damaged or malicious file can do to it is to be refused. Other engines get a file that is
    /// new here in a process of its own first.
    fn withstands_any_file(&self) -> bool {
        false
    }

    /// Opens what the engine needs beyond the program, which the first load does anyway. May take a second.
    ///
    /// # Errors
    /// Why the engine can't be used after all; the same each time.
    fn open(&self) -> Result<(), String> {
        Ok(())
    }

    /// Why the engine turned out to be unusable, if it was opened and did.
    fn defect(&self) -> Option<String> {
        None
    }

    /// Loads a model of a format that this engine takes, from the path in its [`crate::Source`]; may take seconds.
    ///
    /// # Errors
    /// When the file is not a model or needs what this engine lacks.
    fn load(&self, path: &Path, options: &LoadOptions) -> Result<Arc<dyn LoadedModel>, LoadError>;

    /// The same for a model whose owner says what it takes and gives. What the file tells itself isn't changed by that;
    /// an engine may need it where the file doesn't.
    ///
    /// # Errors
    /// Those of [`Engine::load`], and where what is declared can't be.
    fn load_declared(
        &self,
        path: &Path,
        options: &LoadOptions,
        _declared: &ModelSignature,
    ) -> Result<Arc<dyn LoadedModel>, LoadError> {
        self.load(path, options)
    }

    /// Called once on each inference thread with that thread's whole life as `body`, so that an engine can put
    /// it inside a thread pool of its own and spare a hand-over per run. Must call `body` exactly once.
    fn enter(&self, body: Box<dyn FnOnce() + Send + '_>) {
        body();
    }
}

/// A model ready to run; dropping it gives its memory back.
pub trait LoadedModel: Send + Sync {
    fn signature(&self) -> &Signature;

    /// The classes that the columns of an output stand for, where the model's file names them.
    fn labels(&self, _output: &str) -> Option<&[String]> {
        None
    }

    /// What is lost of the declared types, such as "computes INT64 in 32 bits": another engine is better then, however
    /// slow.
    fn narrows(&self) -> Option<String> {
        None
    }

    /// Runs that may go on at once; further ones would only wait for each other.
    fn instances(&self) -> usize;

    /// Whether a run computes on the thread that calls it, whichever that is. Short runs of such a model are done
    /// where they are asked for.
    fn runs_on_caller(&self) -> bool {
        true
    }

    /// Whether a run computes in another process, so that the thread that calls it only waits.
    fn waits(&self) -> bool {
        false
    }

    /// Bytes that it held in processes of its own when it was loaded.
    fn outside_memory(&self) -> u64 {
        0
    }

    /// Runs checked inputs (names, datatypes and shapes fit the signature) and gives the named outputs in order.
    /// Blocks for as long as the model computes.
    ///
    /// # Errors
    /// When a value can't be represented or the computation fails.
    fn run(&self, inputs: &[Tensor], outputs: &[&str]) -> Result<Vec<Tensor>, EngineError>;
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The caller's fault: a value out of the engine's range.
    #[error(transparent)]
    Input(#[from] InvalidInput),
    /// The library reported an error.
    #[error("the engine failed: {0}")]
    Failed(String),
    /// The library's answer is not what the model declares.
    #[error("the engine gave output `{output}` as {given}; report this model")]
    Output { output: String, given: String },
    /// The library panicked; the process goes on.
    #[error("the engine panicked: {0}")]
    Panicked(String),
}

impl EngineError {
    pub(crate) fn failed(error: impl StdError) -> Self {
        EngineError::Failed(chain(&error))
    }

    pub(crate) fn panicked(payload: &(dyn std::any::Any + Send)) -> Self {
        EngineError::Panicked(panic_text(payload))
    }
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// What a caught panic said.
pub(crate) fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").into()
}
