//! The OCI distribution front: what podman, skopeo and their like speak.
//!
//! It knows nobody: who lets requests in puts [`Reads`] into their extensions if blobs may be mounted across
//! repositories.

mod answers;
mod blobs;
mod manifests;
mod range;
mod target;
mod unread;
mod uploads;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use axum::routing::any;

pub use answers::Refusal;
pub use unread::read_rest;

use crate::{Demand, Error, Registry, Repository};
use target::Target;

/// Which repositories the maker of a request may read.
#[derive(Clone)]
pub struct Reads(pub Arc<dyn Fn(&Repository) -> bool + Send + Sync>);

/// Who makes a request; put into its extensions where users are told apart, it is what their uploads are counted by.
#[derive(Clone)]
pub struct Uploader(pub Arc<str>);

/// Serves a registry at `/v2/`.
pub fn router(registry: Registry) -> Router {
    Router::new()
        .route("/v2", any(handle))
        .route("/v2/", any(handle))
        .route("/v2/{*path}", any(handle))
        .with_state(registry)
}

/// What handlers need of a request, beside its body.
struct Asked {
    method: Method,
    headers: HeaderMap,
    query: Vec<(String, String)>,
    reads: Option<Reads>,
    user: Option<Arc<str>>,
    demand: Option<Demand>,
}

impl Asked {
    /// A parameter; the first if there are several.
    fn text(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn header(&self, name: impl axum::http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// How many entries are wanted; all if it isn't said.
    fn limit(&self) -> Result<usize, Refusal> {
        match self.text("n") {
            None => Ok(usize::MAX),
            Some(text) => text.parse().map_err(|_| Refusal::pagination(text)),
        }
    }

    fn may_read(&self, repository: &Repository) -> bool {
        self.reads.as_ref().is_some_and(|reads| (reads.0)(repository))
    }
}

async fn handle(State(registry): State<Registry>, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let target = Target::read(parts.uri.path())?;
    let query = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
    let query = query.map_err(|error| Refusal::query(&error.body_text()))?.0;
    let reads = parts.extensions.get::<Reads>().cloned();
    let user = parts.extensions.get::<Uploader>().map(|uploader| uploader.0.clone());
    let demand = parts.extensions.get::<Demand>().cloned();
    let asked = Asked { method: parts.method, headers: parts.headers, query, reads, user, demand };
    match target {
        Target::Version => answers::version(&asked),
        Target::Catalog => manifests::catalog(&registry, &asked),
        Target::Tags(repository) => manifests::tags(&registry, &repository, &asked),
        Target::Referrers(repository, digest) => {
            manifests::referrers(&registry, &repository, &digest, &asked)
        }
        Target::Manifest(repository, reference) => {
            manifests::handle(&registry, &repository, &reference, &asked, body).await
        }
        Target::Blob(repository, digest) => blobs::handle(&registry, &repository, &digest, &asked).await,
        Target::Uploads(repository) => uploads::begin(&registry, &repository, &asked, body).await,
        Target::Upload(repository, id) => uploads::handle(&registry, &repository, id, &asked, body).await,
        Target::Unknown => Err(Error::NameUnknown(parts.uri.path().chars().take(80).collect()).into()),
    }
}
