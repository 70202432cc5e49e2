//! `GET /metrics`: what Prometheus reads, under Triton's names where Triton has one, so that its dashboards work.
//!
//! Everything is computed when it is asked for, from counters that requests write anyway.

mod process;
mod processors;
mod text;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use daemon::Shutdown;
use inference::{ModelStatus, Observed, StatsSnapshot};
use tokio::net::TcpListener;

use crate::door::Door;
use crate::mlbuffet::Operations;
use crate::state::ServerState;
pub(crate) use processors::Processors;
use text::{Kind, Text};

pub(crate) fn routes() -> Router<ServerState> {
    Router::new().route("/metrics", get(metrics))
}

/// Serves `/metrics` alone until the shutdown, for those who want it on a port of its own.
pub async fn serve_metrics(door: Door, listener: TcpListener, state: ServerState, shutdown: Shutdown) {
    crate::serve_behind(door, listener, routes().with_state(state), shutdown).await;
}

async fn metrics(State(state): State<ServerState>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], render(&state)).into_response()
}

fn render(state: &ServerState) -> String {
    let mut text = Text::default();
    let observed = state.repository.observe();
    COUNTERS.iter().for_each(|counter| counters(&mut text, counter, &observed));
    failures(&mut text, &observed);
    waiting(&mut text, &observed);
    latency(&mut text, &observed);
    drift(&mut text, &observed);
    versions(&mut text, &state.repository.list());
    if let Some(log) = &state.payloads {
        let (logged, dropped) = log.counts();
        text.family(
            "avocet_payloads_logged_total",
            Kind::Counter,
            "Requests that were written to the payload log",
        );
        text.sample(&[], logged);
        text.family(
            "avocet_payloads_dropped_total",
            Kind::Counter,
            "Requests for the payload log that came too fast or could not be written",
        );
        text.sample(&[], dropped);
    }
    if let Some(tracer) = &state.tracer {
        let (exported, dropped) = tracer.counts();
        text.family(
            "avocet_spans_exported_total",
            Kind::Counter,
            "Spans of requests that the collector took",
        );
        text.sample(&[], exported);
        let help = "Spans of requests that came too fast, or that the collector didn't take";
        text.family("avocet_spans_dropped_total", Kind::Counter, help);
        text.sample(&[], dropped);
    }
    process::write(&mut text);
    let busy = state.processors.share();
    if let Some(busy) = busy {
        text.family(
            "nv_cpu_utilization",
            Kind::Gauge,
            "Share of the machine's processors that was busy of late, 0 to 1",
        );
        text.sample(&[], busy);
    }
    pinned_memory(&mut text);
    if let Some(operations) = state.operations.get() {
        operations_of_mlbuffet(&mut text, operations, busy);
    }
    let further = state.further.as_ref().map(|tell| tell()).unwrap_or_default();
    text.finish() + &further
}

/// That there is none: what dashboards of Triton ask for.
fn pinned_memory(text: &mut Text) {
    let families = [
        ("nv_pinned_memory_pool_total_bytes", "Memory set aside for copies to a GPU; there is none here"),
        ("nv_pinned_memory_pool_used_bytes", "Of that, what is in use"),
    ];
    for (name, help) in families {
        text.family(name, Kind::Gauge, help);
        text.sample(&[], 0);
    }
}

/// Under the names that MLBuffet's dashboards know.
fn operations_of_mlbuffet(text: &mut Text, operations: &Operations, busy: Option<f64>) {
    for (name, help, count) in operations.read() {
        text.family(name, Kind::Counter, help);
        text.sample(&[], count);
    }
    if let Some(busy) = busy {
        text.family("cpu_usage", Kind::Gauge, "Percentage of the machine's processors that was busy of late");
        text.sample(&[], busy * 100.0);
    }
}

struct Counter {
    name: &'static str,
    help: &'static str,
    read: fn(&StatsSnapshot) -> u64,
}

/// Microseconds.
fn micros(nanoseconds: u64) -> u64 {
    nanoseconds / 1000
}

