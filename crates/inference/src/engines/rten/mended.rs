//! What rten computes otherwise than ONNX says, said with operators that it computes right.
//!
//! Nodes of the graph itself only: those inside of others, and what no other operator says, are [refused](super::refused).

use std::collections::BTreeSet;
use std::io::Cursor;

use crate::format::{Format, FormatError};
use crate::onnx::nodes::{Node, Nodes};
use crate::protobuf::{Message, Reader, Value};

// Fields of `ModelProto`, `GraphProto` and `NodeProto`.
const GRAPH: u64 = 7;
const NODE: u64 = 1;
const WEIGHT: u64 = 5;
const INPUT: u64 = 1;
const OUTPUT: u64 = 2;
const OPERATOR: u64 = 4;
const ATTRIBUTE: u64 = 5;
const DOMAIN: u64 = 7;
// Types of tensors and attributes.
const INT64: u64 = 7;
const INT: u64 = 2;
/// Where a `TensorProto` says that its data is in another file.
const EXTERNAL: u64 = 13;

/// How many values are added at most: each node needs a few, and each of them some 50 bytes.
const MOST_NAMES: usize = 1 << 16;

/// Whether a model has nodes to mend.
pub(super) fn is_needed(nodes: &Nodes) -> bool {
    nodes.all.iter().any(|node| !node.is_inside && difference(node, nodes).is_some())
}

/// What rten computes otherwise, of that which can be mended.
pub(super) fn difference(node: &Node, nodes: &Nodes) -> Option<&'static str> {
    let vectors = if node.is_inside { &nodes.vectors_inside } else { &nodes.vectors };
    let second_is_vector = || node.inputs.get(1).is_some_and(|input| vectors.contains(input));
    match node.operator.as_str() {
        _ if !node.domain.is_empty() => None,
        "ArgMax" | "ArgMin" => Some("of equal values it takes the last instead of the first"),
        "Sign" => Some("the sign of 0 is 1 instead of 0"),
        "MatMul" if second_is_vector() => Some("many matrices times a vector keep a dimension too many"),
        _ => None,
    }
}

/// A model with such nodes mended.
pub(super) struct Model {
    pub bytes: Vec<u8>,
    /// The files that its weights are in, by their paths from the model's folder.
    pub files: BTreeSet<String>,
}

/// Mends the nodes of a model.
///
/// # Errors
/// When it is damaged, or has absurdly many of them.
pub(super) fn mend(model: &[u8], nodes: &Nodes) -> Result<Model, FormatError> {
    let (mut names, mut files) = (0, BTreeSet::new());
    let bytes = rewrite(model, |field, content, model| {
        if field != GRAPH {
            return Ok(model.bytes(field, content));
        }
        let graph = rewrite(content, |field, content, graph| {
            if field == WEIGHT {
                files.extend(file_of(content)?);
            }
            if field != NODE {
                return Ok(graph.bytes(field, content));
            }
            let known = Known::read(content)?;
            if difference(&known.node, nodes).is_none() {
                return Ok(graph.bytes(field, content));
            }
            let mended = Mended { graph, names }.mend(&known, content)?;
            names = mended.names;
            if names > MOST_NAMES {
                return Err(Format::Onnx.damaged("too many nodes that rten needs in other words"));
            }
            Ok(mended.graph)
        })?;
        Ok(model.bytes(field, &graph))
    })?;
    Ok(Model { bytes, files })
}

/// The file that a weight is in, if it isn't in the model.
fn file_of(tensor: &[u8]) -> Result<Option<String>, FormatError> {
    let mut file = None;
    let mut reader = Reader::new(Cursor::new(tensor), Format::Onnx);
    reader.message(tensor.len() as u64, |reader, field, end| {
        if field != EXTERNAL {
            return Ok(());
        }
        let (mut key, mut value) = (String::new(), String::new());
        reader.message(end, |reader, field, end| {
            match field {
                1 => key = reader.string(end)?,
                2 => value = reader.string(end)?,
                _ => {}
            }
            Ok(())
        })?;
        if key == "location" {
            file = Some(value);
        }
        Ok(())
    })?;
    Ok(file)
}

/// A node as far as it matters here.
#[derive(Default)]
struct Known {
    node: Node,
    output: String,
    axis: i64,
    takes_last: bool,
}

