//! `?watch=true`: changes as a stream of JSON lines.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use daemon::Shutdown;
use futures::stream;
use serde_json::{Value, json};
use store::{Event, EventKind, Object, Store, Watch};
use types::KindInfo;

use crate::ApiError;
use crate::filter::Filter;
use crate::form::Form;
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
}

const BOOKMARK_EVERY: Duration = Duration::from_secs(30);

struct Stream {
    info: &'static KindInfo,
    filter: Filter,
    options: Options,
    watch: Watch,
    first: Vec<u8>,
    ends: tokio::time::Instant,
    shutdown: Shutdown,
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
    let watch = store.watch(version).map_err(store::Error::from)?;
    let ends = tokio::time::Instant::now() + options.timeout;
    let mut stream =
        Stream { info, filter, options, watch, first: vec![], ends, shutdown, told_columns: false };
    let mut first = Vec::new();
    for object in existing {
        if stream.filter.passes(&object) {
            stream.write_event(&mut first, "ADDED", &object);
        }
    }
    if stream.options.initial_events {
        stream.write_bookmark(&mut first, json!({"k8s.io/initial-events-end": "true"}));
    }
    stream.first = first;
    let body = Body::from_stream(stream::unfold(stream, |mut stream| async move {
        let lines = stream.next_lines().await?;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(lines)), stream))
    }));
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

impl Stream {
    /// The next lines to send; `None` at the end.
    async fn next_lines(&mut self) -> Option<Vec<u8>> {
        if !self.first.is_empty() {
            return Some(std::mem::take(&mut self.first));
        }
        loop {
            let bookmark_at = tokio::time::Instant::now() + BOOKMARK_EVERY;
            let mut lines = Vec::new();
            tokio::select! {
                () = self.shutdown.wait() => return None,
                () = tokio::time::sleep_until(self.ends) => return None,
                () = tokio::time::sleep_until(bookmark_at), if self.options.bookmarks => self.write_bookmark(&mut lines, json!({})),
                events = self.watch.next() => match events {
                    Ok(events) => {
                        for event in &events {
                            self.write_change(&mut lines, event);
                        }
                    }
                    Err(expired) => {
                        // Told once; the client lists again.
                        self.ends = tokio::time::Instant::now();
                        let status = ApiError::gone(expired.to_string()).status();
                        write_line(&mut lines, &json!({"type": "ERROR", "object": status}));
                    }
                },
            }
            if !lines.is_empty() {
                return Some(lines);
            }
        }
    }

    fn write_change(&mut self, lines: &mut Vec<u8>, event: &Event) {
        if event.object.key.plural != self.info.plural || !self.filter.is_in_namespace(&event.object) {
            return;
        }
        let passes = self.filter.passes(&event.object);
        let kind = match event.kind {
            EventKind::Added if passes => "ADDED",
            EventKind::Modified if passes => "MODIFIED",
            EventKind::Deleted if passes => "DELETED",
            // It may have passed before; a client that never saw it ignores the deletion.
            EventKind::Modified => "DELETED",
            _ => return,
        };
        self.write_event(lines, kind, &event.object);
    }

    fn write_event(&mut self, lines: &mut Vec<u8>, kind: &str, object: &Object) {
        match self.options.form {
            Form::Table(carry) => {
                let metadata = json!({"resourceVersion": object.metadata.resource_version});
                let rows = table(self.info, &[object], carry, &metadata, daemon::now(), !self.told_columns);
                self.told_columns = true;
                write_line(lines, &json!({"type": kind, "object": rows}));
            }
            form => write_line(lines, &json!({"type": kind, "object": form.object(self.info, object)})),
        }
    }

    fn write_bookmark(&mut self, lines: &mut Vec<u8>, annotations: Value) {
        let metadata =
            json!({"resourceVersion": self.watch.version().to_string(), "annotations": annotations});
        let object =
            json!({"kind": self.info.kind, "apiVersion": self.info.api_version(), "metadata": metadata});
        write_line(lines, &json!({"type": "BOOKMARK", "object": object}));
    }
}

fn write_line(lines: &mut Vec<u8>, value: &Value) {
    lines.extend_from_slice(value.to_string().as_bytes());
    lines.push(b'\n');
}
