//! Values on their way into TensorFlow and out of it: copied both ways, so that nothing of ours is shared.

use std::ffi::c_int;

use crate::api::{Api, CString24, CTensor};

/// An element type that can cross, numbered as in `TF_DataType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum DataType {
    Float = 1,
    Double = 2,
    Int32 = 3,
    Uint8 = 4,
    Int16 = 5,
    Int8 = 6,
    String = 7,
    Int64 = 9,
    Bool = 10,
    Bfloat16 = 14,
    Uint16 = 17,
    Half = 19,
    Uint32 = 22,
    Uint64 = 23,
}

impl DataType {
    const ALL: [DataType; 14] = [
        DataType::Float,
        DataType::Double,
        DataType::Int32,
        DataType::Uint8,
        DataType::Int16,
        DataType::Int8,
        DataType::String,
        DataType::Int64,
        DataType::Bool,
        DataType::Bfloat16,
        DataType::Uint16,
        DataType::Half,
        DataType::Uint32,
        DataType::Uint64,
    ];

    /// The type of that number in `TF_DataType`.
    pub fn from_number(number: i32) -> Option<DataType> {
        DataType::ALL.into_iter().find(|known| *known as i32 == number)
    }

    /// Bytes of an element as TensorFlow keeps it.
    pub fn size(self) -> usize {
        match self {
            DataType::Bool | DataType::Int8 | DataType::Uint8 => 1,
            DataType::Int16 | DataType::Uint16 | DataType::Half | DataType::Bfloat16 => 2,
            DataType::Float | DataType::Int32 | DataType::Uint32 => 4,
            DataType::Double | DataType::Int64 | DataType::Uint64 => 8,
            DataType::String => size_of::<CString24>(),
        }
    }
}

/// What goes in.
pub struct Feed<'a> {
    pub kind: DataType,
    pub shape: &'a [usize],
    pub data: Payload<&'a [u8]>,
}

/// What came out.
pub struct Value {
    pub kind: DataType,
    pub shape: Vec<usize>,
    pub data: Payload<Vec<u8>>,
}

/// Elements in row-major order.
pub enum Payload<T> {
    /// Numbers, little-endian; a Bool is one byte, 0 or 1.
    Numbers(T),
    Strings(Vec<T>),
}

/// The shape as TensorFlow takes it. It ends the process over a shape whose rank or number of elements it can't
/// represent, whether or not another dimension is 0.
fn checked_shape(shape: &[usize]) -> Option<Vec<i64>> {
    const MAX_RANK: usize = 254;
    let sizes: Vec<i64> = shape.iter().map(|&size| i64::try_from(size).ok()).collect::<Option<_>>()?;
    let fits = sizes.iter().try_fold(1_i64, |count, &size| count.checked_mul(size.max(1))).is_some();
    (fits && sizes.len() <= MAX_RANK).then_some(sizes)
}

/// A tensor of TensorFlow's.
pub struct Held {
    api: &'static Api,
    raw: *mut CTensor,
    /// Strings that we made and that we free.
    own_strings: usize,
}

impl Held {
    /// # Errors
    /// When the data does not fill the shape, or there is no memory.
    pub fn new(api: &'static Api, feed: &Feed<'_>) -> Result<Held, String> {
        let shape = checked_shape(feed.shape).ok_or("the shape is too large")?;
        let count = feed.shape.iter().try_fold(1_usize, |count, &size| count.checked_mul(size));
        let bytes = count.and_then(|count| count.checked_mul(feed.kind.size()));
        let (Some(count), Some(bytes)) = (count, bytes) else { return Err("the shape is too large".into()) };
        let fits = match &feed.data {
            Payload::Numbers(data) if feed.kind == DataType::Bool => {
                data.len() == bytes && data.iter().all(|byte| *byte <= 1)
            }
            Payload::Numbers(data) => feed.kind != DataType::String && data.len() == bytes,
            Payload::Strings(texts) => feed.kind == DataType::String && texts.len() == count,
        };
        if !fits {
            return Err(format!("the data does not fill the shape {:?} of {:?}", feed.shape, feed.kind));
        }
        // SAFETY: `shape` has as many elements as said; the result is checked before it is used.
        let raw =
            unsafe { (api.allocate_tensor)(feed.kind as c_int, shape.as_ptr(), shape.len() as c_int, bytes) };
        if raw.is_null() {
            return Err(format!("TensorFlow has no memory for {bytes} bytes"));
        }
        let mut held = Held { api, raw, own_strings: 0 };
        // SAFETY: the tensor was allocated with `bytes` bytes and lives in `held`.
        let target = unsafe { (api.tensor_data)(raw) };
        match &feed.data {
            // SAFETY: `bytes` is the length of both, and they don't overlap: one was just allocated.
            Payload::Numbers(data) if bytes > 0 => unsafe {
                std::ptr::copy_nonoverlapping(data.as_ptr(), target.cast::<u8>(), bytes);
            },
            Payload::Numbers(_) => {}
            Payload::Strings(texts) => {
                for (index, text) in texts.iter().enumerate() {
                    // SAFETY: there is room for `count` strings; each is initialised before it is written, and
                    // `string_copy` copies the bytes.
                    unsafe {
                        let string = target.cast::<CString24>().add(index);
                        (api.string_init)(string);
                        (api.string_copy)(string, text.as_ptr().cast(), text.len());
                    }
                    held.own_strings = index + 1;
                }
            }
        }
        Ok(held)
    }