impl Known {
    fn read(node: &[u8]) -> Result<Self, FormatError> {
        let mut known = Self::default();
        let mut reader = Reader::new(Cursor::new(node), Format::Onnx);
        reader.message(node.len() as u64, |reader, field, end| {
            match field {
                INPUT => known.node.inputs.push(reader.string(end)?),
                OUTPUT => known.output = reader.string(end)?,
                OPERATOR => known.node.operator = reader.string(end)?,
                DOMAIN => known.node.domain = reader.string(end)?,
                ATTRIBUTE => {
                    let (mut name, mut number) = (String::new(), 0);
                    reader.fields(end, |reader, field, value| {
                        match (field, value) {
                            (1, Value::Message(end)) => name = reader.string(end)?,
                            (3, Value::Varint(value)) => number = value.cast_signed(),
                            _ => {}
                        }
                        Ok(())
                    })?;
                    match name.as_str() {
                        "axis" => known.axis = number,
                        SELECT_LAST => known.takes_last = number != 0,
                        _ => {}
                    }
                }
                _ => {}
            }
            Ok(())
        })?;
        if known.node.domain == "ai.onnx" {
            known.node.domain.clear();
        }
        Ok(known)
    }

    fn input(&self, index: usize) -> &str {
        self.node.inputs.get(index).map_or("", String::as_str)
    }
}

const SELECT_LAST: &str = "select_last_index";

/// A graph with nodes that stand for those that are mended, and how many names they have.
struct Mended {
    graph: Message,
    names: usize,
}

impl Mended {
    fn mend(mut self, known: &Known, node: &[u8]) -> Result<Self, FormatError> {
        let first = known.input(0);
        Ok(match known.node.operator.as_str() {
            // That is what it does, but it takes no model that says so.
            "ArgMax" | "ArgMin" if known.takes_last => {
                let plain = rewrite(node, |field, content, node| {
                    let is_word = field == ATTRIBUTE
                        && content.windows(SELECT_LAST.len()).any(|part| part == SELECT_LAST.as_bytes());
                    Ok(if is_word { node } else { node.bytes(field, content) })
                })?;
                self.with(NODE, &plain)
            }
            // Counted from the end, the first is the last.
            "ArgMax" | "ArgMin" => {
                let [reversed, counted, shape, length, last] = self.names();
                let [back, end, axes, axis, one] = self.names();
                let found = rewrite(node, |field, content, node| {
                    Ok(match field {
                        INPUT => node.bytes(field, reversed.as_bytes()),
                        OUTPUT => node.bytes(field, counted.as_bytes()),
                        _ => node.bytes(field, content),
                    })
                })?;
                // Before the first, however long the axis is.
                self.list(&end, &[i64::from(i32::MIN) + 1])
                    .list(&back, &[-1])
                    .list(&axes, &[known.axis])
                    .number(&axis, known.axis)
                    .number(&one, 1)
                    .node("Slice", &[first, &back, &end, &axes, &back], &reversed)
                    .with(NODE, &found)
                    .node("Shape", &[first], &shape)
                    .node("Gather", &[&shape, &axis], &length)
                    .node("Sub", &[&length, &one], &last)
                    .node("Sub", &[&last, &counted], &known.output)
            }
            // Times 0 where it is 0, else 1.
            "Sign" => {
                let [sign, zero, is_zero, is_other, factor] = self.names();
                // Nothing of any type; of infinity no number, which nothing equals.
                self.node("Sub", &[first, first], &zero)
                    .node("Sign", &[first], &sign)
                    .node("Equal", &[first, &zero], &is_zero)
                    .node("Not", &[&is_zero], &is_other)
                    .node("CastLike", &[&is_other, first], &factor)
                    .node("Mul", &[&sign, &factor], &known.output)
            }
            // Times a matrix of one column, of which there is no doubt.
            "MatMul" => {
                let [column, matrix, product, zero] = self.names();
                let last = attribute("axis", (-1_i64).cast_unsigned());
                let drop = Message(simple("Gather", &[&product, &zero], &known.output));
                self.list(&column, &[-1, 1])
                    .number(&zero, 0)
                    .node("Reshape", &[known.input(1), &column], &matrix)
                    .node("MatMul", &[first, &matrix], &product)
                    .with(NODE, &drop.bytes(ATTRIBUTE, &last).0)
            }
            _ => self.with(NODE, node),
        })
    }

