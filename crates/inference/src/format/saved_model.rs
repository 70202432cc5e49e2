//! What a SavedModel declares: tags, and the signature that is served.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::path::Path;

use crate::format::{Format, FormatError};
use crate::protobuf::{Reader, Value};
use crate::{Datatype, TensorSpec};

/// The signature that exporters write unless told otherwise.
const DEFAULT: &str = "serving_default";
/// Not for callers: TensorFlow runs it once after loading.
const INTERNAL: &str = "__saved_model_init_op";
const MAX_ITEMS: usize = 100_000;

/// What to load and where its tensors are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Declared {
    /// Tags of the part to load; usually `serve`.
    pub tags: Vec<String>,
    /// What the model takes, by name.
    pub inputs: Vec<Endpoint>,
    /// What it gives, by name.
    pub outputs: Vec<Endpoint>,
}

/// A named input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub spec: TensorSpec,
    /// The tensor in the graph, such as `serving_default_x:0`.
    pub tensor: String,
}

/// Whether a file begins as a `SavedModel` does: version 1, then a part that begins with its own description.
pub(super) fn is_likely(head: &[u8]) -> bool {
    head.strip_prefix(&[0x08, 0x01, 0x12])
        .and_then(after_length)
        .is_some_and(|rest| rest.starts_with(&[0x0a]))
}

/// What comes after the length of a message.
pub(super) fn after_length(bytes: &[u8]) -> Option<&[u8]> {
    let last = bytes.iter().take(10).position(|byte| byte & 0x80 == 0)?;
    bytes.get(last + 1..)
}

/// Reads `saved_model.pb`.
///
/// # Errors
/// When the file is damaged, no part is for serving, or no signature stands out.
pub(crate) fn read(folder: &Path) -> Result<Declared, FormatError> {
    let file = File::open(folder.join("saved_model.pb")).map_err(FormatError::Io)?;
    let length = file.metadata().map_err(FormatError::Io)?.len();
    parse(BufReader::new(file), length)
}

fn parse(source: impl BufRead + Seek, length: u64) -> Result<Declared, FormatError> {
    let mut reader = Reader::new(source, Format::SavedModel);
    let mut parts = Vec::new();
    reader.message(length, |reader, field, end| {
        if field == 2 && parts.len() < 64 {
            parts.push(read_part(reader, end)?);
        }
        Ok(())
    })?;
    let many = parts.len();
    let serves = |part: &Part| many == 1 || part.tags.iter().any(|tag| tag == "serve");
    let part = parts.into_iter().find(serves);
    let part = part.ok_or_else(|| Format::SavedModel.damaged("no part of it has the tag `serve`"))?;
    part.choose()
}

/// A `MetaGraphDef`.
#[derive(Default)]
struct Part {
    tags: Vec<String>,
    signatures: BTreeMap<String, Ports>,
}

/// A `SignatureDef`.
#[derive(Default)]
struct Ports {
    inputs: BTreeMap<String, Info>,
    outputs: BTreeMap<String, Info>,
}

/// A `TensorInfo`.
#[derive(Default)]
struct Info {
    tensor: String,
    kind: u64,
    shape: Option<Vec<i64>>,
}

impl Part {
    fn choose(mut self) -> Result<Declared, FormatError> {
        self.signatures.remove(INTERNAL);
        let ports = match self.signatures.remove(DEFAULT) {
            Some(ports) => ports,
            None if self.signatures.len() == 1 => self.signatures.pop_first().unwrap_or_default().1,
            None => {
                let names: Vec<String> = self.signatures.keys().map(|name| format!("`{name}`")).collect();
                let given = if names.is_empty() { "no other".into() } else { names.join(", ") };
                return Err(FormatError::NoSignature { given });
            }
        };
        let mut declared = Declared { tags: self.tags, inputs: Vec::new(), outputs: Vec::new() };
        for (name, info) in ports.inputs {
            let kind = info.kind;
            declared.inputs.push(info.endpoint(name.clone()).ok_or_else(|| FormatError::Input {
                input: name,
                kind: format!("of TensorFlow's type {kind}"),
            })?);
        }
        declared.outputs = ports.outputs.into_iter().filter_map(|(name, info)| info.endpoint(name)).collect();
        if declared.outputs.is_empty() {
            return Err(FormatError::NoOutput);
        }
        Ok(declared)
    }
}

impl Info {
    fn endpoint(self, name: String) -> Option<Endpoint> {
        let datatype = datatype(self.kind).filter(|_| !self.tensor.is_empty())?;
        Some(Endpoint { spec: TensorSpec { name, datatype, shape: self.shape }, tensor: self.tensor })
    }
}

/// `tensorflow.DataType` as the protocol names it.
pub(super) fn datatype(kind: u64) -> Option<Datatype> {
    Some(match kind {
        1 => Datatype::Fp32,
        2 => Datatype::Fp64,
        3 => Datatype::Int32,
        4 => Datatype::Uint8,
        5 => Datatype::Int16,
        6 => Datatype::Int8,
        7 => Datatype::Bytes,
        9 => Datatype::Int64,
        10 => Datatype::Bool,
        14 => Datatype::Bf16,
        17 => Datatype::Uint16,
        19 => Datatype::Fp16,
        22 => Datatype::Uint32,
        23 => Datatype::Uint64,
        _ => return None,
    })
}

