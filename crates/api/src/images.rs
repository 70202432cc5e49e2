//! The registry of images and other artifacts at `/v2/`: who may pull and push.
//!
//! Rights are those on paths: a role that allows `get` and `head` on `/v2/team/*` lets its holders pull `team` and all
//! that is below it. Clients of registries send a token as the password of any user, which is taken here and nowhere else.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use registry::front::{self, Reads, Refusal, Uploader};
use registry::{Code, Repository};
use tokio::net::TcpListener;
use tokio_rustls::rustls::ServerConfig;

use crate::audit::{self, Trail};
use crate::authentication::{Credentials, User, authenticate, impersonate};
use crate::limits::Held;
use crate::rbac::Attempt;
use crate::request::RequestInfo;
use crate::{ApiError, Hub, listener, metrics, rbac};

/// What clients are told of how to prove who they are.
const CHALLENGE: &str = "Basic realm=\"avocet: any user, a token of the hub as password\"";

/// The registry, behind its guard.
pub(crate) fn routes(hub: &Arc<Hub>) -> Router<Arc<Hub>> {
    let guarded = front::router(hub.registry.clone()).layer(from_fn_with_state(hub.clone(), guard));
    guarded.layer(from_fn(front::read_rest)).with_state(())
}

/// Serves the registry on a port of its own until the hub's shutdown.
pub async fn serve_registry(listener: TcpListener, tls: Arc<ServerConfig>, hub: Hub) {
    let shutdown = hub.shutdown.clone();
    let hub = Arc::new(hub);
    let audited = from_fn_with_state(hub.clone(), audit::record);
    let measured = from_fn_with_state(hub.clone(), metrics::measure);
    let router = routes(&hub).layer(audited).layer(measured).with_state(hub);
    listener::serve(listener, tls, router, shutdown).await;
}

async fn guard(State(hub): State<Arc<Hub>>, mut request: Request, next: Next) -> Response {
    let place = match enter(&hub, &mut request).await {
        Ok(place) => place,
        Err(error) => return refuse(&error).into_response(),
    };
    let is_read = *request.method() == Method::GET;
    let response = next.run(request).await;
    place.give_back();
    if !is_read || !is_blob(&response) {
        return response;
    }
    match hub.egress.enter() {
        Ok(download) => download.pace(response),
        Err(error) => refuse(&error).into_response(),
    }
}

/// Whether an answer is a blob, however it was asked for: manifests have types of their own.
fn is_blob(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    response.status().is_success() && kind == Some(b"application/octet-stream")
}

async fn enter(hub: &Arc<Hub>, request: &mut Request) -> Result<Held, ApiError> {
    let caller = authenticate(hub, Credentials::with_password(request)).await?;
    Trail::of(request).user(caller.clone());
    let user = impersonate(hub, caller, request)?;
    let place = Held::new(hub.limits.enter(&user.name).await?);
    let info = Arc::new(RequestInfo::read(request)?);
    rbac::authorize(hub, &user, &info, request)?;
    request.extensions_mut().insert(reads(hub, &user));
    request.extensions_mut().insert(Uploader(user.name.as_str().into()));
    Ok(place)
}

fn reads(hub: &Arc<Hub>, user: &Arc<User>) -> Reads {
    let (hub, user) = (hub.clone(), user.clone());
    Reads(Arc::new(move |repository: &Repository| {
        let path = format!("/v2/{repository}/blobs/");
        hub.rbac.decide(&user, &Attempt::Path { verb: "get", path: &path }).allowed
    }))
}

/// What the API refuses, as clients of registries read it.
fn refuse(error: &ApiError) -> Refusal {
    let word = match error.code {
        401 => "UNAUTHORIZED",
        403 => "DENIED",
        429 => "TOOMANYREQUESTS",
        _ => "UNSUPPORTED",
    };
    let refusal = Refusal::new(Code { word, status: error.code }, error.message.clone());
    match (error.code, error.retry_after) {
        (401, _) => refusal.with_header(WWW_AUTHENTICATE, CHALLENGE),
        (_, Some(seconds)) => refusal.with_header(RETRY_AFTER, &seconds.to_string()),
        _ => refusal,
    }
}