    /// Names that nothing else has.
    fn names<const N: usize>(&mut self) -> [String; N] {
        std::array::from_fn(|_| {
            self.names += 1;
            format!("avocet.dev/mended/{}", self.names)
        })
    }

    fn with(self, field: u64, content: &[u8]) -> Self {
        Self { graph: self.graph.bytes(field, content), ..self }
    }

    fn list(self, name: &str, values: &[i64]) -> Self {
        self.weight(name, Message::default().number(1, values.len() as u64), values)
    }

    fn number(self, name: &str, value: i64) -> Self {
        self.weight(name, Message::default(), &[value])
    }

    fn weight(self, name: &str, shaped: Message, values: &[i64]) -> Self {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.with(WEIGHT, &shaped.number(2, INT64).bytes(8, name.as_bytes()).bytes(9, &data).0)
    }

    fn node(self, operator: &str, inputs: &[&str], output: &str) -> Self {
        self.with(NODE, &simple(operator, inputs, output))
    }
}

/// A node without attributes.
fn simple(operator: &str, inputs: &[&str], output: &str) -> Vec<u8> {
    let node = inputs.iter().fold(Message::default(), |node, input| node.bytes(INPUT, input.as_bytes()));
    node.bytes(OUTPUT, output.as_bytes()).bytes(OPERATOR, operator.as_bytes()).0
}

/// An attribute that is a number.
fn attribute(name: &str, value: u64) -> Vec<u8> {
    Message::default().bytes(1, name.as_bytes()).number(3, value).number(20, INT).0
}

