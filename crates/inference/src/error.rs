//! What can go wrong, one variant per way that a caller reacts.

use std::path::PathBuf;

use crate::engine::chain;
use crate::ensemble::EnsembleError;
use crate::steps::StepError;
use crate::{EngineError, FormatError, InvalidInput};

/// Why a model was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is missing, unreadable or no servable model; another engine wouldn't help.
    #[error("can't load `{}`", path.display())]
    Format { path: PathBuf, source: FormatError },
    /// The engine asked for isn't on this machine.
    #[error("engine `{engine}` is not available: {reason}")]
    EngineUnavailable { engine: &'static str, reason: String },
    /// The engine refused the model; another one may take it.
    #[error("engine `{engine}` can't load the model: {reason}")]
    Engine { engine: &'static str, reason: String },
    /// No engine took it.
    #[error("no engine can load the model; {reasons}")]
    NoEngine { reasons: String },
    /// What it declares for plain content or readings doesn't fit it.
    #[error(transparent)]
    Steps(#[from] StepError),
    /// Its owner says of it what isn't so.
    #[error("{side} `{name}`: {problem}")]
    Declared { side: &'static str, name: String, problem: String },
    /// The steps of an ensemble don't fit each other, or their models can't be had.
    #[error(transparent)]
    Ensemble(#[from] EnsembleError),
    /// It can't answer what it is to be warmed up with.
    #[error("warm-up request `{name}`: {reason}")]
    WarmUp { name: String, reason: String },
    /// One version of several that come together or not at all.
    #[error("version `{version}` can't be loaded, so nothing was changed")]
    Together { version: String, source: Box<LoadError> },
    /// Requests are to go where nothing is.
    #[error("requests are to go to version `{version}`, which is not among those that are loaded")]
    Routing { version: String },
    /// The program that embeds the repository didn't say how to start processes.
    #[error(
        "this server can't run models in processes of their own; set `isolation` to `none` if the model is trusted"
    )]
    NoIsolation,
    /// The system refused a thread.
    #[error("can't start a thread for it")]
    Thread(#[source] std::io::Error),
    /// It failed a moment ago, and isn't tried again so soon.
    #[error("{reason}")]
    Again { reason: String },
    /// Somebody unloaded it in the same moment.
    #[error("the version was unloaded while it was loaded; load it again if it is wanted")]
    Unloaded,
    /// A name or version that can't stand in a URL.
    #[error(
        "`{given}` is not a model name or version; use 1 to 128 of a-z A-Z 0-9 . _ - and start with a letter or digit"
    )]
    Name { given: String },
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("unknown model `{name}`; list the models to see what this site serves")]
    UnknownModel { name: String },
    #[error("model `{name}` has no version `{version}`; loaded: {loaded}")]
    UnknownVersion { name: String, version: String, loaded: String },
    /// Known but not loaded (yet).
    #[error("model `{name}` version `{version}` is not ready: {reason}")]
    NotReady { name: String, version: String, reason: String },
    #[error("model `{model}`: {source}")]
    Invalid { model: String, source: InvalidInput },
    #[error("{what} of {given} is over the limit of {limit}; send less at once")]
    TooLarge { what: &'static str, given: usize, limit: usize },
    /// Try again soon.
    #[error("{waiting} requests are waiting already; try again in a moment")]
    Overloaded { waiting: usize },
    /// Try again soon.
    #[error("the pictures and tables that come at once take too much memory together; try again in a moment")]
    Crowded,
    /// No thread was free in the time that the request allowed.
    #[error("model `{model}` had no free thread within the request's time; try again, or allow more time")]
    Late { model: String },
    #[error("model `{model}` version `{version}` failed")]
    Engine { model: String, version: String, source: Box<EngineError> },
    /// Plain content that can't be read, or outputs that aren't what is declared.
    #[error("model `{model}`: {source}")]
    Content { model: String, source: StepError },
    /// A step of an ensemble went wrong.
    #[error("model `{model}`: step `{step}`: {}", whole(.cause))]
    Step { model: String, step: String, cause: Box<Error> },
    /// Ensembles ask several models, which takes a runtime.
    #[error("model `{model}` is an ensemble: await its answer instead")]
    Ensemble { model: String },
    /// The repository is being dropped.
    #[error("the server is stopping; send the request to another site")]
    Stopped,
    /// The system refused a thread.
    #[error("can't start an inference thread")]
    Thread(#[source] std::io::Error),
}

/// An error with what an engine said.
fn whole(error: &Error) -> String {
    match error {
        Error::Engine { source, .. } => format!("{error}: {}", chain(source.as_ref())),
        other => other.to_string(),
    }
}
