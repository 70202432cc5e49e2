//! Jobs whose time is not now, and senders who don't wait.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use axum::Router;
use axum::http::{Request, StatusCode};
use axum::routing::post;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::{Kept, Setup, get, send, x};
use avocet_serving::jobs::Options;

const AFFINE: &str = "/v2/models/affine/infer";
const INT64: &str = "/v2/models/int64/infer";

async fn accepted(app: &Router, path: &str) -> String {
    let reply = send(app, "POST", path, &[("prefer", "respond-async")], x("[1,4]", "[0,0,0,0]")).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED, "{:?}", reply.body);
    reply.header("location").unwrap().to_owned()
}

/// What a job says once it is as wanted.
async fn once(app: &Router, location: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..6000 {
        let job = get(app, location).await.json();
        if wanted(&job) {
            return job;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{location} stays {}", get(app, location).await.json())
}

fn is(status: &'static str) -> impl Fn(&Value) -> bool {
    move |job| job["status"] == status
}

/// A route that answers with these codes in turn, and then with the last one for good.
fn answering(codes: &'static [u16], asked: &Arc<AtomicUsize>, body: String) -> axum::routing::MethodRouter {
    let asked = Arc::clone(asked);
    post(async move || {
        let turn = asked.fetch_add(1, SeqCst).min(codes.len() - 1);
        (StatusCode::from_u16(codes[turn]).unwrap(), [("content-type", "application/json")], body.clone())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overload_that_passes_delays_a_job_and_fails_none() {
    let (folder, asked) = (tempfile::tempdir().unwrap(), Arc::default());
    let later = Router::new().route(AFFINE, answering(&[504, 503, 200], &asked, "{}".into()));
    let server = Kept::open(folder.path(), Setup { later: Some(later), ..Setup::default() });
    let location = accepted(&server.app, AFFINE).await;
    let job = once(&server.app, &location, is("succeeded")).await;
    assert_eq!((&job["code"], asked.load(SeqCst)), (&json!(200), 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overload_that_lasts_fails_a_job_when_its_patience_ends() {
    let (folder, asked) = (tempfile::tempdir().unwrap(), Arc::default());
    let later = Router::new().route(AFFINE, answering(&[504], &asked, r#"{"error": "late"}"#.into()));
    let jobs = Options { patience: Duration::ZERO, ..Options::default() };
    let server = Kept::open(folder.path(), Setup { jobs, later: Some(later), ..Setup::default() });
    let location = accepted(&server.app, AFFINE).await;
    let job = once(&server.app, &location, is("failed")).await;
    assert_eq!((&job["code"], &job["error"], asked.load(SeqCst)), (&json!(504), &json!("late"), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_a_model_that_cannot_answer_wait_together_and_let_others_pass() {
    let (folder, asked, other) = (tempfile::tempdir().unwrap(), Arc::default(), Arc::default());
    let later = Router::new()
        .route(INT64, answering(&[503], &asked, "{}".into()))
        .route(AFFINE, answering(&[200], &other, "{}".into()));
    let jobs = Options { at_once: 1, ..Options::default() };
    let server = Kept::open(folder.path(), Setup { jobs, later: Some(later), ..Setup::default() });
    for _ in 0..20 {
        accepted(&server.app, INT64).await;
    }
    let location = accepted(&server.app, AFFINE).await;
    once(&server.app, &location, is("succeeded")).await;
    assert!(asked.load(SeqCst) < 20, "one asks for all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_comes_too_late_each_time_keeps_no_other_from_being_tried() {
    let folder = tempfile::tempdir().unwrap();
    let answer = async |body: String| match body.contains("hasty") {
        true => (StatusCode::GATEWAY_TIMEOUT, "{}"),
        false => (StatusCode::OK, "{}"),
    };
    let jobs = Options { at_once: 1, ..Options::default() };
    let later = Some(Router::new().route(AFFINE, post(answer)));
    let server = Kept::open(folder.path(), Setup { jobs, later, ..Setup::default() });
    let hasty = send(&server.app, "POST", AFFINE, &[("prefer", "respond-async")], "hasty").await;
    let patient = accepted(&server.app, AFFINE).await;
    once(&server.app, &patient, is("succeeded")).await;
    let hasty = get(&server.app, hasty.header("location").unwrap()).await.json();
    assert!(hasty["status"] == "queued" || hasty["status"] == "running", "{hasty}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_waits_for_room_on_the_disk() {
    let (folder, asked) = (tempfile::tempdir().unwrap(), Arc::default());
    let later = Router::new().route(AFFINE, answering(&[200], &asked, format!("\"{}\"", "a".repeat(10_000))));
    let jobs = Options { bytes: 15_000, ..Options::default() };
    let server = Kept::open(folder.path(), Setup { jobs, later: Some(later.clone()), ..Setup::default() });
    let first = accepted(&server.app, AFFINE).await;
    once(&server.app, &first, is("succeeded")).await;
    let second = accepted(&server.app, AFFINE).await;
    for _ in 0..6000 {
        if asked.load(SeqCst) > 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    once(&server.app, &second, is("queued")).await;
    assert_eq!(send(&server.app, "DELETE", &first, &[], "").await.status, StatusCode::OK);
    once(&server.app, &second, is("succeeded")).await;
    server.end().await;

    let jobs = Options { bytes: 15_000, patience: Duration::ZERO, ..Options::default() };
    let server = Kept::open(folder.path(), Setup { jobs, later: Some(later), ..Setup::default() });
    let third = accepted(&server.app, AFFINE).await;
    let job = once(&server.app, &third, is("failed")).await;
    assert_eq!(job["code"], 507);
    assert!(job["error"].as_str().unwrap().contains("fetch and delete some"), "{job}");
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder.join("jobs")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_who_go_away_leave_whole_jobs_and_no_files_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let server = Kept::open(folder.path(), Setup { idle: true, ..Setup::default() });
    let mut some = Vec::new();
    for _ in 0..12 {
        some.push(accepted(&server.app, AFFINE).await);
    }
    // Each time a little later in what is done for them.
    for (polls, location) in (1..=12).zip(some) {
        let body = x("[1,4]", &"0,".repeat(100_000));
        let request = Request::post(AFFINE).header("prefer", "respond-async").body(body.into());
        let request: Request<axum::body::Body> = request.unwrap();
        let accepting = server.app.clone().oneshot(request);
        let deleting = Request::delete(location).body(axum::body::Body::empty()).unwrap();
        let deleting = server.app.clone().oneshot(deleting);
        let mut both = Box::pin(futures::future::join(accepting, deleting));
        for _ in 0..polls {
            if futures::poll!(both.as_mut()).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    let mut seen = (0, 0);
    for _ in 0..1000 {
        seen = (files(folder.path()), get(&server.app, "/v2/jobs").await.json()["total"].as_u64().unwrap());
        if seen.0 as u64 == seen.1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(seen.0 as u64, seen.1);
}
