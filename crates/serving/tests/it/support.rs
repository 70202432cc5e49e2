//! A server over the models that the inference crate's tests use.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use daemon::Tasks;
use inference::{EngineChoice, EngineOptions, Engines, LoadRequest, Options, Repository};
use serde_json::Value;
use store::Ledger;
use tower::ServiceExt;

use avocet_serving::mlbuffet::{self, Buffet};
use avocet_serving::{Guard, Jobs, ServerState, Shelf, Tracer, Unguarded, jobs, router, shelf};

pub fn model(name: &str) -> PathBuf {
    Path::new("../inference/tests/data").join(format!("{name}.onnx"))
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

/// A server with uploaded models and jobs whose state is in a folder.
pub struct Kept {
    pub app: Router,
    pub shelf: Shelf,
    pub repository: Repository,
    tasks: Tasks,
}

/// How a [`Kept`] is set up.
#[derive(Default)]
pub struct Setup {
    pub legacy: bool,
    pub shelf: shelf::Options,
    pub jobs: jobs::Options,
    pub guard: Option<Arc<dyn Guard>>,
    pub tracer: Option<Tracer>,
    /// Accepts jobs without computing any.
    pub idle: bool,
    /// Computes jobs in place of the routes that answer at once.
    pub later: Option<Router>,
}

impl Kept {
    pub fn open(folder: &Path, setup: Setup) -> Kept {
        Kept::on(folder, repository(), setup)
    }

    pub fn on(folder: &Path, repository: Repository, setup: Setup) -> Kept {
        let guard = setup.guard.unwrap_or_else(|| Arc::new(Unguarded));
        let ledger = Ledger::open(&folder.join("site.db")).unwrap();
        let shelf =
            Shelf::open(&folder.join("models"), ledger.clone(), repository.clone(), setup.shelf).unwrap();
        let mut state = ServerState::new(repository.clone());
        if let Some(tracer) = setup.tracer {
            state = state.traces(tracer);
        }
        let buffet = Buffet::new(state.clone(), shelf.clone(), guard.clone()).legacy(setup.legacy);
        let answering = router(state).merge(mlbuffet::router(buffet));
        let jobs = Jobs::open(&folder.join("jobs"), ledger, repository.clone(), guard, setup.jobs).unwrap();
        let (app, tasks) = (jobs.router(answering.clone()), Tasks::default());
        let answering = setup.later.unwrap_or(answering);
        if !setup.idle {
            let shutdown = tasks.shutdown();
            tasks.spawn("jobs", async move { jobs.run(answering, || true, shutdown).await });
        }
        Kept { app, shelf, repository, tasks }
    }

    /// Ends its tasks, so that its folder can be opened anew.
    pub async fn end(self) {
        assert!(self.tasks.end(Duration::from_secs(20)).await);
    }
}

/// A part of a form: name, file name, content type, content.
pub type Part<'a> = (&'a str, Option<&'a str>, Option<&'a str>, &'a [u8]);

/// The content type and body of a form with files and texts.
pub fn form(parts: &[Part<'_>]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for (name, file, kind, content) in parts {
        let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
        let kind = kind.map(|kind| format!("\r\nContent-Type: {kind}")).unwrap_or_default();
        let head = format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"{file}{kind}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--XX--\r\n");
    ("multipart/form-data; boundary=XX".into(), body)
}

/// Uploads a model as MLBuffet's clients do.
pub async fn upload(app: &Router, tag: &str, file: &str, content: &[u8]) -> Reply {
    let (kind, body) =
        form(&[("path", Some(file), None, content), ("library_version", None, None, b"onnx==1.17")]);
    send(app, "POST", &format!("/api/v1/models/{tag}"), &[("content-type", &kind)], body).await
}

/// A model of the crate's own tests.
pub fn own_model(name: &str) -> Vec<u8> {
    let folder = Path::new("tests/data");
    std::fs::read(folder.join(format!("{name}.onnx"))).unwrap()
}
