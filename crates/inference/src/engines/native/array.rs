//! What flows between the steps of a graph.

use std::borrow::Cow;

use bytes::Bytes;

use super::Fault;
use crate::{Datatype, Tensor, TensorError};

/// Most elements of one array, far above what a request may bring.
const MAX_ELEMENTS: usize = 128 << 20;

/// Row-major elements and their shape. Invariant: as many elements as the shape says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Array {
    shape: Vec<usize>,
    data: Data,
}

/// The element types that classical models compute with.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Data {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    Bool(Vec<bool>),
    Text(Vec<Bytes>),
}

/// Runs the same lines for whichever type the elements have.
macro_rules! each {
    ($data:expr, $elements:ident => $body:expr) => {
        match $data {
            Data::F32($elements) => Data::F32($body),
            Data::F64($elements) => Data::F64($body),
            Data::I32($elements) => Data::I32($body),
            Data::I64($elements) => Data::I64($body),
            Data::Bool($elements) => Data::Bool($body),
            Data::Text($elements) => Data::Text($body),
        }
    };
}

impl Data {
    pub fn len(&self) -> usize {
        match self {
            Data::F32(elements) => elements.len(),
            Data::F64(elements) => elements.len(),
            Data::I32(elements) => elements.len(),
            Data::I64(elements) => elements.len(),
            Data::Bool(elements) => elements.len(),
            Data::Text(elements) => elements.len(),
        }
    }

    pub fn datatype(&self) -> Datatype {
        match self {
            Data::F32(_) => Datatype::Fp32,
            Data::F64(_) => Datatype::Fp64,
            Data::I32(_) => Datatype::Int32,
            Data::I64(_) => Datatype::Int64,
            Data::Bool(_) => Datatype::Bool,
            Data::Text(_) => Datatype::Bytes,
        }
    }
}

/// The number of elements of a shape. Where it is given, no part of the shape has a product that overflows.
///
/// # Errors
/// When it is more than one array may have.
pub(super) fn room(shape: &[usize]) -> Result<usize, Fault> {
    let count = shape.iter().try_fold(1_usize, |count, &size| count.checked_mul(size.max(1)));
    count.filter(|&count| count <= MAX_ELEMENTS).ok_or_else(|| {
        Fault::input(format!(
            "makes an array of shape {shape:?}, over {MAX_ELEMENTS} elements; send fewer rows"
        ))
    })?;
    Ok(shape.iter().product())
}

impl Array {
    /// # Errors
    /// When shape and data don't agree.
    pub fn new(shape: impl Into<Vec<usize>>, data: Data) -> Result<Array, Fault> {
        let shape = shape.into();
        if room(&shape)? != data.len() {
            let count = data.len();
            return Err(Fault::unsupported(format!("{count} elements don't fill the shape {shape:?}")));
        }
        Ok(Array { shape, data })
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub fn data(&self) -> &Data {
        &self.data
    }

    pub fn datatype(&self) -> Datatype {
        self.data.datatype()
    }

    pub fn count(&self) -> usize {
        self.data.len()
    }

    /// The same elements in another shape of the same size.
    pub fn reshaped(&self, shape: impl Into<Vec<usize>>) -> Result<Array, Fault> {
        Array::new(shape, self.data.clone())
    }

    /// Rows and their width: a vector is one row.
    pub fn rows(&self) -> Result<(usize, usize), Fault> {
        match *self.shape {
            [width] => Ok((1, width)),
            [rows, width] => Ok((rows, width)),
            _ => Err(Fault::unsupported(format!("shape {:?} is no table of rows", self.shape))),
        }
    }

    /// The numbers as f32, as engines feed them to models of f32.
    pub fn f32s(&self) -> Result<Cow<'_, [f32]>, Fault> {
        Ok(match &self.data {
            Data::F32(elements) => Cow::Borrowed(elements),
            Data::F64(elements) => elements.iter().map(|&element| element as f32).collect(),
            Data::I32(elements) => elements.iter().map(|&element| element as f32).collect(),
            Data::I64(elements) => elements.iter().map(|&element| element as f32).collect(),
            Data::Bool(elements) => elements.iter().map(|&element| f32::from(u8::from(element))).collect(),
            Data::Text(_) => return Err(Fault::unsupported("texts where numbers are computed")),
        })
    }

