//! How machines become sites, and stay them: invitations, joining, the next certificate, and the end of it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use axum::{Extension, Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Key, Object};
use types::core::{CertificateSigningRequestSpec, CertificateSigningRequestStatus};
use types::{Kind, ObjectMeta, Resource, Site, SiteSpec, SmallMap, Time};

use crate::authentication::{Invitation, Proof, SITES, User, outlived};
use crate::body::Body;
use crate::bootstrap::create_namespace;
use crate::{ApiError, Hub, admission};

/// What an agent sends to join: a request for a certificate for a key of its own. Agents from before there were
/// certificates send a secret, which becomes their bearer token.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JoinRequest {
    /// The single-use join token.
    pub token: String,
    /// A random secret of the agent's own making, at least 32 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub secret: String,
    /// A PKCS #10 request in PEM for CN=site:NAME, O=avocet:sites.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request: String,
    /// The site's tier.
    pub tier: String,
    /// The site's labels.
    #[serde(default)]
    pub labels: SmallMap,
}

/// What the hub answers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinResponse {
    /// The name that the token was made for.
    pub site: String,
    /// The hub's identity.
    pub hub: String,
    /// The site that the hub is at.
    pub parent: String,
    /// The certificate, in PEM.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub certificate: String,
    /// Whom the site is to trust from now on to know the hub by, in PEM; empty leaves it at what the token says.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub authorities: String,
    /// The request that a person has to approve first; there is no certificate then, and the agent asks again.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub waits_for: String,
}

/// A request for the next certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateRequest {
    /// The site.
    pub site: String,
    /// A PKCS #10 request in PEM for CN=site:NAME, O=avocet:sites.
    pub request: String,
}

/// A certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateResponse {
    /// In PEM.
    pub certificate: String,
    /// Whom the site is to trust from now on to know the hub by, in PEM; empty leaves it as it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub authorities: String,
}

/// What an agent understands; those of older versions don't say it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Understands {
    /// That the hub tells whom to trust.
    authorities: bool,
}

impl Understands {
    async fn authorities_for(self, hub: &Hub, site: &str) -> Result<String, ApiError> {
        if self.authorities { hub.identities.tell(site).await } else { Ok(String::new()) }
    }
}

/// Asks for a join token.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JoinTokenRequest {
    /// The name that the joining site gets.
    pub site: String,
    /// For how long the token is good, in seconds.
    pub ttl_seconds: u64,
    /// The site's tier; empty leaves it to the agent.
    #[serde(default)]
    pub tier: String,
    /// Labels beside those that the agent names.
    #[serde(default)]
    pub labels: SmallMap,
    /// Whether a person approves before the agent is in.
    #[serde(default)]
    pub manual: bool,
}

const LONGEST_TTL: u64 = 30 * 24 * 3600;
/// How many digits of a key's hash are in the name of the request that waits for a person.
const KEY_DIGITS: usize = 12;

/// What needs no credential but what is in the request itself.
pub fn open_routes() -> Router<Arc<Hub>> {
    Router::new().route("/avocet/v1/join", post(join)).route("/avocet/v1/renew", post(renew))
}

/// What people and sites ask for under their names.
pub fn routes() -> Router<Arc<Hub>> {
    Router::new()
        .route("/avocet/v1/join-tokens", post(create_token).get(list_tokens))
        .route("/avocet/v1/join-tokens/{id}", delete(revoke_token))
        .route("/avocet/v1/sites/{site}/certificate", post(certify))
        .route("/avocet/v1/sites/{site}/revoke", post(revoke))
}

async fn join(
    State(hub): State<Arc<Hub>>,
    Query(agent): Query<Understands>,
    Body(request): Body<JoinRequest>,
) -> Result<Response, ApiError> {
    let now = daemon::now();
    // Strangers who ask for this all count as one.
    let _place = hub.limits.enter("system:anonymous").await?;
    // The manifest is made first: a bad tier or label must not use up the token.
    let by_agent = Invitation { tier: request.tier, labels: request.labels, ..Invitation::default() };
    manifest(&hub, &Invitation { site: "site".to_owned(), ..by_agent.clone() })?;
    let joined = |site: String| JoinResponse {
        site,
        hub: hub.id.clone(),
        parent: hub.site.clone(),
        ..JoinResponse::default()
    };
    if request.request.is_empty() {
        let invited = hub.tokens.join(&request.token, &request.secret, now).await?;
        let site = settle(&hub, &merged(invited, by_agent), now).await?;
        let (name, uid) = (&site.key.name, &site.metadata.uid);
        hub.identities.replace_by_secret(name, uid, &request.secret, now).await?;
        hub.heartbeats.revoked(&site.key.name, false);
        return Ok(Json(joined(site.key.name.clone())).into_response());
    }
    let name = applicant(&request.request)?;
    let key = daemon::tls::requested_key(&request.request).map_err(unfit)?;
    let claim = hub.tokens.join_with_key(&request.token, &name, key, now).await?;
    let uid = known_site(&hub, &name).ok().map(|site| site.metadata.uid.clone());
    if !hub.identities.may_repeat(&name, uid.as_deref(), key, &claim) {
        return Err(outlived());
    }
    let invited = claim.invitation;
    if invited.manual {
        let waits_for = format!("site-{name}-{}", key.hex().get(..KEY_DIGITS).unwrap_or_default());
        if !is_approved(&hub, &waits_for, &request.request, now).await? {
            let answer = JoinResponse { waits_for, ..joined(name) };
            return Ok((StatusCode::ACCEPTED, Json(answer)).into_response());
        }
    }
    let site = settle(&hub, &merged(invited, by_agent), now).await?;
    let proof = Proof::JoinToken(request.token);
    let certificate = enroll(&hub, &site, &request.request, proof, now).await?;
    let authorities = agent.authorities_for(&hub, &name).await?;
    Ok(Json(JoinResponse { certificate, authorities, ..joined(name) }).into_response())
}

