//! Loading and unloading on a client's word: what the fronts ask of whoever owns the models.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::error::ApiError;
use crate::model_config::ModelConfig;

/// What a client wants loaded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadModel {
    /// In the place of the configuration that the repository has.
    pub config: Option<ModelConfig>,
    /// In the place of the files that the repository has: `VERSION/NAME` to content.
    pub files: BTreeMap<String, Bytes>,
}

impl LoadModel {
    pub(crate) fn unknown_parameter(name: &str) -> ApiError {
        let name: String = name.chars().take(64).collect();
        ApiError::BadRequest(format!(
            "load parameter '{name}' is not known or of another type; `config` is a text and `file:VERSION/NAME` bytes"
        ))
    }
}

/// Why a model was not loaded or unloaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Nobody may do this here.
    #[error(
        "model control is off here, so clients can't load or unload models; start the server with \
         `--model-control explicit`, or change the Model at the hub"
    )]
    Off,
    /// There is no such model.
    #[error("failed to {action} '{name}': there is no such model in the repository; list it with its index")]
    Unknown {
        /// `load` or `unload`.
        action: &'static str,
        /// The model.
        name: String,
    },
    /// What was sent can't be loaded.
    #[error("failed to load '{name}': {reason}")]
    Refused {
        /// The model.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server's own trouble.
    #[error("failed to load '{name}': {reason}")]
    Failed {
        /// The model.
        name: String,
        /// What went wrong.
        reason: String,
    },
}

/// A repository that clients may change. Methods block for as long as a model takes to load.
pub trait Control: Send + Sync {
    /// Loads a model, or loads it anew; requests are answered by the old one until the new one is ready.
    ///
    /// # Errors
    /// When it isn't there, isn't a model, or this isn't allowed.
    fn load(&self, name: &str, request: LoadModel) -> Result<(), ControlError>;

    /// Unloads all versions of a model; running requests finish first.
    ///
    /// # Errors
    /// When it isn't loaded, or this isn't allowed.
    fn unload(&self, name: &str) -> Result<(), ControlError>;

    /// Names of models that could be loaded, for the repository's index.
    fn available(&self) -> Vec<String>;

    /// The names of an output's classes, in order.
    fn labels(&self, _model: &str, _version: &str, _output: &str) -> Option<std::sync::Arc<[String]>> {
        None
    }

    /// The configuration that a model was loaded with, where it had one.
    fn config(&self, _model: &str) -> Option<std::sync::Arc<ModelConfig>> {
        None
    }

    /// Whether clients may change anything.
    fn is_on(&self) -> bool;
}

/// Where somebody else decides what is loaded.
pub(crate) struct NoControl;

impl Control for NoControl {
    fn load(&self, _: &str, _: LoadModel) -> Result<(), ControlError> {
        Err(ControlError::Off)
    }

    fn unload(&self, _: &str) -> Result<(), ControlError> {
        Err(ControlError::Off)
    }

    fn available(&self) -> Vec<String> {
        Vec::new()
    }

    fn is_on(&self) -> bool {
        false
    }
}
