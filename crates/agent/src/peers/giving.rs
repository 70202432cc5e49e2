//! What neighbours get here: the artifacts of this site, and what has arrived of those that it fetches.

use std::sync::atomic::Ordering;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, RANGE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;
use types::Digest;

use super::{Own, Peers, lock};

/// The header of an answer without content: a number that changes while there is life in the fetch that is waited for.
pub(super) const LIFE: &str = "avocet-life";
const READ: usize = 256 << 10;

pub(super) fn router(peers: Peers) -> Router {
    Router::new().route("/artifacts/{digest}", get(give)).with_state(peers)
}

async fn give(State(peers): State<Peers>, Path(digest): Path<String>, headers: HeaderMap) -> Response {
    let Some(own) = &peers.own else { return StatusCode::NOT_FOUND.into_response() };
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let ticket = text(AUTHORIZATION).strip_prefix("Bearer ").unwrap_or_default();
    let Some(digest) = digest.parse().ok().filter(|digest| own.admits(ticket, digest)) else {
        return StatusCode::FORBIDDEN.into_response();
    };
    let from = text(RANGE).strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
    let Some(from) = from.and_then(|from| from.parse().ok()) else {
        return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
    };
    match send(&peers, own, digest, from).await {
        Ok(response) => response,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn send(peers: &Peers, own: &Own, digest: Digest, from: u64) -> std::io::Result<Response> {
    let life = lock(&own.flights).get(&digest).map(|life| life.load(Ordering::Relaxed));
    if life.is_none() && !lock(&own.has).contains(&digest) {
        return Ok(StatusCode::NOT_FOUND.into_response());
    }
    let arrived = own.blobs.arrived(&digest).ok().filter(|(_, arrived)| *arrived > from);
    let Some((file, arrived)) = arrived else {
        return Ok(match life {
            Some(life) => (StatusCode::NO_CONTENT, [(LIFE, life.to_string())]).into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        });
    };
    let Ok(place) = own.uploads.clone().try_acquire_owned() else {
        return Ok(StatusCode::SERVICE_UNAVAILABLE.into_response());
    };
    let mut file = tokio::fs::File::from_std(file);
    file.seek(std::io::SeekFrom::Start(from)).await?;
    let counted = peers.counted.clone();
    let parts = ReaderStream::with_capacity(file.take(arrived - from), READ).inspect(move |part| {
        let _held = &place;
        if let Ok(part) = part {
            counted.to_neighbours.fetch_add(part.len() as u64, Ordering::Relaxed);
        }
    });
    let length = [(CONTENT_LENGTH, (arrived - from).to_string())];
    Ok((StatusCode::PARTIAL_CONTENT, length, Body::from_stream(parts)).into_response())
}
