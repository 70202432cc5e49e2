//! The port of REST: HTTP/1 connections, each with bounded patience.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use axum::routing::future::RouteFuture;
use daemon::{Shutdown, tls};
use futures::FutureExt;
use futures::future::{Either, Map};
use hyper::Request;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::JoinError;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;
use tower::Service as _;

use crate::door::{self, Behind, Door};
use crate::infer::LARGE;
use crate::lanes;

/// How long a connection may take for the head of a request, or rest between two.
const HEADER_PATIENCE: Duration = Duration::from_secs(60);

/// Serves a router, such as [`crate::router`] with others merged into it, until the shutdown; then open requests are
/// answered.
pub async fn serve(listener: TcpListener, router: Router, shutdown: Shutdown) {
    serve_behind(Door::default(), listener, router, shutdown).await;
}

/// The same for those whom a door lets in.
pub async fn serve_behind(door: Door, listener: TcpListener, router: Router, shutdown: Shutdown) {
    let front = door.before(Front { router, everywhere: Handle::current() }, Door::refuse_rest);
    let acceptor = match door.acceptor(tls::HTTP_1) {
        Ok(acceptor) => acceptor,
        Err(error) => return tracing::error!(%error, "the port for REST can't be encrypted, so it is closed"),
    };
    lanes::serve("rest", lanes::CONNECTIONS, listener, shutdown.clone(), || {
        let (front, acceptor, shutdown) = (front.clone(), acceptor.clone(), shutdown.clone());
        move |stream| serve_connection(stream, acceptor.clone(), front.clone(), shutdown.clone())
    })
    .await;
}

type Guarded = Behind<Front, Response, Incoming>;

async fn serve_connection(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    front: Guarded,
    shutdown: Shutdown,
) {
    let Some(acceptor) = acceptor else { return speak(stream, front, shutdown).await };
    // Boxed, so that connections in the open don't keep room for it.
    let encrypted = async {
        if let Some(stream) = door::shake_hands(&acceptor, stream).await {
            speak(stream, front, shutdown).await;
        }
    };
    Box::pin(encrypted).await;
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, front: Guarded, shutdown: Shutdown) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_PATIENCE);
    lanes::see_out(http.serve_connection(TokioIo::new(stream), front), shutdown).await;
}

/// Answers a connection's requests: small predictions on its own thread, the others wherever there is room.
#[derive(Clone)]
struct Front {
    router: Router,
    everywhere: Handle,
}

type Answer = Result<Response, Infallible>;
type Here = Map<RouteFuture<Infallible>, fn(Answer) -> Result<Response, JoinError>>;
type Elsewhere = Map<AbortOnDropHandle<Answer>, fn(Result<Answer, JoinError>) -> Result<Response, JoinError>>;

impl Service<Request<Incoming>> for Front {
    type Response = Response;
    /// Ends the connection.
    type Error = JoinError;
    type Future = Either<Here, Elsewhere>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let is_small = is_small_prediction(&request);
        let answer = self.router.clone().call(request);
        match is_small {
            true => Either::Left(answer.map(|Ok(response)| Ok(response))),
            false => Either::Right(
                AbortOnDropHandle::new(self.everywhere.spawn(answer))
                    .map(|ended| ended.map(|Ok(response)| response)),
            ),
        }
    }
}

fn is_small_prediction(request: &Request<Incoming>) -> bool {
    let path = request.uri().path();
    let is_small = request.body().size_hint().upper().is_some_and(|size| size <= LARGE as u64);
    is_small && (path.ends_with("/infer") || path.ends_with("/prediction"))
}
