//! The one connection for all that is small, where the server offers it ([`multiplex`]).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use axum::http;
use axum::http::header::{HOST, USER_AGENT};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt};
use multiplex::{Answer, Multiplexed, Patience};
use reqwest::{Body, Request, Response, ResponseBuilderExt, Url};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Mutex;
use tokio::time::{Instant, Sleep, sleep_until, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::{AGENT, CONNECT, PING};

/// What is larger goes elsewhere, in bytes: on a slow way nothing else gets through meanwhile.
const LARGEST: usize = 16 << 10;
/// How long a server of an older version is not asked again whether it knows the protocol by now.
const OLD: Duration = Duration::from_secs(3600);
/// How long one of several addresses has until the next one is tried beside it (RFC 8305).
const HEAD_START: Duration = Duration::from_millis(250);
/// For who sets no limit.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

pub(super) struct Small {
    tls: TlsConnector,
    state: Mutex<State>,
}

enum State {
    Closed,
    Open(Multiplexed),
    /// The last try to connect, and why it failed.
    Failed(Instant, Arc<io::Error>),
    /// The server was of an older version then.
    Old(Instant),
}

impl Small {
    pub(super) fn new(mut tls: ClientConfig) -> Self {
        // A server that does not know the first takes another one, and the connection is dropped.
        let others = [daemon::tls::HTTP_2, daemon::tls::HTTP_1];
        tls.alpn_protocols =
            [daemon::tls::MULTIPLEXED].into_iter().chain(others).map(<[u8]>::to_vec).collect();
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
        let url = request.url();
        let path =
            url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        let mut asked = http::Request::new(Bytes::copy_from_slice(body));
        asked.method_mut().clone_from(request.method());
        *asked.uri_mut() = path.try_into().map_err(io::Error::other)?;
        // The connection has it.
        let own = request.headers().iter().filter(|(name, _)| *name != crate::INSTANCE);
        asked.headers_mut().extend(own.map(|(name, value)| (name.clone(), value.clone())));

        let ends = Instant::now() + request.timeout().copied().unwrap_or(FOR_EVER);
        let answered = timeout_at(ends, async {
            match self.connection(url, instance).await? {
                Some(connection) => connection.send(&asked).await.map(Some),
                None => Ok(None),
            }
        });
        let Some(answer) = answered.await?? else { return Ok(None) };
        let (head, body) = answer.into_parts();
        let body = InTime { answer: body, ends: Box::pin(sleep_until(ends)) };
        let answer = http::Response::builder().status(head.status).url(url.clone());
        let mut answer = answer.body(Body::wrap_stream(body)).map_err(io::Error::other)?;
        *answer.headers_mut() = head.headers;
        Ok(Some(Response::from(answer)))
    }

    async fn connection(&self, url: &Url, instance: Option<&str>) -> io::Result<Option<Multiplexed>> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        match &*state {
            State::Old(found) if found.elapsed() < OLD => return Ok(None),
            State::Open(connection) if connection.is_open() => return Ok(Some(connection.clone())),
            // Who waited for a try does not begin another one.
            State::Failed(tried, error) if *tried > asked => {
                return Err(io::Error::new(error.kind(), Shared(error.clone())));
            }
            _ => *state = State::Closed,
        }
        let connected = timeout(CONNECT, self.connect(url)).await;
        match connected.unwrap_or_else(|late| Err(late.into())) {
            Ok(Some(stream)) => {
                let patience = Patience { asks_after: PING, waits: PING };
                let connection = Multiplexed::begin(stream, &common(url, instance)?, patience);
                *state = State::Open(connection.clone());
                Ok(Some(connection))
            }
            Ok(None) => {
                *state = State::Old(Instant::now());
                Ok(None)
            }
            Err(error) => {
                let error = Arc::new(error);
                *state = State::Failed(Instant::now(), error.clone());
                Err(io::Error::new(error.kind(), Shared(error)))
            }
        }
    }

    /// A connection on which the protocol was agreed, unless the server does not know it.
    async fn connect(&self, url: &Url) -> io::Result<Option<TlsStream<TcpStream>>> {
        let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let stream = reach(host, url.port_or_known_default().unwrap_or(443)).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(name, stream).await?;
        let agreed = stream.get_ref().1.alpn_protocol() == Some(daemon::tls::MULTIPLEXED);
        Ok(agreed.then_some(stream))
    }
}

/// The first address of a host that answers; each has a head start over the next, unless it fails before.
async fn reach(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut addresses = lookup_host((host, port)).await?.fuse();
    let mut tries = FuturesUnordered::new();
    let mut failed = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    loop {
        let next = addresses.next();
        let was_last = next.is_none();
        tries.extend(next.map(TcpStream::connect));
        let head_start = if was_last { FOR_EVER } else { HEAD_START };
        match timeout(head_start, tries.next()).await {
            Ok(Some(Ok(stream))) => return Ok(stream),
            Ok(Some(Err(error))) => failed = error,
            Ok(None) if was_last => return Err(failed),
            Ok(None) | Err(_) => {}
        }
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

/// A body that has to be there by some time.
struct InTime {
    answer: Answer,
    ends: Pin<Box<Sleep>>,
}

impl Stream for InTime {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Poll::Ready(next) = self.answer.poll_next_unpin(cx) {
            return Poll::Ready(next);
        }
        self.ends.as_mut().poll(cx).map(|()| Some(Err(io::ErrorKind::TimedOut.into())))
    }
}

/// Why a connection that several waited for was not made.
#[derive(Debug)]
struct Shared(Arc<io::Error>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("can't connect")
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_is_reached_at_the_address_that_answers() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // It is ::1, too, where nobody listens.
        for host in ["localhost", "127.0.0.1"] {
            assert_eq!(reach(host, port).await.unwrap().peer_addr().unwrap().port(), port);
        }
        drop(listener);
        assert_eq!(reach("localhost", port).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(reach("no.such.host.invalid", port).await.is_err());
    }
}
