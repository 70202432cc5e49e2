use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post as on_post;
use serde_json::{Value, json};

use crate::support::{Kept, Reply, Setup, get, own_model, post, send, upload, x};
use avocet_serving::jobs::{Options, Origins};

const LATER: (&str, &str) = ("prefer", "respond-async");

async fn submit(
    app: &Router,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<axum::body::Body>,
) -> Reply {
    send(app, "POST", path, &[&[LATER], headers].concat(), body).await
}

async fn accepted(app: &Router, path: &str, body: impl Into<axum::body::Body>) -> String {
    let reply = submit(app, path, &[], body).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED, "{:?}", reply.body);
    assert_eq!(reply.header("preference-applied"), Some("respond-async"));
    let (job, location) = (reply.json(), reply.header("location").unwrap().to_owned());
    assert_eq!(job["status"], "queued");
    assert_eq!(location, format!("/v2/jobs/{}", job["id"].as_str().unwrap()));
    location
}

/// The job, once nothing more happens to it.
async fn finished(app: &Router, location: &str) -> Value {
    for _ in 0..2000 {
        let job = get(app, location).await.json();
        if job["status"] == "succeeded" || job["status"] == "failed" {
            return job;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{location} is not finished")
}

fn affine(value: f32) -> String {
    x("[1,4]", &format!("[0,0,0,{value}]"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_response_is_the_one_that_would_have_come_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = Kept::open(folder.path(), Setup::default());
    let path = "/v2/models/affine/versions/1/infer";
    let location = accepted(&server.app, path, affine(1.0)).await;
    let job = finished(&server.app, &location).await;
    let at_once = post(&server.app, path, affine(1.0)).await;
    assert_eq!(job["status"], "succeeded");
    assert_eq!(job["response"], at_once.json());
    let response = get(&server.app, &format!("{location}/response")).await;
    assert_eq!((response.status, response.body), (StatusCode::OK, at_once.body));

    // Binary tensors stay binary.
    let inputs = r#"{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","parameters":{"binary_data_size":16}}],
        "parameters":{"binary_data_output":true}}"#;
    let mut body = inputs.as_bytes().to_vec();
    body.extend([0; 16]);
    let length = inputs.len().to_string();
    let headers = [("inference-header-content-length", length.as_str())];
    let reply = submit(&server.app, path, &headers, body.clone()).await;
    let location = reply.header("location").unwrap().to_owned();
    assert_eq!(finished(&server.app, &location).await.get("response"), None);
    let later = get(&server.app, &format!("{location}/response")).await;
    let at_once = send(&server.app, "POST", path, &headers, body).await;
    assert_eq!(later.body, at_once.body);
    for header in ["content-type", "inference-header-content-length"] {
        assert_eq!(later.header(header), at_once.header(header));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_a_while_gets_the_response_itself_if_it_is_there_by_then() {
    let folder = tempfile::tempdir().unwrap();
    let server = Kept::open(folder.path(), Setup::default());
    let path = "/v2/models/affine/infer";
    let waiting = [("prefer", "respond-async, wait=30")];
    let reply = send(&server.app, "POST", path, &waiting, affine(1.0)).await;
    let at_once = post(&server.app, path, affine(1.0)).await;
    assert_eq!((reply.status, &reply.body), (StatusCode::OK, &at_once.body));
    let job = get(&server.app, reply.header("location").unwrap()).await.json();
    assert_eq!(job["status"], "succeeded");
    let wrong = send(&server.app, "POST", path, &waiting, x("[1,3]", "[1,2,3]")).await;
    assert_eq!(wrong.status, 400);
    server.end().await;

    let idle = tempfile::tempdir().unwrap();
    let server = Kept::open(idle.path(), Setup { idle: true, ..Setup::default() });
    let waiting = [("prefer", "respond-async, wait=1")];
    let reply = send(&server.app, "POST", path, &waiting, affine(1.0)).await;
    assert_eq!(
        (reply.status, reply.header("preference-applied")),
        (StatusCode::ACCEPTED, Some("respond-async"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said_at_once_or_in_the_job() {
    let folder = tempfile::tempdir().unwrap();
    let server = Kept::open(folder.path(), Setup::default());
    assert_eq!(submit(&server.app, "/v2/models/nope/infer", &[], affine(1.0)).await.status, 404);
    assert_eq!(submit(&server.app, "/v2/models/affine/versions/9/infer", &[], "{}").await.status, 404);
    let location = accepted(&server.app, "/v2/models/affine/infer", x("[1,3]", "[1,2,3]")).await;
    let job = finished(&server.app, &location).await;
    assert_eq!((&job["status"], &job["code"]), (&json!("failed"), &json!(400)));
    assert!(job["error"].as_str().unwrap().contains("[-1, 4]"), "{job}");
    assert_eq!(get(&server.app, &format!("{location}/response")).await.status, 400);
    assert!(get(&server.app, "/v2/jobs/nope").await.error().contains("there is no job `nope`"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mlbuffets_predictions_can_be_answered_later_too() {
    let folder = tempfile::tempdir().unwrap();
    let server = Kept::open(folder.path(), Setup::default());
    upload(&server.app, "t", "m.onnx", &own_model("label")).await;
    let reply =
        post(&server.app, "/api/v1/models/t:1/prediction?async=true", r#"{"values": [0, 3, 0, 0]}"#).await;
    assert_eq!(reply.status, 202);
    let job = finished(&server.app, reply.header("location").unwrap()).await;
    assert_eq!(job["response"]["values"], json!([1]));
    assert_eq!(job["response"]["http_status"]["code"], 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_jobs_are_computed_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let server = Kept::open(folder.path(), Setup { idle: true, ..Setup::default() });
    let mut locations = Vec::new();
    for value in 0..5 {
        locations.push(accepted(&server.app, "/v2/models/affine/infer", affine(value as f32)).await);
    }
    assert_eq!(get(&server.app, &format!("{}/response", locations[0])).await.status, 202);
    server.end().await;
    std::fs::write(folder.path().join("jobs/orphan.request"), "").unwrap();

    let server = Kept::open(folder.path(), Setup::default());
    assert!(!folder.path().join("jobs/orphan.request").exists());
    for (value, location) in locations.iter().enumerate() {
        let job = finished(&server.app, location).await;
        let expected = post(&server.app, "/v2/models/affine/infer", affine(value as f32)).await.json();
        assert_eq!(job["response"], expected);
    }
    server.end().await;
    let server = Kept::open(folder.path(), Setup::default());
    assert_eq!(finished(&server.app, &locations[0]).await["status"], "succeeded", "results are kept, too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_listed_cancelled_and_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let server = Kept::open(folder.path(), Setup { idle: true, ..Setup::default() });
    let first = accepted(&server.app, "/v2/models/affine/infer", affine(1.0)).await;
    let second = accepted(&server.app, "/v2/models/affine/infer", affine(2.0)).await;
    let list = get(&server.app, "/v2/jobs?limit=1&status=queued").await.json();
    assert_eq!((list["jobs"].as_array().unwrap().len(), &list["total"]), (1, &json!(2)));
    assert_eq!(get(&server.app, "/v2/jobs?limit=x").await.status, 400);
    let cancelled = send(&server.app, "DELETE", &first, &[], "").await;
    assert_eq!(cancelled.json()["status"], "cancelled");
    assert_eq!(send(&server.app, "DELETE", &first, &[], "").await.status, 404);
    assert_eq!(std::fs::read_dir(folder.path().join("jobs")).unwrap().count(), 1);
    server.end().await;

    let keep = Options { keep: Duration::ZERO, ..Options::default() };
    let server = Kept::open(folder.path(), Setup::default());
    finished(&server.app, &second).await;
    server.end().await;
    let server = Kept::open(folder.path(), Setup { jobs: keep, ..Setup::default() });
    for _ in 0..2000 {
        if get(&server.app, &second).await.status == 404 {
            assert_eq!(get(&server.app, "/v2/jobs").await.json()["total"], 0);
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{second} is still there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_bounded_by_number_and_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let body = affine(1.0);
    let bytes = (body.len() * 2) as u64;
    for bounds in [Options { jobs: 2, ..Options::default() }, Options { bytes, ..Options::default() }] {
        let folder = folder.path().join(bounds.jobs.to_string());
        std::fs::create_dir(&folder).unwrap();
        let server = Kept::open(&folder, Setup { jobs: bounds, idle: true, ..Setup::default() });
        let first = accepted(&server.app, "/v2/models/affine/infer", body.clone()).await;
        accepted(&server.app, "/v2/models/affine/infer", body.clone()).await;
        let refused = submit(&server.app, "/v2/models/affine/infer", &[], body.clone()).await;
        assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, Some("30")));
        send(&server.app, "DELETE", &first, &[], "").await;
        accepted(&server.app, "/v2/models/affine/infer", body.clone()).await;
    }
    let bounds = Options { body_limit: 8, ..Options::default() };
    let server = Kept::open(folder.path(), Setup { jobs: bounds, ..Setup::default() });
    assert_eq!(submit(&server.app, "/v2/models/affine/infer", &[], body).await.status, 413);
}

/// What a receiver got: headers and body.
type Got = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

/// A receiver that fails the first time, and redirects elsewhere.
async fn receiver(got: Got) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let hook = move |headers: HeaderMap, body: Bytes| async move {
        let mut got = got.lock().unwrap();
        got.push((headers, body));
        if got.len() == 1 { StatusCode::BAD_GATEWAY } else { StatusCode::OK }
    };
    let elsewhere = || async { axum::response::Redirect::temporary("/hook") };
    let app = Router::new().route("/hook", on_post(hook)).route("/elsewhere", on_post(elsewhere));
    let tasks = daemon::Tasks::default();
    tasks.spawn("receiver", async move { axum::serve(listener, app).await.unwrap() });
    origin
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_are_sent_signed_until_they_arrive_and_no_further() {
    let (folder, got) = (tempfile::tempdir().unwrap(), Got::default());
    let origin = receiver(got.clone()).await;
    let origins = Origins::new([&origin]).unwrap();
    let options = Options { origins, secret: "key".into(), ..Options::default() };
    let server = Kept::open(folder.path(), Setup { jobs: options, ..Setup::default() });
    let hook = format!("{origin}/hook");
    let reply =
        submit(&server.app, "/v2/models/affine/infer", &[("avocet-callback", &hook)], affine(1.0)).await;
    let location = reply.header("location").unwrap().to_owned();
    for _ in 0..2000 {
        if get(&server.app, &location).await.json()["callback"]["status"] == "delivered" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let got = std::mem::take(&mut *got.lock().unwrap());
    assert_eq!(got.len(), 2, "once in vain");
    let (headers, body) = &got[1];
    let told: Value = serde_json::from_slice(body).unwrap();
    assert_eq!(
        (&told["status"], &told["response"]["outputs"][0]["name"]),
        (&json!("succeeded"), &json!("y"))
    );
    let header = |name: &str| headers[name].to_str().unwrap();
    assert_eq!(header("avocet-job"), told["id"]);
    let signed = format!("{}.{}", header("avocet-timestamp"), String::from_utf8_lossy(body));
    assert_eq!(header("avocet-signature"), format!("sha256={}", hmac(b"key", signed.as_bytes())));

    let elsewhere = format!("{origin}/elsewhere");
    let reply =
        submit(&server.app, "/v2/models/affine/infer", &[("avocet-callback", &elsewhere)], affine(1.0)).await;
    let location = reply.header("location").unwrap().to_owned();
    for _ in 0..2000 {
        let callback = get(&server.app, &location).await.json()["callback"].clone();
        if callback["tries"].as_u64() >= Some(1) {
            assert_eq!(
                (&callback["status"], callback["error"].as_str().map(|e| e.contains("307"))),
                (&json!("waiting"), Some(true))
            );
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it was not tried");
}

fn hmac(key: &[u8], message: &[u8]) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_go_nowhere_that_was_not_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let server = Kept::open(folder.path(), Setup::default());
    for (url, status, words) in [
        ("http://169.254.169.254/latest", 403, "--callback-origin http://169.254.169.254"),
        ("https://hooks.example.com/x", 403, "--callback-origin https://hooks.example.com"),
        ("nowhere", 400, "no URL"),
    ] {
        let reply =
            submit(&server.app, "/v2/models/affine/infer", &[("avocet-callback", url)], affine(1.0)).await;
        assert_eq!(reply.status.as_u16(), status, "{url}");
        assert!(reply.error().contains(words), "{:?}", reply.body);
    }
    let callback = [("avocet-callback", "https://hooks.example.com/x")];
    let at_once = send(&server.app, "POST", "/v2/models/affine/infer", &callback, affine(1.0)).await;
    assert_eq!(at_once.status, 400);
    assert_eq!(get(&server.app, "/v2/jobs").await.json()["total"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_disk_does_not_take_is_refused_and_not_listed() {
    let folder = tempfile::tempdir().unwrap();
    let (jobs, away) = (folder.path().join("jobs"), folder.path().join("away"));
    let server = Kept::open(folder.path(), Setup { idle: true, ..Setup::default() });
    let path = "/v2/models/affine/infer";
    accepted(&server.app, path, affine(1.0)).await;
    std::fs::rename(&jobs, &away).unwrap();
    std::fs::write(&jobs, "no folder").unwrap();
    let refused = submit(&server.app, path, &[], affine(1.0)).await;
    assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR, "{:?}", refused.body);
    assert_eq!(get(&server.app, "/v2/jobs").await.json()["total"], 1);
    std::fs::remove_file(&jobs).unwrap();
    std::fs::rename(&away, &jobs).unwrap();
    accepted(&server.app, path, affine(2.0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_that_the_disk_does_not_take_is_computed_again() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = folder.path().join("jobs");
    // What is in the response's way when it comes first is gone when it comes again.
    let compute = move || async move {
        let files = std::fs::read_dir(&jobs).unwrap().map(|entry| entry.unwrap().path());
        let request = files.into_iter().find(|path| path.extension().is_some_and(|kind| kind == "request"));
        let response = request.unwrap().with_extension("response");
        match response.exists() {
            true => std::fs::remove_dir_all(response).unwrap(),
            false => std::fs::create_dir_all(response.join("in the way")).unwrap(),
        }
        "computed"
    };
    let later = Some(Router::new().fallback(compute));
    let server = Kept::open(folder.path(), Setup { later, ..Setup::default() });
    let location = accepted(&server.app, "/v2/models/affine/infer", affine(1.0)).await;
    assert_eq!(finished(&server.app, &location).await["status"], "succeeded");
    assert_eq!(get(&server.app, &format!("{location}/response")).await.body, "computed");
}
