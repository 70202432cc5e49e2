//! TFLite models as ONNX: a graph is translated operator by operator, so that every ONNX engine runs it.
//!
//! Quantized tensors stay quantized between operators and are computed as floats in between (`DequantizeLinear`,
//! operator, `QuantizeLinear`), which engines fuse or not; results may differ from TFLite's by one step. Images are
//! `[batch, height, width, channels]` there and `[batch, channels, height, width]` in ONNX, so convolutions and pools
//! stand between two `Transpose`s.

mod flatbuffer;
mod operators;
pub(crate) mod writer;

use std::collections::HashMap;
use std::path::Path;

use flatbuffer::Table;
use writer::{Attribute, FLOAT, Graph};

use crate::format::{Format, FormatError};

/// Most tensors and operators of a model.
const MAXIMUM: usize = 100_000;

/// Translates a TFLite file to the bytes of an ONNX model.
///
/// # Errors
/// When the file is damaged, or has an operator or type that has no translation, which is named.
pub(crate) fn to_onnx(path: &Path) -> Result<Vec<u8>, FormatError> {
    let bytes = std::fs::read(path).map_err(FormatError::Io)?;
    translate(&bytes).map_err(|problem| Format::TfLite.damaged(problem))
}

/// A tensor of the model.
struct Tensor<'a> {
    name: &'a str,
    /// `TensorProto.DataType`.
    kind: u64,
    /// -1 where any size goes.
    shape: Vec<i64>,
    /// Of a constant.
    data: Option<&'a [u8]>,
    quantized: Option<Quantized>,
    /// Its name in the ONNX graph, once it is there.
    value: Option<String>,
}

/// Names of scale and zero point in the ONNX graph.
#[derive(Clone)]
struct Quantized {
    scale: String,
    zero: String,
    axis: i64,
}

struct Translation<'a> {
    graph: Graph,
    tensors: Vec<Tensor<'a>>,
}

fn translate(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let root = Table::root(bytes).ok_or("it is cut off")?;
    let [subgraph] = root.tables(2).as_slice().try_into().map_err(|_| "it has not exactly one graph")?;
    let (buffers, mut graph) = (root.tables(4), Graph::of_file(bytes.len()));
    let (declared, operators) = (subgraph.tables(0), subgraph.tables(3));
    if declared.len().max(operators.len()) > MAXIMUM {
        return Err("it has too many tensors".into());
    }
    let tensors = declared.into_iter().map(|tensor| read_tensor(tensor, &buffers, &mut graph));
    let tensors = tensors.collect::<Result<Vec<_>, _>>()?;
    let mut translation = Translation { graph, tensors };
    let input_names = names(root, 0, &mut translation.graph)?;
    let output_names = names(root, 1, &mut translation.graph)?;
    for index in subgraph.i32s(1) {
        translation.input(index, input_names.get(&index).copied())?;
    }
    let codes = root.tables(1);
    for operator in operators {
        let code = codes.get(usize::try_from(operator.i32(0).unwrap_or(0)).unwrap_or(usize::MAX));
        let code = code.ok_or("an operator has no code")?;
        if let Some(custom) = code.text(1).filter(|name| !name.is_empty()) {
            return Err(format!("its operator `{custom}` is not TFLite's own"));
        }
        let number = code.i32(3).unwrap_or(0).max(i32::from(code.i8(0).unwrap_or(0)));
        operators::translate(&mut translation, number, operator)?;
    }
    for index in subgraph.i32s(2) {
        translation.output(index, output_names.get(&index).copied())?;
    }
    translation.graph.spend(0)?;
    Ok(translation.graph.finish())
}

/// What the model's signature calls tensors; the first name of each.
fn names<'a>(root: Table<'a>, field: usize, graph: &mut Graph) -> Result<HashMap<i32, &'a str>, String> {
    let signature = root.tables(7).into_iter().next();
    let mut names = HashMap::new();
    for map in signature.map(|signature| signature.tables(field)).unwrap_or_default() {
        if let Some(name) = map.text(0) {
            graph.spend(name.len())?;
            names.entry(map.i32(1).unwrap_or(0)).or_insert(name);
        }
    }
    Ok(names)
}

fn read_tensor<'a>(
    tensor: Table<'a>,
    buffers: &[Table<'a>],
    graph: &mut Graph,
) -> Result<Tensor<'a>, String> {
    let name = tensor.text(3).unwrap_or_default();
    let number = tensor.i8(1).unwrap_or(0);
    let kind = kind(number).ok_or_else(|| format!("its tensor `{name}` is of TFLite's type {number}"))?;
    let open = tensor.i32s(7);
    let shape = if open.is_empty() { tensor.i32s(0) } else { open };
    graph.spend(name.len() + shape.len() * size_of::<i64>())?;
    let buffer = buffers.get(usize::try_from(tensor.i32(2).unwrap_or(0)).unwrap_or(usize::MAX));
    let data = buffer.and_then(|buffer| buffer.bytes(0)).filter(|data| !data.is_empty());
    let mut quantized = None;
    if let Some(told) = tensor.table(4).filter(|told| !told.f32s(2).is_empty()) {
        let (scales, zeros) = (told.f32s(2), told.i64s(3));
        graph.spend((scales.len() + zeros.len()) * size_of::<i64>())?;
        let shape: &[i64] = if scales.len() == 1 { &[] } else { &[scales.len() as i64] };
        let (scale, zero) = (graph.name(), graph.name());
        let bytes: Vec<u8> = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
        graph.weight(&scale, FLOAT, shape, &bytes);
        let size = if kind == writer::INT32 { 4 } else { 1 };
        let zeros = (0..scales.len()).map(|index| zeros.get(index).or(zeros.first()).copied().unwrap_or(0));
        let bytes: Vec<u8> = zeros.flat_map(|zero| zero.to_le_bytes().into_iter().take(size)).collect();
        graph.weight(&zero, kind, shape, &bytes);
        quantized = Some(Quantized { scale, zero, axis: i64::from(told.i32(6).unwrap_or(0)) });
    }
    let quantized = quantized.filter(|_| matches!(kind, 2 | 3 | writer::INT32));
    let shape = shape.into_iter().map(i64::from).collect();
    Ok(Tensor { name, kind, shape, data, quantized, value: None })
}

