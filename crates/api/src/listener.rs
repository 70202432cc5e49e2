//! One port for TLS and, from this very machine only, plain HTTP: kubectl and other machines need the one,
//! browsers and curl on loopback are at ease with the other. The first byte tells which it is.
//!
//! Over TLS clients choose (ALPN): HTTP/2, HTTP/1.1, or what agents choose for their watch, their wait for deliveries and
//! their heartbeats ([`multiplex`]), since tens of thousands of them have to fit into a hub's memory.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::HOST;
use axum::http::{HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use daemon::Shutdown;
use daemon::tls::{ClientCertificate, TlsStream};
use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use multiplex::{Patience, Refusal};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::either::Either;
use tower::ServiceExt;
use tracing::{debug, warn};

use crate::ApiError;

/// A connection, encrypted or not. What encryption needs is boxed: thousands of watchers come without.
type Connection = Either<Box<TlsStream<TcpStream>>, TcpStream>;

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The certificate that the client showed, if it showed one: it was signed by an authority that is trusted here.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// From where they came.
    pub address: SocketAddr,
}

impl Peer {
    fn of(connection: &Connection, address: SocketAddr) -> Self {
        let shown = match connection {
            Either::Left(encrypted) => encrypted.session().peer_certificates(),
            Either::Right(_) => None,
        };
        let certificate = shown.and_then(|chain| ClientCertificate::read(chain.first()?));
        Self { certificate: certificate.map(Arc::new), address }
    }
}

/// How long a client may take until it has shaken hands.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How many may shake hands at once; more wait in the kernel's queue.
const HANDSHAKES: usize = 256;
/// The first byte of a TLS connection: a handshake record.
const TLS: u8 = 0x16;

/// How many requests one connection of HTTP/2 may have open at once.
const STREAMS: u32 = 256;
/// How much may be on its way there that nobody has read yet: of one request's body and of all together, in bytes.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// How much of one answer is kept there until the client takes it, in bytes.
const UNSENT: usize = 128 << 10;
/// How large a request's head may be there, in bytes.
const HEADERS: u32 = 64 << 10;

/// How long a client may say nothing there until it is asked whether it still is there, and how long it has to answer.
/// Agents ask more often themselves, so that this costs their uplinks nothing.
const QUIET: Patience = Patience { asks_after: Duration::from_secs(60), waits: Duration::from_secs(20) };

/// How long to wait where the machine has no more files.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections and serves them until the shutdown; then those that are open end what they are at.
pub async fn serve(listener: TcpListener, config: Arc<ServerConfig>, router: Router, shutdown: Shutdown) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    let mut connections = JoinSet::new();
    loop {
        let (place, stream, address) = tokio::select! {
            () = shutdown.wait() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &places) => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "can't accept connections");
                    shutdown.sleep(PAUSE).await;
                    continue;
                }
            },
        };
        let (config, router, shutdown) = (config.clone(), router.clone(), shutdown.clone());
        connections.spawn(async move {
            // Boxed, so that a connection does not keep the space that its handshake took.
            let shaken = Box::pin(shake_hands(stream, address, config, place));
            match shaken.await {
                Ok(connection) => serve_connection(connection, address, router, shutdown).await,
                Err(error) => debug!(peer = %address, %error, "connection refused"),
            }
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

type Place = OwnedSemaphorePermit;

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(Place, TcpStream, SocketAddr)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    Ok((place, stream, address))
}

/// Serves a connection by the protocol that was agreed on. Boxed each on its own, so that one at rest does not keep the space
/// that another protocol would take.
fn serve_connection(
    connection: Connection,
    address: SocketAddr,
    router: Router,
    shutdown: Shutdown,
) -> BoxFuture<'static, ()> {
    let peer = Peer::of(&connection, address);
    let chosen = match &connection {
        Either::Left(encrypted) => encrypted.session().alpn_protocol(),
        Either::Right(_) => None,
    };
    if chosen == Some(daemon::tls::MULTIPLEXED) {
        // Only agents speak it, and they have one: nobody else gets at so many requests at once.
        if peer.certificate.is_none() {
            debug!(peer = %address, "refused to multiplex for a client without a certificate");
            return Box::pin(std::future::ready(()));
        }
        let answer = move |asked| answer(asked, peer.clone(), router.clone());
        let shut_down = Box::pin(async move { shutdown.wait().await });
        let served = multiplex::serve(connection, QUIET, answer, shut_down);
        return Box::pin(served.map(move |ended| {
            if let Err(error) = ended {
                debug!(peer = %address, %error, "a connection broke");
            }
        }));
    }
    let is_http2 = chosen == Some(daemon::tls::HTTP_2);
    let service = service_fn(move |mut request: Request<Incoming>| {
        take_origin_form(&mut request);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer.clone()));
        router.clone().oneshot(request)
    });
    let connection = TokioIo::new(connection);
    if is_http2 {
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .keep_alive_interval(QUIET.asks_after)
            .keep_alive_timeout(QUIET.waits)
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(UNSENT)
            .max_header_list_size(HEADERS);
        Box::pin(see_out(http.serve_connection(connection, service), address, shutdown))
    } else {
        let http = http1::Builder::new().serve_connection(connection, service);
        Box::pin(see_out(http, address, shutdown))
    }
}

/// Answers a request that came with others, or says what is wrong with it.
async fn answer(asked: Result<Request<Bytes>, Refusal>, peer: Peer, router: Router) -> Response {
    let mut request = match asked {
        Ok(request) => request.map(Body::from),
        Err(Refusal::Unreadable(error)) => return ApiError::bad_request(error.to_string()).into_response(),
        Err(Refusal::TooMany) => {
            let most = multiplex::STREAMS;
            let problem = format!("{most} requests are open on this connection; wait until one of them ends");
            return ApiError::too_many_requests(problem).into_response();
        }
    };
    request.extensions_mut().insert(ConnectInfo(peer));
    let Ok(answer) = router.oneshot(request).await;
    answer
}

/// Serves a connection until it ends; after the shutdown only what is open in it.
async fn see_out<C>(connection: C, address: SocketAddr, shutdown: Shutdown)
where
    C: GracefulConnection<Error: Display>,
{
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.wait() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(peer = %address, %error, "a connection broke");
    }
}

/// Gives a request of HTTP/2, whose URI names the host, the form that one of HTTP/1.1 has.
fn take_origin_form(request: &mut Request<Incoming>) {
    let Some(host) = request.uri().authority() else { return };
    if let Ok(host) = HeaderValue::try_from(host.as_str()) {
        request.headers_mut().entry(HOST).or_insert(host);
    }
    let target = request.uri().path_and_query().cloned();
    *request.uri_mut() = target.map_or_else(Uri::default, Uri::from);
}

async fn shake_hands(
    stream: TcpStream,
    peer: SocketAddr,
    config: Arc<ServerConfig>,
    _place: Place,
) -> io::Result<Connection> {
    tokio::time::timeout(HANDSHAKE, begin(stream, peer, config)).await?
}

async fn begin(stream: TcpStream, peer: SocketAddr, config: Arc<ServerConfig>) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if first == [TLS] {
        return Ok(Either::Left(Box::new(TlsStream::accept(stream, config).await?)));
    }
    if peer.ip().is_loopback() {
        return Ok(Either::Right(stream));
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "plain HTTP from another machine; use https"))
}
