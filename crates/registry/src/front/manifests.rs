//! Manifests, and the lists of them.

use axum::body::{Body, to_bytes};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, LOCATION};
use axum::http::{HeaderName, Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::answers::{CONTENT_DIGEST, answer, is_read, listed};
use super::blobs::is_known;
use super::{Asked, Refusal};
use crate::manifest::OCI_INDEX;
use crate::{ContentDigest, Error, Reference, Registry, Repository, Tag};

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const TAG: HeaderName = HeaderName::from_static("oci-tag");
const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");
/// How many tags one push may set.
const MOST_TAGS: usize = 100;

pub(super) async fn handle(
    registry: &Registry,
    repository: &Repository,
    reference: &Reference,
    asked: &Asked,
    body: Body,
) -> Result<Response, Refusal> {
    match asked.method {
        Method::GET | Method::HEAD => read(registry, repository, reference, asked).await,
        Method::PUT => write(registry, repository, reference, asked, body).await,
        Method::DELETE => {
            registry.delete_manifest(repository, reference).await?;
            Ok(answer(StatusCode::ACCEPTED, [(CONTENT_LENGTH, "0".into())], Body::empty()))
        }
        _ => Err(Refusal::method("GET, HEAD, PUT, DELETE")),
    }
}

/// There is one form of each manifest, so it is what every `Accept` gets.
async fn read(
    registry: &Registry,
    repository: &Repository,
    reference: &Reference,
    asked: &Asked,
) -> Result<Response, Refusal> {
    let manifest = registry.manifest(repository, reference).await?;
    if asked.method == Method::GET
        && let Some(demand) = &asked.demand
    {
        demand.check(registry, repository, &manifest).await?;
    }
    let etag = format!("\"{}\"", manifest.digest);
    if is_known(asked, &manifest.digest) {
        return Ok(answer(StatusCode::NOT_MODIFIED, [(ETAG, etag)], Body::empty()));
    }
    let body = match asked.method {
        Method::HEAD => Body::empty(),
        _ => Body::from(registry.manifest_bytes(&manifest).await?),
    };
    let headers = [
        (CONTENT_LENGTH, manifest.size.to_string()),
        (CONTENT_TYPE, manifest.media_type),
        (CONTENT_DIGEST, manifest.digest.to_string()),
        (ETAG, etag),
    ];
    Ok(answer(StatusCode::OK, headers, body))
}

async fn write(
    registry: &Registry,
    repository: &Repository,
    reference: &Reference,
    asked: &Asked,
    body: Body,
) -> Result<Response, Refusal> {
    let bytes = take(registry, asked, body).await?;
    let media_type = asked.header(CONTENT_TYPE).unwrap_or_default();
    let tags: Result<Vec<Tag>, Error> =
        asked.query.iter().filter(|(key, _)| key == "tag").map(|(_, tag)| tag.parse()).collect();
    let tags = tags?;
    if tags.len() > MOST_TAGS {
        let problem = format!("{} tags are to be set; set at most {MOST_TAGS} at a time", tags.len());
        return Err(Error::ManifestInvalid(problem).into());
    }
    let pushed = registry.put_manifest(repository, reference, media_type, bytes, tags.clone()).await?;
    let headers = [
        (LOCATION, format!("/v2/{repository}/manifests/{}", pushed.digest)),
        (CONTENT_DIGEST, pushed.digest.to_string()),
        (CONTENT_LENGTH, "0".to_owned()),
    ];
    let mut response = answer(StatusCode::CREATED, headers, Body::empty());
    if let Some(Ok(subject)) = pushed.subject.map(|subject| subject.to_string().parse()) {
        response.headers_mut().insert(SUBJECT, subject);
    }
    for tag in &tags {
        if let Ok(tag) = tag.as_str().parse() {
            response.headers_mut().append(TAG, tag);
        }
    }
    Ok(response)
}

async fn take(registry: &Registry, asked: &Asked, body: Body) -> Result<Bytes, Refusal> {
    let limit = registry.limits.manifest;
    let too_large = || Refusal::from(Error::TooLarge { what: "the manifest", limit });
    let announced = asked.header(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let read = tokio::time::timeout(
        super::uploads::PATIENCE,
        to_bytes(body, usize::try_from(limit).unwrap_or(usize::MAX)),
    );
    match read.await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) if announced.is_none() => Err(too_large()),
        Ok(Err(_)) | Err(_) => {
            Err(Error::ManifestInvalid("its bytes did not all arrive; send it again".into()).into())
        }
    }
}

pub(super) fn tags(registry: &Registry, repository: &Repository, asked: &Asked) -> Result<Response, Refusal> {
    if !is_read(&asked.method) {
        return Err(Refusal::method("GET, HEAD"));
    }
    let limit = asked.limit()?;
    let page = registry.tags(repository, asked.text("last").unwrap_or_default(), limit)?;
    let last = page.entries.last().filter(|_| page.more);
    let next = last.map(|last| format!("/v2/{repository}/tags/list?n={}&last={last}", page.entries.len()));
    Ok(listed("application/json", &json!({"name": repository.as_str(), "tags": page.entries}), next))
}

pub(super) fn catalog(registry: &Registry, asked: &Asked) -> Result<Response, Refusal> {
    if !is_read(&asked.method) {
        return Err(Refusal::method("GET, HEAD"));
    }
    let page = registry.repositories(asked.text("last").unwrap_or_default(), asked.limit()?)?;
    let last = page.entries.last().filter(|_| page.more);
    let next = last.map(|last| format!("/v2/_catalog?n={}&last={last}", page.entries.len()));
    Ok(listed("application/json", &json!({"repositories": page.entries}), next))
}

pub(super) fn referrers(
    registry: &Registry,
    repository: &Repository,
    subject: &ContentDigest,
    asked: &Asked,
) -> Result<Response, Refusal> {
    if !is_read(&asked.method) {
        return Err(Refusal::method("GET, HEAD"));
    }
    let wanted = asked.text("artifactType").filter(|wanted| !wanted.is_empty());
    let page = registry.referrers(repository, subject, wanted, asked.text("last").unwrap_or_default())?;
    let next = page.entries.last().filter(|_| page.more).map(|last| {
        let filter =
            wanted.map(|wanted| format!("&artifactType={}", utf8_percent_encode(wanted, NON_ALPHANUMERIC)));
        format!("/v2/{repository}/referrers/{subject}?last={}{}", last.digest, filter.unwrap_or_default())
    });
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": page.entries});
    let mut response = listed(OCI_INDEX, &index, next);
    if wanted.is_some() {
        let applied = axum::http::HeaderValue::from_static("artifactType");
        response.headers_mut().insert(FILTERS, applied);
    }
    Ok(response)
}
