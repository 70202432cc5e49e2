//! What a frozen graph takes and gives: its placeholders, and the nodes that nobody uses.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::path::Path;

use super::saved_model::{after_length, datatype, read_shape};
use crate::TensorSpec;
use crate::format::{Format, FormatError};
use crate::protobuf::{Reader, Value};

const MAX_NODES: usize = 1 << 20;
/// Operations that end a graph without being an answer.
const NO_ANSWERS: [&str; 6] = ["NoOp", "Assert", "Const", "Placeholder", "PlaceholderV2", "Print"];

/// Placeholders with their types, and the names of the nodes that no other node uses.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<String>,
}

/// Whether a file begins as a `GraphDef` does: with a node that begins with its name.
pub(super) fn is_likely(head: &[u8]) -> bool {
    head.strip_prefix(&[0x0a]).and_then(after_length).is_some_and(|rest| rest.starts_with(&[0x0a]))
}

/// Reads the file of a graph.
///
/// # Errors
/// When the file is damaged, or a placeholder is of a type outside the protocol.
pub(crate) fn read(path: &Path) -> Result<Ends, FormatError> {
    let file = File::open(path).map_err(FormatError::Io)?;
    let length = file.metadata().map_err(FormatError::Io)?.len();
    parse(BufReader::new(file), length)
}

fn parse(source: impl BufRead + Seek, length: u64) -> Result<Ends, FormatError> {
    let mut reader = Reader::new(source, Format::FrozenGraph);
    let (mut nodes, mut used) = (Vec::new(), HashSet::new());
    reader.message(length, |reader, field, end| {
        if field == 1 {
            nodes.push(read_node(reader, end, &mut used)?);
        }
        if nodes.len().max(used.len()) > MAX_NODES {
            return Err(reader.damaged("too many nodes"));
        }
        Ok(())
    })?;
    let mut ends = Ends::default();
    for node in nodes {
        if node.operation.starts_with("Placeholder") && node.operation != "PlaceholderWithDefault" {
            let datatype = datatype(node.kind).ok_or_else(|| FormatError::Input {
                input: node.name.clone(),
                kind: format!("of TensorFlow's type {}", node.kind),
            })?;
            ends.inputs.push(TensorSpec { name: node.name, datatype, shape: node.shape });
        } else if !used.contains(&node.name) && !NO_ANSWERS.contains(&node.operation.as_str()) {
            ends.outputs.push(node.name);
        }
    }
    Ok(ends)
}

#[derive(Default)]
struct Node {
    name: String,
    operation: String,
    /// Attributes `dtype` and `shape`, which placeholders have.
    kind: u64,
    shape: Option<Vec<i64>>,
}

fn read_node<R: BufRead + Seek>(
    reader: &mut Reader<R>,
    end: u64,
    used: &mut HashSet<String>,
) -> Result<Node, FormatError> {
    let mut node = Node::default();
    reader.message(end, |reader, field, end| {
        match field {
            1 => node.name = reader.string(end)?,
            2 => node.operation = reader.string(end)?,
            3 => {
                let input = reader.string(end)?;
                let name = input.trim_start_matches('^').split(':').next().unwrap_or_default();
                used.insert(name.to_owned());
            }
            5 => read_attribute(reader, end, &mut node)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(node)
}

fn read_attribute<R: BufRead + Seek>(
    reader: &mut Reader<R>,
    end: u64,
    node: &mut Node,
) -> Result<(), FormatError> {
    let mut name = String::new();
    reader.message(end, |reader, field, end| match field {
        1 => {
            name = reader.string(end)?;
            Ok(())
        }
        2 => reader.fields(end, |reader, field, value| {
            match (name.as_str(), field, value) {
                ("dtype", 6, Value::Varint(kind)) => node.kind = kind,
                ("shape", 7, Value::Message(end)) => node.shape = read_shape(reader, end)?,
                _ => {}
            }
            Ok(())
        }),
        _ => Ok(()),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::Datatype;

    const FROZEN: &[u8] = include_bytes!("../../tests/data/tensorflow/frozen.pb");

    #[test]
    fn placeholders_are_inputs_and_what_nobody_uses_is_an_output() {
        let ends = parse(Cursor::new(FROZEN), FROZEN.len() as u64).unwrap();
        let x = TensorSpec { name: "x".into(), datatype: Datatype::Fp32, shape: Some(vec![-1, 4]) };
        assert_eq!(ends.inputs, [x]);
        assert_eq!(ends.outputs, ["y"]);
    }

    proptest::proptest! {
        #[test]
        fn damaged_files_are_errors_and_never_panics(at in 0..FROZEN.len(), value in proptest::num::u8::ANY) {
            let mut bytes = FROZEN.to_vec();
            bytes[at] = value;
            let _ = parse(Cursor::new(&bytes), bytes.len() as u64);
            let _ = parse(Cursor::new(&bytes[..at]), at as u64);
        }
    }
}
