//! Reads a model's signature out of an ONNX file.
//!
//! Engines disagree about what they report (one folds INT64 and BOOL into 32-bit integers), so the declared
//! types come from the file itself. Weights are skipped with seeks: a file of gigabytes costs a few reads.

pub(crate) mod nodes;

use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::path::Path;

use crate::format::{Format, FormatError};
use crate::protobuf::{Reader, Value};
use crate::{Datatype, Signature, TensorSpec};

/// Most declarations that we read; far above what exporters write.
const MAX_ITEMS: usize = 1 << 20;

/// Reads inputs (without those that have a default value) and outputs; outputs that aren't tensors are left out.
///
/// # Errors
/// When the file can't be read, isn't ONNX, or has an input or no output that can be served.
pub fn read_signature(path: &Path) -> Result<Signature, FormatError> {
    let file = File::open(path).map_err(FormatError::Io)?;
    let length = file.metadata().map_err(FormatError::Io)?.len();
    read(BufReader::new(file), length)
}

fn read(source: impl BufRead + Seek, length: u64) -> Result<Signature, FormatError> {
    let mut reader = Reader::new(source, Format::Onnx);
    let mut graph = None;
    reader.message(length, |reader, field, end| {
        if field == 7 && graph.is_none() {
            graph = Some(read_graph(reader, end)?);
        }
        Ok(())
    })?;
    graph.ok_or(Format::Onnx.damaged("it has no graph"))?.into_signature()
}

#[derive(Default)]
struct Graph {
    inputs: Vec<(String, Type)>,
    outputs: Vec<(String, Type)>,
    defaults: std::collections::HashSet<String>,
}

