//! Numbers out of a model's outputs, whatever their datatype.

use std::borrow::Cow;

use half::{bf16, f16};

use super::StepError;
use crate::{Datatype, Tensor};

/// The output of this name.
pub fn find<'a>(outputs: &'a [Tensor], name: &str) -> Result<&'a Tensor, StepError> {
    let found = outputs.iter().find(|tensor| tensor.name() == name);
    found.ok_or_else(|| StepError::answer(name, "is missing in the model's answer"))
}

/// A tensor's elements as floats.
pub fn floats(tensor: &Tensor) -> Result<Cow<'_, [f32]>, StepError> {
    Ok(match tensor.datatype() {
        Datatype::Fp32 => tensor.elements::<f32>()?,
        Datatype::Fp64 => tensor.elements::<f64>()?.iter().map(|&value| value as f32).collect(),
        Datatype::Fp16 => tensor.elements::<f16>()?.iter().map(|value| value.to_f32()).collect(),
        Datatype::Bf16 => tensor.elements::<bf16>()?.iter().map(|value| value.to_f32()).collect(),
        Datatype::Uint8 => tensor.elements::<u8>()?.iter().map(|&value| f32::from(value)).collect(),
        Datatype::Int8 => tensor.elements::<i8>()?.iter().map(|&value| f32::from(value)).collect(),
        Datatype::Int32 => tensor.elements::<i32>()?.iter().map(|&value| value as f32).collect(),
        Datatype::Int64 => tensor.elements::<i64>()?.iter().map(|&value| value as f32).collect(),
        other => return Err(StepError::answer(tensor.name(), format!("is {other}, which are no scores"))),
    })
}

/// The name of a class, where it has one.
pub fn label(labels: &[String], index: usize) -> Option<String> {
    labels.get(index).filter(|label| !label.is_empty()).cloned()
}
