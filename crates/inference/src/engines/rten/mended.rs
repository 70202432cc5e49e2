//! What rten computes otherwise than ONNX says, said with operators that it computes right.
//!
//! Functions of a model's own, and what no other operators say, are [refused](super::refused).

mod cubic;
mod suppress;
mod writer;

use std::collections::{BTreeSet, HashSet};
use std::io::Cursor;

use crate::format::{Format, FormatError};
use crate::onnx::nodes::{self, Node, Nodes};
use crate::protobuf::{Message, Reader, Value};
use crate::tflite::writer::Attribute;
use writer::Writer;

// Fields of `ModelProto`, `GraphProto` and `NodeProto`.
const GRAPH: u64 = 7;
const NODE: u64 = 1;
const WEIGHT: u64 = 5;
const INPUT: u64 = 1;
const OUTPUT: u64 = 2;
const ATTRIBUTE: u64 = 5;
/// Where an `AttributeProto` holds one graph, or many.
const GRAPHS: [u64; 2] = [6, 11];
/// Where a `TensorProto` says that its data is in another file.
const EXTERNAL: u64 = 13;

/// How many values are added at most: each node needs a few, and each of them some 50 bytes.
const MOST_NAMES: usize = 1 << 16;

/// Whether a model has nodes to mend.
pub(super) fn is_needed(nodes: &Nodes) -> bool {
    nodes.all.iter().any(|node| !node.is_in_function && difference(node, &nodes.vectors).is_some())
}

/// What rten computes otherwise, of that which can be mended.
pub(super) fn difference(node: &Node, vectors: &HashSet<String>) -> Option<&'static str> {
    let second_is_vector = || node.inputs.get(1).is_some_and(|input| vectors.contains(input));
    match node.operator.as_str() {
        _ if !node.domain.is_empty() => None,
        "ArgMax" | "ArgMin" => Some("of equal values it takes the last instead of the first"),
        "Sign" => Some("the sign of 0 is 1 instead of 0"),
        "MatMul" if second_is_vector() => Some("many matrices times a vector keep a dimension too many"),
        "NonMaxSuppression" => Some("it counts the boxes of all classes and images together"),
        "Resize" if cubic::is(node) => Some("it interpolates linearly where it should cubically"),
        _ => None,
    }
}

/// Why a node that differs can't be mended.
pub(super) fn obstacle(node: &Node) -> Option<&'static str> {
    match node.operator.as_str() {
        _ if node.is_in_function => Some("in a function of the model's own"),
        "Resize" => cubic::obstacle(node),
        _ => None,
    }
}

/// A model with such nodes mended.
pub(super) struct Model {
    pub bytes: Vec<u8>,
    /// The files that its weights are in, by their paths from the model's folder.
    pub files: BTreeSet<String>,
}

/// Mends the nodes of a model, those of graphs inside of nodes, too.
///
/// # Errors
/// When it is damaged, or has absurdly many of them.
pub(super) fn mend(model: &[u8]) -> Result<Model, FormatError> {
    let mut mending = Mending::default();
    let bytes = rewrite(model, |field, content, model| match field {
        GRAPH => Ok(model.bytes(field, &mending.graph(content, &HashSet::new())?)),
        _ => Ok(model.bytes(field, content)),
    })?;
    Ok(Model { bytes, files: mending.files })
}

#[derive(Default)]
struct Mending {
    /// How many values were added.
    names: usize,
    files: BTreeSet<String>,
}

impl Mending {
    /// Mends a graph, around which these vectors are known.
    fn graph(&mut self, graph: &[u8], around: &HashSet<String>) -> Result<Vec<u8>, FormatError> {
        let mut vectors = nodes::vectors(graph)?;
        vectors.extend(around.iter().cloned());
        rewrite(graph, |field, content, graph| {
            if field == WEIGHT {
                self.files.extend(file_of(content)?);
            }
            if field != NODE {
                return Ok(graph.bytes(field, content));
            }
            let node = nodes::read_one(content)?;
            if node.holds_graphs {
                return Ok(graph.bytes(field, &self.inside(content, &vectors)?));
            }
            if difference(&node, &vectors).is_none() {
                return Ok(graph.bytes(field, content));
            }
            let mut writer = Writer::new(graph, &mut self.names);
            say_otherwise(&mut writer, &node, content)?;
            let graph = writer.graph();
            if self.names > MOST_NAMES {
                return Err(Format::Onnx.damaged("too many nodes that rten needs in other words"));
            }
            Ok(graph)
        })
    }

