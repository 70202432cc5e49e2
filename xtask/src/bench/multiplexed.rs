//! A client with all its requests on one connection, as agents have it.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use multiplex::{Answer, Multiplexed as Connection, Patience};

use super::load::Server;

/// After how long without a word the connection is tried, as agents do it.
const PING: Duration = Duration::from_secs(10);
/// How long an answer may take: longer than anybody lets it wait.
const TIMEOUT: Duration = Duration::from_secs(180);

/// Names and values.
pub type Fields<'a> = [(&'static str, &'a str)];

/// Cheap to clone: clones share the connection, which is open as long as one of them lives.
#[derive(Clone)]
pub struct Multiplexed(Connection);

impl Multiplexed {
    /// Connects, with fields that all requests have.
    pub async fn connect(server: &Server, common: &Fields<'_>) -> anyhow::Result<Self> {
        let stream = server.stream().await?;
        let mut fields = HeaderMap::new();
        for (name, value) in [("host", server.host.as_str())].iter().chain(common) {
            fields.insert(HeaderName::from_static(name), HeaderValue::from_str(value)?);
        }
        let patience = Patience { asks_after: PING, waits: PING };
        Ok(Self(Connection::begin(stream, &fields, patience)))
    }

    /// Sends a request, which must be answered with a status in the two hundreds.
    pub async fn expect(
        &self,
        method: &str,
        path: &str,
        fields: &Fields<'_>,
        body: String,
    ) -> anyhow::Result<Bytes> {
        let read = async {
            let response = self.send(method, path, fields, body).await?;
            let status = response.status();
            let body: Vec<Bytes> = response.into_body().try_collect().await?;
            let body = body.concat();
            ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
            Ok(body.into())
        };
        tokio::time::timeout(TIMEOUT, read).await?
    }

    /// Begins to read an answer without end, line by line.
    pub async fn lines(&self, path: &str) -> anyhow::Result<Lines> {
        let response = self.send("GET", path, &[], String::new()).await?;
        ensure!(response.status().is_success(), "a watch was answered with {}", response.status());
        Ok(Lines { body: response.into_body(), read: Vec::new() })
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        fields: &Fields<'_>,
        body: String,
    ) -> anyhow::Result<Response<Answer>> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        self.0.send(&request.body(body.into())?).await.context("the connection broke")
    }
}

/// The lines of an answer.
pub struct Lines {
    body: Answer,
    read: Vec<u8>,
}

impl Lines {
    /// The next line.
    pub async fn next(&mut self) -> anyhow::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                return Ok(self.read.drain(..=end).collect());
            }
            let Some(more) = self.body.next().await else { bail!("the answer ended") };
            self.read.extend_from_slice(&more?);
        }
    }
}
