//! Heartbeats, and tokens to look at sites with: what sites and people ask of their hub.

use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, State};
use controllers::Beat;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::Key;
use types::{Kind, SiteSpec, Time};

use crate::authentication::User;
use crate::listener::Peer;
use crate::{ApiError, Hub};

/// The header that tells which of the machines speaks that show one site's credential.
pub const INSTANCE: &str = "avocet-instance";
/// How long the name of a machine may be, in bytes.
const LONGEST_INSTANCE: usize = 64;

/// What a heartbeat tells. Agents of older versions tell nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Heartbeat {
    /// A random name that the agent's process gave itself when it started.
    pub instance: String,
    /// The name that the process before it had when it last heard of the hub; told until this one was heard.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub previous: String,
    /// The site's clock, to the second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now: Option<Time>,
}

/// What the hub answers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeartbeatAnswer {
    /// The hub's identity.
    pub hub: String,
    /// The hub's clock.
    pub now: Option<Time>,
    /// Whether it is time for the site's next certificate.
    pub renew: bool,
    /// The generation of the Site: where it is another one than before, its spec says something else. 0 where there is
    /// none, and of older hubs.
    pub generation: i64,
}

pub async fn heartbeat(
    State(hub): State<Arc<Hub>>,
    Path(site): Path<String>,
    Extension(user): Extension<Arc<User>>,
    peer: Option<Extension<ConnectInfo<Peer>>>,
    body: Bytes,
) -> Result<Json<HeartbeatAnswer>, ApiError> {
    let now = daemon::now();
    let told: Heartbeat = if body.is_empty() {
        Heartbeat::default()
    } else {
        serde_json::from_slice(&body)
            .map_err(|error| ApiError::bad_request(format!("the heartbeat is not JSON of one: {error}")))?
    };
    if told.instance.len().max(told.previous.len()) > LONGEST_INSTANCE {
        let message = format!("the name of an instance is longer than {LONGEST_INSTANCE} bytes");
        return Err(ApiError::bad_request(message));
    }
    let skew = told.now.map(|theirs| theirs.0.duration_since(now.0).as_secs_f64());
    let beat = Beat { instance: told.instance, previous: told.previous, skew };
    hub.heartbeats.take(&site, beat).map_err(|duplicate| ApiError::conflict(duplicate.to_string()))?;
    let certificate = peer.and_then(|Extension(ConnectInfo(peer))| peer.certificate);
    let certificate = certificate.filter(|_| user.site() == Some(&site));
    let renew = certificate.as_ref().is_some_and(|certificate| {
        certificate.is_to_be_renewed(now) || hub.identities.is_behind(&site, &certificate.authority)
    });
    if let Some(certificate) = certificate {
        hub.identities.heard(&site, &certificate.authority).await?;
    }
    let known = hub.store.get(&Key::new(SiteSpec::PLURAL, "", site));
    let generation = known.map_or(0, |known| known.metadata.generation);
    Ok(Json(HeartbeatAnswer { hub: hub.id.clone(), now: Some(now), renew, generation }))
}

/// A token that lets its bearer look at one site; see [`crate::SiteTokens`].
pub async fn create_token(
    State(hub): State<Arc<Hub>>,
    Path(site): Path<String>,
) -> Result<Json<Value>, ApiError> {
    if hub.store.get(&Key::new(SiteSpec::PLURAL, "", &*site)).is_none() {
        return Err(ApiError::not_found(format!("sites \"{site}\" not found")));
    }
    let token = hub.site_tokens.sign(&site, daemon::now()).map_err(|error| ApiError::internal(&error))?;
    Ok(Json(json!({"token": token, "expiresInSeconds": crate::site_tokens::SECONDS})))
}

/// How much a site is sent to see how wide the way is, in bytes.
const PROBE: usize = 256 << 10;

/// Bytes of no meaning, which nothing on the way can make fewer.
pub async fn probe(Path(_): Path<String>) -> Result<Vec<u8>, ApiError> {
    let mut bytes = vec![0; PROBE];
    daemon::fill_random(&mut bytes).map_err(|error| ApiError::internal(&error))?;
    Ok(bytes)
}
