//! What can go wrong between plain content and tensors, one variant per way that a caller reacts.

use crate::TensorError;

/// Why content did not become tensors, or tensors no reading.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// The declaration and the model don't fit; found when the model is loaded.
    #[error("`serving.{field}` {problem}")]
    Declaration { field: String, problem: String },
    /// The model takes other content.
    #[error("the model takes no {given}; send a {taken} or tensors")]
    NotTaken { given: &'static str, taken: &'static str },
    /// Content that begins like none of the formats.
    #[error("the content is no JPEG, PNG or WebP picture; send one of these")]
    UnknownFormat,
    /// A picture that can't be decoded to its end.
    #[error("the {format} picture can't be read: {reason}; save it anew and send it whole")]
    Picture { format: &'static str, reason: String },
    /// A table that is not what the model takes.
    #[error("the table {problem}")]
    Table { problem: String },
    #[error("{given} {what} are over the limit of {limit}; send less at once")]
    TooLarge { what: &'static str, given: usize, limit: usize },
    /// The model's answer is not what is declared.
    #[error("output `{output}` {problem}; make `serving.postprocessing` say what the model gives")]
    Answer { output: String, problem: String },
    /// Content that needs more memory than there can be.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl StepError {
    pub(super) fn declaration(field: &str, problem: impl Into<String>) -> StepError {
        StepError::Declaration { field: field.into(), problem: problem.into() }
    }

    pub(super) fn table(problem: impl Into<String>) -> StepError {
        StepError::Table { problem: problem.into() }
    }

    pub(super) fn answer(output: &str, problem: impl Into<String>) -> StepError {
        StepError::Answer { output: output.into(), problem: problem.into() }
    }
}

/// Refuses more than `limit`.
pub(super) fn bound(what: &'static str, given: usize, limit: usize) -> Result<(), StepError> {
    if given > limit { Err(StepError::TooLarge { what, given, limit }) } else { Ok(()) }
}
