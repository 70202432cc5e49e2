//! A client with all its requests on one connection of HTTP/2, as agents have it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::task::JoinSet;

use super::load::Server;

/// After how long without a word the connection is tried, as agents do it.
const PING: Duration = Duration::from_secs(10);
/// How long an answer may take: longer than anybody lets it wait.
const TIMEOUT: Duration = Duration::from_secs(180);

/// Cheap to clone: clones share the connection, which is open as long as one of them lives.
#[derive(Clone)]
pub struct Multiplexed {
    requests: http2::SendRequest<Full<Bytes>>,
    host: Arc<str>,
    headers: Arc<[(&'static str, String)]>,
    _connection: Arc<JoinSet<()>>,
}

impl Multiplexed {
    /// Connects, with headers that all requests carry.
    pub async fn connect(server: &Server, headers: Arc<[(&'static str, String)]>) -> anyhow::Result<Self> {
        let stream = server.stream().await?;
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new()).keep_alive_interval(PING).keep_alive_timeout(PING);
        let (requests, connection) = http.handshake(TokioIo::new(stream)).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // That it broke is what its requests tell.
            let _ = connection.await;
        });
        Ok(Self { requests, host: server.host.as_str().into(), headers, _connection: Arc::new(tasks) })
    }

    /// Sends a request, which must be answered with a status in the two hundreds.
    pub async fn expect(
        &self,
        method: &str,
        path: &str,
        media_type: &str,
        body: String,
    ) -> anyhow::Result<Bytes> {
        let read = async {
            let response = self.send(method, path, media_type, body).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
            Ok(body)
        };
        tokio::time::timeout(TIMEOUT, read).await?
    }

    /// Begins to read an answer without end, line by line.
    pub async fn lines(&self, path: &str) -> anyhow::Result<Lines> {
        let response = self.send("GET", path, "", String::new()).await?;
        ensure!(response.status().is_success(), "a watch was answered with {}", response.status());
        Ok(Lines { body: response.into_body(), read: Vec::new() })
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        media_type: &str,
        body: String,
    ) -> anyhow::Result<Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(format!("https://{}{path}", self.host));
        for (name, value) in self.headers.iter() {
            request = request.header(*name, value);
        }
        if !media_type.is_empty() {
            request = request.header("content-type", media_type);
        }
        let mut requests = self.requests.clone();
        requests.ready().await?;
        requests.send_request(request.body(body.into())?).await.context("the connection broke")
    }
}

/// The lines of an answer.
pub struct Lines {
    body: Incoming,
    read: Vec<u8>,
}

impl Lines {
    /// The next line.
    pub async fn next(&mut self) -> anyhow::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                return Ok(self.read.drain(..=end).collect());
            }
            let Some(frame) = self.body.frame().await else { bail!("the answer ended") };
            if let Some(more) = frame?.data_ref() {
                self.read.extend_from_slice(more);
            }
        }
    }
}
