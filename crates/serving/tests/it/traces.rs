//! What collectors of traces are told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::routing::post;
use daemon::Tasks;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tower::ServiceExt;
use wire::traces::{ExportTraces, Span, SpanKind, StatusCode as Outcome, Value};

use crate::support::{Kept, Setup, get, post as ask, repository, send, x};
use avocet_serving::{ServerState, TraceSettings, Tracer, router};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// A fake collector: it keeps what it is sent and answers what it is told to.
#[derive(Clone, Default)]
struct Collector {
    bodies: Arc<Mutex<Vec<Bytes>>>,
    keys: Arc<Mutex<Vec<String>>>,
    came: Arc<Notify>,
    refuses: Arc<Mutex<Option<StatusCode>>>,
}

impl Collector {
    /// Answers its address.
    async fn start(&self, tasks: &Tasks) -> String {
        let take = async |State(own): State<Collector>, headers: HeaderMap, body: Bytes| {
            assert_eq!(headers["content-type"], "application/x-protobuf");
            if let Some(status) = *own.refuses.lock().unwrap() {
                own.came.notify_one();
                return status;
            }
            own.keys
                .lock()
                .unwrap()
                .extend(headers.get("api-key").map(|key| key.to_str().unwrap().to_owned()));
            own.bodies.lock().unwrap().push(body);
            own.came.notify_one();
            StatusCode::OK
        };
        let app = axum::Router::new().route("/v1/traces", post(take)).with_state(self.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = tasks.shutdown();
        tasks.spawn("collector", async move {
            axum::serve(listener, app)
                .with_graceful_shutdown(async move { shutdown.wait().await })
                .await
                .unwrap();
        });
        format!("http://{address}")
    }

    /// The spans of one trace, once its front's is there.
    async fn trace(&self, trace: &str) -> Vec<Span> {
        let trace: Vec<u8> =
            (0..16).map(|at| u8::from_str_radix(&trace[2 * at..2 * at + 2], 16).unwrap()).collect();
        self.spans(|span| span.trace_id == trace).await
    }

    async fn spans(&self, wanted: impl Fn(&Span) -> bool) -> Vec<Span> {
        let find = || -> Vec<Span> {
            let bodies = self.bodies.lock().unwrap();
            let messages = bodies.iter().map(|body| ExportTraces::decode(body.clone()).unwrap());
            let resources = messages.flat_map(|message| message.resource_spans);
            let spans = resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans);
            spans.filter(|span| wanted(span)).collect()
        };
        let ended = |span: &Span| span.kind == SpanKind::Server as i32;
        let waiting = async {
            loop {
                let spans = find();
                if spans.iter().any(ended) {
                    return spans;
                }
                self.came.notified().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap()
    }
}

struct Bench {
    collector: Collector,
    app: axum::Router,
    _kept: (Kept, tempfile::TempDir),
    _tasks: Tasks,
}

impl Bench {
    async fn with(variables: &[(&str, &str)]) -> Bench {
        let (collector, tasks) = (Collector::default(), Tasks::default());
        let address = collector.start(&tasks).await;
        let fast = [("OTEL_BSP_SCHEDULE_DELAY", "1")];
        let settings = TraceSettings::read(Some(&address), |name| {
            let all = variables.iter().chain(&fast);
            all.into_iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        });
        let tracer = Tracer::start(settings.unwrap().unwrap(), &tasks).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::open(folder.path(), Setup { tracer: Some(tracer), ..Setup::default() });
        Bench { collector, app: kept.app.clone(), _kept: (kept, folder), _tasks: tasks }
    }

    async fn counts(&self) -> (u64, u64) {
        let text = String::from_utf8(get(&self.app, "/metrics").await.body.to_vec()).unwrap();
        let number = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name) && !line.starts_with('#')).unwrap();
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        (number("avocet_spans_exported_total"), number("avocet_spans_dropped_total"))
    }
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let names = || spans.iter().map(|span| span.name.clone()).collect::<Vec<_>>();
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name} in {:?}", names()))
}

fn attribute(span: &Span, name: &str) -> Option<Value> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name);
    found.and_then(|attribute| attribute.value.clone()?.value)
}

fn text(text: &str) -> Option<Value> {
    Some(Value::Text(text.into()))
}

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{CALLER}-{flags}")
}

