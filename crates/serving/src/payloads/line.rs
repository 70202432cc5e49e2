//! One request as one line of JSON.

use inference::{Datatype, Tensor};
use serde_json::{Value, json};
use types::Payloads;

use super::{Outcome, Record};
use crate::encode::write_data;

/// How much of one element of text is written, in bytes.
const LONGEST_TEXT: usize = 1024;

pub(super) fn of(settings: &Payloads, record: Record) -> String {
    let Record { time, model, version, trace, took, inputs, outcome } = record;
    let tensors =
        |tensors: &[Tensor]| -> Value { tensors.iter().map(|tensor| shown(settings, tensor)).collect() };
    let mut line = json!({
        "time": time,
        "model": model,
        "version": version,
        "microseconds": u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        "inputs": tensors(&inputs),
    });
    let mut say = |name: &str, value: Value| {
        if let Some(members) = line.as_object_mut() {
            members.insert(name.to_owned(), value);
        }
    };
    if let Some(trace) = trace {
        say("traceId", trace.to_string().into());
    }
    match outcome {
        Outcome::Answered { outputs, cached } => {
            say("outputs", tensors(&outputs));
            say("cached", cached.into());
        }
        Outcome::Failed(error) => say("error", error.into()),
    }
    format!("{line}\n")
}

fn shown(settings: &Payloads, tensor: &Tensor) -> Value {
    let limit = usize::try_from(settings.max_elements).unwrap_or(usize::MAX);
    let data = match settings.redact.iter().any(|name| name == tensor.name()) {
        true => "redacted".into(),
        false => first(tensor, limit).unwrap_or_default(),
    };
    let (name, datatype) = (tensor.name(), tensor.datatype().name());
    json!({ "name": name, "datatype": datatype, "shape": tensor.shape(), "data": data })
}

/// The first elements; `None` can't happen, for the parts of a tensor agree.
fn first(tensor: &Tensor, limit: usize) -> Option<Value> {
    let count = tensor.count().min(limit);
    let Some(size) = tensor.datatype().size() else {
        let text = |element: &[u8]| {
            let (kept, _) = element.split_at(element.len().min(LONGEST_TEXT));
            Value::from(String::from_utf8_lossy(kept))
        };
        debug_assert_eq!(tensor.datatype(), Datatype::Bytes);
        return Some(tensor.strings().take(count).map(text).collect());
    };
    let bytes = tensor.data().slice(..count.checked_mul(size)?);
    let cut = Tensor::from_bytes(tensor.name(), tensor.datatype(), [count], bytes).ok()?;
    let mut json = Vec::new();
    write_data(&mut json, &cut).ok()?;
    serde_json::from_slice(&json).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn tensors_are_cut_and_redacted_and_text_is_text() {
        let settings = Payloads { redact: vec!["secret".into()], max_elements: 2, ..Payloads::default() };
        let record = Record {
            time: daemon::now(),
            model: "m".into(),
            version: "1".into(),
            trace: None,
            took: Duration::from_micros(5),
            inputs: vec![
                Tensor::from_vec("x", [1, 3], vec![0.5_f32, f32::NAN, 2.0]).unwrap(),
                Tensor::from_vec("secret", [1], vec![7_i64]).unwrap(),
                Tensor::from_strings("t", [3], [b"a\n".to_vec(), vec![b'b'; 5000], vec![]]).unwrap(),
            ],
            outcome: Outcome::Failed("no".into()),
        };
        let line = of(&settings, record);
        assert_eq!(line.matches('\n').count(), 1);
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["inputs"][0]["data"], json!([0.5, null]));
        assert_eq!(line["inputs"][0]["shape"], json!([1, 3]));
        assert_eq!(line["inputs"][1]["data"], "redacted");
        assert_eq!(line["inputs"][2]["data"], json!(["a\n", "b".repeat(LONGEST_TEXT)]));
        assert_eq!((&line["error"], &line["microseconds"]), (&json!("no"), &json!(5)));
    }
}
