//! Who may come in at a server's ports: TLS, tokens, and no page of a foreign site. What is off costs a look at a flag.

use std::future::{Ready, ready};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use daemon::{Shutdown, tls};
use futures::future::Either;
use hyper::Request;
use hyper::service::Service;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a client may take until it has shaken hands.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often it is looked whether the tokens have changed.
const POLL: Duration = Duration::from_secs(5);
/// Shortest token in bytes, and largest file of them.
const SHORTEST: usize = 16;
const LARGEST: u64 = 64 << 10;

/// What stands between a port and whoever reaches it. The default lets everybody in. Cheap to clone.
#[derive(Clone, Default)]
pub struct Door {
    certificate: Option<Arc<tls::Served>>,
    tokens: Option<Arc<Tokens>>,
    refuses_pages: bool,
}

impl Door {
    /// Shows this certificate, and speaks nothing but TLS.
    #[must_use]
    pub fn tls(mut self, certificate: Arc<tls::Served>) -> Door {
        self.certificate = Some(certificate);
        self
    }

    /// Answers those alone who show one of these tokens; whether the server is alive and ready everybody may ask.
    #[must_use]
    pub fn tokens(mut self, tokens: Arc<Tokens>) -> Door {
        self.tokens = Some(tokens);
        self
    }

    /// Lets no page that a browser got from elsewhere change anything: browsers reach ports that listen on loopback
    /// alone, and say in `Origin` for whom.
    #[must_use]
    pub fn refuse_foreign_pages(mut self) -> Door {
        self.refuses_pages = true;
        self
    }

    /// The acceptor for a port whose clients speak this protocol.
    pub(crate) fn acceptor(&self, protocol: &[u8]) -> io::Result<Option<TlsAcceptor>> {
        let Some(certificate) = &self.certificate else { return Ok(None) };
        let config = tls::server_for_all(Arc::clone(certificate), &[protocol])?;
        Ok(Some(TlsAcceptor::from(config)))
    }

    /// A front behind this door; `refusal` says what is told to whom.
    pub(crate) fn before<S, R, I>(&self, front: S, refusal: Refuse<R, I>) -> Behind<S, R, I> {
        Behind { front, door: self.clone(), refusal }
    }

    fn knows(&self, headers: &HeaderMap) -> bool {
        self.tokens.as_ref().is_none_or(|tokens| tokens.admit(headers))
    }

    /// What a client of REST is told that may not come in.
    pub(crate) fn refuse_rest<I>(&self, request: &Request<I>) -> Option<Response> {
        if self.tokens.is_some() && !is_health(request.uri().path()) && !self.knows(request.headers()) {
            let mut response = told(
                StatusCode::UNAUTHORIZED,
                "this server answers those who show a token of its --token-file: send `Authorization: Bearer TOKEN`",
            );
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return Some(response);
        }
        let origin = self.refuses_pages.then(|| request.headers().get(header::ORIGIN)).flatten()?;
        if !changes(request.method(), request.uri().path()) || is_own(origin, request.headers()) {
            return None;
        }
        let origin: String = String::from_utf8_lossy(origin.as_bytes()).chars().take(128).collect();
        Some(told(
            StatusCode::FORBIDDEN,
            &format!(
                "a page of `{origin}` may not change what this server keeps; do it from a program or a shell"
            ),
        ))
    }

    /// What a client of gRPC is told that may not come in.
    pub(crate) fn refuse_grpc<I>(&self, request: &Request<I>) -> Option<Response<tonic::body::Body>> {
        let is_open =
            || matches!(request.uri().path().rsplit('/').next(), Some("ServerLive" | "ServerReady"));
        if self.tokens.is_none() || is_open() || self.knows(request.headers()) {
            return None;
        }
        let told = "this server answers those who show a token of its --token-file: send `authorization: Bearer TOKEN`";
        Some(tonic::Status::unauthenticated(told).into_http())
    }
}

