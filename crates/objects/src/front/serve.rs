//! Serving the front on a listener.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use daemon::Shutdown;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, EXPECT, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::service::S3Service;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::{Credentials, service};
use crate::Objects;

/// How many connections are served at once; more wait to be accepted. Each may hold a [`1 MiB`](crate::Objects::put)
/// batch of an upload.
const CONNECTIONS: usize = 512;
/// How long a connection may take for the head of a request, or rest between two.
const HEADER_PATIENCE: Duration = Duration::from_secs(60);
/// How long requests under way may take to end after a shutdown.
const END_PATIENCE: Duration = Duration::from_secs(20);

/// Serves S3 on the listener until the shutdown; then requests under way are given 20 seconds to end.
pub async fn serve(listener: TcpListener, objects: Objects, credentials: Credentials, shutdown: Shutdown) {
    let service = service(objects, credentials);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.wait() => break,
            accepted = accept(&listener, &places) => accepted,
            Some(ended) = connections.join_next() => {
                if ended.is_err() {
                    warn!("a connection's task panicked; this is a bug, please report it");
                }
                continue;
            }
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Such as too many open files: it passes when others close.
                warn!(%error, "can't accept a connection; trying again");
                shutdown.sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (service, shutdown) = (service.clone(), shutdown.clone());
        connections.spawn(async move {
            let _place = place;
            serve_connection(stream, service, &shutdown).await;
        });
    }
    drop(listener);
    let ended =
        tokio::time::timeout(END_PATIENCE, async { while connections.join_next().await.is_some() {} });
    if ended.await.is_err() {
        warn!("requests were cut off by the shutdown");
    }
}

type Place = tokio::sync::OwnedSemaphorePermit;

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> std::io::Result<(TcpStream, Place)> {
    let place = places.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

async fn serve_connection(stream: TcpStream, service: S3Service, shutdown: &Shutdown) {
    let _ = stream.set_nodelay(true);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_PATIENCE);
    let service = service_fn(move |request| answer(service.clone(), request));
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.wait() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection broke");
    }
}

/// Who asked whether to send a body at all, and is refused, may send it or not: what comes next on the connection could
/// be either, so it ends. (boto3 goes on with its next request.)
async fn answer(
    service: S3Service,
    request: Request<Incoming>,
) -> Result<Response<s3s::Body>, s3s::HttpError> {
    let asks = request.headers().contains_key(EXPECT);
    let mut response = service.call(request.map(s3s::Body::from)).await?;
    if asks && !response.status().is_success() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}
