//! Typed tensor contents, for clients that don't send bytes.

use inference::{Datatype, Element, Tensor, TensorError};
use wire::inference::InferTensorContents;

use crate::error::ApiError;

/// Takes the elements out of the field that fits the datatype; 8- and 16-bit integers travel as 32-bit ones.
///
/// # Errors
/// When an element is out of range, there are not as many as the shape asks for, or the datatype has no such field.
pub(super) fn tensor(
    name: &str,
    datatype: Datatype,
    shape: Vec<usize>,
    contents: InferTensorContents,
) -> Result<Tensor, ApiError> {
    let tensor = match datatype {
        Datatype::Bool => Tensor::from_vec(name, shape, contents.bool_contents),
        Datatype::Int8 => narrow::<i8, i32>(name, shape, &contents.int_contents)?,
        Datatype::Int16 => narrow::<i16, i32>(name, shape, &contents.int_contents)?,
        Datatype::Int32 => Tensor::from_vec(name, shape, contents.int_contents),
        Datatype::Int64 => Tensor::from_vec(name, shape, contents.int64_contents),
        Datatype::Uint8 => narrow::<u8, u32>(name, shape, &contents.uint_contents)?,
        Datatype::Uint16 => narrow::<u16, u32>(name, shape, &contents.uint_contents)?,
        Datatype::Uint32 => Tensor::from_vec(name, shape, contents.uint_contents),
        Datatype::Uint64 => Tensor::from_vec(name, shape, contents.uint64_contents),
        Datatype::Fp32 => Tensor::from_vec(name, shape, contents.fp32_contents),
        Datatype::Fp64 => Tensor::from_vec(name, shape, contents.fp64_contents),
        Datatype::Bytes => Tensor::from_strings(name, shape, &contents.bytes_contents),
        Datatype::Fp16 | Datatype::Bf16 => {
            return Err(ApiError::BadRequest(format!(
                "input '{name}' of datatype {datatype} can't be sent in `contents`; use raw_input_contents"
            )));
        }
    };
    Ok(tensor?)
}

fn narrow<N: Element + TryFrom<W>, W: Copy + std::fmt::Display>(
    name: &str,
    shape: Vec<usize>,
    wide: &[W],
) -> Result<Result<Tensor, TensorError>, ApiError> {
    let mut elements = Vec::with_capacity(wide.len());
    for (index, &element) in wide.iter().enumerate() {
        elements.push(N::try_from(element).map_err(|_| {
            let datatype = N::DATATYPE;
            ApiError::BadRequest(format!(
                "input '{name}' has the value `{element}` at element {index}, which is no {datatype}"
            ))
        })?);
    }
    Ok(Tensor::from_vec(name, shape, elements))
}
