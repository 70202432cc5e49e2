//! The one connection for all that is small, where the server offers it ([`multiplex`]).

use std::io;
use std::sync::Arc;

use axum::http;
use axum::http::header::{HOST, USER_AGENT};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use multiplex::{Multiplexed, Patience};
use reqwest::{Body, Request, Response, ResponseBuilderExt, Url};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::{AGENT, CONNECT, PING};

/// What is larger goes elsewhere, in bytes.
const LARGEST: usize = 256 << 10;

pub(super) struct Small {
    tls: TlsConnector,
    state: Mutex<State>,
}

enum State {
    Closed,
    Open(Multiplexed),
    /// The server is of an older version.
    Unknown,
}

impl Small {
    pub(super) fn new(mut tls: ClientConfig) -> Self {
        // A server that knows no better takes the second one, and the connection is dropped.
        tls.alpn_protocols = vec![daemon::tls::MULTIPLEXED.to_vec(), daemon::tls::HTTP_2.to_vec()];
        Self { tls: TlsConnector::from(Arc::new(tls)), state: Mutex::new(State::Closed) }
    }

    /// Sends a request that fits; answers `None` if it has to go elsewhere.
    pub(super) async fn send(
        &self,
        request: &Request,
        instance: Option<&str>,
    ) -> io::Result<Option<Response>> {
        let body = request.body().map_or(Some(&b""[..]), Body::as_bytes);
        let Some(body) = body.filter(|body| body.len() <= LARGEST) else { return Ok(None) };
        let Some(connection) = self.connection(request.url(), instance).await? else { return Ok(None) };
        let url = request.url();
        let path =
            url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        let mut asked = http::Request::new(Bytes::copy_from_slice(body));
        asked.method_mut().clone_from(request.method());
        *asked.uri_mut() = path.try_into().map_err(io::Error::other)?;
        // The connection has it.
        let own = request.headers().iter().filter(|(name, _)| *name != crate::INSTANCE);
        asked.headers_mut().extend(own.map(|(name, value)| (name.clone(), value.clone())));
        let answered = connection.send(&asked);
        let answer = match request.timeout() {
            None => answered.await?,
            Some(limit) => timeout(*limit, answered).await??,
        };
        let (head, body) = answer.into_parts();
        let mut answer =
            http::Response::builder().status(head.status).url(url.clone()).body(Body::wrap_stream(body));
        if let Ok(answer) = &mut answer {
            *answer.headers_mut() = head.headers;
        }
        answer.map(|answer| Some(Response::from(answer))).map_err(io::Error::other)
    }

    async fn connection(&self, url: &Url, instance: Option<&str>) -> io::Result<Option<Multiplexed>> {
        let mut state = self.state.lock().await;
        match &*state {
            State::Unknown => return Ok(None),
            State::Open(connection) if connection.is_open() => return Ok(Some(connection.clone())),
            State::Open(_) | State::Closed => {}
        }
        *state = State::Closed;
        let stream = timeout(CONNECT, self.connect(url)).await??;
        let Some(stream) = stream else {
            *state = State::Unknown;
            return Ok(None);
        };
        let connection =
            Multiplexed::begin(stream, &common(url, instance)?, Patience { asks_after: PING, waits: PING });
        *state = State::Open(connection.clone());
        Ok(Some(connection))
    }

    async fn connect(&self, url: &Url) -> io::Result<Option<tokio_rustls::client::TlsStream<TcpStream>>> {
        let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let stream = TcpStream::connect((host, url.port_or_known_default().unwrap_or(443))).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(name, stream).await?;
        let agreed = stream.get_ref().1.alpn_protocol() == Some(daemon::tls::MULTIPLEXED);
        Ok(agreed.then_some(stream))
    }
}

/// What all requests say.
fn common(url: &Url, instance: Option<&str>) -> io::Result<HeaderMap> {
    let mut fields = HeaderMap::new();
    let host = url.host_str().unwrap_or_default();
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let instance = instance.map(|instance| (HeaderName::from_static(crate::INSTANCE), instance));
    let others = [(HOST, host.as_str()), (USER_AGENT, AGENT)];
    for (name, value) in others.into_iter().chain(instance) {
        fields.insert(name, HeaderValue::from_str(value).map_err(io::Error::other)?);
    }
    Ok(fields)
}