/// What an invitation says, and the agent where it leaves that open.
fn merged(invited: Invitation, by_agent: Invitation) -> Invitation {
    let tier = if invited.tier.is_empty() { by_agent.tier } else { invited.tier };
    let mut labels = by_agent.labels;
    labels.extend(invited.labels);
    Invitation { tier, labels, ..invited }
}

fn manifest(hub: &Hub, site: &Invitation) -> Result<Value, ApiError> {
    let parent = if hub.site == site.site { String::new() } else { hub.site.clone() };
    let metadata = ObjectMeta { labels: site.labels.clone(), ..ObjectMeta::named(&site.site) };
    let site = Site::new(metadata, SiteSpec { tier: site.tier.clone(), parent, ..SiteSpec::default() });
    let info =
        types::kind_named(SiteSpec::PLURAL).ok_or_else(|| ApiError::not_found("sites are not served"))?;
    let manifest = serde_json::to_value(&site).map_err(|error| ApiError::internal(&error))?;
    admission::complete(info, manifest, None, site.name())
}

/// Makes a site known: its Site and its namespace.
async fn settle(hub: &Hub, site: &Invitation, now: Time) -> Result<Arc<Object>, ApiError> {
    let key = Key::new(SiteSpec::PLURAL, "", &*site.site);
    match hub.store.create(key.clone(), manifest(hub, site)?, now).await {
        // A site that was stated before, or joins again: what was stated of it stays.
        Ok(_) | Err(store::Error::Exists(_)) => {}
        Err(error) => return Err(error.into()),
    }
    create_namespace(&hub.store, &site.site, now).await?;
    let found = known_site(hub, &site.site)?;
    hub.heartbeats.join(&site.site);
    tracing::info!(site = site.site, "joined");
    Ok(found)
}

fn known_site(hub: &Hub, name: &str) -> Result<Arc<Object>, ApiError> {
    let found = hub.store.get(&Key::new(SiteSpec::PLURAL, "", name));
    found.ok_or_else(|| ApiError::not_found(format!("sites.avocet.dev \"{name}\" not found")))
}

/// Makes a key that of a site: whatever the site proved itself with before is good no longer.
async fn enroll(
    hub: &Hub,
    site: &Object,
    request: &str,
    proof: Proof,
    now: Time,
) -> Result<String, ApiError> {
    let name = &site.key.name;
    let certificate = hub.identities.enroll(name, &site.metadata.uid, request, proof, now).await?;
    hub.tokens.withdraw(name).await?;
    hub.heartbeats.revoked(name, false);
    Ok(certificate)
}

/// Whom a request is for: the name of a site.
fn applicant(request: &str) -> Result<String, ApiError> {
    let (name, groups) = daemon::tls::applicant(request).map_err(unfit)?;
    let site = name.strip_prefix("site:").filter(|name| types::names::is_dns_label(name));
    site.filter(|_| groups == [SITES]).map(str::to_owned).ok_or_else(|| {
        ApiError::bad_request(format!(
            "the request is for CN={name:?}, O={groups:?}; a site asks for CN=\"site:NAME\", O=[{SITES:?}]"
        ))
    })
}

fn unfit(error: daemon::tls::RequestError) -> ApiError {
    ApiError::bad_request(daemon::chain(&error))
}

