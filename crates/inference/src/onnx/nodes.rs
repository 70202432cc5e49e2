//! The operators of an ONNX graph, as far as engines and people ask about them.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::path::Path;

use crate::format::{Format, FormatError};
use crate::protobuf::{Reader, Value};

/// How deep graphs may be inside operators such as `If`.
const MAX_DEPTH: usize = 16;
const MAX_NODES: usize = 1 << 20;

/// A node of the graph, or of a graph inside a node.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Node {
    pub operator: String,
    /// Empty for ONNX's own operators.
    pub domain: String,
    pub inputs: Vec<String>,
    /// Whether it is in a graph inside a node, or in a function of the model's own.
    pub is_inside: bool,
    /// Attributes that are texts.
    pub texts: BTreeMap<String, String>,
}

/// All nodes, and what they are known to work on.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    pub all: Vec<Node>,
    /// Weights and inputs of rank 1, of the graph itself.
    pub vectors: HashSet<String>,
    /// The same, and those of graphs inside of nodes.
    pub vectors_inside: HashSet<String>,
}

impl Nodes {
    fn vector(&mut self, name: String, depth: usize) {
        if depth == 0 {
            self.vectors.insert(name.clone());
        }
        self.vectors_inside.insert(name);
    }
}

/// Reads the nodes of a model file; weights are skipped.
///
/// # Errors
/// When the file can't be read or is damaged.
pub(crate) fn read_nodes(path: &Path) -> Result<Nodes, FormatError> {
    let file = File::open(path).map_err(FormatError::Io)?;
    let length = file.metadata().map_err(FormatError::Io)?.len();
    let mut reader = Reader::new(BufReader::new(file), Format::Onnx);
    let mut nodes = Nodes::default();
    reader.message(length, |reader, field, end| match field {
        7 => read_graph(reader, end, 0, &mut nodes),
        // Functions of the model's own: nodes are field 7 of each.
        25 => reader.message(end, |reader, field, end| match field {
            7 => read_node(reader, end, 1, &mut nodes),
            _ => Ok(()),
        }),
        _ => Ok(()),
    })?;
    Ok(nodes)
}

fn read_graph<R: BufRead + Seek>(
    reader: &mut Reader<R>,
    end: u64,
    depth: usize,
    nodes: &mut Nodes,
) -> Result<(), FormatError> {
    if depth > MAX_DEPTH {
        return Err(reader.damaged("graphs too deep inside each other"));
    }
    reader.message(end, |reader, field, end| match field {
        1 => read_node(reader, end, depth, nodes),
        5 => {
            let (mut name, mut rank) = (String::new(), 0);
            reader.fields(end, |reader, field, value| {
                match (field, value) {
                    (1, Value::Varint(_)) => rank += 1,
                    (1, Value::Message(end)) => rank = reader.count_varints(end)?,
                    (8, Value::Message(end)) => name = reader.string(end)?,
                    _ => {}
                }
                Ok(())
            })?;
            if rank == 1 {
                nodes.vector(name, depth);
            }
            Ok(())
        }
        11 => {
            let (name, declared) = super::read_value_info(reader, end)?;
            if matches!(declared, super::Type::Tensor { shape: Some(shape), .. } if shape.len() == 1) {
                nodes.vector(name, depth);
            }
            Ok(())
        }
        _ => Ok(()),
    })
}

fn read_node<R: BufRead + Seek>(
    reader: &mut Reader<R>,
    end: u64,
    depth: usize,
    nodes: &mut Nodes,
) -> Result<(), FormatError> {
    let mut node = Node { is_inside: depth > 0, ..Node::default() };
    reader.message(end, |reader, field, end| {
        match field {
            1 => node.inputs.push(reader.string(end)?),
            4 => node.operator = reader.string(end)?,
            5 => {
                let (mut name, mut text) = (String::new(), None);
                reader.message(end, |reader, field, end| {
                    match field {
                        1 => name = reader.string(end)?,
                        4 if end.saturating_sub(reader.position()) < 64 => text = reader.string(end).ok(),
                        6 | 11 => read_graph(reader, end, depth + 1, nodes)?,
                        _ => {}
                    }
                    Ok(())
                })?;
                node.texts.extend(text.map(|text| (name, text)));
            }
            7 => node.domain = reader.string(end)?,
            _ => {}
        }
        Ok(())
    })?;
    if node.domain == "ai.onnx" {
        node.domain.clear();
    }
    nodes.all.push(node);
    if nodes.all.len() > MAX_NODES {
        return Err(reader.damaged("too many nodes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_read_with_their_texts_and_the_rank_of_what_they_work_on() {
        let data = Path::new("tests/data");
        let nodes = read_nodes(&data.join("affine.onnx")).unwrap();
        let operators: Vec<_> = nodes.all.iter().map(|node| node.operator.as_str()).collect();
        assert_eq!(operators, ["MatMul", "Add"]);
        assert_eq!(nodes.all[0].inputs, ["x", "w"]);
        assert_eq!(nodes.vectors.iter().collect::<Vec<_>>(), ["b"]);
    }
}
