//! The same elements in another shape or type.

use std::str::FromStr;

use bytes::Bytes;

use super::super::array::{Array, Data, room};
use super::super::node::{Arguments, Kernel};
use super::super::onnx::Node;
use super::super::{Fault, Refused};
use super::places::{around, axes, axis};
use crate::Datatype;

pub(super) fn identity(_: &Node) -> Result<Kernel, Refused> {
    Ok(Box::new(|arguments| Ok(vec![arguments.get(0)?.clone()])))
}

pub(super) fn constant(node: &Node) -> Result<Kernel, Refused> {
    let array = if let Some(tensor) = node.tensor("value") {
        Ok(tensor.clone())
    } else if let Some(value) = node.float("value_float") {
        Array::new([], Data::F32(vec![value]))
    } else if let Some(value) = node.int("value_int") {
        Array::new([], Data::I64(vec![value]))
    } else if node.has("value_floats") {
        let values = node.floats("value_floats").to_vec();
        Array::new([values.len()], Data::F32(values))
    } else if node.has("value_ints") {
        let values = node.ints("value_ints").to_vec();
        Array::new([values.len()], Data::I64(values))
    } else {
        return Err(node.refuse("its value is of a kind that is not done"));
    }?;
    Ok(Box::new(move |_| Ok(vec![array.clone()])))
}

pub(super) fn constant_of_shape(node: &Node) -> Result<Kernel, Refused> {
    let value = match node.tensor("value") {
        Some(value) => value.reshaped([1])?,
        None => Array::new([1], Data::F32(vec![0.0]))?,
    };
    Ok(Box::new(move |arguments| {
        let sizes = arguments.get(0)?.i64s()?;
        let shape = sizes.iter().map(|&size| usize::try_from(size)).collect::<Result<Vec<_>, _>>();
        let shape = shape.map_err(|_| Fault::unsupported(format!("the shape {sizes:?}")))?;
        let count = room(&shape)?;
        Ok(vec![value.pick(shape, std::iter::repeat_n(0, count))?])
    }))
}

pub(super) fn reshape(node: &Node) -> Result<Kernel, Refused> {
    let (given, keep_zero) = (node.ints("shape").to_vec(), node.int("allowzero") == Some(1));
    Ok(Box::new(move |arguments| {
        let array = arguments.get(0)?;
        let wanted = match arguments.optional(1) {
            Some(shape) => shape.i64s()?.into_owned(),
            None => given.clone(),
        };
        let mut shape = Vec::with_capacity(wanted.len());
        let mut open = None;
        for (axis, &size) in wanted.iter().enumerate() {
            shape.push(match size {
                -1 if open.is_none() => {
                    open = Some(axis);
                    1
                }
                0 if !keep_zero => array.shape().get(axis).copied().unwrap_or(0),
                size => {
                    usize::try_from(size).map_err(|_| Fault::unsupported(format!("the shape {wanted:?}")))?
                }
            });
        }
        let others = shape.iter().fold(1_usize, |product, &size| product.saturating_mul(size));
        if let Some(size) = open.and_then(|axis| shape.get_mut(axis)) {
            *size = array.count().checked_div(others).unwrap_or(0);
        }
        if room(&shape)? != array.count() {
            return Err(Fault::input(format!(
                "makes shape {:?} become {wanted:?}, which doesn't fit",
                array.shape()
            )));
        }
        Ok(vec![array.reshaped(shape)?])
    }))
}

pub(super) fn flatten(node: &Node) -> Result<Kernel, Refused> {
    let at = node.int("axis").unwrap_or(1);
    Ok(Box::new(move |arguments| {
        let array = arguments.get(0)?;
        let rank = array.shape().len();
        let at = if at == rank as i64 { rank } else { axis(at, rank)? };
        let (before, after) = array.shape().split_at(at);
        Ok(vec![array.reshaped([before.iter().product::<usize>(), after.iter().product()])?])
    }))
}

pub(super) fn shape(node: &Node) -> Result<Kernel, Refused> {
    if node.has("start") || node.has("end") {
        return Err(node.refuse("a part of a shape"));
    }
    Ok(Box::new(|arguments| {
        let sizes: Vec<i64> = arguments.get(0)?.shape().iter().map(|&size| size as i64).collect();
        Ok(vec![Array::new([sizes.len()], Data::I64(sizes))?])
    }))
}

/// Axes as an input, as newer graphs have them, or as an attribute.
pub(super) fn given_axes(arguments: &Arguments<'_>, attribute: &[i64]) -> Result<Vec<i64>, Fault> {
    match arguments.optional(1) {
        Some(axes) => Ok(axes.i64s()?.into_owned()),
        None => Ok(attribute.to_vec()),
    }
}

pub(super) fn squeeze(node: &Node) -> Result<Kernel, Refused> {
    let attribute = node.ints("axes").to_vec();
    Ok(Box::new(move |arguments| {
        let array = arguments.get(0)?;
        let gone = axes(&given_axes(arguments, &attribute)?, array.shape().len())?;
        let sizes = array.shape().iter().enumerate();
        let kept = sizes.filter(|(axis, size)| **size != 1 || !(gone.is_empty() || gone.contains(axis)));
        let kept: Vec<usize> = kept.map(|(_, &size)| size).collect();
        Ok(vec![array.reshaped(kept)?])
    }))
}

