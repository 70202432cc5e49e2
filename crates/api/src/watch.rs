//! `?watch=true`: changes as a stream of JSON lines.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use daemon::Shutdown;
use futures::StreamExt;
use futures::stream::poll_fn;
use serde_json::{Value, json};
use store::{Event, EventKind, Expired, Object, Store, Watch};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::ReusableBoxFuture;
use types::KindInfo;

use crate::ApiError;
use crate::filter::Filter;
use crate::form::{Form, partial, whole};
use crate::limits::WatchPlace;
use crate::metrics::Gauge;
use crate::table::table;

/// How a watcher wants to be told.
pub struct Options {
    /// The version to go on from; `None` begins with what exists.
    pub from: Option<u64>,
    /// Whether to tell from time to time how far the watch is.
    pub bookmarks: bool,
    /// Whether to begin with what exists whatever `from` says, and to tell when all of that was told.
    pub initial_events: bool,
    /// In which form objects are wanted.
    pub form: Form,
    /// When the watch ends by itself.
    pub timeout: Duration,
    /// Counts the watch among those of its client until it ends.
    pub _place: WatchPlace,
    /// Counts it among all.
    pub _running: Gauge,
}

const BOOKMARK_EVERY: Duration = Duration::from_secs(30);
/// How many bytes of what exists are sent at once.
const CHUNK: usize = 64 << 10;
/// Up to how many bytes of JSON are copied into each watcher's line; larger ones are shared by all watchers.
const COPIED: usize = 4 << 10;

struct Stream {
    info: &'static KindInfo,
    filter: Filter,
    options: Options,
    watch: Watch,
    existing: std::vec::IntoIter<Arc<Object>>,
    lines: VecDeque<Bytes>,
    /// Fires when something is due by the clock. One for all that is, and kept, as the wait for the shutdown is: a
    /// change costs each watcher no more than its line.
    alarm: Pin<Box<Sleep>>,
    bookmark_at: Instant,
    ends: Instant,
    shutdown: ReusableBoxFuture<'static, ()>,
    told_columns: bool,
}

