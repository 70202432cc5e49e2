//! A client of the hub's API, for agents and the command line.

mod small;

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use reqwest::header::RETRY_AFTER;
use reqwest::{Method, RequestBuilder, Response};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use small::Small;
use tokio_rustls::rustls::ClientConfig;
use types::{API_VERSION, Kind, KindInfo, Resource};

type Problem = Box<dyn StdError + Send + Sync>;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The hub can't be reached, or the connection broke.
    #[error("{url} can't be reached")]
    Unreachable {
        /// Where it was tried.
        url: String,
        /// What happened.
        #[source]
        source: Problem,
    },
    /// Whoever answers there shows a certificate of an authority that is not trusted here.
    #[error(
        "{url} shows a certificate of an authority that is not trusted here: it is another hub, or the hub's authority was \
         replaced meanwhile (`avocet authority`). Take its kubeconfig anew; a site joins again, with a token of `avocet \
         join-token create --site NAME` there"
    )]
    UnknownAuthority {
        /// Where it was tried.
        url: String,
        /// What happened.
        #[source]
        source: Problem,
    },
    /// The connection is there, but nothing comes.
    #[error("{url} said nothing for {} s", patience.as_secs_f64())]
    Silent {
        /// Who.
        url: String,
        /// For how long.
        patience: Duration,
    },
    /// The hub refused.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        code: u16,
        /// What it said.
        message: String,
        /// After what time it may be asked again, if it says so.
        retry_after: Option<Duration>,
    },
    /// The certificate to know the server by can't be used.
    #[error("the certificate of the authority, or the client's own, can't be used: {0}")]
    Authority(String),
    /// The answer is not what it should be.
    #[error("{url} gave an answer that can't be read: {problem}")]
    Answer {
        /// Who answered.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Error {
    /// The HTTP status of a refusal.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the hub does not take what the client proves itself with: the certificate, or the token.
    pub fn is_unproven(&self) -> bool {
        match self {
            Self::Refused { code, .. } => *code == 401,
            Self::Unreachable { source, .. } => daemon::tls::is_refused(&**source),
            _ => false,
        }
    }
}

/// A client that shows a token or a certificate. Cheap to clone: clones share what they show.
#[derive(Clone)]
pub struct Client {
    shared: Arc<RwLock<Arc<Shown>>>,
    /// Which machine this is, where many have one name.
    instance: Option<Arc<str>>,
    /// For how long a server may say nothing; for ever if it isn't said.
    patience: Option<Duration>,
    /// Whether what is asked may be large.
    is_bulk: bool,
}

/// Where requests go, and what they show.
struct Shown {
    http: reqwest::Client,
    /// Of who shows a certificate.
    small: Option<Small>,
    base: String,
    token: String,
}

/// How often an apply is tried anew when somebody else was faster.
const APPLY_TRIES: u32 = 8;
/// How long the other end of a connection of HTTP/2 may say nothing until it is asked whether it is there, and how long
/// it has to answer.
const PING: Duration = Duration::from_secs(10);
/// By this field managers and the audit log know what was written by this program.
const AGENT: &str = concat!("avocet/", env!("CARGO_PKG_VERSION"));
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);

impl Client {
    /// A client of the server at `base`, for example `https://127.0.0.1:8080`, which it knows by the certificate
    /// of its authority, in PEM. Without one only plain HTTP works.
    ///
    /// # Errors
    /// If the authority is no certificate.
    pub fn new(base: &str, token: &str, authority: Option<&str>) -> Result<Self, Error> {
        Ok(Self::showing(base, token, http(authority)?, None))
    }

    /// The same with a certificate instead of a token: its chain and its key in PEM, in one text. What is not large
    /// shares one connection that costs a server that knows it little.
    ///
    /// # Errors
    /// If one of them is none, or the key is another's.
    pub fn with_certificate(base: &str, authority: &str, identity: &str) -> Result<Self, Error> {
        let tls = tls_with_certificate(authority, identity)?;
        let small = base.starts_with("https:").then(|| Small::new(tls.clone()));
        Ok(Self::showing(base, "", over(tls)?, small))
    }

