//! Uploads: in one piece, in chunks, or not at all, where the bytes are here already.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE};
use axum::http::{HeaderName, Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};

use super::answers::{CONTENT_DIGEST, answer};
use super::{Asked, Refusal, range};
use crate::uploads::Chunk;
use crate::{Blob, ContentDigest, Error, Registry, Repository, Upload, UploadId};

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");
/// How long a sender may pause.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// `POST`: an upload begins; or the blob comes with it, or is mounted from another repository.
pub(super) async fn begin(
    registry: &Registry,
    repository: &Repository,
    asked: &Asked,
    body: Body,
) -> Result<Response, Refusal> {
    if asked.method != Method::POST {
        return Err(Refusal::method("POST"));
    }
    let user = asked.user.as_deref();
    if let Some(digest) = asked.text("mount") {
        let digest: ContentDigest = digest.parse()?;
        // From what is no repository nothing can be mounted; the client uploads then.
        let from = asked.text("from").map(str::parse::<Repository>);
        if !matches!(from, Some(Err(_))) {
            let from = from.and_then(Result::ok);
            let mounted =
                registry.mount(repository, &digest, from.as_ref(), |holder| asked.may_read(holder)).await?;
            if let Some(blob) = mounted {
                return Ok(created(repository, &blob));
            }
        }
        return Ok(under_way(
            StatusCode::ACCEPTED,
            repository,
            registry.start_upload(repository, user).await?,
        ));
    }
    let Some(digest) = asked.text("digest") else {
        return Ok(under_way(
            StatusCode::ACCEPTED,
            repository,
            registry.start_upload(repository, user).await?,
        ));
    };
    let digest: ContentDigest = digest.parse()?;
    let upload = registry.start_upload(repository, user).await?;
    let taken = registry.append(repository, upload.id, Chunk::default(), patient(body)).await;
    if let Err(error) = taken {
        registry.cancel_upload(repository, upload.id).await?;
        return Err(error.into());
    }
    let blob = registry.finish_upload(repository, upload.id, &digest).await?;
    Ok(created(repository, &blob))
}

pub(super) async fn handle(
    registry: &Registry,
    repository: &Repository,
    id: UploadId,
    asked: &Asked,
    body: Body,
) -> Result<Response, Refusal> {
    match asked.method {
        Method::GET | Method::HEAD => {
            let upload = registry.upload(repository, id)?;
            Ok(under_way(StatusCode::NO_CONTENT, repository, upload))
        }
        Method::PATCH => {
            let received = append(registry, repository, id, asked, body).await?;
            Ok(under_way(StatusCode::ACCEPTED, repository, Upload { id, received }))
        }
        Method::PUT => {
            let digest = asked.text("digest").unwrap_or_default().parse()?;
            append(registry, repository, id, asked, body).await?;
            let blob = registry.finish_upload(repository, id, &digest).await?;
            Ok(created(repository, &blob))
        }
        Method::DELETE => {
            registry.cancel_upload(repository, id).await?;
            Ok(answer(StatusCode::NO_CONTENT, [], Body::empty()))
        }
        _ => Err(Refusal::method("GET, PATCH, PUT, DELETE")),
    }
}

async fn append(
    registry: &Registry,
    repository: &Repository,
    id: UploadId,
    asked: &Asked,
    body: Body,
) -> Result<u64, Refusal> {
    let chunk = range::announced(asked.header(CONTENT_RANGE))?;
    let appended = registry.append(repository, id, chunk, patient(body)).await;
    appended.map_err(|error| match error {
        Error::OutOfOrder { received, .. } => {
            Refusal::from(error).with_header(RANGE, &range::received(received))
        }
        other => other.into(),
    })
}

/// The bytes of a body, until their sender pauses for too long.
fn patient(body: Body) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::unfold(Some(body.into_data_stream()), |body| async move {
        let mut body = body?;
        match tokio::time::timeout(PATIENCE, body.next()).await {
            Ok(next) => next.map(|next| (next.map_err(io::Error::other), Some(body))),
            Err(_) => Some((Err(io::ErrorKind::TimedOut.into()), None)),
        }
    })
}

fn created(repository: &Repository, blob: &Blob) -> Response {
    let headers = [
        (LOCATION, format!("/v2/{repository}/blobs/{}", blob.digest)),
        (CONTENT_DIGEST, blob.digest.to_string()),
        (CONTENT_LENGTH, "0".to_owned()),
    ];
    answer(StatusCode::CREATED, headers, Body::empty())
}

fn under_way(status: StatusCode, repository: &Repository, upload: Upload) -> Response {
    let headers = [
        (LOCATION, format!("/v2/{repository}/blobs/uploads/{}", upload.id)),
        (RANGE, range::received(upload.received)),
        (UPLOAD_ID, upload.id.to_string()),
    ];
    answer(status, headers, Body::empty())
}
