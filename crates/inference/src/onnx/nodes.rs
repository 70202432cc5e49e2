//! The operators of an ONNX graph, as far as engines and people ask about them.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::Path;

use crate::format::{Format, FormatError};
use crate::protobuf::{Reader, Value};

/// How deep graphs may be inside operators such as `If`.
const MAX_DEPTH: usize = 16;
const MAX_NODES: usize = 1 << 20;

/// A node of the graph, or of a graph inside a node.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Node {
    pub operator: String,
    /// Empty for ONNX's own operators.
    pub domain: String,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    /// Whether it is in a function of the model's own.
    pub is_in_function: bool,
    /// Whether attributes are graphs.
    pub holds_graphs: bool,
    /// Attributes that are texts.
    pub texts: BTreeMap<String, String>,
    /// Attributes that are whole numbers; of a list one.
    pub numbers: BTreeMap<String, i64>,
    pub floats: BTreeMap<String, f32>,
}

/// All nodes, and what they are known to work on.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    pub all: Vec<Node>,
    /// Functions of the model's own, by domain and name: a node of that operator stands for the nodes of its body.
    pub functions: HashSet<(String, String)>,
    /// Weights and inputs of rank 1, of the graph itself and of those inside of nodes.
    pub vectors: HashSet<String>,
}

impl Nodes {
    /// Those that engines have to have operators for.
    pub fn of_engines(self) -> impl Iterator<Item = Node> {
        let functions = self.functions;
        let is_own = move |node: &Node| functions.contains(&(node.domain.clone(), node.operator.clone()));
        self.all.into_iter().filter(move |node| !is_own(node))
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
        25 => {
            let (mut domain, mut name) = (String::new(), String::new());
            let before = nodes.all.len();
            reader.message(end, |reader, field, end| match field {
                1 => reader.string(end).map(|own| name = own),
                7 => read_node(reader, end, 1, &mut nodes),
                10 => reader.string(end).map(|own| domain = own),
                _ => Ok(()),
            })?;
            nodes.all.iter_mut().skip(before).for_each(|node| node.is_in_function = true);
            nodes.functions.insert((domain, name));
            Ok(())
        }
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
        _ => {
            nodes.vectors.extend(vector(reader, field, end)?);
            Ok(())
        }
    })
}

/// The name of a weight or an input of rank 1, if a graph's field is one.
fn vector<R: BufRead + Seek>(
    reader: &mut Reader<R>,
    field: u64,
    end: u64,
) -> Result<Option<String>, FormatError> {
    match field {
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
            Ok((rank == 1).then_some(name))
        }
        11 => {
            let (name, declared) = super::read_value_info(reader, end)?;
            let is_one =
                matches!(declared, super::Type::Tensor { shape: Some(shape), .. } if shape.len() == 1);
            Ok(is_one.then_some(name))
        }
        _ => Ok(None),
    }
}

/// Weights and inputs of rank 1 of one graph alone.
///
/// # Errors
/// When it is damaged.
pub(crate) fn vectors(graph: &[u8]) -> Result<HashSet<String>, FormatError> {
    let mut found = HashSet::new();
    let mut reader = Reader::new(Cursor::new(graph), Format::Onnx);
    reader.message(graph.len() as u64, |reader, field, end| {
        found.extend(vector(reader, field, end)?);
        Ok(())
    })?;
    Ok(found)
}

/// One node.
///
/// # Errors
/// When it is damaged.
pub(crate) fn read_one(node: &[u8]) -> Result<Node, FormatError> {
    let mut nodes = Nodes::default();
    let mut reader = Reader::new(Cursor::new(node), Format::Onnx);
    read_node(&mut reader, node.len() as u64, 0, &mut nodes)?;
    Ok(nodes.all.pop().unwrap_or_default())
}

fn read_node<R: BufRead + Seek>(
    reader: &mut Reader<R>,
    end: u64,
    depth: usize,
    nodes: &mut Nodes,
) -> Result<(), FormatError> {
    let mut node = Node::default();
    reader.message(end, |reader, field, end| {
        match field {
            1 => node.inputs.push(reader.string(end)?),
            2 => node.outputs.push(reader.string(end)?),
            4 => node.operator = reader.string(end)?,
            5 => {
                let (mut name, mut text, mut number, mut float) = (String::new(), None, None, None);
                reader.fields(end, |reader, field, value| {
                    match (field, value) {
                        (1, Value::Message(end)) => name = reader.string(end)?,
                        (2, Value::Fixed32(bytes)) => float = Some(f32::from_le_bytes(bytes)),
                        (3 | 8, Value::Varint(value)) => number = Some(value.cast_signed()),
                        (4, Value::Message(end)) if end.saturating_sub(reader.position()) < 64 => {
                            text = reader.string(end).ok();
                        }
                        (6 | 11, Value::Message(end)) => {
                            node.holds_graphs = true;
                            read_graph(reader, end, depth + 1, nodes)?;
                        }
                        (8, Value::Message(end)) => {
                            let mut list = Vec::new();
                            reader.varints(end, &mut list)?;
                            number = list.pop();
                        }
                        _ => {}
                    }
                    Ok(())
                })?;
                node.texts.extend(text.map(|text| (name.clone(), text)));
                node.floats.extend(float.map(|float| (name.clone(), float)));
                node.numbers.extend(number.map(|number| (name, number)));
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