    fn showing(base: &str, token: &str, http: reqwest::Client, small: Option<Small>) -> Self {
        let shown =
            Shown { http, small, base: base.trim_end_matches('/').to_owned(), token: token.to_owned() };
        Self {
            shared: Arc::new(RwLock::new(Arc::new(shown))),
            instance: None,
            patience: None,
            is_bulk: false,
        }
    }

    /// The same client, whose requests tell which machine makes them.
    #[must_use]
    pub fn on_machine(self, instance: &str) -> Self {
        Self { instance: Some(instance.into()), ..self }
    }

    /// The same client, which gives a server up that says nothing for so long: until its answer begins, or between the
    /// bytes of an answer. How long all of it takes is not limited.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience: Some(patience), ..self }
    }

    /// The same client, as patient as another one.
    #[must_use]
    pub fn as_patient_as(self, other: &Self) -> Self {
        Self { patience: other.patience, ..self }
    }

    /// The same client, for what may be large: it does not share a connection with what is small.
    #[must_use]
    pub fn in_bulk(self) -> Self {
        Self { is_bulk: true, ..self }
    }

    /// The same client, which waits for ever: for requests whose bodies are large and take their time.
    #[must_use]
    pub fn without_patience(self) -> Self {
        Self { patience: None, ..self }.in_bulk()
    }

    /// From the next request on, all clones ask where the other client asks, and show what it shows. Requests that are
    /// under way end as they began.
    pub fn become_like(&self, other: &Self) {
        let shown = other.shown();
        *self.shared.write().unwrap_or_else(PoisonError::into_inner) = shown;
    }

    fn shown(&self) -> Arc<Shown> {
        self.shared.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where requests go.
    pub fn base(&self) -> String {
        self.shown().base.clone()
    }

    /// A request with what the client shows.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let shown = self.shown();
        let mut request = shown.http.request(method, format!("{}{path}", shown.base));
        if !shown.token.is_empty() {
            request = request.bearer_auth(&shown.token);
        }
        match &self.instance {
            Some(instance) => request.header(crate::INSTANCE, &**instance),
            None => request,
        }
    }

    /// Sends a request and turns refusals into errors.
    ///
    /// # Errors
    /// If it can't be sent or is refused.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        let response = self.within_patience(self.begin(request)).await?;
        let code = response.status();
        if code.is_success() {
            return Ok(response);
        }
        let retry_after =
            response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = self.read(response).await.unwrap_or_default();
        let said = serde_json::from_slice::<Value>(&body).ok();
        let message = said.as_ref().and_then(|said| said.get("message").or(said.get("error"))?.as_str());
        let message = message.map_or_else(|| String::from_utf8_lossy(&body).trim().to_owned(), str::to_owned);
        let message = if message.is_empty() { format!("the server answered {code}") } else { message };
        Err(Error::Refused {
            code: code.as_u16(),
            message,
            retry_after: retry_after.map(Duration::from_secs),
        })
    }

    async fn begin(&self, request: RequestBuilder) -> Result<Response, Problem> {
        let (shown, request) = (self.shown(), request.build()?);
        if let Some(small) = shown.small.as_ref().filter(|_| !self.is_bulk)
            && let Some(response) = small.send(&request, self.instance.as_deref()).await?
        {
            return Ok(response);
        }
        shown.http.execute(request).await.map_err(problem)
    }

    /// All bytes of an answer.
    ///
    /// # Errors
    /// If the connection breaks, or nothing comes for too long.
    pub async fn read(&self, mut response: Response) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        while let Some(chunk) = self.next_chunk(&mut response).await? {
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// The bytes of an answer as they come; fails if the connection breaks, or nothing comes for too long.
    pub fn stream(&self, response: Response) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
        let client = self.clone();
        futures::stream::try_unfold(response, move |mut response| {
            let client = client.clone();
            async move {
                let chunk = client.next_chunk(&mut response).await.map_err(io::Error::other)?;
                Ok(chunk.map(|chunk| (chunk, response)))
            }
        })
    }

    async fn next_chunk(&self, response: &mut Response) -> Result<Option<Bytes>, Error> {
        self.within_patience(async { response.chunk().await.map_err(problem) }).await
    }

    async fn within_patience<T>(&self, answer: impl Future<Output = Result<T, Problem>>) -> Result<T, Error> {
        let answered = match self.patience {
            None => answer.await,
            Some(patience) => match tokio::time::timeout(patience, answer).await {
                Ok(answered) => answered,
                Err(_) => return Err(Error::Silent { url: self.base(), patience }),
            },
        };
        answered.map_err(|source| self.unreachable(source))
    }

    fn unreachable(&self, source: Problem) -> Error {
        let url = self.base();
        if daemon::tls::is_unknown_authority(&*source) {
            return Error::UnknownAuthority { url, source };
        }
        Error::Unreachable { url, source }
    }

    /// Sends a request and reads its JSON answer.
    ///
    /// # Errors
    /// If it can't be sent, is refused, or the answer is something else.
    pub async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Error> {
        let response = self.send(request).await?;
        let body = self.read(response).await?;
        let problem = |error: serde_json::Error| match body.len() {
            // As of those who are waited for no longer: what they are refused for, they hear at the next request.
            0 => "it ended before anything was said".to_owned(),
            _ => error.to_string(),
        };
        serde_json::from_slice(&body)
            .map_err(|error| Error::Answer { url: self.base(), problem: problem(error) })
    }

    /// Reads a resource.
    ///
    /// # Errors
    /// As [`Self::json`]; 404 if it does not exist.
    pub async fn get<S: Kind>(&self, namespace: &str, name: &str) -> Result<Resource<S>, Error> {
        self.json(self.request(Method::GET, &path(S::PLURAL, namespace, name))).await
    }

    /// Lists resources with the version of the list; an empty namespace lists all.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub async fn list<S: Kind>(&self, namespace: &str) -> Result<(Vec<Resource<S>>, String), Error> {
        #[derive(serde::Deserialize)]
        #[serde(bound = "")]
        struct List<S: Kind> {
            metadata: types::ObjectMeta,
            items: Vec<Resource<S>>,
        }
        let list: List<S> = self.json(self.request(Method::GET, &path(S::PLURAL, namespace, ""))).await?;
        Ok((list.items, list.metadata.resource_version))
    }

    /// Reports a status.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub async fn patch_status<S: Kind>(
        &self,
        namespace: &str,
        name: &str,
        status: &S::Status,
    ) -> Result<(), Error> {
        let url = format!("{}/status", path(S::PLURAL, namespace, name));
        let patch = json!({"status": status}).to_string();
        let request =
            self.request(Method::PATCH, &url).header("content-type", "application/merge-patch+json");
        self.send(request.body(patch)).await.map(drop)
    }

    /// Creates a resource from its manifest, or replaces what was stated of it before.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub async fn apply(&self, info: &KindInfo, namespace: &str, manifest: &Value) -> Result<Applied, Error> {
        let name = manifest.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let create = self.request(Method::POST, &path(info.plural, namespace, "")).json(manifest);
        match self.send(create).await {
            Err(Error::Refused { code: 409, .. }) => {}
            other => return other.map(|_| Applied::Created),
        }
        let url = path(info.plural, namespace, name);
        let mut tries = 0;
        loop {
            let current: Value = self.json(self.request(Method::GET, &url)).await?;
            let merged = state_anew(&current, manifest);
            match self.json::<Value>(self.request(Method::PUT, &url).json(&merged)).await {
                // Somebody reported on it meanwhile, as controllers do just after a change.
                Err(Error::Refused { code: 409, .. }) if tries < APPLY_TRIES => tries += 1,
                replaced => {
                    let is_same = version(&replaced?) == version(&current);
                    return Ok(if is_same { Applied::Unchanged } else { Applied::Configured });
                }
            }
        }
    }

    /// Deletes a resource.
    ///
    /// # Errors
    /// As [`Self::json`]; 404 if it does not exist.
    pub async fn delete(&self, info: &KindInfo, namespace: &str, name: &str) -> Result<(), Error> {
        self.send(self.request(Method::DELETE, &path(info.plural, namespace, name))).await.map(drop)
    }

    /// Follows changes from a version on.
    ///
    /// # Errors
    /// As [`Self::json`]; the stream's items fail when the connection breaks.
    pub async fn watch(
        &self,
        plural: &str,
        namespace: &str,
        version: &str,
        timeout: Duration,
    ) -> Result<impl Stream<Item = Result<Change, Error>> + use<>, Error> {
        let url = format!(
            "{}?watch=true&allowWatchBookmarks=true&resourceVersion={version}&timeoutSeconds={}",
            path(plural, namespace, ""),
            timeout.as_secs()
        );
        Ok(changes(self.send(self.request(Method::GET, &url)).await?))
    }
}

