//! Who makes a request: the first authenticator that knows the credential answers.

mod certificates;
mod tokens;
mod user;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::Response;
use store::Key;
use tracing::debug;
use types::{Kind, SiteSpec, Time};

pub use tokens::{TokenInfo, Tokens};
pub use user::{CREDENTIAL_ID, User};

use crate::listener::Peer;
use crate::{ApiError, Hub};

/// Lets requests pass whose maker is known, and tells the handlers who that is.
///
/// # Errors
/// 401, with the words that Kubernetes has for it: why it was refused is told in the log alone.
pub async fn authenticate(
    State(hub): State<Hub>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let user = identify(&hub, &request, daemon::now())?;
    if let Some(site) = user.site()
        && hub.store.get(&Key::new(SiteSpec::PLURAL, "", site)).is_none()
    {
        return Err(ApiError::unauthorized(format!(
            "site `{site}` was deleted here; join again with a new token"
        )));
    }
    request.extensions_mut().insert(user);
    Ok(next.run(request).await)
}

fn identify(hub: &Hub, request: &Request, now: Time) -> Result<User, ApiError> {
    let peer = request.extensions().get::<ConnectInfo<Peer>>();
    let certificate = peer.and_then(|ConnectInfo(peer)| peer.certificate.as_deref());
    if let Some(user) = certificate.and_then(|certificate| certificates::user(certificate, now)) {
        return Ok(user);
    }
    let Some(token) = bearer_token(request) else {
        debug!("request without a credential");
        return Err(unauthorized());
    };
    if let Some(user) = hub.tokens.identify(token, now)? {
        return Ok(user);
    }
    debug!("request with a bearer token that nobody knows");
    Err(unauthorized())
}

fn unauthorized() -> ApiError {
    ApiError::unauthorized("Unauthorized")
}

/// The bearer token of a request.
fn bearer_token(request: &Request) -> Option<&str> {
    let header = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = header.split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}
