//! Joining, heartbeats, and who has a token: what sites ask of their hub.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::Key;
use types::{Kind, ObjectMeta, Site, SiteSpec};

use crate::body::Body;
use crate::bootstrap::create_namespace;
use crate::{ApiError, Hub, admission, rbac};

/// What an agent sends to join.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JoinRequest {
    /// The single-use join token.
    pub token: String,
    /// A random secret of the agent's own making, at least 32 characters: its bearer token from now on.
    pub secret: String,
    /// The site's tier.
    pub tier: String,
    /// The site's labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// What the hub answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinResponse {
    /// The name that the token was made for.
    pub site: String,
    /// The hub's identity.
    pub hub: String,
    /// The site that the hub is at.
    pub parent: String,
}

pub async fn join(
    State(hub): State<Arc<Hub>>,
    Body(request): Body<JoinRequest>,
) -> Result<Json<JoinResponse>, ApiError> {
    let now = daemon::now();
    // The manifest is made first: a bad tier or label must not use up the token.
    let site = |name: &str| {
        let parent = if hub.site == name { String::new() } else { hub.site.clone() };
        let metadata = ObjectMeta { labels: request.labels.clone(), ..ObjectMeta::named(name) };
        let site =
            Site::new(metadata, SiteSpec { tier: request.tier.clone(), parent, ..SiteSpec::default() });
        admit(&site)
    };
    site("site")?;
    let name = hub.tokens.join(&request.token, &request.secret, now).await?;
    match hub.store.create(Key::new(SiteSpec::PLURAL, "", &*name), site(&name)?, now).await {
        // A site that was stated before, or joins again: what was stated of it stays.
        Ok(_) | Err(store::Error::Exists(_)) => {}
        Err(error) => return Err(error.into()),
    }
    create_namespace(&hub.store, &name, now).await?;
    if let Some(site) = hub.store.get(&Key::new(SiteSpec::PLURAL, "", &*name)) {
        rbac::sites::grant(&hub.store, &site, now).await?;
    }
    hub.heartbeats.hear(&name);
    tracing::info!(site = %name, "joined");
    Ok(Json(JoinResponse { site: name, hub: hub.id.clone(), parent: hub.site.clone() }))
}

fn admit(site: &Site) -> Result<Value, ApiError> {
    let info =
        types::kind_named(SiteSpec::PLURAL).ok_or_else(|| ApiError::not_found("sites are not served"))?;
    let manifest = serde_json::to_value(site).map_err(|error| ApiError::internal(&error))?;
    admission::complete(info, manifest, None, site.name())
}

pub async fn heartbeat(
    State(hub): State<Arc<Hub>>,
    Path(site): Path<String>,
) -> Result<Json<Value>, ApiError> {
    hub.heartbeats.hear(&site);
    Ok(Json(json!({"hub": hub.id})))
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

/// Asks for a join token.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JoinTokenRequest {
    /// The name that the joining site gets.
    pub site: String,
    /// For how long the token is good, in seconds.
    pub ttl_seconds: u64,
}

const LONGEST_TTL: u64 = 30 * 24 * 3600;

pub async fn create_join_token(
    State(hub): State<Arc<Hub>>,
    Body(request): Body<JoinTokenRequest>,
) -> Result<Json<Value>, ApiError> {
    if !types::names::is_dns_label(&request.site) {
        return Err(ApiError::bad_request(format!(
            "`site` = {:?} is not a name: write 1 to 63 of a-z, 0-9 and '-'",
            request.site
        )));
    }
    if !(1..=LONGEST_TTL).contains(&request.ttl_seconds) {
        return Err(ApiError::bad_request(format!(
            "`ttlSeconds` = {} is out of range: write 1 to {LONGEST_TTL}",
            request.ttl_seconds
        )));
    }
    let ttl = Duration::from_secs(request.ttl_seconds);
    let token = hub.tokens.create_join_token(&request.site, daemon::now(), ttl).await?;
    Ok(Json(json!({"token": token, "site": request.site})))
}
