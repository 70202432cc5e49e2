//! Who makes a request: the first authenticator that knows the credential answers.

mod certificates;
mod granting;
mod identities;
mod impersonation;
mod issuer_keys;
mod join_tokens;
mod jwt;
mod oidc;
mod proof;
mod published;
mod service_accounts;
mod tokens;
mod user;

use std::sync::Arc;

use axum::extract::{ConnectInfo, Request};
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daemon::tls::ClientCertificate;
use store::Key;
use tracing::debug;
use types::{Digest, Kind, SiteSpec, Time};

pub(crate) use granting::routes as token_routes;
pub use identities::{Identities, IdentityOptions, Standing};
pub(crate) use impersonation::impersonate;
pub(crate) use join_tokens::outlived;
pub use join_tokens::{Claim, Invitation, JoinTokenInfo};
pub use jwt::Refusal;
pub use oidc::{Oidc, OidcError, OidcOptions};
pub use proof::Proof;
pub(crate) use published::routes as open_routes;
pub use service_accounts::{Account, DEFAULT_ISSUER, ServiceAccounts};
pub use tokens::{TokenInfo, Tokens};
pub use user::{CREDENTIAL_ID, MASTERS, SITES, User};

use crate::listener::Peer;
use crate::{ApiError, Hub};

/// The plural of the kind that service accounts are.
const SERVICE_ACCOUNTS: &str = "serviceaccounts";

/// Who makes a request.
///
/// # Errors
/// 401, with the words that Kubernetes has for it: why it was refused is told in the log alone.
pub async fn authenticate(hub: &Hub, credentials: Credentials) -> Result<Arc<User>, ApiError> {
    let key = credentials.certificate.as_ref().map(|certificate| certificate.key);
    let (user, is_certified) = identify(hub, credentials, daemon::now()).await?;
    if let Some(site) = user.site() {
        let Some(found) = hub.store.get(&Key::new(SiteSpec::PLURAL, "", site)) else {
            return Err(ApiError::unauthorized(format!(
                "site `{site}` was deleted here; join again with a new token"
            )));
        };
        let shown = key.filter(|_| is_certified);
        let standing = shown.map(|key| hub.identities.standing(site, &found.metadata.uid, key));
        if let Some(refusal) = standing.and_then(|standing| standing.refusal(site)) {
            return Err(ApiError::unauthorized(refusal));
        }
    }
    Ok(Arc::new(user))
}

/// What a request shows to prove whose it is.
pub struct Credentials {
    certificate: Option<Arc<ClientCertificate>>,
    token: Option<String>,
}

impl Credentials {
    pub fn of(request: &Request) -> Self {
        let peer = request.extensions().get::<ConnectInfo<Peer>>();
        let certificate = peer.and_then(|ConnectInfo(peer)| peer.certificate.clone());
        Self { certificate, token: bearer_token(request).map(str::to_owned) }
    }

    /// What a site proves with them that it may have another key: its key by a certificate that is good, or its token.
    pub fn proof(&self, now: Time) -> Option<Proof> {
        match &self.certificate {
            Some(certificate) if certificate.is_good(now) => Some(Proof::Key(certificate.key)),
            _ => self.token.as_deref().map(|token| Proof::Bearer(Digest::of(token.as_bytes()))),
        }
    }

    /// The same, where a token may come as the password of any user.
    pub fn with_password(request: &Request) -> Self {
        let credentials = Self::of(request);
        let token = credentials.token.or_else(|| password(request));
        Self { token, ..credentials }
    }
}

/// The user, and whether it is a certificate that says so.
async fn identify(hub: &Hub, credentials: Credentials, now: Time) -> Result<(User, bool), ApiError> {
    // Connections outlive authorities.
    let stage = hub.identities.trust().authorities.stage();
    let certificate = credentials.certificate.filter(|shown| !stage.is_retired(&shown.authority));
    let named = certificate.and_then(|certificate| certificates::user(&certificate, now));
    if let Some(user) = named {
        return Ok((user, true));
    }
    match credentials.token {
        Some(token) => Ok((bearer(hub, &token, &[hub.service_accounts.issuer()], now).await?, false)),
        None => {
            debug!("a request without a credential was refused");
            Err(unauthorized())
        }
    }
}

/// Who bears a token that is meant for one of these audiences. Tokens that the hub keeps and those of an OpenID
/// Connect issuer are meant for the hub.
///
/// # Errors
/// 401 if nobody does.
pub async fn bearer(hub: &Hub, token: &str, audiences: &[&str], now: Time) -> Result<User, ApiError> {
    let refused = |refusal: Refusal| {
        debug!(%refusal, "a bearer token was refused");
        unauthorized()
    };
    if let Some(user) = hub.tokens.identify(token, now)? {
        return Ok(user);
    }
    let exists = |account: Account| is_there(hub, account);
    if let Some(user) = hub.service_accounts.verify(token, audiences, now, exists).map_err(refused)? {
        return Ok(user);
    }
    if let Some(oidc) = &hub.oidc
        && let Some(user) = oidc.verify(token, now).await.map_err(refused)?
    {
        return Ok(user);
    }
    debug!("a bearer token that nobody knows was refused");
    Err(unauthorized())
}

fn is_there(hub: &Hub, account: Account) -> bool {
    let found = hub.store.get(&Key::new(SERVICE_ACCOUNTS, account.namespace, account.name));
    found.is_some_and(|object| object.metadata.uid == account.uid)
}

fn unauthorized() -> ApiError {
    ApiError::unauthorized("Unauthorized")
}

/// The password of a request.
fn password(request: &Request) -> Option<String> {
    let header = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (_, password) = decoded.split_once(':')?;
    Some(password.to_owned()).filter(|password| !password.is_empty())
}

/// The bearer token of a request.
fn bearer_token(request: &Request) -> Option<&str> {
    let header = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = header.split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}
