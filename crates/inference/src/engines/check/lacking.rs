//! Which operators of a model no engine here has: each engine is asked about a graph of that operator alone.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::path::Path;

use super::super::{Engines, native};
use super::load;
use crate::engine::chain;
use crate::format::Source;
use crate::protobuf::{Message, Reader, Value};
use crate::{Engine, Format, FormatError};

/// What rten says of an operator that it doesn't have; ONNX Runtime, in domains that it knows and in others.
const UNKNOWN: [&str; 3] =
    ["operator not supported or not enabled", "No Op registered for", "is not a registered function/op"];
/// Most operators that are asked about.
const MOST: usize = 256;

/// Of these operators (`[DOMAIN.]NAME`) those that none of the engines has.
///
/// # Errors
/// When the file can't be read, or there is no room for temporary files.
pub(super) fn operators(
    engines: &Engines,
    path: &Path,
    names: &BTreeMap<String, usize>,
) -> Result<Vec<String>, FormatError> {
    let versions = versions(path)?;
    let scratch = tempfile::tempdir().map_err(FormatError::Io)?;
    let mut lacking = Vec::new();
    for name in names.keys().take(MOST) {
        let (domain, operator) = name.rsplit_once('.').unwrap_or(("", name));
        let file = scratch.path().join("model.onnx");
        std::fs::write(&file, graph(domain, operator, &versions)).map_err(FormatError::Io)?;
        let source = Source::open(&file)?;
        let mut available = engines.slots.iter().filter_map(|slot| slot.engine.as_deref());
        if !available.any(|engine| has(engine, domain, operator, &source)) {
            lacking.push(name.clone());
        }
    }
    Ok(lacking)
}

/// The engine may refuse the graph for much else: that its attributes are missing, or its inputs.
fn has(engine: &dyn Engine, domain: &str, operator: &str, source: &Source) -> bool {
    match engine.info().name {
        "native" => native::knows(domain, operator),
        _ if !engine.takes(Format::Onnx) || engine.defect().is_some() => false,
        _ => match load(engine, source) {
            Ok(_) => true,
            Err(error) => !UNKNOWN.iter().any(|unknown| chain(&error).contains(unknown)),
        },
    }
}

/// Which version of each domain's operators the model is written in. Its functions say so for themselves; the model
/// goes before.
fn versions(path: &Path) -> Result<Vec<(String, u64)>, FormatError> {
    let file = File::open(path).map_err(FormatError::Io)?;
    let length = file.metadata().map_err(FormatError::Io)?.len();
    let mut reader = Reader::new(BufReader::new(file), Format::Onnx);
    let (mut versions, mut of_functions) = (Vec::new(), Vec::<(String, u64)>::new());
    reader.message(length, |reader, field, end| {
        match field {
            8 => versions.push(read_version(reader, end)?),
            25 => reader.message(end, |reader, field, end| {
                if field == 9 {
                    of_functions.push(read_version(reader, end)?);
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    })?;
    for (domain, version) in of_functions {
        if !versions.iter().any(|(known, _)| *known == domain) {
            versions.push((domain, version));
        }
    }
    Ok(versions)
}

fn read_version<R: BufRead + Seek>(reader: &mut Reader<R>, end: u64) -> Result<(String, u64), FormatError> {
    let (mut domain, mut version) = (String::new(), 1);
    reader.fields(end, |reader, field, value| {
        match (field, value) {
            (1, Value::Message(end)) => domain = reader.string(end)?,
            (2, Value::Varint(number)) => version = number,
            _ => {}
        }
        Ok(())
    })?;
    Ok((domain, version))
}

/// A model with one node, from `x` to `y`, both FP32 `[1]`.
fn graph(domain: &str, operator: &str, versions: &[(String, u64)]) -> Vec<u8> {
    let dimension = Message::default().bytes(1, &Message::default().number(1, 1).0);
    let tensor = Message::default().number(1, 1).bytes(2, &dimension.0);
    let kind = Message::default().bytes(1, &tensor.0);
    let value = |name: &[u8]| Message::default().bytes(1, name).bytes(2, &kind.0).0;
    let node = Message::default().bytes(1, b"x").bytes(2, b"y").bytes(4, operator.as_bytes());
    let node = node.bytes(7, domain.as_bytes());
    let graph = Message::default().bytes(1, &node.0).bytes(2, b"one");
    let graph = graph.bytes(11, &value(b"x")).bytes(12, &value(b"y"));
    let model = Message::default().number(1, 8).bytes(7, &graph.0);
    let import = |model: Message, (domain, version): &(String, u64)| {
        model.bytes(8, &Message::default().bytes(1, domain.as_bytes()).number(2, *version).0)
    };
    versions.iter().fold(model, import).0
}

#[cfg(test)]
mod tests {
    use crate::{EngineOptions, check};

    use super::*;

    /// A call of the model's own function, with one operator in it.
    fn calling(operator: &str) -> Vec<u8> {
        let opset = |domain: &[u8], version| Message::default().bytes(1, domain).number(2, version).0;
        let node = Message::default().bytes(1, b"a").bytes(2, b"b").bytes(4, operator.as_bytes()).0;
        let function = Message::default().bytes(1, b"F").bytes(4, b"a").bytes(5, b"b").bytes(7, &node);
        let function = function.bytes(9, &opset(b"", 17)).bytes(10, b"d").0;
        let model = graph("d", "F", &[(String::new(), 17), ("d".into(), 1)]);
        [model, Message::default().bytes(25, &function).0].concat()
    }

    #[test]
    fn what_counts_of_a_function_of_the_models_own_is_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let off = Some("off".into());
        // rten calls no functions.
        let options = EngineOptions { onnxruntime: off.clone(), tensorflow: off, ..EngineOptions::default() };
        for (operator, lacking) in [("Abs", &[][..]), ("Frobnicate", &["Frobnicate"])] {
            let path = folder.path().join("model.onnx");
            std::fs::write(&path, calling(operator)).unwrap();
            let checked = check(&path, &options).unwrap();
            assert_eq!(checked.operators, [(operator.to_owned(), 1)].into());
            assert!(checked.engines.iter().all(|engine| engine.refusal.is_some()));
            assert_eq!(checked.unsupported, lacking);
        }
    }
}
