//! A client of the hub's API, for agents and the command line.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use reqwest::{Method, RequestBuilder, Response};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use types::{API_VERSION, Kind, KindInfo, Resource};

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
        source: reqwest::Error,
    },
    /// The hub refused.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        code: u16,
        /// What it said.
        message: String,
    },
    /// The certificate to know the server by can't be used.
    #[error("the authority's certificate can't be used: {0}")]
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
}

/// A client with a token. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

/// How often an apply is tried anew when somebody else was faster.
const APPLY_TRIES: u32 = 8;
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);

impl Client {
    /// A client of the server at `base`, for example `https://127.0.0.1:8080`, which it knows by the certificate
    /// of its authority, in PEM. Without one only plain HTTP works.
    ///
    /// # Errors
    /// If the authority is no certificate.
    pub fn new(base: &str, token: &str, authority: Option<&str>) -> Result<Self, Error> {
        let http = http(authority)?;
        Ok(Self { http, base: base.trim_end_matches('/').to_owned(), token: token.to_owned() })
    }

    /// Where requests go.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A request with the token.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token)
    }

    /// Sends a request and turns refusals into errors.
    ///
    /// # Errors
    /// If it can't be sent or is refused.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        let response = request.send().await.map_err(|source| self.unreachable(source))?;
        let code = response.status();
        if code.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.unwrap_or_default();
        let said = serde_json::from_slice::<Value>(&body).ok();
        let message = said.as_ref().and_then(|said| said.get("message").or(said.get("error"))?.as_str());
        let message = message.map_or_else(|| String::from_utf8_lossy(&body).trim().to_owned(), str::to_owned);
        let message = if message.is_empty() { format!("the server answered {code}") } else { message };
        Err(Error::Refused { code: code.as_u16(), message })
    }

    fn unreachable(&self, source: reqwest::Error) -> Error {
        Error::Unreachable { url: self.base.clone(), source: source.without_url() }
    }

    /// Sends a request and reads its JSON answer.
    ///
    /// # Errors
    /// If it can't be sent, is refused, or the answer is something else.
    pub async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Error> {
        let response = self.send(request).await?;
        let body = response.bytes().await.map_err(|source| self.unreachable(source))?;
        serde_json::from_slice(&body)
            .map_err(|error| Error::Answer { url: self.base.clone(), problem: error.to_string() })
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
    if let Some(fields) = merged.as_object_mut() {
        fields.insert("spec".into(), manifest.get("spec").cloned().unwrap_or_default());
    }
    merged
}

/// An HTTP client that knows servers by the certificate of their authority, in PEM; without one only plain HTTP
/// works.
///
/// # Errors
/// If the authority is no certificate.
pub fn http(authority: Option<&str>) -> Result<reqwest::Client, Error> {
    let unusable = |error: &dyn std::error::Error| Error::Authority(daemon::chain(error));
    let tls = match authority {
        Some(authority) => daemon::tls::client(authority),
        None => daemon::tls::client_of_nobody(),
    };
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls.map_err(|error| unusable(&error))?)
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        // A peer that is gone without a word is noticed within a minute, on idle connections, too.
        .tcp_keepalive(Duration::from_secs(20))
        .tcp_keepalive_interval(Duration::from_secs(10))
        .tcp_keepalive_retries(3)
        .tcp_user_timeout(Duration::from_secs(50))
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| unusable(&error))
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
        let line =
            line.map_err(|source| Error::Unreachable { url: url.clone(), source: source.without_url() })?;
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
