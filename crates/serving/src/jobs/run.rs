//! Computes jobs, tells who wants to know, and forgets what is old.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode};
use daemon::Shutdown;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::record::{self, Job, Response, Status, pick};
use super::{Error, Jobs};

/// What is kept of a response's headers.
const KEPT: [&str; 2] = ["content-type", "inference-header-content-length"];
/// How often a job is begun that ends the process each time.
const BEGINNINGS: u32 = 3;
/// How long a job waits that can't be computed now.
const RETRY: Duration = Duration::from_secs(2);
/// How often old jobs are looked for.
const SWEEP: Duration = Duration::from_secs(30);
/// Callbacks that are sent at once.
const CALLS: usize = 4;
/// Longest error text that is kept, in characters.
const ERROR_TEXT: usize = 4096;

impl Jobs {
    /// Computes jobs with `router`, which is the one that answers at once, until the shutdown. Once `ready` says yes,
    /// a model that isn't there is a failure; before, it may still come.
    ///
    /// # Errors
    /// When records or files can't be written; call it again then.
    pub async fn run(
        &self,
        router: Router,
        ready: impl Fn() -> bool + Send + Sync,
        shutdown: Shutdown,
    ) -> Result<(), Error> {
        let all: Vec<Job> = self.table().jobs.values().cloned().collect();
        let unfinished = all.iter().filter(|job| !job.status.is_final());
        self.inner.runs.reset(unfinished.map(|job| job.id.clone()));
        let untold = all.iter().filter(|job| job.is_to_be_told());
        self.inner.calls.reset(untold.map(|job| job.id.clone()));
        let lanes =
            (0..self.inner.options.at_once.max(1)).map(|_| self.compute_all(&router, &ready, &shutdown));
        let calls = (0..CALLS).map(|_| self.call_all(&shutdown));
        tokio::try_join!(
            futures::future::try_join_all(lanes),
            futures::future::try_join_all(calls),
            self.sweep_all(&shutdown),
        )?;
        Ok(())
    }

    async fn compute_all(
        &self,
        router: &Router,
        ready: &(impl Fn() -> bool + Send + Sync),
        shutdown: &Shutdown,
    ) -> Result<(), Error> {
        while let Some(id) = self.inner.runs.next(shutdown).await {
            let Some(job) = self.get(&id).filter(|job| !job.status.is_final()) else { continue };
            self.compute(job, router, ready, shutdown).await?;
        }
        Ok(())
    }

    async fn compute(
        &self,
        job: Job,
        router: &Router,
        ready: &(impl Fn() -> bool + Send + Sync),
        shutdown: &Shutdown,
    ) -> Result<(), Error> {
        if job.begun >= BEGINNINGS {
            let text =
                format!("the process ended {BEGINNINGS} times while it computed this; it is not tried again");
            return self.finish(job, StatusCode::INTERNAL_SERVER_ERROR, vec![], error_body(&text)).await;
        }
        let token = CancellationToken::new();
        self.table().running.insert(job.id.clone(), token.clone());
        let job = Job { status: Status::Running, begun: job.begun + 1, ..job };
        self.save(job.clone()).await?;
        let answered = tokio::select! {
            answered = self.ask(&job, router) => Some(answered?),
            () = token.cancelled() => None,
            () = shutdown.wait() => None,
        };
        self.table().running.remove(&job.id);
        let again = Job { status: Status::Queued, begun: job.begun - 1, ..job.clone() };
        // Whoever deleted it has forgotten it already; at a shutdown it waits for the next start.
        let Some((status, headers, body)) = answered else { return self.save(again).await };
        let may_come = match status {
            StatusCode::SERVICE_UNAVAILABLE => true,
            StatusCode::NOT_FOUND => !ready(),
            _ => false,
        };
        let age = daemon::now().0.duration_since(job.accepted.0).unsigned_abs();
        if may_come && age < self.inner.options.patience {
            let id = again.id.clone();
            self.save(again).await?;
            self.inner.runs.push_later(id, RETRY);
            return Ok(());
        }
        self.finish(job, status, headers, body).await
    }

    /// The answer that the client would have got at once.
    async fn ask(
        &self,
        job: &Job,
        router: &Router,
    ) -> Result<(StatusCode, Vec<(String, String)>, Bytes), Error> {
        let Ok(body) = tokio::fs::read(self.file(&job.id, "request")).await else {
            let text = "the request's body is lost; send it again";
            return Ok((StatusCode::INTERNAL_SERVER_ERROR, vec![], error_body(text)));
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
        Ok((status, headers, body.map_err(std::io::Error::other)?))
    }

    async fn finish(
        &self,
        job: Job,
        status: StatusCode,
        headers: Vec<(String, String)>,
        body: Bytes,
    ) -> Result<(), Error> {
        let error = (!status.is_success()).then(|| error_text(&body));
        let (file, bytes) = (self.file(&job.id, "response"), body.len() as u64);
        let written = tokio::task::spawn_blocking(move || daemon::write_private(&file, &body)).await;
        written.map_err(std::io::Error::other)??;
        let done = if status.is_success() { Status::Succeeded } else { Status::Failed };
        let response = Some(Response { code: status.as_u16(), headers, bytes, error });
        let job = Job { status: done, finished: Some(daemon::now()), response, request_bytes: 0, ..job };
        let (id, told) = (job.id.clone(), job.is_to_be_told());
        self.save(job).await?;
        let _ = tokio::fs::remove_file(self.file(&id, "request")).await;
        if self.get(&id).is_none() {
            // It was deleted meanwhile.
            let _ = tokio::fs::remove_file(self.file(&id, "response")).await;
        } else if told {
            self.inner.calls.push(id);
        }
        Ok(())
    }

    async fn call_all(&self, shutdown: &Shutdown) -> Result<(), Error> {
        while let Some(id) = self.inner.calls.next(shutdown).await {
            tokio::select! {
                called = self.call(&id) => called?,
                () = shutdown.wait() => {}
            }
        }
        Ok(())
    }

    async fn sweep_all(&self, shutdown: &Shutdown) -> Result<(), Error> {
        while !shutdown.is_due() {
            let (now, keep) = (daemon::now(), self.inner.options.keep);
            let is_old = |job: &Job| {
                job.finished.is_some_and(|finished| {
                    let age = now.0.duration_since(finished.0);
                    age.is_positive() && age.unsigned_abs() >= keep
                })
            };
            let old: Vec<String> =
                self.table().jobs.values().filter(|job| is_old(job)).map(|job| job.id.clone()).collect();
            for id in old {
                self.delete(&id).await?;
            }
            shutdown.sleep(SWEEP).await;
        }
        Ok(())
    }
}

fn error_body(text: &str) -> Bytes {
    serde_json::json!({ "error": text }).to_string().into()
}

/// What an error's body says, in either protocol's form.
fn error_text(body: &[u8]) -> String {
    let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = parsed.get("error").or_else(|| parsed.pointer("/http_status/description"));
    text.and_then(Value::as_str).unwrap_or("no reason was given").chars().take(ERROR_TEXT).collect()
}
