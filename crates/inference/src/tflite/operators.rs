//! TFLite's operators in ONNX's words.

use super::Translation;
use super::flatbuffer::Table;
use super::writer::{Attribute, INT64};

const TO_CHANNELS_FIRST: &[i64] = &[0, 3, 1, 2];
const TO_CHANNELS_LAST: &[i64] = &[0, 2, 3, 1];

/// An operator on its way.
struct Operator<'a> {
    inputs: Vec<i32>,
    output: i32,
    options: Option<Table<'a>>,
}

impl Operator<'_> {
    fn input(&self, index: usize) -> Result<i32, String> {
        self.inputs
            .get(index)
            .copied()
            .filter(|input| *input >= 0)
            .ok_or_else(|| "an operator lacks an input".into())
    }

    fn byte(&self, field: usize) -> i8 {
        self.options.and_then(|options| options.i8(field)).unwrap_or(0)
    }

    fn int(&self, field: usize, default: i32) -> i64 {
        self.options.and_then(|options| options.i32(field)).unwrap_or(default).into()
    }
}

/// Adds the nodes of one operator.
pub(super) fn translate(to: &mut Translation<'_>, number: i32, operator: Table<'_>) -> Result<(), String> {
    let outputs = operator.i32s(2);
    let [output] = outputs.as_slice() else {
        return Err(format!("its operator {number} has {} outputs", outputs.len()));
    };
    let operator = Operator { inputs: operator.i32s(1), output: *output, options: operator.table(4) };
    to.graph.spend(operator.inputs.len() * size_of::<i32>())?;
    let value = match number {
        0 => binary(to, &operator, "Add")?,
        18 => binary(to, &operator, "Mul")?,
        41 => binary(to, &operator, "Sub")?,
        42 => binary(to, &operator, "Div")?,
        55 => plain(to, &operator, "Max", 2)?,
        57 => plain(to, &operator, "Min", 2)?,
        14 => plain(to, &operator, "Sigmoid", 1)?,
        19 => plain(to, &operator, "Relu", 1)?,
        28 => plain(to, &operator, "Tanh", 1)?,
        47 => plain(to, &operator, "Exp", 1)?,
        59 => plain(to, &operator, "Neg", 1)?,
        75 => plain(to, &operator, "Sqrt", 1)?,
        101 => plain(to, &operator, "Abs", 1)?,
        117 => plain(to, &operator, "HardSwish", 1)?,
        // Both pass their input on; what is quantized shows in the tensors.
        6 | 114 => to.float(operator.input(0)?)?,
        21 => {
            let x = to.float(operator.input(0)?)?;
            activated(to, x, 3)?
        }
        98 => {
            let x = to.float(operator.input(0)?)?;
            let alpha = operator.options.and_then(|options| options.f32(0)).unwrap_or(0.0);
            to.graph.node("LeakyRelu", &[&x], &[("alpha", Attribute::Float(alpha))])
        }
        1 => pool(to, &operator, "AveragePool")?,
        17 => pool(to, &operator, "MaxPool")?,
        2 => concatenation(to, &operator)?,
        3 => convolution(to, &operator)?,
        4 => depthwise(to, &operator)?,
        9 => fully_connected(to, &operator)?,
        25 => softmax(to, &operator)?,
        40 => mean(to, &operator)?,
        _ => return layout(to, number, &operator),
    };
    to.give(operator.output, value)
}

/// Operators that move elements and compute nothing: quantized ones stay as they are.
fn layout(to: &mut Translation<'_>, number: i32, operator: &Operator<'_>) -> Result<(), String> {
    let x = to.raw(operator.input(0)?)?;
    let value = match number {
        22 => {
            let shape = to.raw(operator.input(1)?)?;
            let shape = to.graph.node("Cast", &[&shape], &[("to", Attribute::Int(INT64 as i64))]);
            to.graph.node("Reshape", &[&x, &shape], &[])
        }
        39 => {
            let order = to.constant(operator.input(1)?)?;
            to.graph.node("Transpose", &[&x], &[("perm", Attribute::Ints(&order))])
        }
        34 => {
            let pads = to.constant(operator.input(1)?)?;
            let (before, after): (Vec<_>, Vec<_>) =
                pads.chunks_exact(2).filter_map(|pair| Some((*pair.first()?, *pair.last()?))).unzip();
            let pads = to.graph.ints(&[before, after].concat());
            return pad(to, operator, &pads);
        }
        43 => {
            let axes = operator.options.map(|options| options.i32s(0)).unwrap_or_default();
            let axes = to.graph.ints(&axes.into_iter().map(i64::from).collect::<Vec<_>>());
            to.graph.node("Squeeze", &[&x, &axes], &[])
        }
        70 => {
            let axes = to.constant(operator.input(1)?)?;
            let axes = to.graph.ints(&axes);
            to.graph.node("Unsqueeze", &[&x, &axes], &[])
        }
        45 => strided_slice(to, operator, &x)?,
        53 => {
            let kind = to.tensor(operator.output)?.kind;
            to.graph.node("Cast", &[&x], &[("to", Attribute::Int(kind as i64))])
        }
        77 => {
            let shape = to.graph.node("Shape", &[&x], &[]);
            let kind = to.tensor(operator.output)?.kind;
            to.graph.node("Cast", &[&shape], &[("to", Attribute::Int(kind as i64))])
        }
        83 => {
            let axis = operator.int(1, 0);
            let axes = to.graph.ints(&[axis]);
            let mut parts = Vec::new();
            for input in &operator.inputs {
                let part = to.raw(*input)?;
                parts.push(to.graph.node("Unsqueeze", &[&part, &axes], &[]));
            }
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            to.graph.node("Concat", &parts, &[("axis", Attribute::Int(axis))])
        }
        other => return Err(format!("its operator {other} of TFLite's list has no translation")),
    };
    to.set(operator.output, value)
}