/// `TensorProto.DataType` of TFLite's `TensorType`.
fn kind(number: i8) -> Option<u64> {
    Some(match number {
        0 => FLOAT,
        1 => 10,
        2 => writer::INT32,
        3 => 2,
        4 => writer::INT64,
        6 => 9,
        9 => 3,
        10 => 11,
        _ => return None,
    })
}

impl Translation<'_> {
    fn tensor(&self, index: i32) -> Result<&Tensor<'_>, String> {
        let tensor = usize::try_from(index).ok().and_then(|index| self.tensors.get(index));
        tensor.ok_or_else(|| format!("it has no tensor {index}"))
    }

    fn input(&mut self, index: i32, name: Option<&str>) -> Result<(), String> {
        let (kind, shape) = (self.tensor(index)?.kind, self.tensor(index)?.shape.clone());
        let name = name.unwrap_or(self.tensor(index)?.name).to_owned();
        self.graph.spend(shape.len())?;
        self.graph.input(&name, kind, &shape);
        self.set(index, name)
    }

    fn output(&mut self, index: i32, name: Option<&str>) -> Result<(), String> {
        let (kind, shape) = (self.tensor(index)?.kind, self.tensor(index)?.shape.clone());
        let name = name.unwrap_or(self.tensor(index)?.name).to_owned();
        let value = self.raw(index)?;
        self.graph.spend(shape.len())?;
        self.graph.node_to(&name, "Identity", &[&value], &[]);
        self.graph.output(&name, kind, &shape);
        Ok(())
    }

    fn set(&mut self, index: i32, value: String) -> Result<(), String> {
        let tensor = usize::try_from(index).ok().and_then(|index| self.tensors.get_mut(index));
        tensor.ok_or_else(|| format!("it has no tensor {index}"))?.value = Some(value);
        Ok(())
    }

    /// The tensor's value as it is kept; a constant becomes a weight when it is first used.
    fn raw(&mut self, index: i32) -> Result<String, String> {
        let tensor = self.tensor(index)?;
        if let Some(value) = &tensor.value {
            return Ok(value.clone());
        }
        let (kind, shape) = (tensor.kind, tensor.shape.clone());
        let place = usize::try_from(index).unwrap_or(usize::MAX);
        let data = self.tensors.get(place).and_then(|tensor| tensor.data);
        let data = data.ok_or_else(|| format!("its tensor {index} is used before it is made"))?;
        let name = self.graph.name();
        self.graph.weight(&name, kind, &shape, data);
        self.set(index, name.clone())?;
        Ok(name)
    }

    /// The tensor as floats, if it stands for floats.
    fn float(&mut self, index: i32) -> Result<String, String> {
        let raw = self.raw(index)?;
        let Some(Quantized { scale, zero, axis }) = self.tensor(index)?.quantized.clone() else {
            return Ok(raw);
        };
        Ok(self.graph.node("DequantizeLinear", &[&raw, &scale, &zero], &[("axis", Attribute::Int(axis))]))
    }

    /// Makes a tensor of what an operator computed in floats.
    fn give(&mut self, index: i32, value: String) -> Result<(), String> {
        let value = match self.tensor(index)?.quantized.clone() {
            None => value,
            Some(Quantized { scale, zero, .. }) => {
                self.graph.node("QuantizeLinear", &[&value, &scale, &zero], &[])
            }
        };
        self.set(index, value)
    }

    /// The elements of a constant of whole numbers.
    fn constant(&self, index: i32) -> Result<Vec<i64>, String> {
        let tensor = self.tensor(index)?;
        let data = tensor.data.ok_or_else(|| format!("its tensor `{}` must be constant", tensor.name))?;
        let number = |bytes: &[u8]| match bytes {
            [a, b, c, d] => Some(i64::from(i32::from_le_bytes([*a, *b, *c, *d]))),
            _ => Some(i64::from_le_bytes(bytes.try_into().ok()?)),
        };
        let size = if tensor.kind == writer::INT64 { 8 } else { 4 };
        Ok(data.chunks_exact(size).filter_map(number).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODELS: [&[u8]; 3] = [
        include_bytes!("../tests/data/tensorflow/float.tflite"),
        include_bytes!("../tests/data/tensorflow/int8.tflite"),
        include_bytes!("../tests/data/tensorflow/two.tflite"),
    ];

    #[test]
    fn every_operator_of_the_models_has_a_translation() {
        for model in MODELS {
            translate(model).unwrap();
        }
    }

    proptest::proptest! {
        #[test]
        fn damaged_files_are_errors_and_never_panics(
            model in 0..MODELS.len(), at in 0..1400_usize, value in proptest::num::u8::ANY
        ) {
            let mut bytes = MODELS[model].to_vec();
            let _ = translate(&bytes[..at]);
            bytes[at] = value;
            let _ = translate(&bytes);
        }
    }
}
