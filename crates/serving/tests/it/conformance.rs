//! Exchanges that were recorded with Triton 2.51, replayed: status, headers and the form of every answer are the same,
//! but for the differences listed here with their reasons.

use std::sync::Arc;

use avocet_serving::{ControlMode, Folder, ServerState, router};
use axum::Router;
use inference::{EngineOptions, Engines, Options, Repository};
use serde::Deserialize;
use serde_json::Value;

use crate::onnx::{identity, largest};
use crate::support::{Reply, model, send};

#[derive(Deserialize)]
struct Exchange {
    note: String,
    req: String,
    req_headers: std::collections::BTreeMap<String, String>,
    req_body: Option<String>,
    status: u16,
    headers: std::collections::BTreeMap<String, String>,
    body: String,
}

/// What is answered with another status than Triton's: the request, its note, ours, why.
const STATUS: [(&str, &str, u16, &str); 8] = [
    ("GET /v2/models/nope/ready", "", 404, "there is no such model, so waiting for it is in vain"),
    ("POST /v2/repository/models/nope/load", "", 404, "a client's mistake is no failure of the server"),
    ("POST /v2/repository/models/nope/unload", "", 404, "nothing was unloaded"),
    ("POST /v2/models/iris/infer", "wrong dtype", 400, "a client's mistake is no failure of the server"),
    ("POST /v2/models/iris/infer", "wrong shape/data size", 400, "the same"),
    ("POST /v2/models/iris/infer", "too little data", 400, "the same"),
    ("POST /v2/models/iris/infer", "bad json", 400, "the same"),
    ("POST /v2/models/iris/infer", "no inputs", 400, "the same"),
];

/// What is answered in another form: the note, and why.
const FORM: [(&str, &str); 1] = [(
    "binary_data_output",
    "said of the whole request it holds for listed outputs, too, as the protocol has it",
)];

/// Members that are not compared, and why.
const MEMBERS: [(&str, &str); 3] = [
    ("parameters", "of a configuration: settings of Triton's ONNX Runtime backend"),
    ("extensions", "each server names what it has"),
    ("preferred_batch_size", "there is none here: batches are as large as what waits"),
];

/// A repository like the one of the recording.
fn app() -> (Router, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, content: &[u8]| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    write("iris/1/model.onnx", &largest("float_input", 4, "output_label"));
    write("iris/config.pbtxt", b"max_batch_size: 4 instance_group { count: 2 }");
    write("magika/1/model.onnx", &identity(1, &[-1, 5]));
    write("ocrcls/1/model.onnx", &std::fs::read(model("affine")).unwrap());
    write("yolo/1/model.onnx", &std::fs::read(model("affine")).unwrap());
    let engines = Engines::discover(&EngineOptions::default());
    let repository = Repository::new(engines, Options { workers: 2, ..Options::default() }).unwrap();
    let control =
        Folder::open(vec![folder.path().into()], repository.clone(), ControlMode::Explicit).unwrap();
    assert_eq!(control.load_all(&["iris".into(), "magika".into()]), []);
    (router(ServerState::new(repository).control(Arc::new(control))), folder)
}

fn body(exchange: &Exchange) -> Vec<u8> {
    let floats = [5.1_f32, 3.5, 1.4, 0.2].map(f32::to_le_bytes).concat();
    match exchange.note.as_str() {
        "binary" => {
            let json = r#"{"inputs":[{"name":"float_input","shape":[1,4],"datatype":"FP32","parameters":{"binary_data_size":16}}],"outputs":[{"name":"output_label","parameters":{"binary_data":true}}]}"#;
            let length: usize = exchange.req_headers["Inference-Header-Content-Length"].parse().unwrap();
            let padded = format!("{json:length$}");
            assert_eq!(padded.len(), length, "the recorded header fits");
            [padded.into_bytes(), floats].concat()
        }
        "raw binary" => floats,
        "classification" => {
            br#"{"inputs":[{"name":"x","shape":[1,5],"datatype":"FP32","data":[0.1,0.5,0.05,0.3,0.05]}],"outputs":[{"name":"y","parameters":{"classification":3}}]}"#.to_vec()
        }
        _ => exchange.req_body.clone().unwrap_or_default().into_bytes(),
    }
}

