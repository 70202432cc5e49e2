//! Sends spans to a collector, some at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use axum::http::StatusCode;
use bytes::{BufMut, BytesMut};
use daemon::{Backoff, Shutdown};
use http_body_util::BodyExt;
use prost::Message;
use reqwest::RequestBuilder;
use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;
use tonic::Code;
use wire::traces::{
    AnyValue, ExportTraces, Exported, KeyValue, Resource, ResourceSpans, Scope, ScopeSpans, SpanKind, Status,
    StatusCode as Outcome, Value as WireValue,
};

use super::settings::{InvalidSetting, Protocol, TraceSettings};
use super::spans::{Span, Value};

/// How often one batch is sent before it is given up: meanwhile the queue fills.
const TRIES: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Longest time for what waits at the end.
const LAST: Duration = Duration::from_secs(3);

/// What became of spans.
#[derive(Default)]
pub(super) struct Counters {
    exported: AtomicU64,
    dropped: AtomicU64,
}

impl Counters {
    pub fn dropped(&self, spans: usize) {
        self.dropped.fetch_add(spans as u64, Relaxed);
    }

    /// Spans that a collector took, and those that were dropped.
    pub fn read(&self) -> (u64, u64) {
        (self.exported.load(Relaxed), self.dropped.load(Relaxed))
    }
}

pub(super) struct Exporter {
    settings: TraceSettings,
    http: reqwest::Client,
    counters: Arc<Counters>,
}

/// Why a batch was not taken.
enum Refusal {
    /// It may be taken later.
    Now(String),
    Forever(String),
}

impl Exporter {
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(settings: TraceSettings, counters: Arc<Counters>) -> Result<Exporter, InvalidSetting> {
        let invalid =
            |problem: String| InvalidSetting::new("--otlp-endpoint", settings.endpoint.as_str(), problem);
        // A collector in the clear needs no list of authorities.
        let tls = daemon::tls::client_of_all().or_else(|_| daemon::tls::client_of_nobody());
        let mut tls = tls.map_err(|error| invalid(error.to_string()))?;
        let http = reqwest::Client::builder();
        let http = match settings.protocol {
            Protocol::Http => http,
            Protocol::Grpc => {
                tls.alpn_protocols = vec![b"h2".to_vec()];
                http.http2_prior_knowledge()
            }
        };
        let http = http
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(settings.timeout)
            .build()
            .map_err(|error| invalid(daemon::chain(&error)))?;
        Ok(Exporter { settings, http, counters })
    }

    /// Sends what comes until the shutdown, and then what waits, once.
    pub async fn run(self, mut spans: Receiver<Span>, shutdown: Shutdown) {
        let mut batch = Vec::new();
        while !shutdown.is_due() {
            tokio::select! {
                () = self.gather(&mut spans, &mut batch) => {}
                () = shutdown.wait() => break,
            }
            let full = std::mem::take(&mut batch);
            self.send_patiently(full, &shutdown).await;
        }
        spans.close();
        let ending = async {
            while spans.recv_many(&mut batch, self.settings.batch).await > 0 {}
            while !batch.is_empty() {
                let rest = batch.split_off(batch.len().min(self.settings.batch));
                let part = std::mem::replace(&mut batch, rest);
                if self.send(&part).await.is_err() {
                    self.counters.dropped(part.len());
                }
            }
        };
        if tokio::time::timeout(LAST, ending).await.is_err() {
            tracing::warn!("the collector didn't take the last traces in time");
        }
    }

    /// Waits for a full batch, or until the oldest span in it waited long enough. Cancel safe.
    async fn gather(&self, spans: &mut Receiver<Span>, batch: &mut Vec<Span>) {
        let TraceSettings { batch: most, delay, .. } = &self.settings;
        if batch.is_empty() {
            spans.recv_many(batch, *most).await;
        }
        let until = Instant::now() + *delay;
        while batch.len() < *most {
            let room = *most - batch.len();
            if !matches!(tokio::time::timeout_at(until, spans.recv_many(batch, room)).await, Ok(1..)) {
                return;
            }
        }
    }

