//! The port: HTTP/2 connections, each with bounds on what a client may keep open.

use std::convert::Infallible;
use std::future::Future;
use std::net::TcpStream;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use daemon::Shutdown;
use futures::FutureExt;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::codegen::Service as _;
use wire::inference::grpc_inference_service_server::GrpcInferenceServiceServer;

use super::service::Methods;
use crate::state::ServerState;

/// Threads that serve connections.
const LANES: usize = 4;
/// Connections at once on each of them; more wait.
const CONNECTIONS: usize = 1024;
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
/// How long to wait where the machine has no more files.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections and serves them until the shutdown; then those that are open end what they are at.
///
/// Connections are spread over a few threads with a runtime each, because a request passes between two tasks, and
/// waking another thread for the second costs more than all the rest of a small request.
pub async fn serve(listener: TcpListener, state: ServerState, shutdown: Shutdown) {
    let front = Front::new(state);
    let (lanes, threads): (Vec<_>, Vec<_>) =
        (0..LANES).filter_map(|index| start_lane(index, front.clone(), shutdown.clone())).unzip();
    if lanes.is_empty() {
        return tracing::error!("the system gives no thread for gRPC");
    }
    let mut next = 0;
    loop {
        let accepted = tokio::select! {
            () = shutdown.wait() => break,
            accepted = listener.accept() => accepted.and_then(|(stream, _)| stream.into_std()),
        };
        match (accepted, lanes.get(next % lanes.len())) {
            (Ok(stream), Some(lane)) => {
                next = next.wrapping_add(1);
                // Waits where that many connections are open, or ends with the lane.
                tokio::select! {
                    () = shutdown.wait() => break,
                    _ = lane.send(stream) => {}
                }
            }
            (Err(error), _) => {
                tracing::warn!(%error, "can't accept connections");
                shutdown.sleep(PAUSE).await;
            }
            (Ok(_), None) => {}
        }
    }
    drop((listener, lanes));
    for ended in threads {
        let _ = ended.await;
    }
}

/// A thread that serves connections, and what resolves when it ends.
fn start_lane(
    index: usize,
    front: Front,
    shutdown: Shutdown,
) -> Option<(mpsc::Sender<TcpStream>, oneshot::Receiver<()>)> {
    let (sender, streams) = mpsc::channel(1);
    let (ended, end) = oneshot::channel();
    let everywhere = Handle::current();
    let work = move || {
        match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(run_lane(streams, front, everywhere, shutdown)),
            Err(error) => tracing::error!(%error, "a thread for gRPC can't start"),
        }
        let _ = ended.send(());
    };
    let started = std::thread::Builder::new().name(format!("grpc-{index}")).spawn(work);
    started.ok().map(|_| (sender, end))
}

async fn run_lane(
    mut streams: mpsc::Receiver<TcpStream>,
    front: Front,
    everywhere: Handle,
    shutdown: Shutdown,
) {
    let mut connections = JoinSet::new();
    loop {
        let full = connections.len() >= CONNECTIONS;
        tokio::select! {
            Some(_) = connections.join_next() => {}
            stream = streams.recv(), if !full => match stream {
                Some(stream) => {
                    let (front, everywhere) = (front.clone(), everywhere.clone());
                    connections.spawn(serve_connection(stream, front, everywhere, shutdown.clone()));
                }
                None => break,
            },
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn serve_connection(stream: TcpStream, front: Front, everywhere: Handle, shutdown: Shutdown) {
    let Ok(stream) = tokio::net::TcpStream::from_std(stream) else { return };
    let _ = stream.set_nodelay(true);
    let mut http = http2::Builder::new(Requests { everywhere, open: Arc::default() });
    http.timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADERS)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), front));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.wait() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
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

type Server = GrpcInferenceServiceServer<Methods>;

/// The service, for plain answers and for compressed ones.
#[derive(Clone)]
struct Front {
    plain: Server,
    packing: Server,
}

impl Front {
    fn new(state: ServerState) -> Front {
        let limit = state.body_limit;
        let plain = Server::new(Methods(state))
            .max_decoding_message_size(limit)
            .max_encoding_message_size(usize::MAX)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Deflate);
        let packing = (plain.clone())
            .send_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Deflate);
        Front { plain, packing }
    }
}

impl Service<Request<Incoming>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let server = if is_packed(request.headers()) { &self.packing } else { &self.plain };
        let answer = server.clone().call(request);
        Box::pin(answer.map(|answer| answer.map(name_size_truly)))
    }
}

/// Clients offer every encoding they know with every request, so only one that packs its own message wants it.
fn is_packed(headers: &HeaderMap) -> bool {
    headers.get("grpc-encoding").is_some_and(|encoding| encoding != "identity")
}

/// A message over the limit is told as `OUT_OF_RANGE`; other servers and what clients know say `RESOURCE_EXHAUSTED`.
fn name_size_truly(mut answer: Response<Body>) -> Response<Body> {
    if let Some(status) = answer.headers_mut().get_mut("grpc-status")
        && status == "11"
    {
        *status = HeaderValue::from_static("8");
    }
    answer
}
