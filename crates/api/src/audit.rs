//! Who did what, and whether they might: one line of JSON a request, in the form of `audit.k8s.io/v1` at the level
//! Metadata. Neither bodies nor tokens are ever in it.

mod file;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::USER_AGENT;
use axum::http::{HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use daemon::Tasks;
use serde_json::{Value, json};
use tokio::sync::mpsc::{Sender, channel};
use types::Time;

use crate::Hub;
use crate::authentication::User;
use crate::listener::Peer;
use crate::rbac::{Attempt, Decision, ResourceAttempt};
use crate::request::RequestInfo;
use file::AuditFile;

/// How many lines wait for the disk; then requests that changed something wait, too.
const QUEUE: usize = 4096;
/// How much of an address or of a client's name is kept, in bytes.
const LONGEST_TEXT: usize = 2048;

/// Where and how much is written.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file.
    pub file: PathBuf,
    /// How large it may become, in bytes, until another is begun.
    pub largest: u64,
    /// How many files there are at most, the present one among them.
    pub files: u32,
    /// Whether requests that change nothing are written, too.
    pub reads: bool,
}

impl Options {
    /// What changes something, and what is refused, in three files of 64 MiB.
    pub fn to(file: PathBuf) -> Self {
        Self { file, largest: 64 << 20, files: 3, reads: false }
    }
}

/// Writes events, or nothing. Cheap to clone.
#[derive(Clone, Default)]
pub struct Audit {
    queue: Option<Sender<String>>,
    reads: bool,
    dropped: Arc<AtomicU64>,
}

impl Audit {
    /// Writes nothing.
    pub fn off() -> Self {
        Self::default()
    }

    /// Writes to a file, until the tasks end.
    ///
    /// # Errors
    /// If the file can't be opened.
    pub fn start(options: Options, tasks: &Tasks) -> io::Result<Self> {
        let (queue, events) = channel(QUEUE);
        let audit = Self { queue: Some(queue), reads: options.reads, dropped: Arc::default() };
        let file = AuditFile::open(options)?;
        tasks.spawn("audit", file::write_all(file, events, audit.dropped.clone(), tasks.shutdown()));
        Ok(audit)
    }

    async fn write(&self, event: &Value, is_read: bool) {
        let Some(queue) = &self.queue else { return };
        let line = format!("{event}\n");
        if is_read {
            if queue.try_send(line).is_err() {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        } else if queue.send(line).await.is_err() {
            tracing::error!(event = %event, "the audit log has ended; this was not written to it");
        }
    }
}

/// What is found out about a request on its way through the layers.
#[derive(Clone, Default)]
pub struct Trail(Arc<Mutex<Facts>>);

#[derive(Default)]
struct Facts {
    caller: Option<Arc<User>>,
    impersonated: Option<Arc<User>>,
    decided: Option<(Arc<RequestInfo>, Decision)>,
}

impl Trail {
    /// That of a request.
    pub fn of(request: &Request) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or_default()
    }

    /// Who asks.
    pub fn user(&self, caller: Arc<User>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).caller = Some(caller);
    }

    /// As whom they ask.
    pub fn impersonated(&self, other: Arc<User>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).impersonated = Some(other);
    }

    /// What they want, and whether they may.
    pub fn decided(&self, info: Arc<RequestInfo>, decision: Decision) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).decided = Some((info, decision));
    }
}

/// Writes down every request that is to be written down, once it is answered; a watch, once it begins.
pub async fn record(State(hub): State<Arc<Hub>>, mut request: Request, next: Next) -> Response {
    let (id, received) = (uuid::Uuid::new_v4().to_string(), daemon::now());
    let trail = Trail::default();
    request.extensions_mut().insert(trail.clone());
    let asked = Asked::read(&request);
    let mut unanswered =
        Unanswered { audit: &hub.audit, asked: &asked, trail: &trail, id: &id, received, ended: false };
    let mut response = next.run(request).await;
    unanswered.ended = true;
    if let Ok(id) = HeaderValue::try_from(&id) {
        response.headers_mut().insert("audit-id", id);
    }
    let code = response.status().as_u16();
    let is_refusal = matches!(code, 401 | 403);
    if hub.audit.queue.is_some() && (!asked.is_read || is_refusal || hub.audit.reads) {
        let event = asked.event(&id, &trail, code, received);
        hub.audit.write(&event, asked.is_read && !is_refusal).await;
    }
    response
}

