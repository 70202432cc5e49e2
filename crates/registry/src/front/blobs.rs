//! Blobs: pulled, in whole or in part, and taken out.

use std::io::SeekFrom;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RANGE,
};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::answers::{CONTENT_DIGEST, answer, is_read};
use super::{Asked, Refusal, range};
use crate::{Blob, ContentDigest, Error, Registry, Repository};

/// How many bytes are read from the disk at a time.
const READ: usize = 256 << 10;

pub(super) async fn handle(
    registry: &Registry,
    repository: &Repository,
    digest: &ContentDigest,
    asked: &Asked,
) -> Result<Response, Refusal> {
    if asked.method == Method::DELETE {
        registry.delete_blob(repository, digest).await?;
        return Ok(answer(StatusCode::ACCEPTED, [(CONTENT_LENGTH, "0".into())], Body::empty()));
    }
    if !is_read(&asked.method) {
        return Err(Refusal::method("GET, HEAD, DELETE"));
    }
    let renewed = match asked.method {
        Method::HEAD => registry.renew(repository, digest).await?,
        _ => None,
    };
    let blob = match renewed {
        Some(blob) => blob,
        None => match registry.blob(repository, digest).await {
            // Who looks before a push pushes what isn't here, also while nobody above can be asked.
            Err(Error::Origin(_)) if asked.method == Method::HEAD => {
                return Err(Error::BlobUnknown { repository: repository.to_string(), digest: *digest }.into());
            }
            found => found?,
        },
    };
    if is_known(asked, digest) {
        return Ok(answer(StatusCode::NOT_MODIFIED, [(ETAG, format!("\"{digest}\""))], Body::empty()));
    }
    let range = range::wanted(asked.header(RANGE), blob.size)?;
    let (from, length) =
        range.as_ref().map_or((0, blob.size), |range| (range.start, range.end - range.start));
    let body = match asked.method {
        Method::HEAD => Body::empty(),
        _ => bytes(registry, &blob, from, length).await?,
    };
    let headers = [
        (ACCEPT_RANGES, "bytes".to_owned()),
        // What has a digest never changes.
        (CACHE_CONTROL, "private, max-age=31536000, immutable".to_owned()),
        (CONTENT_LENGTH, length.to_string()),
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_DIGEST, digest.to_string()),
        (ETAG, format!("\"{digest}\"")),
    ];
    let Some(range) = range else { return Ok(answer(StatusCode::OK, headers, body)) };
    let mut response = answer(StatusCode::PARTIAL_CONTENT, headers, body);
    if let Ok(range) = format!("bytes {}-{}/{}", range.start, range.end - 1, blob.size).parse() {
        response.headers_mut().insert(CONTENT_RANGE, range);
    }
    Ok(response)
}

async fn bytes(registry: &Registry, blob: &Blob, from: u64, length: u64) -> Result<Body, Error> {
    let mut file = File::open(registry.file(&blob.stored)).await?;
    file.seek(SeekFrom::Start(from)).await?;
    Ok(Body::from_stream(ReaderStream::with_capacity(file.take(length), READ)))
}

/// Whether the client has it already and says so.
pub(super) fn is_known(asked: &Asked, digest: &ContentDigest) -> bool {
    let known = asked.header(IF_NONE_MATCH).unwrap_or_default();
    let digest = digest.to_string();
    known.split(',').any(|etag| etag.trim().trim_start_matches("W/").trim_matches('"') == digest)
}