/// A message with other fields: `write` adds what is to be there for each that has a length.
fn rewrite(
    message: &[u8],
    mut write: impl FnMut(u64, &[u8], Message) -> Result<Message, FormatError>,
) -> Result<Vec<u8>, FormatError> {
    let mut reader = Reader::new(Cursor::new(message), Format::Onnx);
    let mut written = Message(Vec::with_capacity(message.len()));
    reader.fields(message.len() as u64, |reader, field, value| {
        let so_far = std::mem::take(&mut written);
        written = match value {
            Value::Varint(number) => so_far.number(field, number),
            Value::Fixed32(bytes) => so_far.fixed32(field, bytes),
            Value::Fixed64(bytes) => so_far.fixed64(field, bytes),
            Value::Message(end) => write(field, &reader.bytes(end)?, so_far)?,
        };
        Ok(())
    })?;
    Ok(written.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::rten::Rten;
    use crate::tflite::writer::{Attribute, FLOAT, Graph};
    use crate::{Engine, LoadOptions, Tensor};

    /// What rten answers as a model of one node.
    fn answer(
        operator: &str,
        inputs: &[(&[usize], &[f32])],
        kind: u64,
        axis: Option<i64>,
    ) -> (Vec<usize>, Vec<u8>) {
        let mut graph = Graph::of_file(1000);
        let names: Vec<String> = (0..inputs.len()).map(|index| format!(".in{index}")).collect();
        for (name, (shape, _)) in names.iter().zip(inputs) {
            let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
            graph.input(name, FLOAT, &shape);
        }
        let attributes: Vec<_> = axis
            .into_iter()
            .flat_map(|axis| [("axis", Attribute::Int(axis)), ("keepdims", Attribute::Int(0))])
            .collect();
        let named: Vec<&str> = names.iter().map(String::as_str).collect();
        graph.node_to("out", operator, &named, &attributes);
        graph.output("out", kind, &[]);
        let tensors = names.iter().zip(inputs).map(|(name, (shape, values))| {
            Tensor::from_vec(name.clone(), shape.to_vec(), values.to_vec()).unwrap()
        });
        let answered = run(graph, &tensors.collect::<Vec<_>>());
        (answered.shape().to_vec(), answered.data().to_vec())
    }

    fn run(graph: Graph, inputs: &[Tensor]) -> Tensor {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.onnx");
        std::fs::write(&path, graph.finish()).unwrap();
        let model = Rten::new(1).load(&path, &LoadOptions { workers: 1, threads: 0, instances: 0 }).unwrap();
        model.run(inputs, &["out"]).unwrap().remove(0)
    }

    fn numbers(values: &[i64]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn of_equal_values_the_first_is_found() {
        let x: (&[usize], &[f32]) = (&[2, 3], &[5.0, 1.0, 5.0, 2.0, 1.0, 1.0]);
        assert_eq!(answer("ArgMax", &[x], INT64, Some(1)), (vec![2], numbers(&[0, 0])));
        assert_eq!(answer("ArgMin", &[x], INT64, Some(-1)), (vec![2], numbers(&[1, 1])));
        assert_eq!(answer("ArgMin", &[x], INT64, Some(0)), (vec![3], numbers(&[1, 0, 1])));
    }

    #[test]
    fn nothing_has_no_sign() {
        let x: (&[usize], &[f32]) = (&[5], &[-2.5, -0.0, 0.0, 0.25, f32::INFINITY]);
        assert_eq!(answer("Sign", &[x], FLOAT, None), (vec![5], floats(&[-1.0, -0.0, 0.0, 1.0, 1.0])));
        let mut graph = Graph::of_file(1000);
        graph.input("x", INT64, &[3]);
        graph.node_to("out", "Sign", &["x"], &[]);
        graph.output("out", INT64, &[3]);
        let x = Tensor::from_vec("x", [3], vec![-7_i64, 0, 7]).unwrap();
        assert_eq!(run(graph, &[x]).data().to_vec(), numbers(&[-1, 0, 1]));
    }

    #[test]
    fn weights_in_another_file_are_found() {
        let model = |location: &str| {
            let entry = |key: &str, value: &str| {
                Message::default().bytes(1, key.as_bytes()).bytes(2, value.as_bytes()).0
            };
            let weight = Message::default().number(1, 2).number(2, FLOAT).bytes(8, b"v");
            let place = [("location", location), ("offset", "0"), ("length", "8")];
            let weight =
                place.iter().fold(weight, |weight, (key, value)| weight.bytes(EXTERNAL, &entry(key, value)));
            let weight = weight.number(14, 1);
            let mut graph = Graph::of_file(1000);
            graph.input("x", FLOAT, &[1, 2]);
            graph.node_to("out", "MatMul", &["x", "v"], &[]);
            graph.output("out", FLOAT, &[1]);
            let model = graph.finish();
            rewrite(&model, |field, content, model| {
                let content = if field == GRAPH {
                    Message(content.to_vec()).bytes(WEIGHT, &weight.0).0
                } else {
                    content.to_vec()
                };
                Ok(model.bytes(field, &content))
            })
            .unwrap()
        };
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("w.data"), floats(&[1.0, 10.0])).unwrap();
        std::fs::create_dir(folder.path().join("m")).unwrap();
        let load = |path: &str, location: &str| {
            let path = folder.path().join(path);
            std::fs::write(&path, model(location)).unwrap();
            Rten::new(1).load(&path, &LoadOptions { workers: 1, threads: 0, instances: 0 })
        };
        let x = Tensor::from_vec("x", [1, 2], vec![2.0_f32, 3.0]).unwrap();
        let answered = load("m.onnx", "w.data").unwrap().run(&[x], &["out"]).unwrap().remove(0);
        assert_eq!((answered.shape(), answered.data().to_vec()), (&[1][..], floats(&[32.0])));
        for location in ["../w.data", folder.path().join("w.data").to_str().unwrap(), ""] {
            assert!(load("m/m.onnx", location).is_err(), "{location} is not in the model's folder");
        }
    }

    #[test]
    fn times_a_vector_the_last_dimension_goes() {
        let vector: (&[usize], &[f32]) = (&[2], &[1.0, 10.0]);
        let values: Vec<f32> = (1_u8..=8).map(f32::from).collect();
        for (shape, expected) in [
            (&[2_usize][..], &[21.0][..]),
            (&[1, 2], &[21.0]),
            (&[2, 2], &[21.0, 43.0]),
            (&[2, 2, 2], &[21.0, 43.0, 65.0, 87.0]),
            (&[1, 2, 2], &[21.0, 43.0]),
        ] {
            let count = shape.iter().product();
            let answered = answer("MatMul", &[(shape, &values[..count]), vector], FLOAT, None);
            let (_, kept) = shape.split_last().unwrap();
            assert_eq!(answered, (kept.to_vec(), floats(expected)), "{shape:?}");
        }
    }
}
