//! Between classes, categories and numbers.

use std::collections::HashMap;

use bytes::Bytes;

use super::super::array::{Array, Data, room};
use super::super::node::Kernel;
use super::super::onnx::Node;
use super::super::{Fault, Refused};

/// An element as something to look up; floats by their bits, where all zeros are one and all NaN are one.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Text(Bytes),
    Whole(i64),
    Float(u64),
}

fn float_key(x: f64) -> Key {
    Key::Float(if x.is_nan() { u64::MAX } else { (x + 0.0).to_bits() })
}

fn keys(array: &Array) -> Result<Vec<Key>, Fault> {
    Ok(match array.data() {
        Data::Text(texts) => texts.iter().cloned().map(Key::Text).collect(),
        Data::I64(_) | Data::I32(_) => array.i64s()?.iter().map(|&x| Key::Whole(x)).collect(),
        Data::Bool(truths) => truths.iter().map(|&x| Key::Whole(x.into())).collect(),
        Data::F32(_) | Data::F64(_) => array.f64s()?.iter().map(|&x| float_key(x)).collect(),
    })
}

/// A list in whichever of the attributes `NAME_strings`, `NAME_int64s`, `NAME_floats`, `NAME_tensor` is there.
fn list(node: &Node, name: &str) -> Result<Option<Array>, Refused> {
    let attribute = |end: &str| format!("{name}_{end}");
    let (texts, ints, floats) = (attribute("strings"), attribute("int64s"), attribute("floats"));
    let data = if let Some(tensor) = node.tensor(&attribute("tensor")) {
        return Ok(Some(tensor.clone()));
    } else if node.has(&texts) {
        Data::Text(node.texts(&texts).to_vec())
    } else if node.has(&ints) {
        Data::I64(node.ints(&ints).to_vec())
    } else if node.has(&floats) {
        Data::F32(node.floats(&floats).to_vec())
    } else {
        return Ok(None);
    };
    Ok(Some(Array::new([data.len()], data)?))
}

/// What to give for each element of an input: the place in `values`, whose last element stands for all unknown.
fn looked_up(known: HashMap<Key, usize>, values: Array) -> Kernel {
    let unknown = values.count() - 1;
    Box::new(move |arguments| {
        let array = arguments.get(0)?;
        let keys = keys(array)?;
        let places = keys.iter().map(|key| known.get(key).copied().unwrap_or(unknown));
        Ok(vec![values.pick(array.shape().to_vec(), places)?])
    })
}

pub(super) fn label_encoder(node: &Node) -> Result<Kernel, Refused> {
    let default = |data| Array::new([1], data).map_err(Refused::from);
    let text =
        |name: &str, otherwise: &'static [u8]| Bytes::copy_from_slice(node.text(name).unwrap_or(otherwise));
    if node.has("classes_strings") {
        return old_label_encoder(node);
    }
    let (Some(keys_given), Some(values)) = (list(node, "keys")?, list(node, "values")?) else {
        return Err(node.refuse("no keys or no values"));
    };
    let unknown = match (node.tensor("default_tensor"), values.data()) {
        (Some(tensor), _) => tensor.reshaped([1])?,
        (None, Data::Text(_)) => default(Data::Text(vec![text("default_string", b"_Unused")]))?,
        (None, Data::I64(_)) => default(Data::I64(vec![node.int("default_int64").unwrap_or(-1)]))?,
        (None, Data::F32(_)) => default(Data::F32(vec![node.float("default_float").unwrap_or(-0.0)]))?,
        (None, other) => return Err(node.refuse(format!("values of {}", other.datatype()))),
    };
    let known = keys(&keys_given)?;
    if known.len() != values.count() {
        return Err(node.refuse("as many keys as values are needed"));
    }
    let known = known.into_iter().enumerate().map(|(place, key)| (key, place)).rev().collect();
    let values = with_last(&values, &unknown)?;
    Ok(looked_up(known, values))
}

