//! Pictures: what the model declares about them, or else what its input's shape tells.

use axum::body::Bytes;
use inference::steps::{Frame, Input, Plain, Reading, StepError};
use inference::{Error, Model, Tensor};
use types::{ImageInput, Preprocessing};

use super::reply::Reply;

/// A picture as the model's inputs.
///
/// # Errors
/// When it is none, or the model takes none, or there is no memory for it.
pub(super) async fn read(model: &Model, content: Bytes) -> Result<(Vec<Tensor>, Option<Frame>), Reply> {
    let steps = match model.input_steps() {
        Some(declared) => declared.clone(),
        None => {
            let plain = Preprocessing { image: Some(ImageInput::default()), csv: None };
            Input::compile(&plain, model.signature()).map_err(|error| {
                Reply::unprocessable(format!("Model {} takes no pictures: {error}", model.name()))
            })?
        }
    };
    model.read(&steps, Plain::Picture(content)).await.map_err(|error| match error {
        Error::Content { source, .. } => refused(&source),
        other => super::predict::refused(other),
    })
}

/// What the model declares that its outputs say; nothing where it doesn't.
///
/// # Errors
/// When they aren't what is declared.
pub(super) fn interpret(
    model: &Model,
    outputs: &[Tensor],
    frame: Option<&Frame>,
) -> Result<Option<Reading>, Reply> {
    let reading = model.output_steps().map(|steps| steps.read(outputs, frame));
    reading.transpose().map_err(|error| refused(&error))
}

fn refused(error: &StepError) -> Reply {
    match error {
        StepError::TooLarge { limit, .. } => Reply::too_large(limit),
        _ => Reply::unprocessable(error.to_string()),
    }
}
