//! The port of REST: HTTP/1 connections, as many as are good for the machine, each with bounded patience.

use std::pin::pin;
use std::time::Duration;

use axum::Router;
use daemon::Shutdown;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Connections at once; more wait.
const CONNECTIONS: usize = 1024;
/// How long a connection may take for the head of a request, or rest between two.
const HEADER_PATIENCE: Duration = Duration::from_secs(60);
/// How often the listener wakes for nothing. A timer that is to end before all others wakes another thread when it is
/// set, which costs more than a small request; beside this one, those of connections and bodies don't.
const PULSE: Duration = Duration::from_secs(5);
/// How long to wait where the machine has no more files.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves a router, such as [`crate::router`] with others merged into it, until the shutdown; then open requests are
/// answered.
pub async fn serve(listener: TcpListener, router: Router, shutdown: Shutdown) {
    let mut connections = JoinSet::new();
    let mut pulse = tokio::time::interval(PULSE);
    loop {
        let full = connections.len() >= CONNECTIONS;
        let accepted = tokio::select! {
            () = shutdown.wait() => break,
            Some(_) = connections.join_next() => continue,
            _ = pulse.tick() => continue,
            accepted = listener.accept(), if !full => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(serve_connection(stream, router.clone(), shutdown.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "can't accept connections");
                shutdown.sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve_connection(stream: TcpStream, router: Router, shutdown: Shutdown) {
    let _ = stream.set_nodelay(true);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_PATIENCE);
    let service = TowerToHyperService::new(router);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
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
