//! A tensor: row-major little-endian bytes with a name, a shape and a datatype.
//!
//! The bytes are reference counted, so a tensor cut out of a request body or moved out of an engine's buffer
//! costs no copy; [`Tensor::elements`] copies only when the bytes are not aligned for the element type.

use std::borrow::Cow;

use bytemuck::{CheckedBitPattern, NoUninit};
use bytes::Bytes;
use half::{bf16, f16};

use crate::{Datatype, InvalidInput};

/// A Rust type that is the in-memory form of one [`Datatype`].
pub trait Element: NoUninit + CheckedBitPattern + Send + Sync + 'static {
    /// The protocol's type of this element.
    const DATATYPE: Datatype;
}

macro_rules! element {
    ($($rust:ty => $datatype:ident),* $(,)?) => {
        $(impl Element for $rust { const DATATYPE: Datatype = Datatype::$datatype; })*
    };
}

element! {
    bool => Bool, u8 => Uint8, u16 => Uint16, u32 => Uint32, u64 => Uint64,
    i8 => Int8, i16 => Int16, i32 => Int32, i64 => Int64,
    f16 => Fp16, f32 => Fp32, f64 => Fp64, bf16 => Bf16,
}

/// Why bytes are not a tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The product of the dimensions doesn't fit in memory's address range.
    #[error("tensor `{name}` has shape {shape:?}, whose element count overflows; send a smaller shape")]
    ShapeOverflow { name: String, shape: Vec<usize> },
    /// Another number of bytes than shape and datatype ask for.
    #[error(
        "tensor `{name}` of shape {shape:?} and datatype {datatype} needs {expected} bytes but has {given}; \
         make `shape` and data agree"
    )]
    Length { name: String, shape: Vec<usize>, datatype: Datatype, expected: usize, given: usize },
    /// Another number of elements than the shape asks for.
    #[error(
        "tensor `{name}` of shape {shape:?} needs {expected} elements but has {given}; make `shape` and data agree"
    )]
    Count { name: String, shape: Vec<usize>, expected: usize, given: usize },
    /// A BOOL byte that is neither 0 nor 1.
    #[error("tensor `{name}` of datatype BOOL holds a byte other than 0 and 1; send 0 or 1")]
    Bool { name: String },
    /// BYTES framing that runs past the end or leaves bytes over.
    #[error(
        "tensor `{name}` of datatype BYTES is cut off; prefix each element with its length as 4 little-endian bytes"
    )]
    Framing { name: String },
    /// Asked for elements of another type than the tensor has.
    #[error("tensor `{name}` holds {given}, not {expected}; convert it first")]
    Datatype { name: String, expected: Datatype, given: Datatype },
}

/// A named array. Invariant: the number of bytes is what shape and datatype ask for, and every element is valid.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    name: String,
    shape: Vec<usize>,
    datatype: Datatype,
    data: Bytes,
}

struct Owner<T>(Vec<T>);

impl<T: NoUninit> AsRef<[u8]> for Owner<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl Tensor {
    /// Takes bytes as they are on the wire: row-major, little-endian, BYTES elements length-prefixed. No copy.
    ///
    /// # Errors
    /// When shape, datatype and bytes don't agree, or an element is not valid (a BOOL of 2).
    pub fn from_bytes(
        name: impl Into<String>,
        datatype: Datatype,
        shape: impl Into<Vec<usize>>,
        data: Bytes,
    ) -> Result<Tensor, TensorError> {
        let (name, shape) = (name.into(), shape.into());
        let count = element_count(&name, &shape)?;
        match datatype.size() {
            Some(size) => {
                let expected = count.checked_mul(size);
                if expected != Some(data.len()) {
                    let (expected, given) = (expected.unwrap_or(usize::MAX), data.len());
                    return Err(TensorError::Length { name, shape, datatype, expected, given });
                }
                if datatype == Datatype::Bool && data.iter().any(|&byte| byte > 1) {
                    return Err(TensorError::Bool { name });
                }
            }
            None => {
                let given = count_framed(&data).ok_or_else(|| TensorError::Framing { name: name.clone() })?;
                if given != count {
                    return Err(TensorError::Count { name, shape, expected: count, given });
                }
            }
        }
        Ok(Tensor { name, shape, datatype, data })
    }