const COUNTERS: [Counter; 14] = [
    Counter {
        name: "nv_inference_request_success",
        help: "Requests that were answered, those out of the cache included",
        read: |stats| stats.success.count,
    },
    Counter {
        name: "nv_inference_count",
        help: "Samples that were computed; a batch of three counts three",
        read: |stats| stats.inference_count,
    },
    Counter {
        name: "nv_inference_exec_count",
        help: "Runs of the model",
        read: |stats| stats.execution_count,
    },
    Counter {
        name: "nv_inference_request_duration_us",
        help: "Microseconds from acceptance to answer, over all answered requests",
        read: |stats| micros(stats.success.nanoseconds),
    },
    Counter {
        name: "nv_inference_queue_duration_us",
        help: "Microseconds that requests waited for a thread and for company",
        read: |stats| micros(stats.queue.nanoseconds),
    },
    Counter {
        name: "nv_inference_compute_input_duration_us",
        help: "Microseconds of putting inputs together",
        read: |stats| micros(stats.compute_input.nanoseconds),
    },
    Counter {
        name: "nv_inference_compute_infer_duration_us",
        help: "Microseconds in the engine",
        read: |stats| micros(stats.compute.nanoseconds),
    },
    Counter {
        name: "nv_inference_compute_output_duration_us",
        help: "Microseconds of taking outputs apart",
        read: |stats| micros(stats.compute_output.nanoseconds),
    },
    Counter {
        name: "nv_cache_num_hits_per_model",
        help: "Requests answered out of the cache",
        read: |stats| stats.cache_hit.count,
    },
    Counter {
        name: "nv_cache_num_misses_per_model",
        help: "Requests looked for in the cache and not found",
        read: |stats| stats.cache_miss.count,
    },
    Counter {
        name: "nv_cache_hit_duration_per_model",
        help: "Microseconds of finding answers in the cache",
        read: |stats| micros(stats.cache_hit.nanoseconds),
    },
    Counter {
        name: "nv_cache_miss_duration_per_model",
        help: "Microseconds of looking in vain, and of keeping the answer then computed",
        read: |stats| micros(stats.cache_miss.nanoseconds),
    },
    Counter {
        name: "avocet_shadow_agreed_total",
        help: "Copied requests that this version answered like the one that was asked",
        read: |stats| stats.shadow_agreed,
    },
    Counter {
        name: "avocet_shadow_differed_total",
        help: "Copied requests that this version answered otherwise",
        read: |stats| stats.shadow_differed,
    },
];

fn counters(text: &mut Text, counter: &Counter, all: &[Observed]) {
    text.family(counter.name, Kind::Counter, counter.help);
    for Observed { name, version, stats, .. } in all {
        text.sample(&[("model", name), ("version", version)], (counter.read)(stats));
    }
}

fn failures(text: &mut Text, all: &[Observed]) {
    text.family("nv_inference_request_failure", Kind::Counter, "Requests that were refused or failed");
    for Observed { name, version, stats, .. } in all {
        let of = stats.failures;
        for (reason, count) in [
            ("REJECTED", of.rejected),
            ("CANCELED", of.canceled),
            ("BACKEND", of.engine),
            ("OTHER", of.invalid),
        ] {
            text.sample(&[("model", name), ("reason", reason), ("version", version)], count);
        }
    }
}

fn waiting(text: &mut Text, all: &[Observed]) {
    text.family("nv_inference_pending_request_count", Kind::Gauge, "Requests that wait for a thread now");
    for Observed { name, version, waiting, .. } in all {
        text.sample(&[("model", name), ("version", version)], waiting);
    }
}

fn latency(text: &mut Text, all: &[Observed]) {
    let name = "nv_inference_request_summary_us";
    text.family(name, Kind::Summary, "Microseconds from acceptance to answer, since the version was loaded");
    for Observed { name: model, version, stats, .. } in all {
        for (quantile, duration) in [("0.5", stats.median), ("0.99", stats.p99)] {
            let labels = [("model", model.as_str()), ("version", version), ("quantile", quantile)];
            text.sample(&labels, duration.as_micros());
        }
        let labels = [("model", model.as_str()), ("version", version)];
        text.part("_sum", &labels, micros(stats.success.nanoseconds));
        text.part("_count", &labels, stats.success.count);
    }
}

fn drift(text: &mut Text, all: &[Observed]) {
    type Read = fn(&inference::FeatureDrift) -> Option<f64>;
    let families: [(&str, &str, Read); 3] = [
        ("avocet_model_drift_psi", "Population stability index of an input's values of late", |of| of.psi),
        ("avocet_model_drift_ks", "Kolmogorov-Smirnov statistic of an input's values of late", |of| of.ks),
        ("avocet_model_missing_ratio", "Share of an input's values of late that are NaN", |of| {
            Some(of.missing)
        }),
    ];
    for (name, help, read) in families {
        text.family(name, Kind::Gauge, help);
        for Observed { name: model, version, drift, .. } in all {
            for feature in drift {
                let Some(value) = read(feature) else { continue };
                let place = feature.feature.map_or_else(|| "all".to_owned(), |place| place.to_string());
                let (input, place) = (feature.input.as_str(), place.as_str());
                let labels =
                    [("model", model.as_str()), ("version", version), ("input", input), ("feature", place)];
                text.sample(&labels, value);
            }
        }
    }
}

fn versions(text: &mut Text, all: &[ModelStatus]) {
    type Read = fn(&ModelStatus) -> Option<u64>;
    let families: [(&str, &str, Read); 3] = [
        (
            "avocet_model_memory_bytes",
            "Bytes that the process grew by when the version was loaded",
            |status| status.engine.map(|_| status.memory),
        ),
        (
            "avocet_model_share_percent",
            "Percentage that the version gets of requests that name none",
            |status| status.share.map(u64::from),
        ),
        (
            "avocet_model_rolled_back",
            "1 where the version lost its share because of errors or slowness",
            |status| Some(u64::from(status.rolled_back.is_some())),
        ),
    ];
    for (name, help, read) in families {
        text.family(name, Kind::Gauge, help);
        for status in all {
            if let Some(value) = read(status) {
                text.sample(&[("model", &status.name), ("version", &status.version)], value);
            }
        }
    }
}
