//! Computes jobs, tells who wants to know, and forgets what is old.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode};
use daemon::Shutdown;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::record::{self, Job, Response, Status, pick};
use super::room::Room;
use super::{Error, Jobs};

/// What is kept of a response's headers.
const KEPT: [&str; 2] = ["content-type", "inference-header-content-length"];
/// How often a job is begun that ends the process each time.
const BEGINNINGS: u32 = 3;
/// How long to wait for records or files that can't be read or written.
const REPAIR: Duration = Duration::from_secs(5);
/// What puts a job that was tried behind all that wait for the same, so that it can't keep them from ever being tried.
const BEHIND: Duration = Duration::from_millis(1);
/// How often old jobs are looked for.
const SWEEP: Duration = Duration::from_secs(30);
/// Callbacks that are sent at once.
const CALLS: usize = 4;
/// Longest error text that is kept, in characters.
const ERROR_TEXT: usize = 4096;

/// What became of a request.
struct Answer {
    status: StatusCode,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Answer {
    fn error(status: StatusCode, text: &str) -> Answer {
        let body = serde_json::json!({ "error": text }).to_string().into();
        Answer { status, headers: vec![("content-type".into(), "application/json".into())], body }
    }
}

impl Jobs {
    /// Computes jobs with `router`, which is the one that answers at once, until the shutdown. Once `ready` says yes,
    /// a model that isn't there is a failure; before, it may still come. What goes wrong with records or files is
    /// logged and tried again.
    pub async fn run(&self, router: Router, ready: impl Fn() -> bool + Send + Sync, shutdown: Shutdown) {
        self.line_up();
        let lanes =
            (0..self.inner.options.at_once.max(1)).map(|_| self.compute_all(&router, &ready, &shutdown));
        let calls = (0..CALLS).map(|_| self.call_all(&shutdown));
        tokio::join!(
            futures::future::join_all(lanes),
            futures::future::join_all(calls),
            self.sweep_all(&shutdown),
        );
    }

    /// Puts all in line for whom there is something to do. Those that come meanwhile wait for the table, and come once.
    fn line_up(&self) {
        let table = self.table();
        let of = |wanted: fn(&Job) -> bool| {
            table.jobs.values().filter(move |job| wanted(job)).map(|job| job.id.clone())
        };
        self.inner.runs.reset(of(|job| !job.status.is_final()));
        self.inner.calls.reset(of(Job::is_to_be_told));
    }

    async fn compute_all(
        &self,
        router: &Router,
        ready: &(impl Fn() -> bool + Send + Sync),
        shutdown: &Shutdown,
    ) {
        while let Some(id) = self.inner.runs.next(shutdown).await {
            let Some(job) = self.get(&id).filter(|job| !job.status.is_final()) else { continue };
            let pause = self.table().pauses.until(job.address(), Instant::now());
            if let Some(until) = pause.filter(|_| self.may_wait(&job)) {
                self.inner.runs.push_at(id, until);
                continue;
            }
            let token = CancellationToken::new();
            self.table().running.insert(id.clone(), token.clone());
            let computed = self.compute(job, router, ready, &token, shutdown).await;
            self.table().running.remove(&id);
            if let Err(error) = computed {
                let error = daemon::chain(&error);
                tracing::warn!(job = id, error, "it can't be computed now; it is tried again");
                self.inner.runs.push_later(id, REPAIR);
            }
        }
    }

    fn may_wait(&self, job: &Job) -> bool {
        job.since.elapsed() < self.inner.options.patience
    }

    async fn compute(
        &self,
        job: Job,
        router: &Router,
        ready: &(impl Fn() -> bool + Send + Sync),
        token: &CancellationToken,
        shutdown: &Shutdown,
    ) -> Result<(), Error> {
        if job.begun >= BEGINNINGS {
            let text =
                format!("the process ended {BEGINNINGS} times while it computed this; it is not tried again");
            let (answer, room) = self.admit(&job, Answer::error(StatusCode::INTERNAL_SERVER_ERROR, &text));
            return self.finish(job, answer, room).await;
        }
        self.save(Job { status: Status::Running, ..job.clone() }, None).await?;
        let answer = tokio::select! {
            answer = self.ask(&job, router) => answer?,
            // Whoever deleted it has forgotten it already; at a shutdown it waits for the next start.
            () = token.cancelled() => return Ok(()),
            () = shutdown.wait() => return self.save(Job { status: Status::Queued, ..job }, None).await,
        };
        let (answer, room) = self.admit(&job, answer);
        let may_come = match answer.status {
            // Too many wait, it waited too long behind them, or there is no room for what came of it.
            StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
            | StatusCode::INSUFFICIENT_STORAGE => true,
            StatusCode::NOT_FOUND => !ready(),
            _ => false,
        };
        if may_come && self.may_wait(&job) {
            let (id, until) = (job.id.clone(), self.table().pauses.begin(job.address(), Instant::now()));
            self.save(Job { status: Status::Queued, ..job }, None).await?;
            self.inner.runs.push_at(id, until + BEHIND);
            return Ok(());
        }
        self.table().pauses.end(job.address());
        self.finish(job, answer, room).await
    }

