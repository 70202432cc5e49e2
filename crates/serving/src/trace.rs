//! Traces: what was done for a request and how long it took, told to an OpenTelemetry collector.
//!
//! Whether a request is traced is decided from its first header. Where it isn't, nothing is allocated and no clock is
//! read; where it is, its spans are put into a bounded queue when it ends, and a task of its own sends them. What finds
//! the queue full is dropped and counted: serving never waits for a collector.

mod export;
mod parent;
mod sampler;
mod settings;
mod spans;

use std::sync::Arc;
use std::time::Instant;

use axum::http::{HeaderMap, StatusCode};
use daemon::Tasks;
use inference::{Model, Timing};
use tokio::sync::mpsc::{Sender, channel};

use crate::error::ApiError;
use export::{Counters, Exporter};
pub(crate) use parent::TraceParent;
use sampler::Ids;
pub use sampler::{Ratio, Sampler};
pub use settings::{InvalidSetting, Protocol, TraceSettings};
use spans::{Span, Spans, Value};

/// Decides which requests are traced and takes their spans. Cheap to clone.
#[derive(Clone)]
pub struct Tracer {
    shared: Arc<Shared>,
}

struct Shared {
    sampler: Sampler,
    ids: Ids,
    queue: Sender<Span>,
    counters: Arc<Counters>,
}

impl Tracer {
    /// Sends spans until the tasks end; what waits then is sent once more.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn start(settings: TraceSettings, tasks: &Tasks) -> Result<Tracer, InvalidSetting> {
        let (queue, spans) = channel(settings.queue);
        let (sampler, counters) = (settings.sampler, Arc::new(Counters::default()));
        let exporter = Exporter::new(settings, Arc::clone(&counters))?;
        tasks.spawn("traces", exporter.run(spans, tasks.shutdown()));
        Ok(Tracer { shared: Arc::new(Shared { sampler, ids: Ids::default(), queue, counters }) })
    }

    /// Spans that a collector took, and those that were dropped.
    pub(crate) fn counts(&self) -> (u64, u64) {
        self.shared.counters.read()
    }

    fn hand_in(&self, spans: Vec<Span>) {
        let Shared { queue, counters, .. } = self.shared.as_ref();
        // All or none: a trace with holes misleads.
        match queue.try_reserve_many(spans.len()) {
            Ok(places) => places.zip(spans).for_each(|(place, span)| place.send(span)),
            Err(_) => counters.dropped(spans.len()),
        }
    }
}

/// What a request asks for: the name of its span, and what is said about it.
pub(crate) struct Call {
    pub name: &'static str,
    pub attributes: &'static [(&'static str, &'static str)],
}

/// The trace of one request; one that isn't traced is empty. Dropped before [`Trace::end`] it tells that the client
/// went away.
pub(crate) struct Trace(Option<Box<Active>>);

struct Active {
    tracer: Tracer,
    spans: Spans,
    ended: bool,
}

impl Trace {
    /// Decides whether a request is traced, by its headers and the sampler.
    pub fn begin(tracer: Option<&Tracer>, headers: &HeaderMap, call: &Call) -> Trace {
        Trace(tracer.and_then(|tracer| tracer.begin(headers, call)).map(Box::new))
    }

    /// The beginning of a step.
    pub fn now(&self) -> Option<Instant> {
        self.0.as_ref().map(|_| Instant::now())
    }

    /// Notes a step that is done.
    pub fn step(&mut self, name: &'static str, since: Option<Instant>) {
        if let (Some(active), Some(since)) = (&mut self.0, since) {
            let ids = &active.tracer.shared.ids;
            active.spans.step(ids.span(), name, since);
        }
    }

    /// Says which model version answers.
    pub fn model(&mut self, model: &Model) {
        if let Some(active) = &mut self.0 {
            active.spans.say("avocet.model.name", model.name());
            active.spans.say("avocet.model.version", model.version());
            active.spans.say("avocet.model.engine", model.engine());
        }
    }

    /// Notes that the answer was kept from before, without reading the request.
    pub fn hit(&mut self, since: Option<Instant>) {
        if let (Some(active), Some(since)) = (&mut self.0, since) {
            let ids = &active.tracer.shared.ids;
            active.spans.cache(ids.span(), since, true);
        }
    }

    /// Notes where the time of a run went.
    pub fn ran(&mut self, timing: &Timing) {
        if let Some(active) = &mut self.0 {
            let ids = &active.tracer.shared.ids;
            active.spans.run(timing, &|| ids.span());
        }
    }

    /// Ends it with what the client is told.
    pub fn end<T>(&mut self, outcome: Result<&T, &ApiError>) {
        if let Some(active) = &mut self.0
            && active.spans.speaks_grpc()
        {
            let code = outcome.err().map_or(0, |error| error.code() as i32);
            active.spans.say("rpc.grpc.status_code", i64::from(code));
        }
        match outcome {
            Ok(_) => self.end_with(StatusCode::OK, String::new),
            Err(error) => self.end_with(error.status(), || error.noted()),
        }
    }

    /// Ends it with a status, and what is told where that is a failure of the server's: what the client did
    /// wrong is none.
    pub fn end_with(&mut self, status: StatusCode, text: impl FnOnce() -> String) {
        let Some(mut active) = self.0.take() else { return };
        if !active.spans.speaks_grpc() {
            active.spans.say("http.response.status_code", i64::from(status.as_u16()));
        }
        if status.is_server_error() {
            active.spans.fail(text());
        }
        active.ended = true;
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        if !self.ended {
            self.spans.fail("the client went away before the answer".into());
        }
        let spans = self.spans.close();
        self.tracer.hand_in(spans);
    }
}

impl Tracer {
    fn begin(&self, headers: &HeaderMap, call: &Call) -> Option<Active> {
        let Shared { sampler, ids, .. } = self.shared.as_ref();
        let parent = TraceParent::of(headers);
        let trace = parent.map_or_else(|| ids.trace(), |parent| parent.trace);
        if !sampler.takes(trace, parent.map(|parent| parent.sampled)) {
            return None;
        }
        let state = if parent.is_some() { parent::state(headers) } else { String::new() };
        let parent = parent.map(|parent| parent.span);
        let spans = Spans::begin(trace, ids.span(), parent, state, call);
        Some(Active { tracer: self.clone(), spans, ended: false })
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Number(number)
    }
}