fn told(status: StatusCode, problem: &str) -> Response {
    let body = serde_json::json!({ "error": problem }).to_string();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn is_health(path: &str) -> bool {
    matches!(path, "/v2/health/live" | "/v2/health/ready")
}

/// Whether a request may change more than counters.
fn changes(method: &Method, path: &str) -> bool {
    let asks = path.ends_with("/infer") || path.ends_with("/prediction") || path == "/v2/repository/index";
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) && !asks
}

/// Whether a page comes from this very server.
fn is_own(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let host = |origin: &str| origin.split_once("://").map(|(_, host)| host.to_ascii_lowercase());
    let origin = origin.to_str().ok().and_then(host);
    let own = headers.get(header::HOST).and_then(|host| host.to_str().ok()).map(str::to_ascii_lowercase);
    origin.is_some() && origin == own
}

/// Tokens out of a file, one a line; empty lines and those that begin with `#` are none. Followed when it changes.
pub struct Tokens {
    file: PathBuf,
    digests: RwLock<Vec<[u8; 32]>>,
}

impl Tokens {
    /// Reads the file.
    ///
    /// # Errors
    /// When it can't be read, or holds no token or one that is short enough to be guessed.
    pub fn open(file: &Path) -> io::Result<Arc<Tokens>> {
        let digests = RwLock::new(read(file)?);
        Ok(Arc::new(Tokens { file: file.to_owned(), digests }))
    }

    /// Takes what the file holds now, until the shutdown; a file that can't be used changes nothing.
    pub async fn keep_fresh(self: Arc<Self>, shutdown: Shutdown) {
        let mut told = None;
        while shutdown.sleep(POLL).await {
            match self.refresh() {
                Ok(()) => told = None,
                Err(error) => {
                    let error = error.to_string();
                    if told.as_ref() != Some(&error) {
                        tracing::warn!(error, "the tokens can't be read; those from before stay");
                    }
                    told = Some(error);
                }
            }
        }
    }

    /// Takes what the file holds now.
    ///
    /// # Errors
    /// Those of [`Tokens::open`]; then nothing is changed.
    pub fn refresh(&self) -> io::Result<()> {
        let digests = read(&self.file)?;
        *self.digests.write().unwrap_or_else(PoisonError::into_inner) = digests;
        Ok(())
    }

    /// Compares digests, so that no time tells how much of a token was right.
    fn admit(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let token = given.and_then(|given| match given.split_at_checked(7) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => Some(token.trim_ascii()),
            _ => None,
        });
        let digest = token.map(|token| <[u8; 32]>::from(Sha256::digest(token)));
        let digests = self.digests.read().unwrap_or_else(PoisonError::into_inner);
        digest.is_some_and(|digest| digests.contains(&digest))
    }
}

fn read(file: &Path) -> io::Result<Vec<[u8; 32]>> {
    let told = |problem: String| io::Error::other(format!("{}: {problem}", file.display()));
    let length = file.metadata().map_err(|error| told(error.to_string()))?.len();
    if length > LARGEST {
        return Err(told(format!("it has {length} bytes; at most {LARGEST} are read")));
    }
    let text = std::fs::read_to_string(file).map_err(|error| told(error.to_string()))?;
    let tokens = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let tokens: Vec<&str> = tokens.collect();
    if tokens.is_empty() {
        return Err(told("it holds no token; write one a line, such as `openssl rand -hex 24` makes".into()));
    }
    if let Some(place) = tokens.iter().position(|token| token.len() < SHORTEST) {
        let problem =
            format!("token {} is shorter than {SHORTEST} characters, so it can be guessed", place + 1);
        return Err(told(problem));
    }
    Ok(tokens.into_iter().map(|token| Sha256::digest(token).into()).collect())
}

type Refuse<R, I> = fn(&Door, &Request<I>) -> Option<R>;

/// A front and its door.
pub(crate) struct Behind<S, R, I> {
    front: S,
    door: Door,
    refusal: Refuse<R, I>,
}

