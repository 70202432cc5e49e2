//! Exchanges with a real MLBuffet, as they were recorded: `status` and `body` are its own, `true` is what the truthful
//! mode says where that is something else.

use std::path::Path;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Kept, Reply, Setup, form, own_model, send};

fn exchanges() -> Vec<Value> {
    let file = Path::new("tests/data/mlbuffet.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

async fn repeat(server: &Kept, exchange: &Value, file_name: &str) -> Reply {
    let (method, path, sent) = (text(exchange, "method"), text(exchange, "path"), &exchange["send"]);
    if let Some(json) = sent.get("json") {
        let kind = [("content-type", "application/json")];
        return send(&server.app, method, path, &kind, json.to_string()).await;
    }
    let Some(file) = sent.get("file") else {
        return send(&server.app, method, path, &[], text(sent, "raw").to_owned()).await;
    };
    let content = match text(file, "content") {
        "model" => own_model("label"),
        "picture" => picture(),
        _ => b"a".to_vec(),
    };
    let mut parts = vec![(text(file, "field"), Some(file_name), file["kind"].as_str(), content.as_slice())];
    for (name, value) in sent["form"].as_object().into_iter().flatten() {
        parts.push((name, None, None, value.as_str().unwrap().as_bytes()));
    }
    let (kind, body) = form(&parts);
    send(&server.app, method, path, &[("content-type", &kind)], body).await
}

pub fn picture() -> Vec<u8> {
    let folder = Path::new("../inference/tests/data/vision");
    std::fs::read(folder.join("baseline.jpg")).unwrap()
}

/// The time of an upload is another one each time.
fn timeless(mut body: Value) -> Value {
    for version in body["tag_list_versions"].as_object_mut().into_iter().flat_map(|all| all.values_mut()) {
        let time = version["time"].as_str().unwrap();
        assert!(time.len() == 19 && time.as_bytes()[2] == b':' && time.as_bytes()[11] == b'/', "{time}");
        version["time"] = json!("");
    }
    body
}

fn parse(body: &[u8]) -> Value {
    timeless(serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {body:?}")))
}

/// A server without other models than what is uploaded.
fn server(folder: &Path, legacy: bool) -> Kept {
    let engines = inference::Engines::discover(&inference::EngineOptions::default());
    let options = inference::Options { workers: 1, ..inference::Options::default() };
    let repository = inference::Repository::new(engines, options).unwrap();
    Kept::on(folder, repository, Setup { legacy, ..Setup::default() })
}

fn check_file(reply: &Reply, file: &str, exchange: &Value) {
    assert_eq!(reply.status, StatusCode::OK, "{exchange}");
    let disposition = format!("attachment; filename={file}");
    assert_eq!(reply.header("content-disposition"), Some(disposition.as_str()));
    assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
    assert_eq!(reply.body, own_model("label"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_legacy_mode_every_exchange_is_as_recorded_to_the_byte() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), true);
    for exchange in exchanges() {
        let reply = repeat(&server, &exchange, text(&exchange["send"]["file"], "name")).await;
        if let Some(file) = exchange["file"].as_str() {
            check_file(&reply, file, &exchange);
            continue;
        }
        assert_eq!(u64::from(reply.status.as_u16()), exchange["status"], "{exchange}: {:?}", reply.body);
        assert_eq!(reply.header("content-type"), Some("application/json"));
        let expected = text(&exchange, "body");
        if expected.contains("tag_list_versions") {
            assert_eq!(parse(&reply.body), parse(expected.as_bytes()), "{exchange}");
        } else {
            assert_eq!(String::from_utf8_lossy(&reply.body), expected, "{exchange}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn otherwise_http_and_body_tell_the_same_truth() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), false);
    for exchange in exchanges() {
        let truth = &exchange["true"];
        let name = truth["name"].as_str().unwrap_or(text(&exchange["send"]["file"], "name"));
        let reply = repeat(&server, &exchange, name).await;
        if let Some(file) = exchange["file"].as_str() {
            check_file(&reply, file, &exchange);
            continue;
        }
        let body = parse(&reply.body);
        let status = if truth.is_null() { &exchange["status"] } else { &truth["status"] };
        assert_eq!(u64::from(reply.status.as_u16()), *status, "{exchange}: {body}");
        assert_eq!(body["http_status"]["code"], *status, "{exchange}: {body}");
        if let Some(words) = truth["says"].as_str() {
            assert!(text(&body["http_status"], "description").contains(words), "{exchange}: {body}");
        }
        if truth.is_null() {
            assert_eq!(body, parse(text(&exchange, "body").as_bytes()), "{exchange}");
        }
        if let Some(values) = truth.get("values") {
            assert_eq!(&body["values"], values, "{exchange}");
        }
    }
}
