//! Reads the nodes and weights of an ONNX graph, as far as classical models use them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::path::Path;

use bytes::Bytes;

use super::array::{Array, Data};
use super::{MAX_FILE, Refused};
use crate::format::Format;
use crate::onnx::{Type, read_value_info};
use crate::protobuf::{Reader, Value};
use crate::{Datatype, FormatError};

/// Most nodes, weights, inputs or outputs.
const MAX_NODES: usize = 16 << 10;

/// An operator of a graph and what it is wired to.
#[derive(Default)]
pub(super) struct Node {
    pub operator: String,
    pub domain: String,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    pub attributes: HashMap<String, Attribute>,
    /// Version of the operators of `ai.onnx`, known when the whole file is read.
    pub opset: i64,
    /// Whether the first input is an input of the graph in FP64.
    pub double: bool,
}

/// An attribute's value; those of its fields that aren't its type's are empty.
#[derive(Default)]
pub(super) struct Attribute {
    pub float: Option<f32>,
    pub int: Option<i64>,
    pub text: Option<Bytes>,
    pub tensor: Option<Array>,
    pub floats: Vec<f32>,
    pub ints: Vec<i64>,
    pub texts: Vec<Bytes>,
}

/// A graph in the file's order.
#[derive(Default)]
pub(super) struct Graph {
    pub nodes: Vec<Node>,
    pub weights: Vec<(String, Array)>,
    pub inputs: Vec<(String, Type)>,
    pub outputs: Vec<(String, Type)>,
    /// Version of the operators of `ai.onnx`.
    pub opset: i64,
}

/// Calls `check(domain, operator)` for each node, without reading what the nodes hold.
pub(super) fn operators(
    path: &Path,
    mut check: impl FnMut(&str, &str) -> Result<(), Refused>,
) -> Result<(), Refused> {
    let mut checked = Ok(());
    read_file(path, |reader, end| {
        in_graph(reader, end, |reader, field, end| {
            if field != 1 || checked.is_err() {
                return Ok(());
            }
            let node = read_node(reader, end, false)?;
            checked = check(&node.domain, &node.operator);
            Ok(())
        })
    })?;
    checked
}

/// Reads the whole graph.
pub(super) fn read(path: &Path) -> Result<Graph, Refused> {
    let mut graph = Graph { opset: 1, ..Graph::default() };
    read_file(path, |reader, end| {
        reader.message(end, |reader, field, end| match field {
            7 => read_graph(reader, end, &mut graph),
            8 => {
                if let (domain, Some(version)) = read_opset(reader, end)?
                    && (domain.is_empty() || domain == "ai.onnx")
                {
                    graph.opset = version;
                }
                Ok(())
            }
            25 => Err(Format::Onnx.damaged("it has functions of its own")),
            _ => Ok(()),
        })
    })?;
    Ok(graph)
}

type FileReader = Reader<BufReader<File>>;

fn read_file(
    path: &Path,
    read: impl FnOnce(&mut FileReader, u64) -> Result<(), FormatError>,
) -> Result<(), Refused> {
    let refused = |error: FormatError| Refused::new(crate::engine::chain(&error));
    let file = File::open(path).map_err(|error| refused(FormatError::Io(error)))?;
    let length = file.metadata().map_err(|error| refused(FormatError::Io(error)))?.len();
    if length > MAX_FILE {
        return Err(Refused::new(format!("the file has {length} bytes, more than {MAX_FILE}")));
    }
    read(&mut Reader::new(BufReader::new(file), Format::Onnx), length).map_err(refused)
}

fn in_graph<R: BufRead + Seek>(
    reader: &mut Reader<R>,
    end: u64,
    mut visit: impl FnMut(&mut Reader<R>, u64, u64) -> Result<(), FormatError>,
) -> Result<(), FormatError> {
    reader.message(
        end,
        |reader, field, end| {
            if field == 7 { reader.message(end, &mut visit) } else { Ok(()) }
        },
    )
}