    /// Mends the graphs inside of a node.
    fn inside(&mut self, node: &[u8], vectors: &HashSet<String>) -> Result<Vec<u8>, FormatError> {
        rewrite(node, |field, content, node| {
            if field != ATTRIBUTE {
                return Ok(node.bytes(field, content));
            }
            let attribute = rewrite(content, |field, content, attribute| match field {
                field if GRAPHS.contains(&field) => {
                    Ok(attribute.bytes(field, &self.graph(content, vectors)?))
                }
                _ => Ok(attribute.bytes(field, content)),
            })?;
            Ok(node.bytes(field, &attribute))
        })
    }
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

/// One of a node's inputs; those that it doesn't have are empty.
fn input(node: &Node, index: usize) -> &str {
    node.inputs.get(index).map_or("", String::as_str)
}

const SELECT_LAST: &str = "select_last_index";

/// Writes nodes that stand for one that differs; `content` is that one as it is.
fn say_otherwise(writer: &mut Writer<'_>, node: &Node, content: &[u8]) -> Result<(), FormatError> {
    let (first, output) = (input(node, 0), node.outputs.first().map_or("", String::as_str));
    let number = |name: &str| node.numbers.get(name).copied().unwrap_or(0);
    match node.operator.as_str() {
        // That is what it does, but it takes no model that says so.
        "ArgMax" | "ArgMin" if number(SELECT_LAST) != 0 => {
            let plain = rewrite(content, |field, content, node| {
                let is_word = field == ATTRIBUTE
                    && content.windows(SELECT_LAST.len()).any(|part| part == SELECT_LAST.as_bytes());
                Ok(if is_word { node } else { node.bytes(field, content) })
            })?;
            writer.add(NODE, &plain);
        }
        // Counted from the end, the first is the last.
        "ArgMax" | "ArgMin" => {
            let axis = number("axis");
            let (back, axes, axis) = (writer.list(&[-1]), writer.list(&[axis]), writer.number(axis));
            // Before the first, however long the axis is.
            let end = writer.list(&[i64::from(i32::MIN) + 1]);
            let reversed = writer.node("Slice", &[first, &back, &end, &axes, &back]);
            let counted = writer.name();
            let found = rewrite(content, |field, content, node| {
                Ok(match field {
                    INPUT => node.bytes(field, reversed.as_bytes()),
                    OUTPUT => node.bytes(field, counted.as_bytes()),
                    _ => node.bytes(field, content),
                })
            })?;
            writer.add(NODE, &found);
            let (shape, one) = (writer.node("Shape", &[first]), writer.number(1));
            let length = writer.node("Gather", &[&shape, &axis]);
            let last = writer.node("Sub", &[&length, &one]);
            writer.node_to(output, "Sub", &[&last, &counted], &[]);
        }
        // Times 0 where it is 0, else 1.
        "Sign" => {
            // Nothing of any type; of infinity no number, which nothing equals.
            let zero = writer.node("Sub", &[first, first]);
            let sign = writer.node("Sign", &[first]);
            let is_zero = writer.node("Equal", &[first, &zero]);
            let is_other = writer.node("Not", &[&is_zero]);
            let factor = writer.node("CastLike", &[&is_other, first]);
            writer.node_to(output, "Mul", &[&sign, &factor], &[]);
        }
        // Times a matrix of one column, of which there is no doubt.
        "MatMul" => {
            let (column, zero) = (writer.list(&[-1, 1]), writer.number(0));
            let matrix = writer.node("Reshape", &[input(node, 1), &column]);
            let product = writer.node("MatMul", &[first, &matrix]);
            writer.node_to(output, "Gather", &[&product, &zero], &[("axis", Attribute::Int(-1))]);
        }
        "NonMaxSuppression" => suppress::write(writer, node, output),
        "Resize" => cubic::write(writer, node, output),
        _ => writer.add(NODE, content),
    }
    Ok(())
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
mod tests;
