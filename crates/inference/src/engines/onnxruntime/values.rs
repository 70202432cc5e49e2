//! Tensors to ONNX Runtime values and back: inputs are borrowed, outputs copied once.

use std::borrow::Cow;

use half::{bf16, f16};
use ort::session::SessionInputValue;
use ort::value::{DynValue, PrimitiveTensorElementType, Tensor as OrtTensor, TensorRef};

use crate::{Datatype, Element, EngineError, InvalidInput, Tensor};

/// An input kept alive while a value points into it.
pub(super) enum Held<'a> {
    Bool(Cow<'a, [bool]>),
    U8(Cow<'a, [u8]>),
    U16(Cow<'a, [u16]>),
    U32(Cow<'a, [u32]>),
    U64(Cow<'a, [u64]>),
    I8(Cow<'a, [i8]>),
    I16(Cow<'a, [i16]>),
    I32(Cow<'a, [i32]>),
    I64(Cow<'a, [i64]>),
    F16(Cow<'a, [f16]>),
    F32(Cow<'a, [f32]>),
    F64(Cow<'a, [f64]>),
    Bf16(Cow<'a, [bf16]>),
    Strings(Vec<String>),
}

pub(super) fn hold(tensor: &Tensor) -> Result<Held<'_>, EngineError> {
    Ok(match tensor.datatype() {
        Datatype::Bool => Held::Bool(elements(tensor)?),
        Datatype::Uint8 => Held::U8(elements(tensor)?),
        Datatype::Uint16 => Held::U16(elements(tensor)?),
        Datatype::Uint32 => Held::U32(elements(tensor)?),
        Datatype::Uint64 => Held::U64(elements(tensor)?),
        Datatype::Int8 => Held::I8(elements(tensor)?),
        Datatype::Int16 => Held::I16(elements(tensor)?),
        Datatype::Int32 => Held::I32(elements(tensor)?),
        Datatype::Int64 => Held::I64(elements(tensor)?),
        Datatype::Fp16 => Held::F16(elements(tensor)?),
        Datatype::Fp32 => Held::F32(elements(tensor)?),
        Datatype::Fp64 => Held::F64(elements(tensor)?),
        Datatype::Bf16 => Held::Bf16(elements(tensor)?),
        Datatype::Bytes => Held::Strings(texts(tensor)?),
    })
}

fn elements<T: Element>(tensor: &Tensor) -> Result<Cow<'_, [T]>, EngineError> {
    tensor.elements().map_err(|error| EngineError::Input(error.into()))
}

fn texts(tensor: &Tensor) -> Result<Vec<String>, EngineError> {
    let text = |element: &[u8]| String::from_utf8(element.to_vec()).ok().filter(|text| !text.contains('\0'));
    tensor.strings().map(text).collect::<Option<_>>().ok_or_else(|| {
        let problem = "holds a string that is not UTF-8 or contains a zero byte; ONNX strings are text";
        EngineError::Input(InvalidInput::Value { input: tensor.name().into(), problem: problem.into() })
    })
}

impl Held<'_> {
    pub fn value(&self, shape: &[usize]) -> Result<SessionInputValue<'_>, EngineError> {
        match self {
            Held::Bool(data) => view(shape, data),
            Held::U8(data) => view(shape, data),
            Held::U16(data) => view(shape, data),
            Held::U32(data) => view(shape, data),
            Held::U64(data) => view(shape, data),
            Held::I8(data) => view(shape, data),
            Held::I16(data) => view(shape, data),
            Held::I32(data) => view(shape, data),
            Held::I64(data) => view(shape, data),
            Held::F16(data) => view(shape, data),
            Held::F32(data) => view(shape, data),
            Held::F64(data) => view(shape, data),
            Held::Bf16(data) => view(shape, data),
            Held::Strings(texts) => {
                OrtTensor::from_string_array((shape, texts.as_slice())).map(Into::into).map_err(failed)
            }
        }
    }
}

fn view<'a, T>(shape: &[usize], data: &'a [T]) -> Result<SessionInputValue<'a>, EngineError>
where
    T: PrimitiveTensorElementType + Clone + std::fmt::Debug + 'static,
{
    TensorRef::from_array_view((shape.to_vec(), data)).map(Into::into).map_err(failed)
}

fn failed(error: ort::Error) -> EngineError {
    EngineError::Failed(error.to_string())
}

/// An output in the type that the model declares.
pub(super) fn give(name: &str, declared: Datatype, value: &DynValue) -> Result<Tensor, EngineError> {
    match declared {
        Datatype::Bool => copy::<bool>(name, value),
        Datatype::Uint8 => copy::<u8>(name, value),
        Datatype::Uint16 => copy::<u16>(name, value),
        Datatype::Uint32 => copy::<u32>(name, value),
        Datatype::Uint64 => copy::<u64>(name, value),
        Datatype::Int8 => copy::<i8>(name, value),
        Datatype::Int16 => copy::<i16>(name, value),
        Datatype::Int32 => copy::<i32>(name, value),
        Datatype::Int64 => copy::<i64>(name, value),
        Datatype::Fp16 => copy::<f16>(name, value),
        Datatype::Fp32 => copy::<f32>(name, value),
        Datatype::Fp64 => copy::<f64>(name, value),
        Datatype::Bf16 => copy::<bf16>(name, value),
        Datatype::Bytes => {
            let (shape, texts) = value.try_extract_strings().map_err(failed)?;
            Tensor::from_strings(name, dimensions(shape), texts).map_err(EngineError::failed)
        }
    }
}

fn copy<T: PrimitiveTensorElementType + Element>(
    name: &str,
    value: &DynValue,
) -> Result<Tensor, EngineError> {
    let mismatch = |_| EngineError::Output { output: name.into(), given: value.dtype().to_string() };
    let (shape, data) = value.try_extract_tensor::<T>().map_err(mismatch)?;
    Tensor::from_vec(name, dimensions(shape), data.to_vec()).map_err(EngineError::failed)
}

fn dimensions(shape: &[i64]) -> Vec<usize> {
    shape.iter().map(|&size| usize::try_from(size).unwrap_or_default()).collect()
}