fn read_opset<R: BufRead + Seek>(
    reader: &mut Reader<R>,
    end: u64,
) -> Result<(String, Option<i64>), FormatError> {
    let (mut domain, mut version) = (String::new(), None);
    reader.fields(end, |reader, field, value| {
        match (field, value) {
            (1, Value::Message(end)) => domain = reader.string(end)?,
            (2, Value::Varint(value)) => version = Some(value.cast_signed()),
            _ => {}
        }
        Ok(())
    })?;
    Ok((domain, version))
}

fn read_graph<R: BufRead + Seek>(
    reader: &mut Reader<R>,
    end: u64,
    graph: &mut Graph,
) -> Result<(), FormatError> {
    reader.message(end, |reader, field, end| {
        match field {
            1 => graph.nodes.push(read_node(reader, end, true)?),
            5 => graph.weights.push(read_tensor(reader, end)?),
            11 => graph.inputs.push(read_value_info(reader, end)?),
            12 => graph.outputs.push(read_value_info(reader, end)?),
            15 => return Err(Format::Onnx.damaged("it has sparse weights")),
            _ => {}
        }
        let most = graph.nodes.len().max(graph.weights.len());
        if most.max(graph.inputs.len()).max(graph.outputs.len()) > MAX_NODES {
            return Err(Format::Onnx.damaged("too many nodes or weights"));
        }
        Ok(())
    })
}

fn read_node<R: BufRead + Seek>(
    reader: &mut Reader<R>,
    end: u64,
    attributes: bool,
) -> Result<Node, FormatError> {
    let mut node = Node::default();
    reader.message(end, |reader, field, end| {
        match field {
            1 => node.inputs.push(reader.string(end)?),
            2 => node.outputs.push(reader.string(end)?),
            4 => node.operator = reader.string(end)?,
            5 if attributes => {
                let (name, attribute) = read_attribute(reader, end)?;
                node.attributes.insert(name, attribute);
            }
            7 => node.domain = reader.string(end)?,
            _ => {}
        }
        if node.inputs.len().max(node.outputs.len()) > MAX_NODES {
            return Err(Format::Onnx.damaged("a node with too many inputs or outputs"));
        }
        Ok(())
    })?;
    Ok(node)
}