    /// Takes parts that are known to agree, such as rows of another tensor.
    pub(crate) fn trusted(name: &str, datatype: Datatype, shape: Vec<usize>, data: Bytes) -> Tensor {
        Tensor { name: name.into(), shape, datatype, data }
    }

    /// The same elements, uncopied, under another name.
    pub(crate) fn renamed(&self, name: &str) -> Tensor {
        Tensor::trusted(name, self.datatype, self.shape.clone(), self.data.clone())
    }

    /// Takes a vector over, without a copy.
    ///
    /// # Errors
    /// When the vector has another length than the shape asks for.
    pub fn from_vec<T: Element>(
        name: impl Into<String>,
        shape: impl Into<Vec<usize>>,
        data: Vec<T>,
    ) -> Result<Tensor, TensorError> {
        let (name, shape) = (name.into(), shape.into());
        let expected = element_count(&name, &shape)?;
        if expected != data.len() {
            let given = data.len();
            return Err(TensorError::Count { name, shape, expected, given });
        }
        Ok(Tensor { name, shape, datatype: T::DATATYPE, data: Bytes::from_owner(Owner(data)) })
    }

    /// A BYTES tensor of these elements.
    ///
    /// # Errors
    /// When there are not as many as the shape asks for, or one is 4 GiB or longer.
    pub fn from_strings<S: AsRef<[u8]>>(
        name: impl Into<String>,
        shape: impl Into<Vec<usize>>,
        elements: impl IntoIterator<Item = S>,
    ) -> Result<Tensor, TensorError> {
        let (name, shape) = (name.into(), shape.into());
        let expected = element_count(&name, &shape)?;
        let mut data = Vec::new();
        let mut given = 0;
        for element in elements {
            let element = element.as_ref();
            let length =
                u32::try_from(element.len()).map_err(|_| TensorError::Framing { name: name.clone() })?;
            data.extend_from_slice(&length.to_le_bytes());
            data.extend_from_slice(element);
            given += 1;
        }
        if expected != given {
            return Err(TensorError::Count { name, shape, expected, given });
        }
        Ok(Tensor { name, shape, datatype: Datatype::Bytes, data: data.into() })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Dimensions, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub fn datatype(&self) -> Datatype {
        self.datatype
    }

    /// Number of elements: the product of the dimensions.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// The bytes as they go on the wire.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// The elements, borrowed where the bytes happen to be aligned for `T`.
    ///
    /// # Errors
    /// When the tensor's datatype is not `T`'s.
    pub fn elements<T: Element>(&self) -> Result<Cow<'_, [T]>, TensorError> {
        if T::DATATYPE != self.datatype {
            let (expected, given) = (T::DATATYPE, self.datatype);
            return Err(TensorError::Datatype { name: self.name.clone(), expected, given });
        }
        if let Ok(aligned) = bytemuck::checked::try_cast_slice(&self.data) {
            return Ok(Cow::Borrowed(aligned));
        }
        let copied = self
            .data
            .chunks_exact(size_of::<T>())
            .map(bytemuck::checked::try_pod_read_unaligned)
            .collect::<Result<Vec<T>, _>>();
        copied.map(Cow::Owned).map_err(|_| TensorError::Bool { name: self.name.clone() })
    }

    /// Refuses NaN and infinities; other datatypes than floating-point ones have none.
    pub(crate) fn check_finite(&self) -> Result<(), InvalidInput> {
        fn odd<T: Element + Copy>(tensor: &Tensor, finite: impl Fn(T) -> bool) -> Option<usize> {
            tensor.elements::<T>().ok()?.iter().position(|&element| !finite(element))
        }
        let odd = match self.datatype {
            Datatype::Fp16 => odd(self, f16::is_finite),
            Datatype::Bf16 => odd(self, bf16::is_finite),
            Datatype::Fp32 => odd(self, f32::is_finite),
            Datatype::Fp64 => odd(self, f64::is_finite),
            _ => None,
        };
        odd.map_or(Ok(()), |index| Err(InvalidInput::NotFinite { input: self.name.clone(), index }))
    }