    /// # Safety
    /// `raw` must be a tensor that TensorFlow made and nobody else deletes.
    pub unsafe fn of(api: &'static Api, raw: *mut CTensor) -> Held {
        Held { api, raw, own_strings: 0 }
    }

    pub fn raw(&self) -> *mut CTensor {
        self.raw
    }

    /// A copy as ours.
    pub fn value(&self) -> Result<Value, String> {
        let api = self.api;
        // SAFETY: the tensor lives as long as `self`; dimensions are asked for within its rank.
        let (number, shape, bytes, data) = unsafe {
            let rank = (api.tensor_rank)(self.raw).max(0);
            let shape = (0..rank).map(|axis| (api.tensor_dimension)(self.raw, axis)).collect::<Vec<_>>();
            ((api.tensor_type)(self.raw), shape, (api.tensor_bytes)(self.raw), (api.tensor_data)(self.raw))
        };
        let kind = DataType::from_number(number).ok_or_else(|| format!("an output is of type {number}"))?;
        let shape: Vec<usize> = shape.into_iter().map(|size| usize::try_from(size).unwrap_or(0)).collect();
        let count: usize = shape.iter().product();
        if bytes < count.saturating_mul(kind.size()) {
            return Err(format!("an output of shape {shape:?} has only {bytes} bytes"));
        }
        let data = match kind {
            // SAFETY: strings of an output are initialised, and there are `count` of them, as was just checked.
            DataType::String => Payload::Strings(
                (0..count).map(|index| unsafe { self.string(data.cast::<CString24>().add(index)) }).collect(),
            ),
            _ if count == 0 => Payload::Numbers(Vec::new()),
            // SAFETY: the tensor has at least that many bytes, as was just checked, and nobody writes to it.
            _ => Payload::Numbers(unsafe {
                std::slice::from_raw_parts(data.cast::<u8>(), count * kind.size()).to_vec()
            }),
        };
        Ok(Value { kind, shape, data })
    }

    /// # Safety
    /// `string` must point to an initialised string.
    unsafe fn string(&self, string: *const CString24) -> Vec<u8> {
        // SAFETY: as the caller promises; the library gives pointer and length of the same bytes.
        unsafe {
            let (data, size) = ((self.api.string_data)(string), (self.api.string_size)(string));
            if size == 0 { Vec::new() } else { std::slice::from_raw_parts(data.cast::<u8>(), size).to_vec() }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: the tensor is deleted once, after the strings that we initialised in it.
        unsafe {
            let strings = (self.api.tensor_data)(self.raw).cast::<CString24>();
            (0..self.own_strings).for_each(|index| (self.api.string_dealloc)(strings.add(index)));
            (self.api.delete_tensor)(self.raw);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::checked_shape;

    #[test]
    fn shapes_that_tensorflow_would_die_of_are_refused() {
        for shape in [&[usize::MAX, 0][..], &[1 << 62, 2, 0], &[1; 255]] {
            assert_eq!(checked_shape(shape), None, "{shape:?}");
        }
        assert_eq!(checked_shape(&[2, 0, 3]), Some(vec![2, 0, 3]));
    }
}