/// What a graph says about one of its inputs or outputs.
#[derive(Default)]
pub(crate) enum Type {
    #[default]
    Unknown,
    Tensor {
        element: u64,
        shape: Option<Vec<i64>>,
    },
    Other(&'static str),
}

impl Graph {
    fn into_signature(self) -> Result<Signature, FormatError> {
        let mut signature = Signature::default();
        for (name, declared) in self.inputs {
            if self.defaults.contains(&name) {
                continue;
            }
            let spec = spec(name.clone(), declared);
            signature.inputs.push(spec.map_err(|kind| FormatError::Input { input: name, kind })?);
        }
        for (name, declared) in self.outputs {
            signature.outputs.extend(spec(name, declared));
        }
        if signature.outputs.is_empty() {
            return Err(FormatError::NoOutput);
        }
        Ok(signature)
    }
}

/// A tensor's declaration, or what it is instead.
pub(crate) fn spec(name: String, declared: Type) -> Result<TensorSpec, String> {
    match declared {
        Type::Unknown => Err("of no declared type".into()),
        Type::Other(kind) => Err(kind.into()),
        Type::Tensor { element, shape } => match datatype(element) {
            Some(datatype) => Ok(TensorSpec { name, datatype, shape }),
            None => Err(format!("a tensor of ONNX element type {element}")),
        },
    }
}

/// `TensorProto.DataType` as the protocol names it.
pub(crate) fn datatype(element: u64) -> Option<Datatype> {
    Some(match element {
        1 => Datatype::Fp32,
        2 => Datatype::Uint8,
        3 => Datatype::Int8,
        4 => Datatype::Uint16,
        5 => Datatype::Int16,
        6 => Datatype::Int32,
        7 => Datatype::Int64,
        8 => Datatype::Bytes,
        9 => Datatype::Bool,
        10 => Datatype::Fp16,
        11 => Datatype::Fp64,
        12 => Datatype::Uint32,
        13 => Datatype::Uint64,
        16 => Datatype::Bf16,
        _ => return None,
    })
}

fn read_graph<R: BufRead + Seek>(reader: &mut Reader<R>, end: u64) -> Result<Graph, FormatError> {
    let mut graph = Graph::default();
    reader.message(end, |reader, field, end| {
        match field {
            5 => {
                let name = read_name(reader, end, 8)?;
                graph.defaults.insert(name);
            }
            11 => graph.inputs.push(read_value_info(reader, end)?),
            12 => graph.outputs.push(read_value_info(reader, end)?),
            15 => reader.message(end, |reader, field, end| {
                if field == 1 {
                    let name = read_name(reader, end, 8)?;
                    graph.defaults.insert(name);
                }
                Ok(())
            })?,
            _ => {}
        }
        if graph.inputs.len().max(graph.outputs.len()).max(graph.defaults.len()) > MAX_ITEMS {
            return Err(reader.damaged("too many declarations"));
        }
        Ok(())
    })?;
    Ok(graph)
}

fn read_name<R: BufRead + Seek>(
    reader: &mut Reader<R>,
    end: u64,
    wanted: u64,
) -> Result<String, FormatError> {
    let mut name = String::new();
    reader.message(end, |reader, field, end| {
        if field == wanted {
            name = reader.string(end)?;
        }
        Ok(())
    })?;
    Ok(name)
}

pub(crate) fn read_value_info<R: BufRead + Seek>(
    reader: &mut Reader<R>,
    end: u64,
) -> Result<(String, Type), FormatError> {
    let (mut name, mut declared) = (String::new(), Type::default());
    reader.message(end, |reader, field, end| {
        match field {
            1 => name = reader.string(end)?,
            2 => declared = read_type(reader, end)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok((name, declared))
}

fn read_type<R: BufRead + Seek>(reader: &mut Reader<R>, end: u64) -> Result<Type, FormatError> {
    let mut declared = Type::default();
    reader.message(end, |reader, field, end| {
        match field {
            1 => declared = read_tensor_type(reader, end)?,
            4 => declared = Type::Other("a sequence"),
            5 => declared = Type::Other("a map"),
            8 => declared = Type::Other("a sparse tensor"),
            9 => declared = Type::Other("an optional value"),
            _ => {}
        }
        Ok(())
    })?;
    Ok(declared)
}

fn read_tensor_type<R: BufRead + Seek>(reader: &mut Reader<R>, end: u64) -> Result<Type, FormatError> {
    let (mut element, mut shape) = (0, None);
    reader.fields(end, |reader, field, value| {
        match (field, value) {
            (1, Value::Varint(value)) => element = value,
            (2, Value::Message(end)) => {
                let dimensions: &mut Vec<i64> = shape.get_or_insert_default();
                reader.message(end, |reader, field, end| {
                    if field == 1 && dimensions.len() < 64 {
                        dimensions.push(read_dimension(reader, end)?);
                    }
                    Ok(())
                })?;
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(Type::Tensor { element, shape })
}

fn read_dimension<R: BufRead + Seek>(reader: &mut Reader<R>, end: u64) -> Result<i64, FormatError> {
    let mut dimension = -1;
    reader.fields(end, |_, field, value| {
        if let (1, Value::Varint(size)) = (field, value) {
            dimension = i64::try_from(size).unwrap_or(-1);
        }
        Ok(())
    })?;
    Ok(dimension)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn parse(bytes: &[u8]) -> Result<Signature, FormatError> {
        read(Cursor::new(bytes), bytes.len() as u64)
    }

    #[test]
    fn declared_types_and_open_dimensions_are_kept() {
        let signature = parse(include_bytes!("../tests/data/affine.onnx")).unwrap();
        assert_eq!(signature.inputs[0].name, "x");
        assert_eq!(signature.inputs[0].datatype, Datatype::Fp32);
        assert_eq!(signature.inputs[0].shape, Some(vec![-1, 4]));
        assert_eq!(signature.inputs.len(), 1, "weights listed as inputs are no inputs");
        assert_eq!(signature.outputs[0].shape, Some(vec![-1, 3]));
    }

    #[test]
    fn every_cut_of_a_model_is_an_error_or_a_signature() {
        let bytes = include_bytes!("../tests/data/affine.onnx");
        for length in 0..bytes.len() {
            let _ = parse(&bytes[..length]);
        }
        assert!(parse(b"").is_err());
        assert!(parse(b"hello, this is text").is_err());
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn flipped_bytes_never_panic(at in 0_usize..400, value in proptest::num::u8::ANY) {
            let mut bytes = include_bytes!("../tests/data/affine.onnx").to_vec();
            let at = at % bytes.len();
            bytes[at] = value;
            let _ = parse(&bytes);
        }
    }
}
