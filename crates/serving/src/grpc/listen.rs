//! The port: HTTP/2 connections, each with bounds on what a client may keep open.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
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
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::codegen::Service as _;
use wire::inference::grpc_inference_service_server::GrpcInferenceServiceServer;

use super::service::Methods;
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
    let (front, everywhere) = (Front::new(state), Handle::current());
    lanes::serve("grpc", lanes::CONNECTIONS, listener, shutdown.clone(), || {
        let (front, everywhere, shutdown) = (front.clone(), everywhere.clone(), shutdown.clone());
        move |stream| serve_connection(stream, front.clone(), everywhere.clone(), shutdown.clone())
    })
    .await;
}

async fn serve_connection(stream: TcpStream, front: Front, everywhere: Handle, shutdown: Shutdown) {
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