/// A request whose answer nobody has yet. Clients that go away in between don't go unnoticed: what they asked for may
/// have been done.
struct Unanswered<'a> {
    audit: &'a Audit,
    asked: &'a Asked,
    trail: &'a Trail,
    id: &'a str,
    received: Time,
    ended: bool,
}

/// Stands where there was no answer: the client closed the connection.
const CLIENT_CLOSED: u16 = 499;

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if self.ended || (self.asked.is_read && !self.audit.reads) {
            return;
        }
        if let Some(queue) = &self.audit.queue {
            let event = self.asked.event(self.id, self.trail, CLIENT_CLOSED, self.received);
            if queue.try_send(format!("{event}\n")).is_err() {
                tracing::error!(event = %event, "the audit log is behind; this was not written to it");
            }
        }
    }
}

/// What the request itself says.
struct Asked {
    method: Method,
    uri: String,
    agent: String,
    source: Option<String>,
    is_read: bool,
}

impl Asked {
    fn read(request: &Request) -> Self {
        let agent = request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok());
        let peer = request.extensions().get::<ConnectInfo<Peer>>();
        Self {
            method: request.method().clone(),
            uri: shorten(&request.uri().to_string()),
            agent: shorten(agent.unwrap_or_default()),
            source: peer.map(|ConnectInfo(peer)| peer.address.ip().to_string()),
            is_read: is_read(request.method(), request.uri().path()),
        }
    }

    fn event(&self, id: &str, trail: &Trail, code: u16, received: Time) -> Value {
        let facts = trail.0.lock().unwrap_or_else(PoisonError::into_inner);
        let attempt = facts.decided.as_ref().map(|(info, _)| info.attempt());
        let verb =
            attempt.as_ref().map_or_else(|| self.method.as_str().to_lowercase(), |a| a.verb().to_owned());
        let stage = if verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
        let user = match &facts.caller {
            Some(caller) => json!({"username": caller.name, "groups": caller.groups}),
            None if code == 401 => json!({}),
            None => json!({"username": "system:anonymous", "groups": ["system:unauthenticated"]}),
        };
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": id, "stage": stage,
            "requestURI": self.uri, "verb": verb, "user": user,
            "responseStatus": {"metadata": {}, "code": code},
            "requestReceivedTimestamp": timestamp(received), "stageTimestamp": timestamp(daemon::now()),
        });
        if let Some(other) = &facts.impersonated {
            let other = json!({"username": other.name, "groups": other.groups});
            json_patch::merge(&mut event, &json!({"impersonatedUser": other}));
        }
        if let Some(source) = &self.source {
            json_patch::merge(&mut event, &json!({"sourceIPs": [source]}));
        }
        if !self.agent.is_empty() {
            json_patch::merge(&mut event, &json!({"userAgent": self.agent}));
        }
        if let Some(Attempt::Resource(attempt)) = &attempt {
            json_patch::merge(&mut event, &json!({"objectRef": object(attempt)}));
        }
        if let Some((_, decision)) = &facts.decided {
            let word = if decision.allowed { "allow" } else { "forbid" };
            let annotations = json!({
                "authorization.k8s.io/decision": word, "authorization.k8s.io/reason": decision.reason,
            });
            json_patch::merge(&mut event, &json!({"annotations": annotations}));
        }
        event
    }
}

/// What changes nothing that is kept: besides what is only read, reviews and signs of life.
fn is_read(method: &Method, path: &str) -> bool {
    let is_review =
        path.starts_with("/apis/authentication.k8s.io/") || path.starts_with("/apis/authorization.k8s.io/");
    let is_routine =
        path.starts_with("/avocet/v1/sites/") && (path.ends_with("/heartbeat") || path.ends_with("/reports"));
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) || is_review || is_routine
}

fn object(attempt: &ResourceAttempt) -> Value {
    let fields = [
        ("resource", attempt.plural),
        ("namespace", attempt.namespace),
        ("name", attempt.name),
        ("apiGroup", attempt.group),
        ("apiVersion", attempt.version),
        ("subresource", attempt.subresource),
    ];
    let fields = fields.into_iter().filter(|(_, value)| !value.is_empty());
    Value::Object(fields.map(|(name, value)| (name.to_owned(), json!(value))).collect())
}

fn shorten(text: &str) -> String {
    text.get(..text.floor_char_boundary(LONGEST_TEXT)).unwrap_or_default().to_owned()
}

/// With microseconds, as Kubernetes writes times of events.
fn timestamp(time: Time) -> String {
    time.0.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}
