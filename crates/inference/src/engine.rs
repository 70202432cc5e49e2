//! The port that an inference library fills: load a file, run tensors.

use std::error::Error as StdError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use crate::{InvalidInput, LoadError, Signature, Tensor};

/// Name of an engine: lower case, as in a resource's field `engine`.
pub type Name = &'static str;

/// Which engine a model wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EngineChoice {
    /// The best that is there, and the next one where that fails to load the model.
    #[default]
    Auto,
    /// `rten`, pure Rust, or an error.
    Rten,
    /// ONNX Runtime, or an error.
    OnnxRuntime,
}

impl EngineChoice {
    /// The engine's name; `None` for [`EngineChoice::Auto`].
    pub fn engine(self) -> Option<Name> {
        match self {
            EngineChoice::Auto => None,
            EngineChoice::Rten => Some("rten"),
            EngineChoice::OnnxRuntime => Some("onnxruntime"),
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
#[error("unknown engine `{0}`; use `auto`, `rten` or `onnxruntime`")]
pub struct UnknownEngine(pub String);

impl FromStr for EngineChoice {
    type Err = UnknownEngine;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" | "auto" => Ok(EngineChoice::Auto),
            "rten" => Ok(EngineChoice::Rten),
            "onnxruntime" => Ok(EngineChoice::OnnxRuntime),
            other => Err(UnknownEngine(other.chars().take(64).collect())),
        }
    }
}

/// How engines are found and set up, once per process.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// ONNX Runtime's shared library or the folder that holds it; unset searches the usual places.
    pub onnxruntime: Option<PathBuf>,
    /// Threads that one run may use, 0 or 1 for one. More lowers the latency of a lone large model and costs CPU.
    pub threads_per_run: usize,
}

/// What an engine says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineInfo {
    pub name: Name,
    pub version: String,
    /// The library file it runs from; `None` where it is part of the program.
    pub path: Option<PathBuf>,
}

/// How one model is loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Threads that will call [`LoadedModel::run`] at once.
    pub workers: usize,
}

/// An inference library.
pub trait Engine: Send + Sync {
    fn info(&self) -> EngineInfo;

    /// Loads an ONNX file; may take seconds.
    ///
    /// # Errors
    /// When the file is not a model or needs what this engine lacks.
    fn load(&self, path: &Path, options: &LoadOptions) -> Result<Arc<dyn LoadedModel>, LoadError>;

    /// Called once on each inference thread with that thread's whole life as `body`, so that an engine can put
    /// it inside a thread pool of its own and spare a hand-over per run. Must call `body` exactly once.
    fn enter(&self, body: Box<dyn FnOnce() + Send + '_>) {
        body();
    }
}

/// A model ready to run; dropping it gives its memory back.
pub trait LoadedModel: Send + Sync {
    fn signature(&self) -> &Signature;

    /// Runs that may go on at once; further ones would only wait for each other.
    fn instances(&self) -> usize;

    /// Whether a run computes on the thread that calls it, whichever that is. Short runs of such a model are done
    /// where they are asked for.
    fn runs_on_caller(&self) -> bool {
        true
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
