//! All routes, and who may enter.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{any, get, post};
use store::Key;
use tokio::net::TcpListener;
use tokio_rustls::rustls::ServerConfig;

use types::{Kind, SiteSpec};

use crate::audit::{self, Trail};
use crate::auth::Identity;
use crate::listener::{Peer, SecureListener};
use crate::rbac::{self, Caller};
use crate::{ApiError, Hub, blobs, discovery, mailbox, request, resources, reviews, sites, ui};

/// How large a manifest may be, in bytes.
pub(crate) const LARGEST_MANIFEST: usize = 3 << 20;

/// Everything that a hub serves.
pub fn router(hub: Hub) -> Router {
    let open = Router::new()
        .route("/healthz", get(ok))
        .route("/livez", get(ok))
        .route("/readyz", get(ok))
        .route("/version", get(discovery::version))
        .route("/avocet/v1/join", post(sites::join))
        .merge(ui::routes());
    let guarded = Router::new()
        .merge(discovery::routes())
        .route("/api/{version}/{*path}", any(resources::handle))
        .route("/apis/{group}/{version}/{*path}", any(resources::handle))
        .route("/apis/authentication.k8s.io/v1/tokenreviews", post(reviews::token))
        .route("/apis/authentication.k8s.io/v1/selfsubjectreviews", post(reviews::whoami))
        .route("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", post(reviews::can_i))
        .route("/apis/authorization.k8s.io/v1/subjectaccessreviews", post(reviews::can_they))
        .route(
            "/apis/authorization.k8s.io/v1/namespaces/{namespace}/localsubjectaccessreviews",
            post(reviews::can_they_here),
        )
        .route("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", post(reviews::rules))
        .route("/avocet/v1/join-tokens", post(sites::create_join_token))
        .route("/avocet/v1/sites/{site}/heartbeat", post(sites::heartbeat))
        .route("/avocet/v1/sites/{site}/token", post(sites::create_token))
        .layer(DefaultBodyLimit::max(LARGEST_MANIFEST))
        .merge(blobs::routes())
        .merge(mailbox::routes())
        .layer(from_fn_with_state(hub.clone(), rbac::authorize))
        .layer(from_fn(request::inform))
        .layer(from_fn_with_state(hub.clone(), authenticate));
    let audited = from_fn_with_state(hub.clone(), audit::record);
    open.merge(guarded).fallback(not_found).layer(audited).with_state(hub)
}

async fn ok() -> &'static str {
    "ok"
}

async fn not_found(request: Request) -> ApiError {
    ApiError::not_found(format!(
        "the server could not find the requested resource `{}`",
        request.uri().path()
    ))
}

async fn authenticate(
    State(hub): State<Hub>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let token = bearer_token(&request).ok_or_else(|| {
        ApiError::unauthorized("no bearer token was sent; use the kubeconfig that `avocet up` wrote")
    })?;
    let identity = hub.tokens.identify(token)?;
    if let Identity::Site(name) = &identity
        && hub.store.get(&Key::new(SiteSpec::PLURAL, "", name.as_str())).is_none()
    {
        return Err(ApiError::unauthorized(format!(
            "site `{name}` was deleted here; join again with a new token"
        )));
    }
    Trail::of(&request).user(Caller::from(&identity));
    request.extensions_mut().insert(identity);
    Ok(next.run(request).await)
}

/// The bearer token of a request.
pub fn bearer_token(request: &Request) -> Option<&str> {
    let header = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Serves until the hub's shutdown.
///
/// # Errors
/// If the listener fails.
pub async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, hub: Hub) -> std::io::Result<()> {
    let shutdown = hub.shutdown.clone();
    let listener = SecureListener::new(listener, tls);
    let service = router(hub).into_make_service_with_connect_info::<Peer>();
    axum::serve(listener, service).with_graceful_shutdown(async move { shutdown.wait().await }).await
}
