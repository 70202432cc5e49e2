//! The port: HTTP/2 connections, each with bounds on what a client may keep open.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use daemon::{Shutdown, tls};
use hyper::Response;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;

use super::front::Front;
use crate::door::{self, Behind, Door};
use crate::lanes;
use crate::state::ServerState;

/// Requests at once in one connection.
const STREAMS: u32 = 256;
/// What a client may send before its request is looked at, in bytes: per request and per connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Largest list of headers in bytes.
const HEADERS: u32 = 16 << 10;
/// After this silence a connection is asked whether it is there, and closed if it doesn't say so in time.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves the protocol until the shutdown; then open requests are answered.
pub async fn serve(listener: TcpListener, state: ServerState, shutdown: Shutdown) {
    serve_behind(Door::default(), listener, state, shutdown).await;
}

/// The same for those whom a door lets in.
pub async fn serve_behind(door: Door, listener: TcpListener, state: ServerState, shutdown: Shutdown) {
    let everywhere = Handle::current();
    let front = door.before(Front::new(state, everywhere.clone()), Door::refuse_grpc);
    let acceptor = match door.acceptor(tls::HTTP_2) {
        Ok(acceptor) => acceptor,
        Err(error) => return tracing::error!(%error, "the port for gRPC can't be encrypted, so it is closed"),
    };
    lanes::serve("grpc", lanes::CONNECTIONS, listener, shutdown.clone(), || {
        let (front, acceptor) = (front.clone(), acceptor.clone());
        let (everywhere, shutdown) = (everywhere.clone(), shutdown.clone());
        move |stream| {
            let (front, acceptor) = (front.clone(), acceptor.clone());
            serve_connection(stream, acceptor, front, everywhere.clone(), shutdown.clone())
        }
    })
    .await;
}

type Guarded = Behind<Front, Response<Body>, Incoming>;

async fn serve_connection(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    front: Guarded,
    everywhere: Handle,
    shutdown: Shutdown,
) {
    let Some(acceptor) = acceptor else { return speak(stream, front, everywhere, shutdown).await };
    // Boxed, so that connections in the open don't keep room for it.
    let encrypted = async {
        if let Some(stream) = door::shake_hands(&acceptor, stream).await {
            speak(stream, front, everywhere, shutdown).await;
        }
    };
    Box::pin(encrypted).await;
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    front: Guarded,
    everywhere: Handle,
    shutdown: Shutdown,
) {
    let mut http = http2::Builder::new(Requests { everywhere, open: Arc::default() });
    http.timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADERS)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    lanes::see_out(http.serve_connection(TokioIo::new(stream), front), shutdown).await;
}

/// Where the requests of a connection run: one on the connection's own thread, those beside it wherever there is room.
#[derive(Clone)]
struct Requests {
    everywhere: Handle,
    open: Arc<AtomicUsize>,
}

impl<F> Executor<F> for Requests
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, request: F) {
        let alone = self.open.fetch_add(1, Relaxed) == 0;
        let open = self.open.clone();
        let request = async move {
            request.await;
            open.fetch_sub(1, Relaxed);
        };
        let place = if alone { &Handle::current() } else { &self.everywhere };
        place.spawn(request);
    }
}
