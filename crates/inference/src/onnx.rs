//! Reads a model's signature out of an ONNX file.
//!
//! Engines disagree about what they report (one folds INT64 and BOOL into 32-bit integers), so the declared
//! types come from the file itself. Weights are skipped with seeks: a file of gigabytes costs a few reads.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};
use std::path::Path;

use crate::{Datatype, Signature, TensorSpec};

/// Why a file has no readable signature.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The file can't be opened or read.
    #[error("can't read the model file; check the path and its permissions")]
    Io(#[source] io::Error),
    /// Not protobuf, or not ONNX.
    #[error("the file is not a valid ONNX model ({0}); export it again as .onnx")]
    NotOnnx(&'static str),
    /// An input that isn't a tensor, or of an element type outside the protocol.
    #[error(
        "input `{input}` is {kind}, which can't be served; export the model with plain tensors as inputs"
    )]
    Input { input: String, kind: String },
    /// Nothing to answer with.
    #[error("the model has no output that is a plain tensor; export it so (scikit-learn: `zipmap=False`)")]
    NoOutput,
}

/// Longest name and most declarations that we read; both far above what exporters write.
const MAX_NAME: u64 = 64 << 10;
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
    let mut reader = Reader { source, position: 0 };
    let mut graph = None;
    reader.message(length, |reader, field, end| {
        if field == 7 && graph.is_none() {
            graph = Some(read_graph(reader, end)?);
        }
        Ok(())
    })?;
    graph.ok_or(FormatError::NotOnnx("it has no graph"))?.into_signature()
}

#[derive(Default)]
struct Graph {
    inputs: Vec<(String, Type)>,
    outputs: Vec<(String, Type)>,
    defaults: std::collections::HashSet<String>,
}

#[derive(Default)]
enum Type {
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

fn spec(name: String, declared: Type) -> Result<TensorSpec, String> {
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
fn datatype(element: u64) -> Option<Datatype> {
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
            return Err(FormatError::NotOnnx("too many declarations"));
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

fn read_value_info<R: BufRead + Seek>(
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

/// The value of a protobuf field, as far as ONNX signatures use them.
enum Value {
    Varint(u64),
    /// A length-delimited value that ends at this position.
    Message(u64),
    Other,
}

struct Reader<R> {
    source: R,
    position: u64,
}

impl<R: BufRead + Seek> Reader<R> {
    /// Calls `visit(field, end)` for each length-delimited field up to `end`; what it leaves unread is skipped.
    fn message(
        &mut self,
        end: u64,
        mut visit: impl FnMut(&mut Self, u64, u64) -> Result<(), FormatError>,
    ) -> Result<(), FormatError> {
        self.fields(end, |reader, field, value| match value {
            Value::Message(end) => visit(reader, field, end),
            Value::Varint(_) | Value::Other => Ok(()),
        })
    }

    fn fields(
        &mut self,
        end: u64,
        mut visit: impl FnMut(&mut Self, u64, Value) -> Result<(), FormatError>,
    ) -> Result<(), FormatError> {
        while self.position < end {
            let key = self.varint()?;
            let (value, after) = match key & 7 {
                0 => (Value::Varint(self.varint()?), self.position),
                1 => (Value::Other, self.position.saturating_add(8)),
                2 => {
                    let length = self.varint()?;
                    let after = self.position.saturating_add(length);
                    (Value::Message(after), after)
                }
                5 => (Value::Other, self.position.saturating_add(4)),
                _ => return Err(FormatError::NotOnnx("unknown wire type")),
            };
            if after > end {
                return Err(FormatError::NotOnnx("a field runs past its end"));
            }
            visit(self, key >> 3, value)?;
            self.skip_to(after)?;
        }
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, FormatError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.source.read_exact(&mut byte).map_err(truncated)?;
            self.position += 1;
            let [byte] = byte;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(FormatError::NotOnnx("an integer is too long"))
    }

    fn string(&mut self, end: u64) -> Result<String, FormatError> {
        let length = end.saturating_sub(self.position);
        if length > MAX_NAME {
            return Err(FormatError::NotOnnx("a name is too long"));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        self.source.read_exact(&mut bytes).map_err(truncated)?;
        self.position = end;
        String::from_utf8(bytes).map_err(|_| FormatError::NotOnnx("a name is not UTF-8"))
    }

    fn skip_to(&mut self, end: u64) -> Result<(), FormatError> {
        let distance = i64::try_from(end.saturating_sub(self.position))
            .map_err(|_| FormatError::NotOnnx("a field is too long"))?;
        if distance > 0 {
            self.source.seek_relative(distance).map_err(FormatError::Io)?;
            self.position = end;
        }
        Ok(())
    }
}

fn truncated(error: io::Error) -> FormatError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => FormatError::NotOnnx("it is cut off"),
        _ => FormatError::Io(error),
    }
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
