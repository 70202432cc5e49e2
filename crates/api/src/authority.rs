//! The hub's authority, and how it is replaced by another one: a new one is made, sites come over by themselves, and then
//! the old one is retired.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use daemon::tls::{Authorities, Authority, RotationError, Stage};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use types::{Digest, Kind, SiteSpec, Time};

use crate::{ApiError, Hub};

/// How many sites a refusal names.
const MOST_NAMED: usize = 10;

/// By what the hub is known, and with what it signs. Cheap to clone.
#[derive(Clone)]
pub struct Trust {
    /// Its own authorities.
    pub authorities: Arc<Authorities>,
    given: Arc<str>,
}

impl Trust {
    /// The hub's authorities, and certificates in PEM by which it is known besides.
    pub fn new(authorities: Arc<Authorities>, given: &str) -> Self {
        Self { authorities, given: given.into() }
    }

    /// What all who talk to the hub trust, in PEM.
    pub fn bundle(&self) -> String {
        self.authorities.stage().trusted() + &self.given
    }

    /// Tells one bundle from another.
    pub(crate) fn digest(&self) -> String {
        Digest::of(self.bundle().as_bytes()).hex().chars().take(16).collect()
    }

    /// Tells the authority that signs for sites from others.
    pub(crate) fn signing(&self) -> String {
        self.authorities.stage().signing().id()
    }

    /// Whether a next authority is there.
    pub(crate) fn is_rotating(&self) -> bool {
        self.authorities.stage().next.is_some()
    }
}

/// One authority, as it is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// What it calls its key, in hex.
    pub id: String,
    /// The SHA-256 of its certificate.
    pub fingerprint: String,
    /// Until when it is good.
    pub ends: Option<Time>,
}

/// How it stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityAnswer {
    /// The authority by which the hub is known.
    pub current: Told,
    /// The one that takes its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Told>,
    /// Sites that were heard with a certificate of the next one, and trust it.
    #[serde(default)]
    pub moved: Vec<String>,
    /// Sites that would not come back if the old one was retired now.
    #[serde(default)]
    pub waiting: Vec<String>,
    /// What all who talk to the hub should trust, in PEM.
    pub bundle: String,
}

/// How a retirement is meant.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Retirement {
    /// Also where sites are left behind.
    force: bool,
}

pub fn routes() -> Router<Arc<Hub>> {
    Router::new()
        .route("/avocet/v1/authority", get(show))
        .route("/avocet/v1/authority/rotate", post(rotate))
        .route("/avocet/v1/authority/retire", post(retire))
}

async fn show(State(hub): State<Arc<Hub>>) -> Json<AuthorityAnswer> {
    Json(standing(&hub))
}

async fn rotate(State(hub): State<Arc<Hub>>) -> Result<Json<AuthorityAnswer>, ApiError> {
    let stage = change(&hub, Authorities::rotate).await?;
    tracing::warn!(id = stage.signing().id(), "a new authority was made; sites come over to it");
    Ok(Json(standing(&hub)))
}

async fn retire(
    State(hub): State<Arc<Hub>>,
    Query(how): Query<Retirement>,
) -> Result<Json<AuthorityAnswer>, ApiError> {
    let AuthorityAnswer { waiting, .. } = standing(&hub);
    if hub.identities.trust().is_rotating() && !waiting.is_empty() && !how.force {
        let named = waiting.iter().take(MOST_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if waiting.len() > MOST_NAMED { ", …" } else { "" };
        return Err(ApiError::conflict(format!(
            "sites that have not come over yet: {} ({named}{more}); wait until they are heard, or leave them behind with \
             --force: each of those needs a new join token then",
            waiting.len()
        )));
    }
    let stage = change(&hub, Authorities::retire).await?;
    tracing::warn!(id = stage.current.id(), left_behind = waiting.len(), "the old authority was retired");
    Ok(Json(standing(&hub)))
}

async fn change(
    hub: &Hub,
    step: fn(&Authorities) -> Result<Arc<Stage>, RotationError>,
) -> Result<Arc<Stage>, ApiError> {
    let authorities = hub.identities.trust().authorities.clone();
    let changed = spawn_blocking(move || step(&authorities)).await;
    changed.map_err(|error| ApiError::internal(&error))?.map_err(|error| match error {
        RotationError::UnderWay | RotationError::NotBegun => ApiError::conflict(error.to_string()),
        RotationError::Disk(error) => ApiError::internal(&error),
    })
}

fn standing(hub: &Hub) -> AuthorityAnswer {
    let trust = hub.identities.trust();
    let stage = trust.authorities.stage();
    let (mut moved, mut waiting) = (vec![], vec![]);
    if stage.next.is_some() {
        for site in members(hub) {
            if hub.identities.has_moved(&site) { moved.push(site) } else { waiting.push(site) }
        }
    }
    let told = |authority: &Authority| Told {
        id: authority.id(),
        fingerprint: authority.fingerprint(),
        ends: authority.ends(),
    };
    AuthorityAnswer {
        current: told(&stage.current),
        next: stage.next.as_deref().map(told),
        moved,
        waiting,
        bundle: trust.bundle(),
    }
}

/// The sites that joined this hub, and may come back.
fn members(hub: &Hub) -> Vec<String> {
    let sites = hub.store.list(SiteSpec::PLURAL, None).0;
    let is_own = |site: &&Arc<store::Object>| {
        let parent =
            site.manifest().pointer("/spec/parent").and_then(|parent| parent.as_str().map(str::to_owned));
        let parent = parent.unwrap_or_default();
        parent.is_empty() || parent == hub.site
    };
    let revoked = hub.identities.revoked();
    let names = sites.iter().filter(is_own).map(|site| site.key.name.clone());
    let mut names: Vec<String> =
        names.filter(|name| hub.identities.has_joined(name) && !revoked.contains(name)).collect();
    names.sort();
    names
}
