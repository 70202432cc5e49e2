//! OpenAPI of what is served: for `kubectl explain`, and for clients that check manifests. Version 3 is one document a
//! group, version 2 all in one, as JSON or, for older clients, as protobuf.

mod document;
mod gnostic;
mod operations;
mod schemas;
mod v2;
mod v3;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::LazyLock;

use axum::extract::{Path, Query};
use axum::http::header::{ACCEPT, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{ApiError, Hub};
use document::Document;

/// How clients name protobuf of version 2 where they ask for it.
const GNOSTIC: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// The same in answers, where some clients can't read the `@`.
const GNOSTIC_ANSWER: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

static V2: LazyLock<Value> = LazyLock::new(v2::document);
static V2_JSON: LazyLock<Document> = LazyLock::new(|| Document::json(&V2));
static V2_GNOSTIC: LazyLock<Document> =
    LazyLock::new(|| Document::new(GNOSTIC_ANSWER, gnostic::document(&V2)));
/// By the path of the group and version.
static V3: LazyLock<BTreeMap<String, Document>> = LazyLock::new(|| {
    v3::documents().into_iter().map(|(path, value)| (path, Document::json(&value))).collect()
});

/// `/openapi/v2`, `/openapi/v3` and below.
pub fn routes() -> Router<Arc<Hub>> {
    Router::new()
        .route("/openapi/v2", get(all))
        .route("/openapi/v3", get(index))
        .route("/openapi/v3/{*path}", get(group))
}

async fn all(headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let first = accept.split(',').map(|choice| choice.split(';').next().unwrap_or_default().trim());
    let wants_gnostic = first
        .take_while(|kind| *kind != "application/json")
        .any(|kind| matches!(kind, GNOSTIC | GNOSTIC_ANSWER));
    if wants_gnostic { V2_GNOSTIC.answer(&headers) } else { V2_JSON.answer(&headers) }
}

/// The address of a group's document changes with its content, so that clients may keep it for good.
fn address(path: &str, document: &Document) -> String {
    format!("/openapi/v3/{path}?hash={}", document.hash())
}

async fn index() -> Json<Value> {
    let paths: Map<String, Value> = V3
        .iter()
        .map(|(path, document)| (path.clone(), json!({"serverRelativeURL": address(path, document)})))
        .collect();
    Json(json!({"paths": paths}))
}

#[derive(Deserialize)]
struct Wanted {
    #[serde(default)]
    hash: String,
}

async fn group(
    Path(path): Path<String>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let document = V3
        .get(&path)
        .ok_or_else(|| ApiError::not_found("the server could not find the requested resource"))?;
    if wanted.hash.is_empty() {
        return Ok(document.answer(&headers));
    }
    if wanted.hash != document.hash() {
        return Ok((StatusCode::MOVED_PERMANENTLY, [(LOCATION, address(&path, document))]).into_response());
    }
    Ok(document.answer_for_good(&headers))
}

#[cfg(test)]
mod tests;