pub(super) fn unsqueeze(node: &Node) -> Result<Kernel, Refused> {
    let attribute = node.ints("axes").to_vec();
    Ok(Box::new(move |arguments| {
        let array = arguments.get(0)?;
        let given = given_axes(arguments, &attribute)?;
        let mut shape = array.shape().to_vec();
        for new in axes(&given, shape.len() + given.len())? {
            shape.insert(new.min(shape.len()), 1);
        }
        Ok(vec![array.reshaped(shape)?])
    }))
}

pub(super) fn concat(node: &Node) -> Result<Kernel, Refused> {
    let along = node.int("axis").unwrap_or(1);
    Ok(Box::new(move |arguments| {
        let first = arguments.get(0)?;
        let along = axis(along, first.shape().len())?;
        let mut shape = first.shape().to_vec();
        let mut parts = Vec::new();
        let mut total = 0_usize;
        for array in arguments.all() {
            let fits = array.shape().len() == shape.len()
                && array.shape().iter().zip(&shape).enumerate().all(|(axis, (a, b))| axis == along || a == b);
            if !fits {
                return Err(Fault::input(format!(
                    "makes shapes {:?} and {shape:?} be joined",
                    array.shape()
                )));
            }
            let (_, size, after) = around(array.shape(), along);
            parts.push((array, size * after));
            total = total.saturating_add(size);
        }
        let (before, _, _) = around(&shape, along);
        if let Some(size) = shape.get_mut(along) {
            *size = total;
        }
        Ok(vec![Array::join(shape, before, &parts)?])
    }))
}

pub(super) fn cast(node: &Node) -> Result<Kernel, Refused> {
    let to = node.int("to").and_then(|to| crate::onnx::datatype(to.cast_unsigned()));
    let to = to.ok_or_else(|| node.refuse("a type that is not known"))?;
    use Datatype::{Bool, Bytes, Fp32, Fp64, Int32, Int64};
    if !matches!(to, Bool | Bytes | Fp32 | Fp64 | Int32 | Int64) {
        return Err(node.refuse(format!("to {to}")));
    }
    Ok(Box::new(move |arguments| {
        let array = arguments.get(0)?;
        Ok(vec![Array::new(array.shape(), converted(array, to)?)?])
    }))
}

/// The elements in another type, as C casts them.
pub(super) fn converted(array: &Array, to: Datatype) -> Result<Data, Fault> {
    if array.datatype() == to {
        return Ok(array.data().clone());
    }
    if let Data::Text(texts) = array.data() {
        return parsed(texts, to);
    }
    Ok(match to {
        Datatype::Fp32 => Data::F32(array.f32s()?.into_owned()),
        Datatype::Fp64 => Data::F64(array.f64s()?.into_owned()),
        Datatype::Bool => Data::Bool(array.f64s()?.iter().map(|&x| x != 0.0).collect()),
        Datatype::Bytes => Data::Text(written(array)?),
        Datatype::Int64 => Data::I64(match array.data() {
            Data::I32(elements) => elements.iter().map(|&x| x.into()).collect(),
            _ => array.f64s()?.iter().map(|&x| x as i64).collect(),
        }),
        Datatype::Int32 => Data::I32(match array.data() {
            Data::I64(elements) => elements.iter().map(|&x| x as i32).collect(),
            _ => array.f64s()?.iter().map(|&x| x as i32).collect(),
        }),
        other => return Err(Fault::unsupported(format!("to {other}"))),
    })
}

fn parsed(texts: &[Bytes], to: Datatype) -> Result<Data, Fault> {
    fn all<T: FromStr>(texts: &[Bytes]) -> Result<Vec<T>, Fault> {
        let one = |text: &Bytes| {
            let number = std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok());
            number.ok_or_else(|| {
                let shown: String = String::from_utf8_lossy(text).chars().take(64).collect();
                Fault::input(format!("holds `{shown}` where a number is asked for"))
            })
        };
        texts.iter().map(one).collect()
    }
    Ok(match to {
        Datatype::Fp32 => Data::F32(all(texts)?),
        Datatype::Fp64 => Data::F64(all(texts)?),
        Datatype::Int64 => Data::I64(all(texts)?),
        Datatype::Int32 => Data::I32(all(texts)?),
        other => return Err(Fault::unsupported(format!("texts to {other}"))),
    })
}

/// Whole numbers and truths as texts. How floats are written differs between engines, so they are left to others.
fn written(array: &Array) -> Result<Vec<Bytes>, Fault> {
    match array.data() {
        Data::Bool(elements) => {
            Ok(elements.iter().map(|&x| if x { "1".into() } else { "0".into() }).collect())
        }
        Data::I32(_) | Data::I64(_) => Ok(array.i64s()?.iter().map(|x| x.to_string().into()).collect()),
        other => Err(Fault::unsupported(format!("{} to texts", other.datatype()))),
    }
}
