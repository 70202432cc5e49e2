//! A server over the models that the inference crate's tests use.

use std::path::{Path, PathBuf};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use inference::{EngineChoice, EngineOptions, Engines, LoadRequest, Options, Repository};
use serde_json::Value;
use tower::ServiceExt;

use avocet_serving::{ServerState, router};

pub fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../inference/tests/data").join(format!("{name}.onnx"))
}

/// A repository with `affine` (versions 1 and 2, 2 the default), `int64`, `add_sub`, `small_types` and `log` on rten.
pub fn repository() -> Repository {
    let engines = Engines::discover(&EngineOptions::default());
    let repository = Repository::new(engines, Options { workers: 2, ..Options::default() }).unwrap();
    let versions = [
        ("affine", "1"),
        ("affine", "2"),
        ("int64", "1"),
        ("add_sub", "1"),
        ("small_types", "1"),
        ("log", "1"),
    ];
    for (name, version) in versions {
        let request = LoadRequest::new(name, version, model(name));
        repository.load(LoadRequest { engine: EngineChoice::Rten, ..request }).unwrap();
    }
    repository
}

pub fn app() -> Router {
    router(ServerState::new(repository()))
}

pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub fn error(&self) -> String {
        assert!(!self.status.is_success());
        let json = self.json();
        assert_eq!(json.as_object().unwrap().len(), 1);
        json["error"].as_str().unwrap().into()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

pub async fn send(
    app: &Router,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Reply {
    let request = Request::builder().method(method).uri(path);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let response = app.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    Reply { status: parts.status, headers: parts.headers, body }
}

pub async fn get(app: &Router, path: &str) -> Reply {
    send(app, "GET", path, &[], "").await
}

pub async fn post(app: &Router, path: &str, body: impl Into<Body>) -> Reply {
    send(app, "POST", path, &[], body).await
}

/// A request of one FP32 input `x`.
pub fn x(shape: &str, data: &str) -> String {
    format!(r#"{{"inputs":[{{"name":"x","shape":{shape},"datatype":"FP32","data":{data}}}]}}"#)
}
