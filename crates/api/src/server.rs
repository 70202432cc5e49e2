//! All routes, and who may enter.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::HeaderValue;
use axum::http::header::CACHE_CONTROL;
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::{any, get, post};
use tokio::net::TcpListener;
use tokio_rustls::rustls::ServerConfig;

use crate::audit;
use crate::audit::Trail;
use crate::authentication::{self, Credentials, authenticate, impersonate};
use crate::limits::Held;
use crate::request::RequestInfo;
use crate::{
    ApiError, Hub, blobs, discovery, garbage, health, images, listener, mailbox, metrics, rbac, resources,
    reviews, sites, ui,
};

/// How large a manifest may be, in bytes.
pub(crate) const LARGEST_MANIFEST: usize = 3 << 20;

/// Everything that a hub serves.
pub fn router(hub: Hub) -> Router {
    let hub = Arc::new(hub);
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
        .route("/avocet/v1/artifacts/garbage", post(garbage::collect))
        .merge(authentication::token_routes())
        .layer(DefaultBodyLimit::max(LARGEST_MANIFEST))
        .merge(blobs::routes())
        .merge(mailbox::routes())
        .layer(from_fn_with_state(hub.clone(), guard));
    let audited = from_fn_with_state(hub.clone(), audit::record);
    let measured = from_fn_with_state(hub.clone(), metrics::measure);
    let all =
        open.merge(guarded).merge(images::routes(&hub)).fallback(not_found).layer(map_response(keep_private));
    all.layer(audited).layer(measured).with_state(hub)
}

/// Lets requests in whose maker is known and may have what they want, one by one as limits allow.
async fn guard(State(hub): State<Arc<Hub>>, mut request: Request, next: Next) -> Result<Response, ApiError> {
    let caller = authenticate(&hub, Credentials::of(&request)).await?;
    Trail::of(&request).user(caller.clone());
    let user = impersonate(&hub, caller, &request)?;
    let place = Held::new(hub.limits.enter(&user.name).await?);
    let info = Arc::new(RequestInfo::read(&request)?);
    rbac::authorize(&hub, &user, &info, &request)?;
    let method = request.method().clone();
    let extensions = request.extensions_mut();
    extensions.insert(user);
    extensions.insert(info.clone());
    extensions.insert(place.clone());
    let mut response = next.run(request).await;
    place.give_back();
    metrics::label(&mut response, &info, &method);
    Ok(response)
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