/// What went wrong, without the URL that it went wrong with.
fn problem(error: reqwest::Error) -> Problem {
    error.without_url().into()
}

fn version(object: &Value) -> Option<&Value> {
    object.pointer("/metadata/resourceVersion")
}

/// A resource with what a manifest states of it. What others put there (labels, finalizers) stays.
fn state_anew(current: &Value, manifest: &Value) -> Value {
    let mut merged = current.clone();
    for part in ["labels", "annotations"] {
        if let Some(stated) = manifest.pointer(&format!("/metadata/{part}")) {
            json_patch::merge(&mut merged, &json!({"metadata": {part: stated}}));
        }
    }
    let (Some(fields), Some(stated)) = (merged.as_object_mut(), manifest.as_object()) else { return merged };
    if fields.contains_key("spec") {
        fields.insert("spec".into(), Value::Null);
    }
    if stated.contains_key("stringData") {
        fields.insert("data".into(), json!({}));
    }
    // Some kinds have no spec, but fields of other names: data, rules, subjects.
    let others = ["apiVersion", "kind", "metadata", "status"];
    let stated = stated.iter().filter(|(name, _)| !others.contains(&name.as_str()));
    fields.extend(stated.map(|(name, value)| (name.clone(), value.clone())));
    merged
}

/// An HTTP client that knows servers by the certificate of their authority, in PEM; without one only plain HTTP
/// works.
///
/// # Errors
/// If the authority is no certificate.
pub fn http(authority: Option<&str>) -> Result<reqwest::Client, Error> {
    let tls = match authority {
        Some(authority) => daemon::tls::client(authority),
        None => daemon::tls::client_of_nobody(),
    };
    over(tls.map_err(|error| unusable(&error))?)
}

