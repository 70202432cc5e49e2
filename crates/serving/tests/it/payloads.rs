//! The payload log as its readers see it.

use std::time::Duration;

use avocet_serving::{PayloadLog, ServerState, router};
use daemon::Tasks;
use inference::{EngineChoice, LoadRequest};
use serde_json::{Value, json};
use types::{Payloads, Serving};

use crate::support::{get, model, post, repository, send, x};

#[tokio::test]
async fn requests_of_models_that_ask_are_logged_with_their_trace_and_others_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logs/payloads/payloads.jsonl");
    let tasks = Tasks::default();
    let repository = repository();
    let payloads = Some(Payloads { max_elements: 2, redact: vec!["y".into()], ..Payloads::default() });
    let serving = Serving { payloads, ..Serving::default() };
    let request = LoadRequest::new("logged", "1", model("affine"));
    repository.load(LoadRequest { engine: EngineChoice::Rten, serving, ..request }).unwrap();
    let app = router(ServerState::new(repository).payloads(PayloadLog::start(path.clone(), None, &tasks)));
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let headers = [("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let body = x("[1,4]", "[1,2,3,4]");
    assert_eq!(send(&app, "POST", "/v2/models/logged/infer", &headers, body.clone()).await.status, 200);
    assert_eq!(post(&app, "/v2/models/affine/infer", body).await.status, 200);
    assert_eq!(post(&app, "/v2/models/logged/infer", x("[1,2]", "[5,6]")).await.status, 400);
    assert!(tasks.end(Duration::from_secs(30)).await, "the log ends with the process");
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!((&lines[0]["model"], &lines[0]["version"]), (&json!("logged"), &json!("1")));
    assert_eq!(lines[0]["traceId"], trace);
    assert_eq!(lines[0]["inputs"][0]["data"], json!([1.0, 2.0]));
    assert_eq!(lines[0]["inputs"][0]["shape"], json!([1, 4]));
    assert_eq!(lines[0]["outputs"][0]["data"], "redacted");
    assert!(lines[1]["error"].as_str().unwrap().contains("[1, 2]"), "{}", lines[1]);
    let metrics = get(&app, "/metrics").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(metrics.contains("avocet_payloads_logged_total 2\n"), "{metrics}");
    assert!(metrics.contains("avocet_payloads_dropped_total 0\n"), "{metrics}");
}