    /// The answer that the client would have got at once.
    async fn ask(&self, job: &Job, router: &Router) -> Result<Answer, Error> {
        let Ok(body) = tokio::fs::read(self.file(&job.id, "request")).await else {
            let text = "the request's body is lost; send it again";
            return Ok(Answer::error(StatusCode::INTERNAL_SERVER_ERROR, text));
        };
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = axum::http::Method::POST;
        *request.uri_mut() = job.target.parse().map_err(std::io::Error::other)?;
        *request.headers_mut() = record::headers(&job.headers);
        let response = match router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let (status, headers) = (response.status(), pick(response.headers(), &KEPT));
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await;
        Ok(Answer { status, headers, body: body.map_err(std::io::Error::other)? })
    }

    /// Room for an answer; one for which there is none becomes an error that says so.
    fn admit(&self, job: &Job, answer: Answer) -> (Answer, Room) {
        let bytes = answer.body.len() as u64;
        let claimed = match answer.status.is_success() {
            true => self.room_for_response(&job.id, bytes, job.request_bytes),
            false => Ok(self.room_for_error(&job.id, bytes)),
        };
        let full = match claimed {
            Ok(room) => return (answer, room),
            Err(full) => full,
        };
        let text = format!(
            "there is no room for the response of {bytes} bytes beside the {} bytes of {} jobs; fetch and delete some",
            full.bytes, full.jobs
        );
        let answer = Answer::error(StatusCode::INSUFFICIENT_STORAGE, &text);
        let room = self.room_for_error(&job.id, answer.body.len() as u64);
        (answer, room)
    }

    async fn finish(&self, job: Job, answer: Answer, room: Room) -> Result<(), Error> {
        let Answer { status, headers, body } = answer;
        let error = (!status.is_success()).then(|| error_text(&body));
        let bytes = body.len() as u64;
        let written = tokio::task::spawn_blocking(move || room.fill(&body)).await;
        let room = written.map_err(std::io::Error::other)??;
        let done = if status.is_success() { Status::Succeeded } else { Status::Failed };
        let response = Some(Response { code: status.as_u16(), headers, bytes, error });
        let (finished, since) = (Some(daemon::now()), std::time::Instant::now());
        let job = Job { status: done, finished, since, response, request_bytes: 0, ..job };
        let (id, told) = (job.id.clone(), job.is_to_be_told());
        self.save(job, Some(room)).await?;
        let _ = tokio::fs::remove_file(self.file(&id, "request")).await;
        if told {
            self.inner.calls.push(id);
        }
        Ok(())
    }

    async fn call_all(&self, shutdown: &Shutdown) {
        while let Some(id) = self.inner.calls.next(shutdown).await {
            let called = tokio::select! {
                called = self.call(&id) => called,
                () = shutdown.wait() => return,
            };
            if let Err(error) = called {
                let error = daemon::chain(&error);
                tracing::warn!(job = id, error, "it can't be told of now; it is tried again");
                self.inner.calls.push_later(id, REPAIR);
            }
        }
    }

    async fn sweep_all(&self, shutdown: &Shutdown) {
        while !shutdown.is_due() {
            let keep = self.inner.options.keep;
            let is_old = |job: &&Job| job.status.is_final() && job.since.elapsed() >= keep;
            let old: Vec<String> =
                self.table().jobs.values().filter(is_old).map(|job| job.id.clone()).collect();
            for id in old {
                if let Err(error) = self.delete(&id).await {
                    tracing::warn!(job = id, error = daemon::chain(&error), "an old job can't be deleted");
                }
            }
            shutdown.sleep(SWEEP).await;
        }
    }
}

/// What an error's body says, in either protocol's form.
fn error_text(body: &[u8]) -> String {
    let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = parsed.get("error").or_else(|| parsed.pointer("/http_status/description"));
    text.and_then(Value::as_str).unwrap_or("no reason was given").chars().take(ERROR_TEXT).collect()
}