fn plain(
    to: &mut Translation<'_>,
    operator: &Operator<'_>,
    name: &str,
    count: usize,
) -> Result<String, String> {
    let mut inputs = Vec::new();
    for index in 0..count {
        inputs.push(to.float(operator.input(index)?)?);
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    Ok(to.graph.node(name, &inputs, &[]))
}

fn binary(to: &mut Translation<'_>, operator: &Operator<'_>, name: &str) -> Result<String, String> {
    let value = plain(to, operator, name, 2)?;
    activated(to, value, operator.byte(0))
}

/// `ActivationFunctionType`, fused into many operators.
fn activated(to: &mut Translation<'_>, value: String, activation: i8) -> Result<String, String> {
    let mut clip = |least: f32, most: f32| {
        let (least, most) = (to.graph.float(least), to.graph.float(most));
        to.graph.node("Clip", &[&value, &least, &most], &[])
    };
    Ok(match activation {
        0 => value,
        1 => to.graph.node("Relu", &[&value], &[]),
        2 => clip(-1.0, 1.0),
        3 => clip(0.0, 6.0),
        4 => to.graph.node("Tanh", &[&value], &[]),
        other => return Err(format!("its activation {other} has no translation")),
    })
}

fn transposed(to: &mut Translation<'_>, value: &str, order: &[i64]) -> String {
    to.graph.node("Transpose", &[value], &[("perm", Attribute::Ints(order))])
}

/// `VALID` is written as pads of zero: not every engine knows that word.
fn padding(operator: &Operator<'_>) -> (&'static str, Attribute<'static>) {
    match operator.byte(0) {
        0 => ("auto_pad", Attribute::Text("SAME_UPPER")),
        _ => ("pads", Attribute::Ints(&[0; 4])),
    }
}

fn convolution(to: &mut Translation<'_>, operator: &Operator<'_>) -> Result<String, String> {
    let dilations = [operator.int(5, 1), operator.int(4, 1)];
    let channels = to.tensor(operator.input(0)?)?.shape.last().copied().unwrap_or(-1);
    let of_a_filter = to.tensor(operator.input(1)?)?.shape.last().copied().unwrap_or(-1);
    let groups = if channels > 0 && of_a_filter > 0 { channels / of_a_filter } else { 1 };
    convolve(to, operator, TO_CHANNELS_FIRST, groups, &dilations, operator.byte(3))
}

fn depthwise(to: &mut Translation<'_>, operator: &Operator<'_>) -> Result<String, String> {
    let dilations = [operator.int(6, 1), operator.int(5, 1)];
    let filters = to.tensor(operator.input(1)?)?.shape.last().copied().unwrap_or(1);
    let groups = filters / operator.int(3, 1).max(1);
    convolve(to, operator, &[3, 0, 1, 2], groups, &dilations, operator.byte(4))
}

fn convolve(
    to: &mut Translation<'_>,
    operator: &Operator<'_>,
    weights_order: &[i64],
    groups: i64,
    dilations: &[i64],
    activation: i8,
) -> Result<String, String> {
    let x = to.float(operator.input(0)?)?;
    let x = transposed(to, &x, TO_CHANNELS_FIRST);
    let weights = to.float(operator.input(1)?)?;
    let mut inputs = vec![x, transposed(to, &weights, weights_order)];
    if let Ok(bias) = operator.input(2) {
        inputs.push(to.float(bias)?);
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let attributes = [
        padding(operator),
        ("strides", Attribute::Ints(&[operator.int(2, 1), operator.int(1, 1)])),
        ("dilations", Attribute::Ints(dilations)),
        ("group", Attribute::Int(groups)),
    ];
    let value = to.graph.node("Conv", &inputs, &attributes);
    let value = activated(to, value, activation)?;
    Ok(transposed(to, &value, TO_CHANNELS_LAST))
}

fn pool(to: &mut Translation<'_>, operator: &Operator<'_>, name: &str) -> Result<String, String> {
    let x = to.float(operator.input(0)?)?;
    let x = transposed(to, &x, TO_CHANNELS_FIRST);
    let attributes = [
        padding(operator),
        ("strides", Attribute::Ints(&[operator.int(2, 1), operator.int(1, 1)])),
        ("kernel_shape", Attribute::Ints(&[operator.int(4, 1), operator.int(3, 1)])),
    ];
    let value = to.graph.node(name, &[&x], &attributes);
    let value = activated(to, value, operator.byte(5))?;
    Ok(transposed(to, &value, TO_CHANNELS_LAST))
}

fn fully_connected(to: &mut Translation<'_>, operator: &Operator<'_>) -> Result<String, String> {
    let weights = operator.input(1)?;
    let width = to.tensor(weights)?.shape.last().copied().unwrap_or(-1);
    let (mut value, weights) = (to.float(operator.input(0)?)?, to.float(weights)?);
    if operator.byte(2) == 0 {
        let flat = to.graph.ints(&[-1, width]);
        value = to.graph.node("Reshape", &[&value, &flat], &[]);
    }
    let weights = transposed(to, &weights, &[1, 0]);
    value = to.graph.node("MatMul", &[&value, &weights], &[]);
    if let Ok(bias) = operator.input(2) {
        let bias = to.float(bias)?;
        value = to.graph.node("Add", &[&value, &bias], &[]);
    }
    activated(to, value, operator.byte(0))
}

fn softmax(to: &mut Translation<'_>, operator: &Operator<'_>) -> Result<String, String> {
    let mut value = to.float(operator.input(0)?)?;
    let beta = operator.options.and_then(|options| options.f32(0)).unwrap_or(1.0);
    if beta != 1.0 {
        let beta = to.graph.float(beta);
        value = to.graph.node("Mul", &[&value, &beta], &[]);
    }
    Ok(to.graph.node("Softmax", &[&value], &[("axis", Attribute::Int(-1))]))
}

fn mean(to: &mut Translation<'_>, operator: &Operator<'_>) -> Result<String, String> {
    let value = to.float(operator.input(0)?)?;
    let axes = to.constant(operator.input(1)?)?;
    let axes = to.graph.ints(&axes);
    let keep = Attribute::Int(operator.byte(0).into());
    Ok(to.graph.node("ReduceMean", &[&value, &axes], &[("keepdims", keep)]))
}

fn concatenation(to: &mut Translation<'_>, operator: &Operator<'_>) -> Result<String, String> {
    let mut parts = Vec::new();
    for input in &operator.inputs {
        parts.push(to.float(*input)?);
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let value = to.graph.node("Concat", &parts, &[("axis", Attribute::Int(operator.int(0, 0)))]);
    activated(to, value, operator.byte(1))
}

/// Pads with zeros, which a quantized tensor has as another number.
fn pad(to: &mut Translation<'_>, operator: &Operator<'_>, pads: &str) -> Result<(), String> {
    let value = to.float(operator.input(0)?)?;
    let value = to.graph.node("Pad", &[&value, pads], &[]);
    to.give(operator.output, value)
}

/// `x[begin:end:stride]` with constant bounds; the masks say which bounds are open and which axes go.
fn strided_slice(to: &mut Translation<'_>, operator: &Operator<'_>, x: &str) -> Result<String, String> {
    if operator.int(2, 0) != 0 || operator.int(3, 0) != 0 {
        return Err("a slice with an ellipsis or a new axis has no translation".into());
    }
    let mut begin = to.constant(operator.input(1)?)?;
    let mut end = to.constant(operator.input(2)?)?;
    let stride = to.constant(operator.input(3)?)?;
    let masked = |field: usize, axis: usize| operator.int(field, 0) >> axis & 1 == 1;
    let mut gone = Vec::new();
    for (axis, ((begin, end), stride)) in begin.iter_mut().zip(&mut end).zip(&stride).enumerate() {
        let forward = *stride > 0;
        if masked(4, axis) {
            gone.push(axis as i64);
            *end = if *begin == -1 { i64::MAX } else { begin.saturating_add(1) };
            continue;
        }
        if masked(0, axis) {
            *begin = if forward { 0 } else { i64::MAX };
        }
        if masked(1, axis) {
            *end = if forward { i64::MAX } else { i64::MIN };
        }
    }
    let axes: Vec<i64> = (0..begin.len() as i64).collect();
    let lists = [&begin, &end, &axes, &stride].map(|list| to.graph.ints(list));
    let [begin, end, axes, stride] = &lists;
    let value = to.graph.node("Slice", &[x, begin, end, axes, stride], &[]);
    if gone.is_empty() {
        return Ok(value);
    }
    let gone = to.graph.ints(&gone);
    Ok(to.graph.node("Squeeze", &[&value, &gone], &[]))
}
