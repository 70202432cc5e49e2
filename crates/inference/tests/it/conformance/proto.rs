//! ONNX's `TensorProto` files, and how close answers must be.

use std::path::Path;

use avocet_inference::{Datatype, Tensor, TensorSpec};

/// A set's tensors in the signature's order. An error says why they can't be had.
pub fn read_all(set: &Path, side: &str, specs: &[TensorSpec]) -> Result<Vec<Tensor>, String> {
    let path = |number: usize| set.join(format!("{side}_{number}.pb"));
    if path(specs.len()).exists() {
        return Err(format!("an {side} is no tensor"));
    }
    let read = |(number, spec): (usize, &TensorSpec)| {
        let bytes = std::fs::read(path(number)).map_err(|error| error.to_string())?;
        tensor(&spec.name, spec.datatype, &bytes).ok_or_else(|| format!("{side} {number} is no tensor"))
    };
    specs.iter().enumerate().map(read).collect()
}

/// Fields of a message: number, and either a value or bytes.
pub fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, u64, &[u8])>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let (value, content) = match key & 7 {
            0 => (varint(&mut bytes)?, &bytes[..0]),
            2 => {
                let length = varint(&mut bytes)? as usize;
                (0, take(&mut bytes, length)?)
            }
            5 => (0, take(&mut bytes, 4)?),
            1 => (0, take(&mut bytes, 8)?),
            _ => return None,
        };
        fields.push((key >> 3, value, content));
    }
    Some(fields)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn varints(mut bytes: &[u8]) -> Option<Vec<u64>> {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        values.push(varint(&mut bytes)?);
    }
    Some(values)
}

fn tensor(name: &str, datatype: Datatype, bytes: &[u8]) -> Option<Tensor> {
    let (mut shape, mut kind, mut data, mut texts) = (Vec::new(), 0, Vec::new(), Vec::new());
    let mut values = Vec::new();
    for (field, value, content) in fields(bytes)? {
        match field {
            1 if content.is_empty() => shape.push(value as usize),
            1 => shape.extend(varints(content)?.into_iter().map(|size| size as usize)),
            2 => kind = value,
            4 | 9 | 10 => data.extend_from_slice(content),
            5 | 7 | 11 if content.is_empty() => values.push(value),
            5 | 7 | 11 => values.extend(varints(content)?),
            6 => texts.push(content),
            _ => {}
        }
    }
    if number(datatype) != kind {
        return None;
    }
    if datatype == Datatype::Bytes {
        return Tensor::from_strings(name, shape, texts).ok();
    }
    let size = datatype.size()?;
    data.extend(values.iter().flat_map(|value| value.to_le_bytes().into_iter().take(size)));
    Tensor::from_bytes(name, datatype, shape, data.into()).ok()
}

/// `TensorProto.DataType`.
fn number(datatype: Datatype) -> u64 {
    match datatype {
        Datatype::Fp32 => 1,
        Datatype::Uint8 => 2,
        Datatype::Int8 => 3,
        Datatype::Uint16 => 4,
        Datatype::Int16 => 5,
        Datatype::Int32 => 6,
        Datatype::Int64 => 7,
        Datatype::Bytes => 8,
        Datatype::Bool => 9,
        Datatype::Fp16 => 10,
        Datatype::Fp64 => 11,
        Datatype::Uint32 => 12,
        Datatype::Uint64 => 13,
        Datatype::Bf16 => 16,
    }
}

/// As ONNX's own runner compares: a thousandth, and more for halves; whole numbers exactly, but for the rounding of
/// quantized ones. Beside zero, the largest element tells how fine the arithmetic is. Of random ones only the form.
pub fn compare(expected: &Tensor, given: &Tensor, random: bool) -> Result<(), String> {
    if (expected.shape(), expected.datatype()) != (given.shape(), given.datatype()) {
        return Err(format!("{:?} {} for {:?}", given.shape(), given.datatype(), expected.shape()));
    }
    if random {
        return Ok(());
    }
    let Some((wanted, found)) = numbers(expected).zip(numbers(given)) else {
        return if expected.data() == given.data() { Ok(()) } else { Err("other values".into()) };
    };
    let (relative, least): (f64, f64) = match expected.datatype() {
        Datatype::Fp16 | Datatype::Bf16 => (1e-2, 1e-6),
        Datatype::Int8 | Datatype::Uint8 => (0.0, 1.0),
        _ => (1e-3, 1e-6),
    };
    let largest =
        wanted.iter().filter(|value| value.is_finite()).fold(0.0, |most: f64, value| most.max(value.abs()));
    for (wanted, found) in wanted.into_iter().zip(found) {
        let same = wanted == found || (wanted.is_nan() && found.is_nan());
        let near = (wanted - found).abs() <= least.max(1e-6 * largest) + relative * wanted.abs();
        if !same && !near {
            return Err(format!("{found} for {wanted}"));
        }
    }
    Ok(())
}

fn numbers(tensor: &Tensor) -> Option<Vec<f64>> {
    let bytes = tensor.data().as_ref();
    Some(match tensor.datatype() {
        Datatype::Fp32 => tensor.elements::<f32>().ok()?.iter().map(|&value| f64::from(value)).collect(),
        Datatype::Fp64 => tensor.elements::<f64>().ok()?.to_vec(),
        Datatype::Bf16 => {
            halves(bytes).map(|bits| f64::from(f32::from_bits(u32::from(bits) << 16))).collect()
        }
        Datatype::Fp16 => halves(bytes).map(half).collect(),
        Datatype::Int8 => bytes.iter().map(|&byte| f64::from(byte.cast_signed())).collect(),
        Datatype::Uint8 => bytes.iter().map(|&byte| f64::from(byte)).collect(),
        _ => return None,
    })
}

fn halves(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
}

fn half(bits: u16) -> f64 {
    let (sign, exponent, fraction) = (bits >> 15, i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let magnitude = match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2_f64.powi(exponent - 15),
    };
    if sign == 1 { -magnitude } else { magnitude }
}