    /// The elements of a BYTES tensor; nothing for any other datatype.
    pub fn strings(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = if self.datatype == Datatype::Bytes { self.data.as_ref() } else { &[] };
        std::iter::from_fn(move || {
            let (element, after) = split_framed(rest)?;
            rest = after;
            Some(element)
        })
    }
}

fn element_count(name: &str, shape: &[usize]) -> Result<usize, TensorError> {
    shape
        .iter()
        .try_fold(1_usize, |product, &dimension| product.checked_mul(dimension))
        .ok_or_else(|| TensorError::ShapeOverflow { name: name.into(), shape: shape.to_vec() })
}

fn split_framed(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = data.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

fn count_framed(mut data: &[u8]) -> Option<usize> {
    let mut count = 0;
    while !data.is_empty() {
        data = split_framed(data)?.1;
        count += 1;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_becomes_a_tensor_and_back_without_a_copy() {
        let values = vec![1.5_f32, -2.0, f32::NAN];
        let address = values.as_ptr().cast::<u8>();
        let tensor = Tensor::from_vec("x", [3], values).unwrap();
        assert_eq!(tensor.data().as_ptr(), address);
        let elements = tensor.elements::<f32>().unwrap();
        assert!(matches!(elements, Cow::Borrowed(_)));
        assert_eq!(elements[..2], [1.5, -2.0]);
        assert!(tensor.elements::<i32>().is_err());
    }

    #[test]
    fn unaligned_bytes_are_read_by_copy() {
        let body = Bytes::from(vec![9, 1, 0, 0, 0, 2, 0, 0, 0]);
        for start in 0..1 {
            let tensor =
                Tensor::from_bytes("x", Datatype::Int32, [2], body.slice(start + 1..start + 9)).unwrap();
            assert_eq!(*tensor.elements::<i32>().unwrap(), [1, 2]);
        }
    }

    #[test]
    fn bytes_that_do_not_fit_are_refused_with_the_numbers() {
        let error =
            Tensor::from_bytes("x", Datatype::Fp32, [2, 2], Bytes::from_static(&[0; 12])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "tensor `x` of shape [2, 2] and datatype FP32 needs 16 bytes but has 12; make `shape` and data agree"
        );
        let shape = [usize::MAX, 2];
        assert!(matches!(
            Tensor::from_bytes("x", Datatype::Int8, shape, Bytes::new()),
            Err(TensorError::ShapeOverflow { .. })
        ));
        let bools = Bytes::from_static(&[0, 1, 2]);
        assert!(matches!(Tensor::from_bytes("x", Datatype::Bool, [3], bools), Err(TensorError::Bool { .. })));
    }

    #[test]
    fn strings_are_framed_and_unframed() {
        let tensor = Tensor::from_strings("s", [3], ["", "ab", "\u{e9}"]).unwrap();
        assert_eq!(tensor.strings().collect::<Vec<_>>(), [&b""[..], b"ab", "\u{e9}".as_bytes()]);
        let again = Tensor::from_bytes("s", Datatype::Bytes, [3], tensor.data().clone()).unwrap();
        assert_eq!(again, tensor);
        let cut = tensor.data().slice(..tensor.data().len() - 1);
        assert!(matches!(
            Tensor::from_bytes("s", Datatype::Bytes, [3], cut),
            Err(TensorError::Framing { .. })
        ));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_tensor_or_an_error(
            data in proptest::collection::vec(proptest::num::u8::ANY, 0..64),
            shape in proptest::collection::vec(0_usize..5, 0..4),
            which in 0_usize..14,
        ) {
            let count: usize = shape.iter().product();
            if let Ok(tensor) = Tensor::from_bytes("x", Datatype::ALL[which], shape, data.into()) {
                proptest::prop_assert_eq!(tensor.count(), count);
                if tensor.datatype() == Datatype::Bytes {
                    proptest::prop_assert_eq!(tensor.strings().count(), count);
                }
            }
        }
    }
}