    async fn send_patiently(&self, batch: Vec<Span>, shutdown: &Shutdown) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        for attempt in 1..=TRIES {
            let problem = match self.send(&batch).await {
                Ok(()) => return,
                Err(Refusal::Now(_)) if attempt < TRIES && shutdown.sleep(backoff.next_wait()).await => {
                    continue;
                }
                Err(Refusal::Now(problem) | Refusal::Forever(problem)) => problem,
            };
            self.counters.dropped(batch.len());
            tracing::warn!(
                problem,
                spans = batch.len(),
                "the collector doesn't take traces; they are dropped"
            );
            return;
        }
    }

    async fn send(&self, batch: &[Span]) -> Result<(), Refusal> {
        let TraceSettings { endpoint, headers, protocol, .. } = &self.settings;
        let request = self.http.post(endpoint.clone());
        let request = headers.iter().fold(request, |request, (name, value)| request.header(name, value));
        let body = message(&self.settings.resource, batch).encode_to_vec();
        let told = match protocol {
            Protocol::Http => post(request, body).await?,
            Protocol::Grpc => call(request, &body).await?,
        };
        let rejected = told.and_then(|told| told.partial_success).map_or(0, |part| part.rejected_spans);
        let rejected = usize::try_from(rejected).unwrap_or(0).min(batch.len());
        self.counters.dropped(rejected);
        self.counters.exported.fetch_add((batch.len() - rejected) as u64, Relaxed);
        Ok(())
    }
}

fn unreachable(error: reqwest::Error) -> Refusal {
    Refusal::Now(daemon::chain(&error.without_url()))
}

/// Posts a message; gives what the collector says of it.
async fn post(request: RequestBuilder, body: Vec<u8>) -> Result<Option<Exported>, Refusal> {
    let request = request.header("content-type", "application/x-protobuf").body(body);
    let answer = request.send().await.map_err(unreachable)?;
    let status = answer.status();
    if !status.is_success() {
        let problem = format!("it was answered with {status}");
        return Err(match status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Refusal::Now(problem),
            _ => Refusal::Forever(problem),
        });
    }
    Ok(answer.bytes().await.ok().and_then(|body| Exported::decode(body).ok()))
}

/// Before a message of gRPC: that it isn't packed, and its length.
const PREFIX: usize = 5;

/// The same as a call of gRPC.
async fn call(request: RequestBuilder, message: &[u8]) -> Result<Option<Exported>, Refusal> {
    let mut body = BytesMut::with_capacity(PREFIX + message.len());
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).map_err(|_| Refusal::Forever("it is too large".into()))?);
    body.put(message);
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    let answer = request.body(body.freeze()).send().await.map_err(unreachable)?;
    if !answer.status().is_success() {
        return Err(Refusal::Forever(format!("it was answered with {}", answer.status())));
    }
    let (parts, body) = axum::http::Response::from(answer).into_parts();
    let body = body.collect().await.map_err(unreachable)?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let status = tonic::Status::from_header_map(&trailers);
    let status = status.or_else(|| tonic::Status::from_header_map(&parts.headers));
    let Some(status) = status else { return Err(Refusal::Now("its answer broke off".into())) };
    match status.code() {
        Code::Ok => Ok(body.to_bytes().get(PREFIX..).and_then(|message| Exported::decode(message).ok())),
        // What OpenTelemetry says may be tried again.
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Err(Refusal::Now(format!("it was answered with {}", status.code()))),
        code => Err(Refusal::Forever(format!("it was answered with {code}: {}", status.message()))),
    }
}

fn message(resource: &[(String, String)], batch: &[Span]) -> ExportTraces {
    let text = |(name, value): &(String, String)| pair(name, WireValue::Text(value.clone()));
    let scope = Scope { name: "avocet".into(), version: env!("CARGO_PKG_VERSION").into() };
    ExportTraces {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes: resource.iter().map(text).collect() }),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans: batch.iter().map(span).collect() }],
        }],
    }
}

fn span(span: &Span) -> wire::traces::Span {
    let attribute = |(name, value): &(&str, Value)| {
        let value = match value {
            Value::Text(text) => WireValue::Text(text.clone()),
            Value::Flag(flag) => WireValue::Flag(*flag),
            Value::Number(number) => WireValue::Number(*number),
        };
        pair(name, value)
    };
    let kind = if span.is_front { SpanKind::Server } else { SpanKind::Internal };
    let failure = span.failure.as_ref();
    wire::traces::Span {
        trace_id: span.trace.to_be_bytes().into(),
        span_id: span.id.to_be_bytes().into(),
        trace_state: span.state.clone(),
        parent_span_id: span.parent.map(|parent| parent.to_be_bytes().into()).unwrap_or_default(),
        name: span.name.clone(),
        kind: kind.into(),
        start_time_unix_nano: span.begin,
        end_time_unix_nano: span.end,
        attributes: span.attributes.iter().map(attribute).collect(),
        status: failure.map(|why| Status { message: why.clone(), code: Outcome::Error.into() }),
        // Only what is sampled is here.
        flags: 1,
    }
}

fn pair(name: &str, value: WireValue) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}
