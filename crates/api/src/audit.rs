//! Who did what, and whether they might: one line of JSON a request, in the form of `audit.k8s.io/v1` at the level
//! Metadata. Neither bodies nor tokens are ever in it.

mod event;
mod file;

use std::borrow::Cow;
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
use serde_json::Map;
use tokio::sync::mpsc::{Sender, channel};
use types::Time;

use crate::Hub;
use crate::authentication::User;
use crate::listener::Peer;
use crate::rbac::{Attempt, Decision};
use crate::request::RequestInfo;
use event::{Annotations, Event, ObjectReference, Person, ResponseStatus};
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

    async fn write(&self, line: String, is_read: bool) {
        let Some(queue) = &self.queue else { return };
        if is_read {
            if queue.try_send(line).is_err() {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        } else if let Err(unsent) = queue.send(line).await {
            tracing::error!(
                event = unsent.0.trim_end(),
                "the audit log has ended; this was not written to it"
            );
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

/// Writes down every request that is to be written down, once it is answered; what lasts (a watch, a wait for
/// deliveries), once its answer begins.
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
        let line = asked.line(&id, &trail, code, received);
        hub.audit.write(line, asked.is_read && !is_refusal).await;
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
            let line = self.asked.line(self.id, self.trail, CLIENT_CLOSED, self.received);
            if let Err(unsent) = queue.try_send(line) {
                let event = unsent.into_inner();
                tracing::error!(
                    event = event.trim_end(),
                    "the audit log is behind; this was not written to it"
                );
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

    /// The event, and the end of its line.
    fn line(&self, id: &str, trail: &Trail, code: u16, received: Time) -> String {
        let facts = trail.0.lock().unwrap_or_else(PoisonError::into_inner);
        let attempt = facts.decided.as_ref().map(|(info, _)| info.attempt());
        let verb: Cow<str> = match &attempt {
            Some(attempt) => attempt.verb().into(),
            None => self.method.as_str().to_lowercase().into(),
        };
        let user = match &facts.caller {
            Some(caller) => Person::of(caller),
            None if code == 401 => Person::default(),
            None => Person { username: "system:anonymous", groups: vec!["system:unauthenticated"] },
        };
        let object = match &attempt {
            Some(Attempt::Resource(attempt)) => Some(ObjectReference::of(attempt)),
            _ => None,
        };
        let event = Event {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: "Metadata",
            audit_id: id,
            stage: if verb == "watch" { "ResponseStarted" } else { "ResponseComplete" },
            request_uri: &self.uri,
            verb: &verb,
            user,
            impersonated_user: facts.impersonated.as_deref().map(Person::of),
            source_ips: self.source.as_slice(),
            user_agent: &self.agent,
            object_ref: object,
            response_status: ResponseStatus { metadata: Map::new(), code },
            request_received_timestamp: timestamp(received),
            stage_timestamp: timestamp(daemon::now()),
            annotations: facts.decided.as_ref().map(|(_, decision)| Annotations {
                decision: if decision.allowed { "allow" } else { "forbid" },
                reason: &decision.reason,
            }),
        };
        // Texts and numbers can always be written.
        let mut line = serde_json::to_string(&event).unwrap_or_default();
        line.push('\n');
        line
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

fn shorten(text: &str) -> String {
    text.get(..text.floor_char_boundary(LONGEST_TEXT)).unwrap_or_default().to_owned()
}

/// With microseconds, as Kubernetes writes times of events.
fn timestamp(time: Time) -> String {
    time.0.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}
