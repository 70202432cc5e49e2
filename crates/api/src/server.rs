//! All routes, and who may enter.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::HeaderValue;
use axum::http::header::CACHE_CONTROL;
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::{any, get, post};
use tokio::net::TcpListener;
use tokio_rustls::rustls::ServerConfig;

use crate::audit;
use crate::authentication::{self, authenticate, impersonate};
use crate::{
    ApiError, Hub, blobs, discovery, health, limits, listener, mailbox, metrics, rbac, request, resources,
    reviews, sites, ui,
};

/// How large a manifest may be, in bytes.
pub(crate) const LARGEST_MANIFEST: usize = 3 << 20;

/// Everything that a hub serves.
pub fn router(hub: Hub) -> Router {
    let open = Router::new()
        .merge(health::routes())
        .route("/version", get(discovery::version))
        .route("/avocet/v1/join", post(sites::join))
        .merge(authentication::open_routes())
        .merge(ui::routes());
    let guarded = Router::new()
        .merge(discovery::routes())
        .merge(health::check_routes())
        .route("/metrics", get(metrics::show))
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
        .merge(authentication::token_routes())
        .layer(DefaultBodyLimit::max(LARGEST_MANIFEST))
        .merge(blobs::routes())
        .merge(mailbox::routes())
        .layer(from_fn_with_state(hub.clone(), rbac::authorize))
        .layer(from_fn(request::inform))
        .layer(from_fn_with_state(hub.clone(), limits::limit))
        .layer(from_fn_with_state(hub.clone(), impersonate))
        .layer(from_fn_with_state(hub.clone(), authenticate));
    let audited = from_fn_with_state(hub.clone(), audit::record);
    let measured = from_fn_with_state(hub.clone(), metrics::measure);
    let all = open.merge(guarded).fallback(not_found).layer(map_response(keep_private));
    all.layer(audited).layer(measured).with_state(hub)
}

/// What is answered is for who asked, unless the answer says more.
async fn keep_private(mut response: Response) -> Response {
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    response
}

async fn not_found() -> ApiError {
    ApiError::not_found("the server could not find the requested resource")
}

/// Serves until the hub's shutdown.
pub async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, hub: Hub) {
    let shutdown = hub.shutdown.clone();
    listener::serve(listener, tls, router(hub), shutdown).await;
}