/// An HTTP client that shows a certificate: its chain and its key in PEM, in one text.
///
/// # Errors
/// If the authority or the certificate is none, or the key is another's.
pub fn http_with_certificate(authority: &str, identity: &str) -> Result<reqwest::Client, Error> {
    over(tls_with_certificate(authority, identity)?)
}

fn tls_with_certificate(authority: &str, identity: &str) -> Result<ClientConfig, Error> {
    daemon::tls::client_with_certificate(authority, identity, identity).map_err(|error| unusable(&error))
}

/// An HTTP client of the one server that shows this certificate, in PEM, at an address; whatever host a URL names, it
/// is asked there, so name [`daemon::tls::PINNED_NAME`].
///
/// # Errors
/// If the certificate is none.
pub fn http_pinned(certificate: &str, address: SocketAddr) -> Result<reqwest::Client, Error> {
    let tls = daemon::tls::client(certificate).map_err(|error| unusable(&error))?;
    builder(tls).resolve(daemon::tls::PINNED_NAME, address).build().map_err(|error| unusable(&error))
}

fn unusable(error: &dyn std::error::Error) -> Error {
    Error::Authority(daemon::chain(error))
}

fn over(tls: ClientConfig) -> Result<reqwest::Client, Error> {
    builder(tls).build().map_err(|error| unusable(&error))
}