/// Version 1: texts to their places, or places to their texts.
fn old_label_encoder(node: &Node) -> Result<Kernel, Refused> {
    let classes = node.texts("classes_strings");
    let default_text = Bytes::copy_from_slice(node.text("default_string").unwrap_or(b"_Unused"));
    let places: Vec<i64> = (0..classes.len() as i64).collect();
    both_ways(classes, &places, default_text, node.int("default_int64").unwrap_or(-1))
}

pub(super) fn category_mapper(node: &Node) -> Result<Kernel, Refused> {
    let (texts, numbers) = (node.texts("cats_strings"), node.ints("cats_int64s"));
    if texts.len() != numbers.len() {
        return Err(node.refuse("as many texts as numbers are needed"));
    }
    let default_text = Bytes::copy_from_slice(node.text("default_string").unwrap_or(b"_Unused"));
    both_ways(texts, numbers, default_text, node.int("default_int64").unwrap_or(-1))
}

/// Texts become numbers and numbers texts, whichever comes in.
fn both_ways(texts: &[Bytes], numbers: &[i64], no_text: Bytes, no_number: i64) -> Result<Kernel, Refused> {
    let count = texts.len();
    let text_values = texts.iter().cloned().chain([no_text]).collect();
    let number_values = numbers.iter().copied().chain([no_number]).collect();
    let text_keys = texts.iter().cloned().map(Key::Text).zip(0..).collect();
    let number_keys = numbers.iter().copied().map(Key::Whole).zip(0..).collect();
    let to_numbers = looked_up(text_keys, Array::new([count + 1], Data::I64(number_values))?);
    let to_texts = looked_up(number_keys, Array::new([count + 1], Data::Text(text_values))?);
    Ok(Box::new(move |arguments| match arguments.get(0)?.data() {
        Data::Text(_) => to_numbers(arguments),
        _ => to_texts(arguments),
    }))
}

fn with_last(values: &Array, last: &Array) -> Result<Array, Fault> {
    Array::join(vec![values.count() + 1], 1, &[(values, values.count()), (last, 1)])
}

pub(super) fn one_hot_encoder(node: &Node) -> Result<Kernel, Refused> {
    let (texts, numbers) = (node.texts("cats_strings"), node.ints("cats_int64s"));
    let known: HashMap<Key, usize> = if texts.is_empty() {
        numbers.iter().copied().map(Key::Whole).zip(0..).collect()
    } else {
        texts.iter().cloned().map(Key::Text).zip(0..).collect()
    };
    let count = texts.len().max(numbers.len());
    let zeros = node.int("zeros").unwrap_or(1) != 0;
    Ok(Box::new(move |arguments| {
        let array = arguments.get(0)?;
        let keys = match array.data() {
            Data::F32(_) | Data::F64(_) => array.f64s()?.iter().map(|&x| Key::Whole(x as i64)).collect(),
            _ => keys(array)?,
        };
        let mut shape = array.shape().to_vec();
        shape.push(count);
        let mut data = vec![0.0_f32; room(&shape)?];
        for (key, places) in keys.iter().zip(data.chunks_exact_mut(count.max(1))) {
            match known.get(key).and_then(|&place| places.get_mut(place)) {
                Some(place) => *place = 1.0,
                None if zeros => {}
                None => return Err(Fault::input("holds a category that the model doesn't know")),
            }
        }
        Ok(vec![Array::new(shape, Data::F32(data))?])
    }))
}

/// The table behind a list of maps from class to score.
pub(super) fn zip_map(node: &Node) -> Result<Kernel, Refused> {
    let classes = node.texts("classlabels_strings").len().max(node.ints("classlabels_int64s").len());
    Ok(Box::new(move |arguments| {
        let array = arguments.get(0)?;
        let (rows, width) = array.rows()?;
        if width != classes {
            return Err(Fault::unsupported(format!("{width} columns for {classes} classes")));
        }
        Ok(vec![Array::new([rows, width], Data::F32(array.f32s()?.into_owned()))?])
    }))
}
