//! `GET /metrics` as Prometheus and Triton's dashboards see it.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use avocet_serving::{ServerState, router};
use axum::http::StatusCode;
use inference::{EngineChoice, LoadRequest};
use types::{Drift, PredictionCache, Serving};

use crate::support::{app, get, model, post, repository, x};

/// What a real Triton 2 names of its models, but for memory pools and processors, which are not models.
const TRITON: [&str; 10] = [
    "nv_inference_request_success",
    "nv_inference_request_failure",
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_request_duration_us",
    "nv_inference_queue_duration_us",
    "nv_inference_compute_input_duration_us",
    "nv_inference_compute_infer_duration_us",
    "nv_inference_compute_output_duration_us",
    "nv_inference_pending_request_count",
];

async fn metrics(app: &axum::Router) -> String {
    let reply = get(app, "/metrics").await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    String::from_utf8(reply.body.to_vec()).unwrap()
}

fn value(text: &str, sample: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(sample));
    line.unwrap_or_else(|| panic!("no {sample} in {text}")).trim().parse().unwrap()
}

#[tokio::test]
async fn tritons_names_are_there_with_its_types_and_labels() {
    let text = metrics(&app()).await;
    let families: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    for name in TRITON {
        let kind = if name.ends_with("pending_request_count") { "gauge" } else { "counter" };
        assert!(families.contains(format!("{name} {kind}").as_str()), "{name} is missing: {families:?}");
        let labels = match name {
            "nv_inference_request_failure" => r#"{model="affine",reason="REJECTED",version="1"}"#,
            _ => r#"{model="affine",version="1"}"#,
        };
        assert!(text.contains(&format!("{name}{labels} 0\n")), "{name} has no {labels}: {text}");
    }
    assert!(value(&text, "process_resident_memory_bytes") > 1e6);
    assert!((0.0..=1.0).contains(&value(&text, "nv_cpu_utilization ")), "{text}");
    assert!(value(&text, "nv_cpu_memory_total_bytes ") > value(&text, "nv_cpu_memory_used_bytes "));
    assert_eq!(value(&text, "nv_pinned_memory_pool_total_bytes "), 0.0);
    assert!(!text.contains("_request_operations_total"), "there are no clients of MLBuffet here");
    assert!(value(&text, r#"avocet_model_memory_bytes{model="affine",version="2"}"#) > 0.0);
}

#[tokio::test]
async fn answers_and_failures_are_counted_by_version_and_reason() {
    let app = app();
    let body = x("[1,4]", "[1,2,3,4]");
    for (path, status) in [("affine", 200), ("affine/versions/1", 200), ("affine/versions/1", 200)] {
        let reply = post(&app, &format!("/v2/models/{path}/infer"), body.clone()).await;
        assert_eq!(reply.status, status, "{}", String::from_utf8_lossy(&reply.body));
    }
    assert_eq!(post(&app, "/v2/models/affine/infer", x("[1,2]", "[1,2]")).await.status, 400);
    let text = metrics(&app).await;
    assert_eq!(value(&text, r#"nv_inference_request_success{model="affine",version="2"}"#), 1.0);
    assert_eq!(value(&text, r#"nv_inference_exec_count{model="affine",version="1"}"#), 2.0);
    assert_eq!(value(&text, r#"nv_inference_request_summary_us_count{model="affine",version="1"}"#), 2.0);
    let failed = r#"nv_inference_request_failure{model="affine",reason="OTHER",version="2"}"#;
    assert_eq!(value(&text, failed), 1.0);
}

#[tokio::test]
async fn the_cache_and_the_drift_of_each_feature_are_told() {
    let repository = repository();
    let serving = Serving {
        cache: Some(PredictionCache::default()),
        drift: Some(Drift { baseline_values: 10, window_values: 10 }),
        ..Serving::default()
    };
    let request = LoadRequest::new("watched", "1", model("affine"));
    repository.load(LoadRequest { engine: EngineChoice::Rten, serving, ..request }).unwrap();
    let app = router(ServerState::new(repository));
    for number in 0..40 {
        let reply = post(&app, "/v2/models/watched/infer", x("[1,4]", &format!("[{number},7,7,7]"))).await;
        assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    }
    post(&app, "/v2/models/watched/infer", x("[1,4]", "[3,7,7,7]")).await;
    let text = metrics(&app).await;
    assert_eq!(value(&text, r#"nv_cache_num_hits_per_model{model="watched",version="1"}"#), 1.0);
    assert_eq!(value(&text, r#"nv_cache_num_misses_per_model{model="watched",version="1"}"#), 40.0);
    let psi = |place: &str| {
        let labels = format!(r#"{{model="watched",version="1",input="x",feature="{place}"}}"#);
        value(&text, &format!("avocet_model_drift_psi{labels}"))
    };
    assert!(psi("0") > 0.25 && psi("1") < 0.1, "the first grows, the second stays: {text}");
}

/// Set AVOCET_TEST_PYTHON to a Python that has `prometheus_client`.
#[tokio::test]
async fn prometheus_own_parser_reads_it() {
    let Some(python) = std::env::var_os("AVOCET_TEST_PYTHON") else {
        println!("skipped: prometheus_client; AVOCET_TEST_PYTHON is not set");
        return;
    };
    let text = metrics(&app()).await;
    let script = "import sys\nfrom prometheus_client.parser import text_string_to_metric_families as parse\n\
                  families = list(parse(sys.stdin.read()))\n\
                  assert all(family.samples for family in families)\nprint(len(families))";
    let mut child = Command::new(python)
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let families = text.matches("# TYPE ").count().to_string();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), families);
}
