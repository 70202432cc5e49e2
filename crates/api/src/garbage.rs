//! Removes the artifacts that nothing names any more.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use daemon::Shutdown;
use registry::{Garbage, Swept};
use serde::Deserialize;
use serde_json::Value;
use tracing::{debug, info, warn};
use types::Digest;

use crate::{ApiError, Hub};

/// Until what age artifacts are kept although nothing names them, in seconds, if it isn't said: a day.
const MINIMUM_AGE: u64 = 24 * 3600;
/// The same where the hub collects by itself: nobody waits for what people push today and name next week.
const UNASKED_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// For how long what was pulled through from the hub above stays after it was last pulled.
const COPIES_REST: Duration = Duration::from_secs(30 * 24 * 3600);
/// How soon after its start the hub collects for the first time, at the latest.
const FIRST: Duration = Duration::from_secs(3600);
/// How long a digest is, with its algorithm.
const DIGEST: usize = "sha256:".len() + 64;

/// What is wanted.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Wanted {
    dry_run: bool,
    minimum_age_seconds: u64,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { dry_run: false, minimum_age_seconds: MINIMUM_AGE }
    }
}

pub async fn collect(
    State(hub): State<Arc<Hub>>,
    Json(wanted): Json<Wanted>,
) -> Result<Json<Swept>, ApiError> {
    let garbage = Garbage {
        minimum_age: Duration::from_secs(wanted.minimum_age_seconds),
        dry_run: wanted.dry_run,
        copies_rest: Some(COPIES_REST),
    };
    let swept = hub.registry.collect_garbage(garbage, || named(&hub)).await;
    swept.map(Json).map_err(|error| ApiError::internal(&error))
}

/// Collects garbage every so often until the end: what nothing has named for a week, and copies of what the hub above has
/// that nobody pulled for a month.
pub async fn collect_regularly(hub: Hub, every: Duration, shutdown: Shutdown) {
    let mut wait = every.min(FIRST);
    while shutdown.sleep(wait).await {
        wait = every;
        match collect_unasked(&hub).await {
            Ok(Swept { blobs: 0, manifests: 0, links: 0, .. }) => {
                debug!("there are no artifacts that nobody needs")
            }
            Ok(Swept { manifests, links, blobs, bytes }) => {
                info!(blobs, bytes, manifests, links, "artifacts that nobody needs any more were removed");
            }
            Err(error) => {
                warn!(error = daemon::chain(&error), "artifacts that nobody needs can't be removed now");
            }
        }
    }
}

async fn collect_unasked(hub: &Hub) -> Result<Swept, registry::Error> {
    let garbage = Garbage { minimum_age: UNASKED_AGE, copies_rest: Some(COPIES_REST), dry_run: false };
    hub.registry.collect_garbage(garbage, || named(hub)).await
}

/// How often objects are read again because some changed meanwhile.
const READINGS: usize = 10;

/// Every digest that is written anywhere in any object: in a spec, a status, an annotation. Kinds that are yet to
/// come, and whatever people keep in them, are in it.
fn named(hub: &Hub) -> HashSet<Digest> {
    let mut named = HashSet::new();
    // Kinds are read one after the other: what went from one that is read late to one that was read early is found by
    // reading again.
    for _ in 0..READINGS {
        let version = hub.store.version();
        for info in types::kinds() {
            for object in hub.store.list(info.plural, None).0 {
                named.extend(digests(&object.manifest().to_string()));
            }
        }
        if hub.store.version() == version {
            break;
        }
    }
    named
}

/// Whether an object names a digest anywhere, and with it perhaps an artifact.
pub fn names_any(manifest: &Value) -> bool {
    match manifest {
        Value::String(text) => text.contains("sha256:"),
        Value::Array(items) => items.iter().any(names_any),
        Value::Object(fields) => {
            fields.iter().any(|(key, value)| key.contains("sha256:") || names_any(value))
        }
        _ => false,
    }
}

fn digests(text: &str) -> impl Iterator<Item = Digest> {
    text.match_indices("sha256:").filter_map(|(at, _)| text.get(at..at + DIGEST)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_found_wherever_they_are_written() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let text = format!(
            "{{\"a\": \"{one}\", \"b\": \"oci://h/r@{two} sha256:short é sha256:{}\"}}",
            "Z".repeat(64)
        );
        assert_eq!(digests(&text).collect::<Vec<_>>(), [one, two]);
    }
}
