//! Collectors that are told over gRPC.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, Request, Response};
use daemon::Tasks;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpListener;
use wire::traces::{ExportTraces, Exported, PartialSuccess};

use crate::support::{get, post, repository, x};
use avocet_serving::{ServerState, TraceSettings, Tracer, router};

/// What a collector was told, and the statuses that it answers with; 0 when there are no more.
#[derive(Clone, Default)]
struct Collector {
    told: Arc<Mutex<Vec<(HeaderMap, ExportTraces)>>>,
    answers: Arc<Mutex<VecDeque<&'static str>>>,
    rejects: i64,
}

impl Collector {
    async fn start(&self, tasks: &Tasks) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (own, shutdown) = (self.clone(), tasks.shutdown());
        tasks.spawn("collector", async move {
            while let Some(Ok((stream, _))) = tokio::select! {
                accepted = listener.accept() => Some(accepted),
                () = shutdown.wait() => None,
            } {
                let (own, shutdown) = (own.clone(), shutdown.clone());
                let service = service_fn(move |request| own.clone().answer(request));
                let serving =
                    http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    served = serving => drop(served),
                    () = shutdown.wait() => {}
                }
            }
        });
        format!("grpc://{address}")
    }

    async fn answer(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
        assert_eq!(request.uri().path(), "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
        let (parts, body) = request.into_parts();
        assert_eq!(parts.headers["content-type"], "application/grpc");
        assert_eq!(parts.headers["te"], "trailers");
        let body = body.collect().await.unwrap().to_bytes();
        let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
        assert_eq!((body[0], length), (0, body.len() - 5));
        let status = self.answers.lock().unwrap().pop_front().unwrap_or("0");
        if status == "0" {
            self.told.lock().unwrap().push((parts.headers, ExportTraces::decode(&body[5..]).unwrap()));
        }
        let partial = PartialSuccess { rejected_spans: self.rejects, ..PartialSuccess::default() };
        let message = Exported { partial_success: Some(partial) }.encode_to_vec();
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let framed = [&[0], length.as_slice(), &message].concat();
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), status.parse().unwrap())]);
        let answer = Full::new(Bytes::from(framed)).with_trailers(async { Some(Ok(trailers)) });
        Ok(Response::builder().header("content-type", "application/grpc").body(answer).unwrap())
    }
}

/// Answers one request that is traced; gives how many spans were exported and dropped.
async fn trace(collector: &Collector) -> (u64, u64) {
    let tasks = Tasks::default();
    let address = collector.start(&tasks).await;
    let settings = TraceSettings::read(Some(&address), |name| {
        let variables = [("OTEL_BSP_SCHEDULE_DELAY", "1"), ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s3cret")];
        variables.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
    });
    let sending = Tasks::default();
    let tracer = Tracer::start(settings.unwrap().unwrap(), &sending).unwrap();
    let app = router(ServerState::new(repository()).traces(tracer));
    assert_eq!(post(&app, "/v2/models/affine/infer", x("[1,4]", "[1,2,3,4]")).await.status, 200);
    let count = async |name: &str| -> u64 {
        let text = String::from_utf8(get(&app, "/metrics").await.body.to_vec()).unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().parse().unwrap()
    };
    let ended = async {
        loop {
            let counts =
                (count("avocet_spans_exported_total ").await, count("avocet_spans_dropped_total ").await);
            if counts != (0, 0) {
                return counts;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let counts = tokio::time::timeout(Duration::from_secs(30), ended).await.unwrap();
    assert!(sending.end(Duration::from_secs(10)).await);
    assert!(tasks.end(Duration::from_secs(10)).await);
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_are_sent_over_grpc_and_what_may_be_tried_again_is() {
    let collector = Collector::default();
    collector.answers.lock().unwrap().push_back("14");
    let (exported, dropped) = trace(&collector).await;
    let told = collector.told.lock().unwrap();
    let [(headers, message)] = told.as_slice() else { panic!("{} messages", told.len()) };
    assert_eq!(headers["api-key"], "s3cret");
    let spans = &message.resource_spans[0].scope_spans[0].spans;
    assert_eq!((exported, dropped), (spans.len() as u64, 0));
    assert!(spans.iter().any(|span| span.name == "POST /v2/models/{model}/infer"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_collector_refuses_or_rejects_over_grpc_counts_as_dropped() {
    let collector = Collector::default();
    collector.answers.lock().unwrap().push_back("16");
    let (exported, dropped) = trace(&collector).await;
    assert!(exported == 0 && dropped > 0, "{exported} {dropped}");
    assert!(collector.told.lock().unwrap().is_empty(), "it isn't tried again");
    let (exported, dropped) = trace(&Collector { rejects: 1, ..Collector::default() }).await;
    assert!(exported > 0 && dropped == 1, "{exported} {dropped}");
}