fn read_part<R: BufRead + Seek>(reader: &mut Reader<R>, end: u64) -> Result<Part, FormatError> {
    let mut part = Part::default();
    reader.message(end, |reader, field, end| match field {
        1 => reader.message(end, |reader, field, end| {
            if field == 4 && part.tags.len() < 64 {
                part.tags.push(reader.string(end)?);
            }
            Ok(())
        }),
        5 => {
            let (name, ports) = read_entry(reader, end, read_ports)?;
            part.signatures.insert(name, ports);
            check_count(part.signatures.len())
        }
        _ => Ok(()),
    })?;
    Ok(part)
}

fn check_count(count: usize) -> Result<(), FormatError> {
    if count > MAX_ITEMS {
        return Err(Format::SavedModel.damaged("too many declarations"));
    }
    Ok(())
}

/// One entry of a map from texts.
fn read_entry<R: BufRead + Seek, T: Default>(
    reader: &mut Reader<R>,
    end: u64,
    mut value: impl FnMut(&mut Reader<R>, u64) -> Result<T, FormatError>,
) -> Result<(String, T), FormatError> {
    let (mut name, mut read) = (String::new(), T::default());
    reader.message(end, |reader, field, end| {
        match field {
            1 => name = reader.string(end)?,
            2 => read = value(reader, end)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok((name, read))
}

fn read_ports<R: BufRead + Seek>(reader: &mut Reader<R>, end: u64) -> Result<Ports, FormatError> {
    let mut ports = Ports::default();
    reader.message(end, |reader, field, end| {
        let side = match field {
            1 => &mut ports.inputs,
            2 => &mut ports.outputs,
            _ => return Ok(()),
        };
        let (name, info) = read_entry(reader, end, read_info)?;
        side.insert(name, info);
        check_count(side.len())
    })?;
    Ok(ports)
}

fn read_info<R: BufRead + Seek>(reader: &mut Reader<R>, end: u64) -> Result<Info, FormatError> {
    let mut info = Info::default();
    reader.fields(end, |reader, field, value| {
        match (field, value) {
            (1, Value::Message(end)) => info.tensor = reader.string(end)?,
            (2, Value::Varint(kind)) => info.kind = kind,
            (3, Value::Message(end)) => info.shape = read_shape(reader, end)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(info)
}

/// A `TensorShapeProto`; -1 for open dimensions, none for an open rank.
pub(super) fn read_shape<R: BufRead + Seek>(
    reader: &mut Reader<R>,
    end: u64,
) -> Result<Option<Vec<i64>>, FormatError> {
    let (mut shape, mut open) = (Vec::new(), false);
    reader.fields(end, |reader, field, value| {
        match (field, value) {
            (2, Value::Message(end)) if shape.len() < 64 => {
                let mut size = 0;
                reader.fields(end, |_, field, value| {
                    if let (1, Value::Varint(given)) = (field, value) {
                        // Negative numbers are ten bytes of two's complement.
                        size = i64::from_le_bytes(given.to_le_bytes());
                    }
                    Ok(())
                })?;
                shape.push(size.max(-1));
            }
            (3, Value::Varint(given)) => open = given != 0,
            _ => {}
        }
        Ok(())
    })?;
    Ok((!open).then_some(shape))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const KERAS: &[u8] = include_bytes!("../../tests/data/tensorflow/keras3/saved_model.pb");

    fn parsed(bytes: &[u8]) -> Result<Declared, FormatError> {
        parse(Cursor::new(bytes), bytes.len() as u64)
    }

    #[test]
    fn the_default_signature_of_a_keras_export_is_read() {
        let declared = parsed(KERAS).unwrap();
        assert_eq!(declared.tags, ["serve"]);
        let input = &declared.inputs[0];
        assert_eq!((input.spec.name.as_str(), input.spec.datatype), ("image", Datatype::Fp32));
        assert_eq!(input.spec.shape, Some(vec![-1, 8, 8, 3]));
        assert_eq!(input.tensor, "serving_default_image:0");
        assert_eq!(declared.outputs[0].spec.shape, Some(vec![-1, 5]));
    }

    #[test]
    fn without_a_default_the_only_signature_is_served() {
        let declared = parsed(include_bytes!("../../tests/data/tensorflow/shout/saved_model.pb")).unwrap();
        let names: Vec<_> = declared.outputs.iter().map(|output| output.spec.name.as_str()).collect();
        assert_eq!(names, ["length", "loud"]);
    }

    #[test]
    fn signatures_that_do_not_stand_out_are_named() {
        let part = Part {
            signatures: ["a", "b", INTERNAL].map(|name| (name.to_owned(), Ports::default())).into(),
            ..Part::default()
        };
        let error = part.choose().unwrap_err().to_string();
        assert!(error.contains("`a`, `b`") && !error.contains(INTERNAL), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn damaged_files_are_errors_and_never_panics(
            at in 0..KERAS.len(), value in proptest::num::u8::ANY, length in 0..KERAS.len()
        ) {
            let _ = parsed(&KERAS[..length]);
            let mut bytes = KERAS.to_vec();
            bytes[at] = value;
            let _ = parsed(&bytes);
        }
    }
}