/// A stream of changes to the objects that pass the filter.
pub fn stream_changes(
    store: &Store,
    info: &'static KindInfo,
    filter: Filter,
    options: Options,
    shutdown: Shutdown,
) -> Result<Response, ApiError> {
    let (existing, version) = match options.from {
        Some(version) if !options.initial_events => (vec![], version),
        _ => store.list(info.plural, filter.namespace()),
    };
    let watch = match filter.namespace() {
        Some(namespace) => store.watch_namespace(info.plural, namespace, version),
        None => store.watch_kind(info.plural, version),
    };
    let watch = match watch {
        Ok(watch) => watch,
        // Clients expect to be told in the stream, and begin anew; an error in its place they would try again.
        Err(expired) => {
            return Ok(([(CONTENT_TYPE, "application/json")], expired_line(&expired)).into_response());
        }
    };
    let now = Instant::now();
    let (bookmark_at, ends) = (now + BOOKMARK_EVERY, now + options.timeout);
    let mut stream = Stream {
        info,
        filter,
        watch,
        existing: existing.into_iter(),
        lines: VecDeque::new(),
        alarm: Box::pin(sleep_until(ends)),
        bookmark_at,
        ends,
        options,
        shutdown: ReusableBoxFuture::new(async move { shutdown.wait().await }),
        told_columns: false,
    };
    stream.set_alarm();
    let lines =
        poll_fn(move |context| stream.poll_lines(context).map(|lines| lines.map(Ok::<_, Infallible>)));
    let body = Body::from_stream(lines.fuse());
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

impl Stream {
    /// The next lines to send, or a part of one; `None` at the end.
    fn poll_lines(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(lines) = self.next_existing() {
            return Poll::Ready(Some(lines));
        }
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Poll::Ready(Some(line));
            }
            if self.shutdown.poll(context).is_ready() {
                return Poll::Ready(None);
            }
            if self.alarm.as_mut().poll(context).is_ready() {
                if Instant::now() >= self.ends {
                    return Poll::Ready(None);
                }
                self.tell_progress();
            } else {
                match ready!(self.watch.poll_next(context)) {
                    Ok(events) => events.iter().for_each(|event| self.tell_change(event)),
                    Err(expired) => self.tell_end(&expired),
                }
            }
        }
    }

    /// Told once; the client lists again.
    fn tell_end(&mut self, expired: &Expired) {
        self.lines.push_back(expired_line(expired));
        self.ends = Instant::now();
        self.set_alarm();
    }

    fn set_alarm(&mut self) {
        let due = if self.options.bookmarks { self.ends.min(self.bookmark_at) } else { self.ends };
        self.alarm.as_mut().reset(due);
    }

    /// What existed when the watch began, a chunk at a time, and that this was all of it if that is wanted.
    fn next_existing(&mut self) -> Option<Bytes> {
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK {
            let Some(object) = self.existing.next() else { break };
            if self.filter.passes(&object) {
                self.tell("ADDED", &object);
                self.lines.drain(..).for_each(|line| chunk.extend_from_slice(&line));
            }
        }
        if self.options.initial_events && self.existing.len() == 0 {
            self.options.initial_events = false;
            chunk.extend_from_slice(&self.bookmark(json!({"k8s.io/initial-events-end": "true"})));
        }
        (!chunk.is_empty()).then(|| chunk.into())
    }

    /// Tells a change as it is seen through the filter: what begins to pass is new, what ceases to pass is gone.
    fn tell_change(&mut self, event: &Event) {
        let passed = event.previous.as_ref().filter(|previous| self.filter.passes(previous));
        let passes = event.kind != EventKind::Deleted && self.filter.passes(&event.object);
        match (passed, passes) {
            (None, true) => self.tell("ADDED", &event.object),
            (Some(_), true) => self.tell("MODIFIED", &event.object),
            (Some(_), false) if event.kind == EventKind::Deleted => self.tell("DELETED", &event.object),
            (Some(previous), false) => {
                let gone = previous.with_version(event.version);
                self.tell("DELETED", &gone);
            }
            (None, false) => {}
        }
    }

    fn tell(&mut self, kind: &str, object: &Object) {
        let other = match self.options.form {
            Form::Whole => None,
            Form::Metadata => Some(partial(object)),
            Form::Table(carry) => {
                let metadata = json!({"resourceVersion": object.metadata.resource_version});
                let rows = table(self.info, &[object], carry, &metadata, daemon::now(), !self.told_columns);
                self.told_columns = true;
                Some(rows)
            }
        };
        if let Some(other) = other {
            self.lines.push_back(line(&json!({"type": kind, "object": other})));
            return;
        }
        let (before, json, after) =
            (format!(r#"{{"type":"{kind}","object":"#), whole(self.info, object), "}\n");
        if json.len() > COPIED {
            self.lines.extend([before.into(), json, Bytes::from_static(after.as_bytes())]);
        } else {
            self.lines.push_back([before.as_bytes(), &json, after.as_bytes()].concat().into());
        }
    }

    /// Tells how far the watch is, unless changes wait that would tell it.
    fn tell_progress(&mut self) {
        self.bookmark_at = Instant::now() + BOOKMARK_EVERY;
        self.set_alarm();
        if self.watch.progress().is_some() {
            self.lines.push_back(self.bookmark(json!({})));
        }
    }

    fn bookmark(&self, annotations: Value) -> Bytes {
        let metadata =
            json!({"resourceVersion": self.watch.version().to_string(), "annotations": annotations});
        let object =
            json!({"kind": self.info.kind, "apiVersion": self.info.api_version(), "metadata": metadata});
        line(&json!({"type": "BOOKMARK", "object": object}))
    }
}

/// Tells that what the watch should have told is forgotten.
fn expired_line(expired: &Expired) -> Bytes {
    let status = ApiError::gone(expired.to_string()).status();
    line(&json!({"type": "ERROR", "object": status}))
}

fn line(value: &Value) -> Bytes {
    format!("{value}\n").into()
}