#[tokio::test]
async fn a_sampled_caller_gets_the_spans_of_its_request_in_its_own_trace() {
    let bench =
        Bench::with(&[("OTEL_SERVICE_NAME", "shop"), ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=k1")]).await;
    let traceparent = parent("01");
    let headers = [("traceparent", traceparent.as_str()), ("tracestate", "vendor=1,other=2")];
    let reply = send(&bench.app, "POST", "/v2/models/affine/infer", &headers, x("[1,4]", "[1,2,3,4]")).await;
    assert_eq!(reply.status, StatusCode::OK);
    let spans = bench.collector.trace(TRACE).await;
    let front = named(&spans, "POST /v2/models/{model}/infer");
    assert_eq!(front.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    assert_eq!((front.trace_state.as_str(), front.kind), ("vendor=1,other=2", SpanKind::Server as i32));
    assert_eq!(attribute(front, "avocet.model.name"), text("affine"));
    assert_eq!(attribute(front, "avocet.model.version"), text("2"));
    assert_eq!(attribute(front, "http.response.status_code"), Some(Value::Number(200)));
    assert_eq!(front.status, None);
    for name in ["obtain", "decode", "queue", "compute", "encode"] {
        let span = named(&spans, name);
        assert_eq!(span.parent_span_id, front.span_id, "{name}");
        assert!(front.start_time_unix_nano <= span.start_time_unix_nano, "{name}");
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{name}");
        assert!(span.end_time_unix_nano <= front.end_time_unix_nano, "{name}");
        assert_eq!(span.trace_state, "vendor=1,other=2");
    }
    assert_eq!(attribute(named(&spans, "compute"), "avocet.batch.size"), Some(Value::Number(1)));
    let resource = {
        let bodies = bench.collector.bodies.lock().unwrap();
        ExportTraces::decode(bodies[0].clone()).unwrap().resource_spans[0].resource.clone().unwrap()
    };
    let service = resource.attributes.iter().find(|attribute| attribute.key == "service.name").unwrap();
    assert_eq!(service.value.clone().unwrap().value, text("shop"));
    assert_eq!(bench.collector.keys.lock().unwrap()[0], "k1");
}

#[tokio::test]
async fn a_job_belongs_to_the_trace_of_who_asked_for_it() {
    let bench = Bench::with(&[]).await;
    let traceparent = parent("01");
    let headers = [
        ("prefer", "respond-async, wait=20"),
        ("traceparent", traceparent.as_str()),
        ("tracestate", "a=1"),
        ("tracestate", "b=2"),
    ];
    let reply = send(&bench.app, "POST", "/v2/models/affine/infer", &headers, x("[1,4]", "[1,2,3,4]")).await;
    assert_eq!(reply.status, 200);
    let spans = bench.collector.trace(TRACE).await;
    let front = spans.iter().find(|span| span.kind == SpanKind::Server as i32).unwrap();
    let caller: Vec<u8> =
        (0..8).map(|at| u8::from_str_radix(&CALLER[2 * at..2 * at + 2], 16).unwrap()).collect();
    assert_eq!((&front.parent_span_id[..], front.trace_state.as_str()), (&caller[..], "a=1,b=2"));
}

#[tokio::test]
async fn predictions_of_mlbuffets_clients_are_traced_like_the_protocols() {
    let bench = Bench::with(&[]).await;
    let traceparent = parent("01");
    let headers = [("traceparent", traceparent.as_str())];
    let address = "/api/v1/models/affine/prediction";
    let reply = send(&bench.app, "POST", address, &headers, r#"{"values": [1, 2, 3, 4]}"#).await;
    assert_eq!(reply.status, StatusCode::OK, "{:?}", reply.body);
    let spans = bench.collector.trace(TRACE).await;
    let front = named(&spans, "POST /api/v1/models/{tag}/prediction");
    assert_eq!(attribute(front, "avocet.model.name"), text("affine"));
    assert_eq!(attribute(front, "http.response.status_code"), Some(Value::Number(200)));
    for name in ["decode", "queue", "compute"] {
        assert_eq!(named(&spans, name).parent_span_id, front.span_id, "{name}");
    }
}

#[tokio::test]
async fn the_callers_decision_not_to_be_traced_is_kept() {
    let bench = Bench::with(&[]).await;
    let traceparent = parent("00");
    let unsampled = [("traceparent", traceparent.as_str())];
    send(&bench.app, "POST", "/v2/models/affine/infer", &unsampled, x("[1,4]", "[1,2,3,4]")).await;
    // One that begins here is traced; had the first been, it would have come before.
    ask(&bench.app, "/v2/models/affine/infer", x("[1,4]", "[1,2,3,4]")).await;
    let spans = bench.collector.spans(|_| true).await;
    assert!(spans.iter().all(|span| span.trace_id != u128::from_str_radix(TRACE, 16).unwrap().to_be_bytes()));
    assert_eq!(named(&spans, "POST /v2/models/{model}/infer").parent_span_id, Vec::<u8>::new());
}

#[tokio::test]
async fn traces_that_begin_here_are_taken_by_the_ratio() {
    let ratio = [("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0")];
    let bench = Bench::with(&ratio).await;
    ask(&bench.app, "/v2/models/affine/infer", x("[1,4]", "[1,2,3,4]")).await;
    let traceparent = parent("01");
    let sampled = [("traceparent", traceparent.as_str())];
    send(&bench.app, "POST", "/v2/models/affine/infer", &sampled, x("[1,4]", "[1,2,3,4]")).await;
    bench.collector.trace(TRACE).await;
    let fronts = bench.collector.spans(|span| span.kind == SpanKind::Server as i32).await;
    assert_eq!(fronts.len(), 1);
}

#[tokio::test]
async fn what_the_server_failed_at_is_a_failure_and_what_the_client_did_wrong_is_not() {
    let bench = Bench::with(&[]).await;
    ask(&bench.app, "/v2/models/nope/infer", "{}").await;
    let spans = bench.collector.spans(|_| true).await;
    let front = named(&spans, "POST /v2/models/{model}/infer");
    assert_eq!(attribute(front, "http.response.status_code"), Some(Value::Number(404)));
    assert_eq!(front.status, None);

    // So much that it is read aside: the first poll leaves it begun.
    let long = x("[1,4]", "[1,2,3,4]") + &" ".repeat(300 << 10);
    let request = Request::builder().method("POST").uri("/v2/models/affine/infer");
    let request = request.body(Body::from(long)).unwrap();
    let bench = Bench::with(&[]).await;
    let mut answering = Box::pin(bench.app.clone().oneshot(request));
    assert!(futures::poll!(answering.as_mut()).is_pending());
    drop(answering);
    let spans = bench.collector.spans(|_| true).await;
    let status = named(&spans, "POST /v2/models/{model}/infer").status.clone().unwrap();
    assert_eq!((status.code, status.message.contains("went away")), (Outcome::Error as i32, true));
}

#[tokio::test]
async fn spans_that_a_collector_does_not_take_are_counted_and_nobody_waits_for_them() {
    let bench =
        Bench::with(&[("OTEL_BSP_MAX_QUEUE_SIZE", "6"), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "6")]).await;
    *bench.collector.refuses.lock().unwrap() = Some(StatusCode::BAD_REQUEST);
    for _ in 0..20 {
        let reply = ask(&bench.app, "/v2/models/affine/infer", x("[1,4]", "[1,2,3,4]")).await;
        assert_eq!(reply.status, StatusCode::OK);
    }
    let mut dropped = 0;
    while dropped < 6 {
        bench.collector.came.notified().await;
        dropped = bench.counts().await.1;
    }
    assert_eq!(bench.counts().await.0, 0);
}

#[tokio::test]
async fn what_waits_at_the_end_is_sent() {
    let (collector, others, tasks) = (Collector::default(), Tasks::default(), Tasks::default());
    let address = collector.start(&others).await;
    let settings = TraceSettings::read(Some(&address), |_| None).unwrap().unwrap();
    let tracer = Tracer::start(settings, &tasks).unwrap();
    let app = router(ServerState::new(repository()).traces(tracer));
    ask(&app, "/v2/models/affine/infer", x("[1,4]", "[1,2,3,4]")).await;
    assert!(tasks.end(Duration::from_secs(20)).await);
    assert!(!collector.bodies.lock().unwrap().is_empty());
}

/// Set AVOCET_TEST_PYTHON to a Python that has `opentelemetry-proto`.
#[tokio::test]
async fn opentelemetrys_own_messages_read_what_is_sent() {
    let Some(python) = std::env::var_os("AVOCET_TEST_PYTHON") else {
        println!("skipped: opentelemetry-proto; AVOCET_TEST_PYTHON is not set");
        return;
    };
    let bench = Bench::with(&[]).await;
    let traceparent = parent("01");
    let headers = [("traceparent", traceparent.as_str()), ("tracestate", "vendor=1")];
    send(&bench.app, "POST", "/v2/models/affine/infer", &headers, x("[1,4]", "[1,2,3,4]")).await;
    bench.collector.trace(TRACE).await;
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<_> = {
        let bodies = bench.collector.bodies.lock().unwrap();
        let write = |(number, body): (usize, &Bytes)| {
            let file = folder.path().join(number.to_string());
            std::fs::write(&file, body).unwrap();
            file
        };
        bodies.iter().enumerate().map(write).collect()
    };
    let script = "tests/clients/read_traces.py";
    let said = tokio::process::Command::new(python).arg(script).args(files).output().await.unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let said = String::from_utf8(said.stdout).unwrap();
    for expected in [
        format!("SPAN_KIND_SERVER {TRACE} {CALLER} vendor=1 POST /v2/models/{{model}}/infer"),
        format!("SPAN_KIND_INTERNAL {TRACE} "),
        "avocet.model.name=affine".into(),
        "http.response.status_code=200".into(),
        "service.name=avocet".into(),
    ] {
        assert!(said.contains(&expected), "no {expected} in {said}");
    }
}
