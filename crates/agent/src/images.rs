//! The site's registry: images and other artifacts, its own and copies of its hub's.
//!
//! Who has the site's token, or one that the hub signed for the site, may push and pull; it comes as a bearer token or
//! as the password of any user. Where signatures are demanded, nothing is pulled without. `anonymousPulls` in `access.json` lets this very machine pull without one.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, Method};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daemon::Shutdown;
use registry::front::{self, Reads, Refusal};
use registry::{Code, Demand, Registry};
use tokio::net::TcpListener;

use crate::front::Front;

/// What clients are told of how to prove who they are.
const CHALLENGE: &str = "Basic realm=\"avocet site: any user, the site's token as password\"";

/// The registry, behind its guard; what is pulled needs signatures if `demand` says whose.
pub(crate) fn router(registry: Registry, front: Front, demand: Option<Demand>) -> Router {
    front::router(registry).layer(from_fn_with_state((front, demand), guard)).layer(from_fn(front::read_rest))
}

/// Serves until the shutdown.
pub(crate) async fn serve(listener: TcpListener, router: Router, shutdown: Shutdown) {
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let served = axum::serve(listener, service).with_graceful_shutdown(async move { shutdown.wait().await });
    if let Err(error) = served.await {
        tracing::error!(%error, "the registry's front ended");
    }
}

async fn guard(
    State((front, demand)): State<(Front, Option<Demand>)>,
    mut request: Request,
    next: Next,
) -> Response {
    let token = token(request.headers());
    if !(token.is_none() && is_open_to(&front, &request))
        && let Err(refusal) = front.check_secret(&token.unwrap_or_default()).await
    {
        let code = Code { word: "UNAUTHORIZED", status: 401 };
        return Refusal::new(code, refusal.message).with_header(WWW_AUTHENTICATE, CHALLENGE).into_response();
    }
    // Rights at a site are all or nothing.
    request.extensions_mut().insert(Reads(std::sync::Arc::new(|_| true)));
    if let Some(demand) = demand {
        request.extensions_mut().insert(demand);
    }
    next.run(request).await
}

/// Whether the request needs no token.
fn is_open_to(front: &Front, request: &Request) -> bool {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    front.access.anonymous_pulls
        && matches!(*request.method(), Method::GET | Method::HEAD)
        && peer.is_some_and(|ConnectInfo(address)| address.ip().is_loopback())
}

fn token(headers: &HeaderMap) -> Option<String> {
    let (scheme, value) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.trim().to_owned());
    }
    let decoded = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
    let (_, password) = decoded.split_once(':').filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    Some(password.to_owned())
}
