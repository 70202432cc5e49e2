//! A registry as its clients see it, in this process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod garbage;
mod lists;
mod origins;
mod pulls;
mod pushes;
mod signatures;

use std::path::Path;
use std::sync::Arc;

use artifacts::Blobs;
use avocet_registry::front::{self, Reads, Uploader};
use avocet_registry::{Limits, Registry};
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use bytes::Bytes;
use serde_json::{Value, json};
use store::Ledger;
use tempfile::TempDir;
use tower::ServiceExt;
use types::Digest;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

struct Server {
    _folder: TempDir,
    registry: Registry,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The code of the specification that a refusal has.
    fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap().to_owned()
    }

    fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        self
    }
}

fn open(folder: &Path, limits: Limits) -> Registry {
    let blobs = Blobs::open(folder.join("artifacts")).unwrap();
    let ledger = Ledger::open(&folder.join("hub.db")).unwrap();
    Registry::open(&folder.join("artifacts/uploads"), blobs, ledger, limits).unwrap()
}

impl Server {
    fn new() -> Self {
        Self::limited(Limits::default())
    }

    fn limited(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = open(folder.path(), limits);
        Self { _folder: folder, registry }
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        self.send_with(method, path, headers, body, |_| {}).await
    }

    /// The same, with a request that is changed before it is sent.
    async fn send_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
        change: impl FnOnce(&mut Request<Body>),
    ) -> Answer {
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(body.into()).unwrap();
        let readable = Reads(Arc::new(|repository| !repository.as_str().starts_with("secret")));
        request.extensions_mut().insert(readable);
        if let Some((_, user)) = headers.iter().find(|(name, user)| *name == "user" && !user.is_empty()) {
            request.extensions_mut().insert(Uploader((*user).into()));
        }
        change(&mut request);
        let response = front::router(self.registry.clone()).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    /// Begins an upload; answers where it goes on.
    async fn begin(&self, repository: &str) -> String {
        let begun = self.send("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], "").await.expect(202);
        begun.header("location").to_owned()
    }

    async fn push_blob(&self, repository: &str, content: &[u8]) -> Value {
        let digest = Digest::of(content);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        self.send("POST", &path, &[], content.to_vec()).await.expect(201);
        json!({"mediaType": "application/octet-stream", "digest": digest, "size": content.len()})
    }

    /// Pushes a manifest with one layer; answers its descriptor.
    async fn push(&self, repository: &str, reference: &str, layer: &[u8], further: Value) -> Value {
        let config = self.push_blob(repository, b"{}").await;
        let layer = self.push_blob(repository, layer).await;
        let mut manifest =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
        for (key, value) in further.as_object().unwrap() {
            manifest[key] = value.clone();
        }
        self.put(repository, reference, MANIFEST, &manifest).await
    }

    async fn put(&self, repository: &str, reference: &str, media_type: &str, manifest: &Value) -> Value {
        let bytes = manifest.to_string();
        let digest = Digest::of(bytes.as_bytes());
        let reference = if reference.is_empty() { digest.to_string() } else { reference.to_owned() };
        let path = format!("/v2/{repository}/manifests/{reference}");
        let size = bytes.len();
        let put = self.send("PUT", &path, &[("content-type", media_type)], bytes).await.expect(201);
        assert_eq!(put.header("docker-content-digest"), digest.to_string());
        json!({"mediaType": media_type, "digest": digest, "size": size})
    }
}

fn digest_of(descriptor: &Value) -> &str {
    descriptor["digest"].as_str().unwrap()
}