fn read_attribute<R: BufRead + Seek>(
    reader: &mut Reader<R>,
    end: u64,
) -> Result<(String, Attribute), FormatError> {
    let (mut name, mut attribute) = (String::new(), Attribute::default());
    reader.fields(end, |reader, field, value| {
        match (field, value) {
            (1, Value::Message(end)) => name = reader.string(end)?,
            (2, Value::Fixed32(bits)) => attribute.float = Some(f32::from_le_bytes(bits)),
            (3, Value::Varint(value)) => attribute.int = Some(value.cast_signed()),
            (4, Value::Message(end)) => attribute.text = Some(reader.bytes(end)?.into()),
            (5, Value::Message(end)) => attribute.tensor = Some(read_tensor(reader, end)?.1),
            (7, Value::Fixed32(bits)) => attribute.floats.push(f32::from_le_bytes(bits)),
            (7, Value::Message(end)) => {
                attribute.floats.extend(numbers(&reader.bytes(end)?, f32::from_le_bytes))
            }
            (8, Value::Varint(value)) => attribute.ints.push(value.cast_signed()),
            (8, Value::Message(end)) => reader.varints(end, &mut attribute.ints)?,
            (9, Value::Message(end)) => attribute.texts.push(reader.bytes(end)?.into()),
            (6 | 11 | 22, Value::Message(_)) => {
                return Err(Format::Onnx.damaged("it has graphs inside the graph"));
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok((name, attribute))
}

fn numbers<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|&chunk| read(chunk)).collect()
}

/// A tensor's fields before they are known to agree.
#[derive(Default)]
struct Raw {
    name: String,
    shape: Vec<i64>,
    element: u64,
    raw: Option<Vec<u8>>,
    floats: Vec<f32>,
    doubles: Vec<f64>,
    ints: Vec<i64>,
    texts: Vec<Bytes>,
}

fn read_tensor<R: BufRead + Seek>(reader: &mut Reader<R>, end: u64) -> Result<(String, Array), FormatError> {
    let mut tensor = Raw::default();
    reader.fields(end, |reader, field, value| {
        match (field, value) {
            (1, Value::Varint(size)) => tensor.shape.push(size.cast_signed()),
            (1, Value::Message(end)) => reader.varints(end, &mut tensor.shape)?,
            (2, Value::Varint(element)) => tensor.element = element,
            (4, Value::Fixed32(bits)) => tensor.floats.push(f32::from_le_bytes(bits)),
            (4, Value::Message(end)) => {
                tensor.floats.extend(numbers(&reader.bytes(end)?, f32::from_le_bytes))
            }
            (5 | 7, Value::Varint(value)) => tensor.ints.push(value.cast_signed()),
            (5 | 7, Value::Message(end)) => reader.varints(end, &mut tensor.ints)?,
            (6, Value::Message(end)) => tensor.texts.push(reader.bytes(end)?.into()),
            (8, Value::Message(end)) => tensor.name = reader.string(end)?,
            (9, Value::Message(end)) => tensor.raw = Some(reader.bytes(end)?),
            (10, Value::Fixed64(bits)) => tensor.doubles.push(f64::from_le_bytes(bits)),
            (10, Value::Message(end)) => {
                tensor.doubles.extend(numbers(&reader.bytes(end)?, f64::from_le_bytes))
            }
            (13, _) | (14, Value::Varint(1..)) => {
                return Err(Format::Onnx.damaged("its weights are in other files"));
            }
            _ => {}
        }
        Ok(())
    })?;
    let name = std::mem::take(&mut tensor.name);
    let array =
        tensor.into_array().ok_or_else(|| Format::Onnx.damaged("a weight whose type and data don't fit"))?;
    Ok((name, array))
}

impl Raw {
    fn into_array(self) -> Option<Array> {
        let shape = self.shape.iter().map(|&size| usize::try_from(size).ok()).collect::<Option<Vec<_>>>()?;
        let narrow = |values: Vec<i64>| values.into_iter().map(|value| value as i32).collect();
        let data = match (crate::onnx::datatype(self.element)?, self.raw) {
            (Datatype::Fp32, None) => Data::F32(self.floats),
            (Datatype::Fp32, Some(raw)) => Data::F32(numbers(&raw, f32::from_le_bytes)),
            (Datatype::Fp64, None) => Data::F64(self.doubles),
            (Datatype::Fp64, Some(raw)) => Data::F64(numbers(&raw, f64::from_le_bytes)),
            (Datatype::Int64, None) => Data::I64(self.ints),
            (Datatype::Int64, Some(raw)) => Data::I64(numbers(&raw, i64::from_le_bytes)),
            (Datatype::Int32, None) => Data::I32(narrow(self.ints)),
            (Datatype::Int32, Some(raw)) => Data::I32(numbers(&raw, i32::from_le_bytes)),
            (Datatype::Bool, None) => Data::Bool(self.ints.into_iter().map(|value| value != 0).collect()),
            (Datatype::Bool, Some(raw)) => Data::Bool(raw.into_iter().map(|byte| byte != 0).collect()),
            // Modes of tree nodes are bytes; as whole numbers they say the same.
            (Datatype::Uint8 | Datatype::Int8, None) => Data::I32(narrow(self.ints)),
            (Datatype::Uint8, Some(raw)) => Data::I32(raw.into_iter().map(i32::from).collect()),
            (Datatype::Bytes, None) => Data::Text(self.texts),
            _ => return None,
        };
        Array::new(shape, data).ok()
    }
}