#[tokio::test]
async fn answers_have_tritons_status_and_form_but_for_the_differences_listed() {
    let exchanges: Vec<Exchange> = serde_json::from_str(include_str!("../data/triton_rest.json")).unwrap();
    assert_eq!(exchanges.len(), 48);
    let (app, _folder) = app();
    let (mut problems, mut differing) = (Vec::new(), 0);
    for exchange in &exchanges {
        let (method, path) = exchange.req.split_once(' ').unwrap();
        let headers: Vec<(&str, &str)> =
            exchange.req_headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let reply = send(&app, method, path, &headers, body(exchange)).await;
        let listed = STATUS.iter().find(|(req, note, ..)| *req == exchange.req && *note == exchange.note);
        differing += usize::from(listed.is_some());
        let expected = listed.map_or(exchange.status, |(_, _, status, _)| *status);
        if reply.status != expected {
            problems.push(format!("{} ({}): {} {:?}", exchange.req, exchange.note, reply.status, reply.body));
        } else if FORM.iter().any(|(note, _)| *note == exchange.note) {
            assert!(compare(exchange, &reply).is_err(), "{} is listed as another form", exchange.note);
        } else if let Err(problem) = compare(exchange, &reply) {
            problems.push(format!("{} ({}): {problem}", exchange.req, exchange.note));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert_eq!(differing, STATUS.len(), "every listed difference is met");
}

fn compare(exchange: &Exchange, reply: &Reply) -> Result<(), String> {
    if !reply.status.is_success() {
        let error = reply.error();
        // What a message names in quotes is what clients look for.
        let named = exchange.body.split('\'').skip(1).step_by(2).filter(|name| ["nope", "zz"].contains(name));
        return match named.into_iter().find(|name| !error.contains(*name)) {
            Some(name) => Err(format!("`{error}` does not name {name}")),
            None => Ok(()),
        };
    }
    if exchange.body.is_empty() {
        return if reply.body.is_empty() { Ok(()) } else { Err(format!("a body: {:?}", reply.body)) };
    }
    let kind = reply.header("content-type");
    if kind != exchange.headers.get("content-type").map(String::as_str) {
        return Err(format!("content type {kind:?}"));
    }
    let split = |length: Option<&str>, body: &[u8]| {
        let length = length.map_or(body.len(), |length| length.parse().unwrap());
        (serde_json::from_slice::<Value>(&body[..length]).unwrap(), body[length..].to_vec())
    };
    let name = "inference-header-content-length";
    let (theirs, their_tensors) =
        split(exchange.headers.get(name).map(String::as_str), exchange.body.as_bytes());
    let (ours, our_tensors) = split(reply.header(name), &reply.body);
    if our_tensors.len() != their_tensors.len() {
        return Err(format!("{} bytes of tensors", our_tensors.len()));
    }
    same_form("", &theirs, &ours)
}

fn same_form(at: &str, theirs: &Value, ours: &Value) -> Result<(), String> {
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            if !theirs.keys().eq(ours.keys()) {
                let names =
                    |members: &serde_json::Map<String, Value>| members.keys().cloned().collect::<Vec<_>>();
                return Err(format!("{at} has {:?}, Triton's {:?}", names(ours), names(theirs)));
            }
            let mut compared =
                theirs.iter().filter(|(name, _)| !MEMBERS.iter().any(|(skipped, _)| skipped == name));
            compared.try_for_each(|(name, value)| same_form(&format!("{at}.{name}"), value, &ours[name]))
        }
        (Value::Array(theirs), Value::Array(ours)) if theirs.len() == ours.len() => {
            theirs.iter().zip(ours).try_for_each(|(theirs, ours)| same_form(at, theirs, ours))
        }
        (Value::String(_), Value::String(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::Bool(_), Value::Bool(_))
        | (Value::Null, Value::Null) => Ok(()),
        _ => Err(format!("{at} is {ours}, Triton's {theirs}")),
    }
}
