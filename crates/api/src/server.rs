//! All routes, and who may enter.

use std::sync::Arc;

use axum::Router;
use axum::body::HttpBody;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::HeaderValue;
use axum::http::header::CACHE_CONTROL;
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::{any, get, post};
use futures::StreamExt;
use tokio::net::TcpListener;
use tokio_rustls::rustls::ServerConfig;

use crate::audit;
use crate::audit::Trail;
use crate::authentication::{self, Credentials, authenticate, impersonate};
use crate::limits::Held;
use crate::request::RequestInfo;
use crate::{
    ApiError, Hub, authority, blobs, discovery, errands, garbage, health, images, inside, joining, layout,
    listener, mailbox, metrics, nesting, offload, outlooks, peers, rbac, resources, reviews, sites, ui,
    webhooks,
};

/// How large a manifest may be, in bytes.
pub(crate) const LARGEST_MANIFEST: usize = 3 << 20;

/// Everything that a hub serves.
pub fn router(hub: Hub) -> Router {
    let hub = Arc::new(hub);
    let open = Router::new()
        .merge(health::routes())
        .route("/version", get(discovery::version))
        .merge(joining::open_routes())
        .merge(authentication::open_routes())
        .merge(webhooks::open_routes())
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
        .merge(joining::routes())
        .merge(authority::routes())
        .merge(nesting::routes())
        .merge(peers::routes())
        .route("/avocet/v1/sites/{site}/heartbeat", post(sites::heartbeat))
        .route("/avocet/v1/sites/{site}/probe", get(sites::probe))
        .route("/avocet/v1/sites/{site}/token", post(sites::create_token))
        .route("/avocet/v1/artifacts/garbage", post(garbage::collect))
        .merge(authentication::token_routes())
        .method_not_allowed_fallback(unfit_method)
        .layer(DefaultBodyLimit::max(LARGEST_MANIFEST))
        .merge(blobs::routes())
        .merge(mailbox::routes())
        .merge(errands::routes())
        .merge(outlooks::routes())
        .merge(offload::routes())
        .layer(from_fn_with_state(hub.clone(), guard));
    let audited = from_fn_with_state(hub.clone(), audit::record);
    let measured = from_fn_with_state(hub.clone(), metrics::measure);
    let all = open.merge(guarded).merge(images::routes(&hub)).fallback(not_found);
    let all = all.layer(from_fn(layout::lay_out)).layer(map_response(keep_private));
    all.layer(audited).layer(measured).with_state(hub)
}

/// Lets requests in whose maker is known and may have what they want, one by one as limits allow.
async fn guard(State(hub): State<Arc<Hub>>, mut request: Request, next: Next) -> Result<Response, ApiError> {
    let credentials = Credentials::of(&request);
    let proof = credentials.proof(daemon::now());
    let caller = match inside::vouched(&request) {
        Some(user) => user,
        None => authenticate(&hub, credentials).await?,
    };
    Trail::of(&request).user(caller.clone());
    let user = impersonate(&hub, caller, &request)?;
    let place = Held::new(hub.limits.enter(&user.name).await?);
    let info = Arc::new(RequestInfo::read(&request)?);
    rbac::authorize(&hub, &user, &info, &request)?;
    let site = user.site().map(str::to_owned);
    if let Some(site) = &site {
        check_instance(&hub, site, &request)?;
    }
    // Who changes its own key is told so with the old one.
    let site = site.filter(|_| !request.uri().path().ends_with("/certificate"));
    let method = request.method().clone();
    let extensions = request.extensions_mut();
    extensions.insert(user);
    extensions.insert(proof);
    extensions.insert(info.clone());
    extensions.insert(place.clone());
    let mut response = match site {
        Some(site) => while_credible(&hub, &site, next.run(request)).await?,
        None => next.run(request).await,
    };
    place.give_back();
    metrics::label(&mut response, &info, &method);
    Ok(response)
}

/// What a site is answered ends when the site loses what it proved itself with: watches would go on for long.
async fn while_credible(
    hub: &Arc<Hub>,
    site: &str,
    answer: impl Future<Output = Response>,
) -> Result<Response, ApiError> {
    let (keeping, name) = (hub.clone(), site.to_owned());
    let mut lost = Box::pin(async move { keeping.identities.lost(&name).await });
    let response = tokio::select! {
        biased;
        () = &mut lost => {
            return Err(ApiError::unauthorized(format!("the credential of site `{site}` was replaced or revoked")));
        }
        response = answer => response,
    };
    if response.body().size_hint().exact().is_some() {
        return Ok(response);
    }
    Ok(response.map(|body| axum::body::Body::from_stream(body.into_data_stream().take_until(lost))))
}

/// Of two machines that show the credential of one site, one is obeyed.
fn check_instance(hub: &Hub, site: &str, request: &Request) -> Result<(), ApiError> {
    let instance = request.headers().get(sites::INSTANCE).and_then(|value| value.to_str().ok());
    match instance {
        Some(instance) if !request.uri().path().ends_with("/heartbeat") => hub
            .heartbeats
            .check(site, instance)
            .map_err(|duplicate| ApiError::conflict(duplicate.to_string())),
        _ => Ok(()),
    }
}

/// What is answered is for who asked, unless the answer says more.
async fn keep_private(mut response: Response) -> Response {
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    response
}

async fn unfit_method() -> ApiError {
    ApiError::unfit_method()
}

async fn not_found() -> ApiError {
    ApiError::not_found("the server could not find the requested resource")
}

/// Serves until the hub's shutdown.
pub async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, hub: Hub) {
    let shutdown = hub.shutdown.clone();
    listener::serve(listener, tls, router(hub), shutdown).await;
}