fn builder(mut tls: ClientConfig) -> reqwest::ClientBuilder {
    tls.alpn_protocols = vec![daemon::tls::HTTP_2.to_vec(), daemon::tls::HTTP_1.to_vec()];
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(AGENT)
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        // A peer that is gone without a word is noticed within a minute, on idle connections, too.
        .tcp_keepalive(Duration::from_secs(20))
        .tcp_keepalive_interval(Duration::from_secs(10))
        .tcp_keepalive_retries(3)
        .tcp_user_timeout(Duration::from_secs(50))
        // All requests share a connection of HTTP/2: one that carries nothing any more is given up before long, and the
        // next request makes another.
        .http2_keep_alive_interval(PING)
        .http2_keep_alive_timeout(PING)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
}

/// What an apply did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The resource is new.
    Created,
    /// It changed.
    Configured,
    /// It was so already.
    Unchanged,
}

impl Applied {
    /// The word that kubectl uses.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
        }
    }
}

/// The changes in the answer to a watch.
pub fn changes(response: Response) -> impl Stream<Item = Result<Change, Error>> + use<> {
    let url = response.url().to_string();
    lines(response.bytes_stream()).map(move |line| {
        let line = line.map_err(|source| Error::Unreachable { url: url.clone(), source: problem(source) })?;
        serde_json::from_slice(&line)
            .map_err(|error| Error::Answer { url: url.clone(), problem: error.to_string() })
    })
}

/// One line of a watch.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct Change {
    /// ADDED, MODIFIED, DELETED, BOOKMARK or ERROR.
    #[serde(rename = "type")]
    pub kind: String,
    /// The object, or for ERROR a `Status`.
    pub object: Value,
}

/// The path of a resource, or of a list if the name is empty.
pub fn path(plural: &str, namespace: &str, name: &str) -> String {
    let version =
        types::kind_named(plural).map_or_else(|| API_VERSION.to_owned(), types::KindInfo::api_version);
    let root = if version.contains('/') { "apis" } else { "api" };
    let mut path = format!("/{root}/{version}");
    if !namespace.is_empty() {
        path += &format!("/namespaces/{namespace}");
    }
    path += &format!("/{plural}");
    if !name.is_empty() {
        path += &format!("/{name}");
    }
    path
}

/// Cuts a stream of chunks into lines.
fn lines<E>(chunks: impl Stream<Item = Result<Bytes, E>>) -> impl Stream<Item = Result<Vec<u8>, E>> {
    let mut rest: Vec<u8> = Vec::new();
    chunks.flat_map(move |chunk| {
        let ready: Vec<Result<Vec<u8>, E>> = match chunk {
            Err(error) => vec![Err(error)],
            Ok(chunk) => {
                rest.extend_from_slice(&chunk);
                let mut ready = Vec::new();
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let tail = rest.split_off(end + 1);
                    let mut line = std::mem::replace(&mut rest, tail);
                    line.pop();
                    ready.push(Ok(line));
                }
                ready
            }
        };
        futures::stream::iter(ready)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_applied_again_states_all_fields_anew_whatever_they_are_called() {
        let current = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {"old": "b2xk"},
            "metadata": {"name": "s", "resourceVersion": "7", "labels": {"theirs": "1"}},
        });
        let manifest = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "labels": {"ours": "1"}},
            "stringData": {"new": "new"},
        });
        let merged = state_anew(&current, &manifest);
        assert_eq!((&merged["stringData"], &merged["data"]), (&json!({"new": "new"}), &json!({})));
        assert_eq!(merged["metadata"]["labels"], json!({"theirs": "1", "ours": "1"}));
        assert_eq!(
            (&merged["metadata"]["resourceVersion"], &merged["type"]),
            (&json!("7"), &json!("Opaque"))
        );

        let current = json!({"metadata": {}, "spec": {"a": 1, "b": 2}, "status": {"ready": true}});
        let merged = state_anew(&current, &json!({"spec": {"a": 3}, "status": {"ready": false}}));
        assert_eq!(merged, json!({"metadata": {}, "spec": {"a": 3}, "status": {"ready": true}}));
        assert_eq!(state_anew(&current, &json!({}))["spec"], Value::Null);
    }
}