impl<S: Clone, R, I> Clone for Behind<S, R, I> {
    fn clone(&self) -> Self {
        Behind { front: self.front.clone(), door: self.door.clone(), refusal: self.refusal }
    }
}

impl<S, R, I> Service<Request<I>> for Behind<S, R, I>
where
    S: Service<Request<I>, Response = R>,
{
    type Response = R;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<R, S::Error>>>;

    fn call(&self, request: Request<I>) -> Self::Future {
        match (self.refusal)(&self.door, &request) {
            None => Either::Left(self.front.call(request)),
            Some(refusal) => Either::Right(ready(Ok(refusal))),
        }
    }
}

/// The encrypted connection; `None` where the client wants none or takes too long.
pub(crate) async fn shake_hands(acceptor: &TlsAcceptor, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a client did not shake hands");
            None
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
        let request = Request::builder().method(method).uri(path).header("host", "localhost:8000");
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).unwrap()
    }

    #[test]
    fn a_foreign_page_changes_nothing_and_everybody_else_does() {
        let door = Door::default().refuse_foreign_pages();
        let status = |method: &str, path: &str, origin: &str| {
            let request = request(method, path, &[("origin", origin)]);
            door.refuse_rest(&request).map(|response| response.status().as_u16())
        };
        let load = "/v2/repository/models/m/load";
        for origin in
            ["https://evil.example", "null", "http://localhost:9000", "https://localhost:8000.evil.example"]
        {
            assert_eq!(status("POST", load, origin), Some(403), "{origin}");
        }
        assert_eq!(status("DELETE", "/api/v1/models/m", "https://evil.example"), Some(403));
        assert_eq!(status("POST", load, "http://localhost:8000"), None);
        assert_eq!(status("GET", "/v2/models/m", "https://evil.example"), None);
        assert_eq!(status("POST", "/v2/models/m/infer", "https://evil.example"), None);
        assert!(door.refuse_rest(&request("POST", load, &[])).is_none());
        assert!(Door::default().refuse_rest(&request("POST", load, &[("origin", "x")])).is_none());
    }

    #[test]
    fn tokens_are_needed_for_all_but_health_and_follow_their_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (first, second) = ("first-token-of-some-length", "second-token-of-some-length");
        std::fs::write(file.path(), format!("# tokens\n{first}\n\n")).unwrap();
        let tokens = Tokens::open(file.path()).unwrap();
        let door = Door::default().tokens(tokens.clone());
        let refused = |path: &str, header: &str| {
            let request = request("POST", path, &[("authorization", header)]);
            let rest = door.refuse_rest(&request);
            assert_eq!(rest.is_some(), door.refuse_grpc(&request).is_some());
            rest.is_some()
        };
        let infer = "/v2/models/m/infer";
        assert!(!refused(infer, &format!("Bearer {first}")));
        assert!(!refused(infer, &format!("bearer  {first}")));
        for header in
            [format!("Bearer {second}"), first.to_owned(), "Bearer ".into(), format!("Basic {first}")]
        {
            assert!(refused(infer, &header), "{header}");
        }
        assert!(door.refuse_rest(&request("GET", "/metrics", &[])).is_some());
        assert!(door.refuse_rest(&request("GET", "/v2/health/ready", &[])).is_none());
        let grpc = |method: &str| request("POST", &format!("/inference.GRPCInferenceService/{method}"), &[]);
        assert!(door.refuse_grpc(&grpc("ServerLive")).is_none());
        assert_eq!(door.refuse_grpc(&grpc("ModelInfer")).unwrap().headers()["grpc-status"], "16");
        std::fs::write(file.path(), second).unwrap();
        tokens.refresh().unwrap();
        assert!(refused(infer, &format!("Bearer {first}")));
        assert!(!refused(infer, &format!("Bearer {second}")));
        for content in ["", "# none", "short"] {
            std::fs::write(file.path(), content).unwrap();
            assert!(tokens.refresh().is_err());
        }
        assert!(!refused(infer, &format!("Bearer {second}")));
    }
}
