//! Artifacts by digest: pushed by people, fetched by sites, resumable by range.

use std::io::SeekFrom;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json};
use futures::TryStreamExt;
use serde_json::{Value, json};
use tokio::io::AsyncSeekExt;
use tokio_util::io::{ReaderStream, StreamReader};
use types::Digest;

use crate::authentication::User;
use crate::limits::Held;
use crate::{ApiError, Hub};

/// How large an artifact may be, in bytes.
const LARGEST: usize = 16 << 30;
const CHUNK: usize = 256 << 10;

pub fn routes() -> Router<Arc<Hub>> {
    // GET serves HEAD as well: the body is dropped before it is read.
    Router::new()
        .route("/avocet/v1/blobs/{digest}", get(read).put(write))
        .route("/avocet/v1/blobs/{digest}/pieces", get(pieces))
        .layer(DefaultBodyLimit::max(LARGEST))
}

fn parse(digest: &str) -> Result<Digest, ApiError> {
    digest.parse().map_err(|error: types::InvalidDigest| ApiError::bad_request(error.to_string()))
}

fn refuse(error: &artifacts::Error) -> ApiError {
    match error {
        artifacts::Error::Missing { .. } => ApiError::not_found(error.to_string()),
        artifacts::Error::Corrupt { .. } => ApiError::bad_request(error.to_string()),
        _ => ApiError::internal(error),
    }
}

/// What is not here may be at the hub above. Who waits for that takes no place of others.
async fn bring(hub: &Hub, place: &Held, digest: &Digest) -> Result<(), ApiError> {
    let Some(parent) = hub.parent.as_ref().filter(|_| !hub.blobs.has(digest)) else { return Ok(()) };
    place.give_back();
    match parent.bring(&hub.blobs, digest).await {
        Ok(()) => Ok(()),
        Err(error @ (artifacts::Error::Io { .. } | artifacts::Error::Corrupt { .. })) => Err(refuse(&error)),
        // It is not here, then: who wants it asks again, and who has it sends it.
        Err(error) => {
            tracing::debug!(%digest, error = daemon::chain(&error), "can't be brought from the hub above");
            Ok(())
        }
    }
}

async fn read(
    State(hub): State<Arc<Hub>>,
    Extension(user): Extension<Arc<User>>,
    Extension(place): Extension<Held>,
    Path(digest): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let digest = parse(&digest)?;
    if method != Method::HEAD {
        bring(&hub, &place, &digest).await?;
    } else if let Some(parent) =
        hub.parent.as_ref().filter(|_| user.site().is_some() && !hub.blobs.has(&digest))
    {
        // A hub below asks how large it is, and then for it. Others ask whether they have to send it: they do.
        let size = parent.size(&digest).await.map_err(|error| refuse(&error))?;
        return Ok(([(CONTENT_LENGTH, size.to_string())], Body::empty()).into_response());
    }
    if method == Method::HEAD {
        // Who looks whether it has to be sent is about to name it.
        hub.registry.touch(&digest).await.map_err(|error| ApiError::internal(&error))?;
    }
    let size = hub.blobs.size(&digest).map_err(|error| refuse(&error))?;
    let offset = range(&headers, size)?;
    if method == Method::HEAD {
        return Ok(([(CONTENT_LENGTH, (size - offset).to_string())], Body::empty()).into_response());
    }
    let download = hub.egress.enter()?;
    let mut file =
        tokio::fs::File::open(hub.blobs.path(&digest)).await.map_err(|error| ApiError::internal(&error))?;
    file.seek(SeekFrom::Start(offset)).await.map_err(|error| ApiError::internal(&error))?;
    let body = Body::from_stream(ReaderStream::with_capacity(file, CHUNK));
    Ok(download.pace(rest(body, offset, size)))
}

/// From which byte on something is wanted.
///
/// # Errors
/// 400 for ranges that are not `bytes=N-`.
pub(crate) fn range(headers: &HeaderMap, size: u64) -> Result<u64, ApiError> {
    let Some(range) = headers.get(RANGE).map(|range| range.to_str().unwrap_or_default()) else {
        return Ok(0);
    };
    let start = range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
    let start = start.and_then(|start| start.parse::<u64>().ok()).filter(|start| *start < size);
    start.ok_or_else(|| {
        ApiError::bad_request(format!("range `{range}` can't be served; send `bytes=N-` with N below {size}"))
    })
}

/// What is there from a byte on, and that it is so.
pub(crate) fn rest(body: Body, offset: u64, size: u64) -> Response {
    let mut response = ([(CONTENT_LENGTH, (size - offset).to_string())], body).into_response();
    response.headers_mut().insert(ACCEPT_RANGES, axum::http::HeaderValue::from_static("bytes"));
    if offset > 0 {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        if let Ok(range) = format!("bytes {offset}-{}/{size}", size - 1).parse() {
            response.headers_mut().insert(CONTENT_RANGE, range);
        }
    }
    response
}

/// The digests of the blob's pieces: who fetches it checks each as it arrives.
async fn pieces(
    State(hub): State<Arc<Hub>>,
    Extension(place): Extension<Held>,
    Path(digest): Path<String>,
) -> Result<Json<Vec<Digest>>, ApiError> {
    let digest = parse(&digest)?;
    bring(&hub, &place, &digest).await?;
    let pieces = hub.blobs.pieces(&digest).await;
    pieces.map(Json).map_err(|error| refuse(&error))
}

async fn write(
    State(hub): State<Arc<Hub>>,
    Path(digest): Path<String>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let digest = parse(&digest)?;
    let reader = StreamReader::new(body.into_data_stream().map_err(std::io::Error::other));
    let size = hub.blobs.put_expected(&digest, reader).await.map_err(|error| refuse(&error))?;
    // What was here before was replaced, which a collection of garbage may not have seen.
    if !hub.registry.touch(&digest).await.map_err(|error| ApiError::internal(&error))? {
        let message = format!("artifact {digest} was taken for garbage just now; send it again");
        return Err(ApiError::conflict(message));
    }
    Ok(Json(json!({"digest": digest, "size": size})))
}
