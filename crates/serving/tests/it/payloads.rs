//! The payload log as its readers see it.

use std::sync::Arc;
use std::time::Duration;

use avocet_serving::mlbuffet::{self, Buffet};
use avocet_serving::{PayloadLog, ServerState, Shelf, Unguarded, router};
use daemon::Tasks;
use inference::{EngineChoice, LoadRequest};
use serde_json::{Value, json};
use store::Ledger;
use types::{CsvInput, Payloads, Preprocessing, Serving};

use crate::support::{get, model, post, repository, send, x};

const TRACED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

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
    let headers = [("traceparent", TRACED)];
    let body = x("[1,4]", "[1,2,3,4]");
    assert_eq!(send(&app, "POST", "/v2/models/logged/infer", &headers, body.clone()).await.status, 200);
    assert_eq!(post(&app, "/v2/models/affine/infer", body).await.status, 200);
    assert_eq!(post(&app, "/v2/models/logged/infer", x("[1,2]", "[5,6]")).await.status, 400);
    assert!(tasks.end(Duration::from_secs(30)).await, "the log ends with the process");
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!((&lines[0]["model"], &lines[0]["version"]), (&json!("logged"), &json!("1")));
    assert_eq!(lines[0]["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(lines[0]["inputs"][0]["data"], json!([1.0, 2.0]));
    assert_eq!(lines[0]["inputs"][0]["shape"], json!([1, 4]));
    assert_eq!(lines[0]["outputs"][0]["data"], "redacted");
    assert!(lines[1]["error"].as_str().unwrap().contains("[1, 2]"), "{}", lines[1]);
    let metrics = get(&app, "/metrics").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(metrics.contains("avocet_payloads_logged_total 2\n"), "{metrics}");
    assert!(metrics.contains("avocet_payloads_dropped_total 0\n"), "{metrics}");
}

#[tokio::test]
async fn plain_content_and_mlbuffets_predictions_are_logged_like_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("payloads.jsonl");
    let (tasks, repository) = (Tasks::default(), repository());
    let preprocessing = Some(Box::new(Preprocessing { csv: Some(CsvInput::default()), image: None }));
    let serving = Serving { payloads: Some(Payloads::default()), preprocessing, ..Serving::default() };
    let request = LoadRequest::new("logged", "1", model("affine"));
    repository.load(LoadRequest { engine: EngineChoice::Rten, serving, ..request }).unwrap();
    let (ledger, bounds) = (Ledger::memory().unwrap(), avocet_serving::shelf::Options::default());
    let shelf = Shelf::open(&folder.path().join("models"), ledger, repository.clone(), bounds).unwrap();
    let log = PayloadLog::start(path.clone(), None, &tasks);
    let state = ServerState::new(repository).payloads(log);
    let buffet = Buffet::new(state.clone(), shelf, Arc::new(Unguarded));
    let app = router(state).merge(mlbuffet::router(buffet));
    let table = [("content-type", "text/csv"), ("traceparent", TRACED)];
    let reply = send(&app, "POST", "/v2/models/logged/infer", &table, "a,b,c,d\n1,2,3,4\n").await;
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    let values = r#"{"values": [5, 6, 7, 8]}"#;
    assert_eq!(post(&app, "/api/v1/models/logged/prediction", values).await.status, 200);
    assert!(tasks.end(Duration::from_secs(30)).await);
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let inputs: Vec<&Value> = lines.iter().map(|line| &line["inputs"][0]["data"]).collect();
    assert_eq!(inputs, [&json!([1.0, 2.0, 3.0, 4.0]), &json!([5.0, 6.0, 7.0, 8.0])]);
    assert_eq!(lines[0]["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
}

#[tokio::test]
async fn errors_of_requests_with_a_redacted_input_are_told_to_the_client_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("payloads.jsonl");
    let (tasks, repository) = (Tasks::default(), repository());
    for (name, redact) in [("open", vec![]), ("private", vec!["x".to_owned()])] {
        let serving =
            Serving { payloads: Some(Payloads { redact, ..Payloads::default() }), ..Serving::default() };
        let request = LoadRequest::new(name, "1", model("int64"));
        repository.load(LoadRequest { engine: EngineChoice::Rten, serving, ..request }).unwrap();
    }
    let app = router(ServerState::new(repository).payloads(PayloadLog::start(path.clone(), None, &tasks)));
    let body = x("[1]", "[1099511627776]").replace("FP32", "INT64");
    for name in ["open", "private"] {
        let reply = post(&app, &format!("/v2/models/{name}/infer"), body.clone()).await;
        assert_eq!(reply.status, 400);
        assert!(reply.error().contains("holds 1099511627776"), "{}", reply.error());
    }
    assert!(tasks.end(Duration::from_secs(30)).await);
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].contains("holds 1099511627776"));
    assert!(!lines[1].contains("1099511627776") && lines[1].contains(r#""error":"redacted"#), "{}", lines[1]);
}