    pub fn f64s(&self) -> Result<Cow<'_, [f64]>, Fault> {
        Ok(match &self.data {
            Data::F64(elements) => Cow::Borrowed(elements),
            Data::I64(elements) => elements.iter().map(|&element| element as f64).collect(),
            Data::I32(elements) => elements.iter().map(|&element| element.into()).collect(),
            _ => self.f32s()?.iter().map(|&element| element.into()).collect(),
        })
    }

    /// Whole numbers: indexes, shapes, axes.
    pub fn i64s(&self) -> Result<Cow<'_, [i64]>, Fault> {
        match &self.data {
            Data::I64(elements) => Ok(Cow::Borrowed(elements)),
            Data::I32(elements) => Ok(elements.iter().map(|&element| element.into()).collect()),
            other => {
                Err(Fault::unsupported(format!("{} where whole numbers are asked for", other.datatype())))
            }
        }
    }

    /// The elements at these places, in that order, in a new shape.
    pub fn pick(
        &self,
        shape: Vec<usize>,
        places: impl Iterator<Item = usize> + Clone,
    ) -> Result<Array, Fault> {
        room(&shape)?;
        let data = each!(&self.data, elements => {
            let picked: Option<Vec<_>> = places.map(|place| elements.get(place).cloned()).collect();
            picked.ok_or_else(|| Fault::input("asks for an element that is not there"))?
        });
        Array::new(shape, data)
    }

    /// Joins arrays of one type by copying pieces: for each of `outer` rounds, `size` elements of each part.
    pub fn join(shape: Vec<usize>, outer: usize, parts: &[(&Array, usize)]) -> Result<Array, Fault> {
        let count = room(&shape)?;
        let (first, _) = parts.first().ok_or_else(|| Fault::unsupported("nothing to join"))?;
        let mut joined = each!(&first.data, _elements => Vec::with_capacity(count));
        for round in 0..outer {
            for &(part, size) in parts {
                append(&mut joined, &part.data, round * size, size)?;
            }
        }
        Array::new(shape, joined)
    }

    pub fn from_tensor(tensor: &Tensor) -> Result<Array, Fault> {
        let malformed = |error: TensorError| Fault::input(error.to_string());
        let data = match tensor.datatype() {
            Datatype::Fp32 => Data::F32(tensor.elements().map_err(malformed)?.into_owned()),
            Datatype::Fp64 => Data::F64(tensor.elements().map_err(malformed)?.into_owned()),
            Datatype::Int32 => Data::I32(tensor.elements().map_err(malformed)?.into_owned()),
            Datatype::Int64 => Data::I64(tensor.elements().map_err(malformed)?.into_owned()),
            Datatype::Bool => Data::Bool(tensor.elements().map_err(malformed)?.into_owned()),
            Datatype::Bytes => {
                Data::Text(tensor.strings().map(|text| tensor.data().slice_ref(text)).collect())
            }
            other => return Err(Fault::unsupported(format!("{other} as an input"))),
        };
        Array::new(tensor.shape(), data)
    }

    pub fn into_tensor(self, name: &str) -> Result<Tensor, TensorError> {
        let Array { shape, data } = self;
        match data {
            Data::F32(elements) => Tensor::from_vec(name, shape, elements),
            Data::F64(elements) => Tensor::from_vec(name, shape, elements),
            Data::I32(elements) => Tensor::from_vec(name, shape, elements),
            Data::I64(elements) => Tensor::from_vec(name, shape, elements),
            Data::Bool(elements) => Tensor::from_vec(name, shape, elements),
            Data::Text(elements) => Tensor::from_strings(name, shape, elements),
        }
    }
}

fn append(joined: &mut Data, part: &Data, start: usize, size: usize) -> Result<(), Fault> {
    fn copy<T: Clone>(into: &mut Vec<T>, from: &[T], start: usize, size: usize) -> Option<()> {
        into.extend_from_slice(from.get(start..start.checked_add(size)?)?);
        Some(())
    }
    let copied = match (joined, part) {
        (Data::F32(into), Data::F32(from)) => copy(into, from, start, size),
        (Data::F64(into), Data::F64(from)) => copy(into, from, start, size),
        (Data::I32(into), Data::I32(from)) => copy(into, from, start, size),
        (Data::I64(into), Data::I64(from)) => copy(into, from, start, size),
        (Data::Bool(into), Data::Bool(from)) => copy(into, from, start, size),
        (Data::Text(into), Data::Text(from)) => copy(into, from, start, size),
        (into, from) => {
            let (into, from) = (into.datatype(), from.datatype());
            return Err(Fault::unsupported(format!("{into} joined with {from}")));
        }
    };
    copied.ok_or_else(|| Fault::unsupported("parts of different sizes"))
}
