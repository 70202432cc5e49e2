//! The site's registry: images and other artifacts, its own and copies of its hub's.
//!
//! Who has the site's token, or one that the hub signed for the site, may push and pull; it comes as a bearer token or
//! as the password of any user. `anonymousPulls` in `access.json` lets this very machine pull without one.

use std::io;
use std::net::SocketAddr;

use api::Client;
use api::client::Error;
use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, Method};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daemon::Shutdown;
use futures::StreamExt;
use futures::future::BoxFuture;
use registry::front::{self, Reads, Refusal};
use registry::{Code, ContentDigest, Found, Incoming, Origin, Reference, Registry, Repository};
use reqwest::StatusCode;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use tokio::net::TcpListener;

use crate::front::Front;

/// What clients are told of how to prove who they are.
const CHALLENGE: &str = "Basic realm=\"avocet site: any user, the site's token as password\"";
/// How large a manifest of the hub may be, in bytes.
const LARGEST_MANIFEST: u64 = 4 << 20;

/// The registry, behind its guard.
pub(crate) fn router(registry: Registry, front: Front) -> Router {
    front::router(registry).layer(from_fn_with_state(front, guard))
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

async fn guard(State(front): State<Front>, mut request: Request, next: Next) -> Response {
    let token = token(request.headers());
    if !(token.is_none() && is_open_to(&front, &request))
        && let Err(refusal) = front.check_secret(&token.unwrap_or_default()).await
    {
        let code = Code { word: "UNAUTHORIZED", status: 401 };
        return Refusal::new(code, refusal.message).with_header(WWW_AUTHENTICATE, CHALLENGE).into_response();
    }
    // Rights at a site are all or nothing.
    request.extensions_mut().insert(Reads(std::sync::Arc::new(|_| true)));
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

/// The hub's registry, from which the site's is filled.
pub(crate) struct HubRegistry(pub Client);

impl HubRegistry {
    async fn ask(&self, request: reqwest::RequestBuilder) -> io::Result<Option<reqwest::Response>> {
        match self.0.send(request).await {
            Ok(response) => Ok(Some(response)),
            Err(Error::Refused { code: 404, .. }) => Ok(None),
            Err(error) => Err(io::Error::other(daemon::chain(&error))),
        }
    }
}

impl Origin for HubRegistry {
    fn manifest<'a>(
        &'a self,
        repository: &'a Repository,
        reference: &'a Reference,
    ) -> BoxFuture<'a, io::Result<Option<Found>>> {
        Box::pin(async move {
            let path = format!("/v2/{repository}/manifests/{reference}");
            let request = self.0.request(Method::GET, &path).header(ACCEPT, "*/*");
            let Some(response) = self.ask(request).await? else { return Ok(None) };
            if response.content_length().is_none_or(|length| length > LARGEST_MANIFEST) {
                return Err(io::Error::other("the hub's manifest is too large"));
            }
            let media_type = text(&response, CONTENT_TYPE).to_owned();
            let bytes = self.0.read(response).await.map_err(io::Error::other)?;
            Ok(Some(Found { media_type, bytes: bytes.into() }))
        })
    }

    fn blob<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &'a ContentDigest,
        offset: u64,
    ) -> BoxFuture<'a, io::Result<Option<Incoming>>> {
        Box::pin(async move {
            let mut request = self.0.request(Method::GET, &format!("/v2/{repository}/blobs/{digest}"));
            if offset > 0 {
                request = request.header(RANGE, format!("bytes={offset}-"));
            }
            let Some(response) = self.ask(request).await? else { return Ok(None) };
            let is_rest = response.status() == StatusCode::PARTIAL_CONTENT;
            if is_rest != (offset > 0) {
                return Err(io::Error::other("the hub did not begin where it was asked to"));
            }
            let size = match is_rest {
                true => text(&response, CONTENT_RANGE).rsplit_once('/').map_or("", |(_, size)| size),
                false => text(&response, CONTENT_LENGTH),
            };
            let size =
                size.parse().map_err(|_| io::Error::other("the hub does not say how large the blob is"))?;
            Ok(Some((size, self.0.stream(response).boxed())))
        })
    }
}

fn text(response: &reqwest::Response, name: reqwest::header::HeaderName) -> &str {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
