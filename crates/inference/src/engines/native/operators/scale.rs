//! What is done to features before a model sees them.

use super::super::array::{Array, Data, room};
use super::super::node::Kernel;
use super::super::onnx::Node;
use super::super::{Fault, Refused};

/// A value per feature, or one for all of them.
fn per_feature(values: &[f32], width: usize) -> Result<Vec<f32>, Fault> {
    match values {
        [one] => Ok(vec![*one; width]),
        many if many.len() == width => Ok(many.to_vec()),
        many => Err(Fault::input(format!("has {width} features where {} are asked for", many.len()))),
    }
}

fn width(array: &Array) -> Result<usize, Fault> {
    array.rows().map(|(_, width)| width)
}

pub(super) fn scaler(node: &Node) -> Result<Kernel, Refused> {
    let (offset, scale) = (node.floats("offset").to_vec(), node.floats("scale").to_vec());
    Ok(Box::new(move |arguments| {
        let array = arguments.get(0)?;
        let width = width(array)?;
        let (offset, scale) = (per_feature(&offset, width)?, per_feature(&scale, width)?);
        let numbers = array.f32s()?;
        let places = numbers.iter().zip(offset.iter().zip(&scale).cycle());
        let data = places.map(|(x, (offset, scale))| (x - offset) * scale).collect();
        Ok(vec![Array::new(array.shape(), Data::F32(data))?])
    }))
}

pub(super) fn normalizer(node: &Node) -> Result<Kernel, Refused> {
    let norm: fn(&mut [f32]) = match node.text("norm") {
        None | Some(b"MAX") => |row| {
            let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            divide(row, greatest);
        },
        Some(b"L1") => |row| divide(row, row.iter().map(|x| x.abs()).sum()),
        Some(b"L2") => |row| {
            // The sign comes back after the root of the share of squares.
            let sum: f32 = row.iter().map(|x| x * x).sum();
            if sum != 0.0 {
                row.iter_mut().for_each(|x| *x = (*x * *x / sum).sqrt().copysign(*x));
            }
        },
        Some(other) => return Err(node.refuse(format!("norm {:?}", String::from_utf8_lossy(other)))),
    };
    Ok(Box::new(move |arguments| {
        let array = arguments.get(0)?;
        let width = width(array)?;
        let mut data = array.f32s()?.into_owned();
        data.chunks_exact_mut(width.max(1)).for_each(norm);
        Ok(vec![Array::new(array.shape(), Data::F32(data))?])
    }))
}

fn divide(row: &mut [f32], by: f32) {
    if by != 0.0 {
        row.iter_mut().for_each(|x| *x /= by);
    }
}

pub(super) fn imputer(node: &Node) -> Result<Kernel, Refused> {
    let (floats, ints) =
        (node.floats("imputed_value_floats").to_vec(), node.ints("imputed_value_int64s").to_vec());
    let replaced =
        (node.float("replaced_value_float").unwrap_or(0.0), node.int("replaced_value_int64").unwrap_or(0));
    Ok(Box::new(move |arguments| {
        let array = arguments.get(0)?;
        let width = width(array)?;
        let data = match array.data() {
            Data::I64(elements) => {
                let imputed: Vec<i64> = match ints.as_slice() {
                    [one] => vec![*one; width],
                    many if many.len() == width => many.to_vec(),
                    many => {
                        return Err(Fault::input(format!(
                            "has {width} features where {} are asked for",
                            many.len()
                        )));
                    }
                };
                let places = elements.iter().zip(imputed.iter().cycle());
                Data::I64(places.map(|(&x, &to)| if x == replaced.1 { to } else { x }).collect())
            }
            Data::F32(elements) => {
                let imputed = per_feature(&floats, width)?;
                let missing = |x: f32| x == replaced.0 || (x.is_nan() && replaced.0.is_nan());
                let places = elements.iter().zip(imputed.iter().cycle());
                Data::F32(places.map(|(&x, &to)| if missing(x) { to } else { x }).collect())
            }
            other => return Err(Fault::unsupported(format!("{} as its input", other.datatype()))),
        };
        Ok(vec![Array::new(array.shape(), data)?])
    }))
}

pub(super) fn binarizer(node: &Node) -> Result<Kernel, Refused> {
    let threshold = node.float("threshold").unwrap_or(0.0);
    Ok(Box::new(move |arguments| {
        let array = arguments.get(0)?;
        let Data::F32(elements) = array.data() else {
            return Err(Fault::unsupported(format!("{} as its input", array.datatype())));
        };
        let data = elements.iter().map(|&x| f32::from(u8::from(x > threshold))).collect();
        Ok(vec![Array::new(array.shape(), Data::F32(data))?])
    }))
}

/// Puts features of several inputs side by side, each cut or filled with zeros to its size.
pub(super) fn feature_vectorizer(node: &Node) -> Result<Kernel, Refused> {
    let sizes = node.ints("inputdimensions").iter().map(|&size| usize::try_from(size));
    let sizes = sizes.collect::<Result<Vec<_>, _>>().map_err(|_| node.refuse("a negative dimension"))?;
    Ok(Box::new(move |arguments| {
        let tables = arguments.all().map(|array| {
            let (rows, width) = match *array.shape() {
                [rows] => (rows, 1),
                _ => array.rows()?,
            };
            Ok::<_, Fault>((rows, width, array.f32s()?))
        });
        let tables = tables.collect::<Result<Vec<_>, _>>()?;
        let rows = tables.first().map_or(0, |(rows, _, _)| *rows);
        let total = sizes.iter().fold(0_usize, |total, &size| total.saturating_add(size));
        let mut data = Vec::with_capacity(room(&[rows, total])?);
        for row in 0..rows {
            for ((_, width, numbers), &size) in tables.iter().zip(&sizes) {
                let features = numbers.iter().skip(row * width).take(*width).copied();
                data.extend(features.chain(std::iter::repeat(0.0)).take(size));
            }
        }
        Ok(vec![Array::new([rows, total], Data::F32(data))?])
    }))
}