/// Whether a person let a key in. The first time this asks them.
async fn is_approved(hub: &Hub, name: &str, request: &str, now: Time) -> Result<bool, ApiError> {
    type Asked = Resource<CertificateSigningRequestSpec>;
    let key = Key::new(CertificateSigningRequestSpec::PLURAL, "", name);
    let Some(found) = hub.store.get(&key) else {
        let spec = CertificateSigningRequestSpec {
            request: STANDARD.encode(request),
            signer_name: "avocet.dev/site".to_owned(),
            usages: vec!["digital signature".to_owned(), "client auth".to_owned()],
            username: "system:anonymous".to_owned(),
            ..CertificateSigningRequestSpec::default()
        };
        let manifest = serde_json::to_value(Asked::new(ObjectMeta::named(name), spec));
        let manifest = manifest.map_err(|error| ApiError::internal(&error))?;
        return match hub.store.create(key, manifest, now).await {
            Ok(_) | Err(store::Error::Exists(_)) => Ok(false),
            Err(error) => Err(error.into()),
        };
    };
    let asked = found.parse::<Asked>().map_err(|error| ApiError::internal(&error))?;
    let CertificateSigningRequestStatus { conditions, .. } = &asked.status;
    let decided = |kind: &str| conditions.iter().find(|condition| condition.kind == kind);
    if let Some(denied) = decided("Denied") {
        let why = if denied.message.is_empty() { &denied.reason } else { &denied.message };
        return Err(ApiError::forbidden(format!("a person denied this machine to join: {why}")));
    }
    // Requests that were decided go after an hour: who comes later is asked for again.
    Ok(decided("Approved").is_some())
}

/// The next certificate for a site. That the request is signed with the site's key is all the proof that is needed:
/// for anybody else the certificate is of no use.
async fn renew(
    State(hub): State<Arc<Hub>>,
    Query(agent): Query<Understands>,
    Body(asked): Body<CertificateRequest>,
) -> Result<Json<CertificateResponse>, ApiError> {
    let name = applicant(&asked.request)?;
    if name != asked.site {
        return Err(ApiError::bad_request(format!("the request is for site `{name}`, not `{}`", asked.site)));
    }
    let Ok(site) = known_site(&hub, &name) else {
        return Err(ApiError::unauthorized(format!(
            "site `{name}` was deleted here; join again with a new token"
        )));
    };
    // Apart from what the site itself asks for: strangers may ask this in its name.
    let _place = hub.limits.enter(&format!("renew:{name}")).await?;
    let certificate = hub.identities.renew(&name, &site.metadata.uid, &asked.request, daemon::now()).await?;
    let authorities = agent.authorities_for(&hub, &name).await?;
    Ok(Json(CertificateResponse { certificate, authorities }))
}

/// A certificate for a new key of a site that proves itself with what it has: a bearer token, or its old key.
async fn certify(
    State(hub): State<Arc<Hub>>,
    Path(name): Path<String>,
    Query(agent): Query<Understands>,
    Extension(user): Extension<Arc<User>>,
    Extension(proof): Extension<Option<Proof>>,
    Body(asked): Body<CertificateRequest>,
) -> Result<Json<CertificateResponse>, ApiError> {
    if user.site() != Some(&name) {
        let message =
            format!("site `{name}` alone says which key it has; join again with a new token instead");
        return Err(ApiError::forbidden(message));
    }
    let site = known_site(&hub, &name)?;
    let proof = proof.ok_or_else(|| ApiError::unauthorized("the request shows no credential of the site"))?;
    let certificate = enroll(&hub, &site, &asked.request, proof, daemon::now()).await?;
    let authorities = agent.authorities_for(&hub, &name).await?;
    Ok(Json(CertificateResponse { certificate, authorities }))
}

/// Takes away all that a site proves itself with, at once.
async fn revoke(State(hub): State<Arc<Hub>>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    let site = known_site(&hub, &name)?;
    let had_token = hub.tokens.withdraw(&name).await?;
    hub.identities.revoke(&name, &site.metadata.uid, daemon::now()).await?;
    hub.heartbeats.revoked(&name, true);
    tracing::warn!(site = name, had_token, "revoked");
    Ok(Json(json!({"site": name, "revoked": true})))
}

async fn create_token(
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
    let JoinTokenRequest { site, tier, labels, manual, .. } = request;
    let invitation = Invitation { site, tier, labels, manual };
    let tier = if invitation.tier.is_empty() { "edge" } else { &invitation.tier };
    manifest(&hub, &Invitation { tier: tier.to_owned(), ..invitation.clone() })?;
    let (ttl, now) = (Duration::from_secs(request.ttl_seconds), daemon::now());
    let (token, info) = hub.tokens.create_join_token(invitation, now, ttl).await?;
    Ok(Json(json!({"token": token, "site": info.invitation.site, "info": info})))
}

async fn list_tokens(State(hub): State<Arc<Hub>>) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({"joinTokens": hub.tokens.list_join_tokens(daemon::now())?})))
}

async fn revoke_token(State(hub): State<Arc<Hub>>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    hub.tokens.revoke_join_token(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}
