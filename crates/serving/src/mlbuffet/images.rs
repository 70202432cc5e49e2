//! Pictures: what the model declares about them, or else what its input's shape tells.

use inference::steps::{Frame, Input, Reading, StepError};
use inference::{Model, Tensor};
use types::{ImageInput, Preprocessing};

use super::reply::Reply;

/// A picture as the model's inputs. Computes for long: call it from a thread that may block.
///
/// # Errors
/// When it is none, or the model takes none.
pub(super) fn read(model: &Model, content: &[u8]) -> Result<(Vec<Tensor>, Frame), Reply> {
    if let Some(declared) = model.input_steps() {
        return declared.image(content).map_err(|error| refused(&error));
    }
    let plain = Preprocessing { image: Some(ImageInput::default()), csv: None };
    let input = Input::compile(&plain, model.signature()).map_err(|error| {
        Reply::unprocessable(format!("Model {} takes no pictures: {error}", model.name()))
    })?;
    input.image(content).map_err(|error| refused(&error))
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
