//! `/v2/jobs`: what became of jobs.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio_util::io::ReaderStream;

use super::accept;
use super::record::{self, Job, Status};
use super::{Error, Jobs};

/// Jobs in a list where the client doesn't say, and at most.
const LISTED: (usize, usize) = (100, 1000);

impl Jobs {
    /// The routes below `/v2/jobs` beside those that answer at once, which now answer later, too. Listing asks the
    /// guard; a job's id is known to nobody but who was given it.
    pub fn router(&self, answering: Router) -> Router {
        let list = Router::new()
            .route("/v2/jobs", get(list))
            .layer(from_fn_with_state(self.clone(), admit))
            .with_state(self.clone());
        let one = Router::new()
            .route("/v2/jobs/{id}", get(show).delete(cancel))
            .route("/v2/jobs/{id}/response", get(response))
            .with_state(self.clone());
        answering.layer(from_fn_with_state(self.clone(), accept::later)).merge(list).merge(one)
    }
}

async fn admit(State(jobs): State<Jobs>, request: Request, next: Next) -> Response {
    match jobs.inner.guard.admit(request.headers()).await {
        Ok(()) => next.run(request).await,
        Err(text) => refusal(StatusCode::UNAUTHORIZED, &text),
    }
}

/// An error in the protocol's form.
pub(super) fn refusal(status: StatusCode, text: &str) -> Response {
    if status.is_server_error() {
        tracing::warn!(error = text, "request failed");
    }
    (status, [(header::CONTENT_TYPE, "application/json")], json!({ "error": text }).to_string())
        .into_response()
}

fn failed(error: &Error) -> Response {
    refusal(StatusCode::INTERNAL_SERVER_ERROR, &daemon::chain(error))
}

fn unknown(id: &str) -> Response {
    let id: String = id.chars().take(64).collect();
    let text = format!("there is no job `{id}`; responses are kept for a while only");
    refusal(StatusCode::NOT_FOUND, &text)
}

fn answer(json: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], json).into_response()
}

#[derive(Deserialize)]
struct Wanted {
    limit: Option<usize>,
    status: Option<Status>,
}

/// The latest first, without responses.
async fn list(
    State(jobs): State<Jobs>,
    wanted: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Ok(Query(wanted)) = wanted else {
        let text =
            "the query is not valid; send limit=NUMBER and status=queued, running, succeeded or failed";
        return refusal(StatusCode::BAD_REQUEST, text);
    };
    let limit = wanted.limit.unwrap_or(LISTED.0).min(LISTED.1);
    let table = jobs.table();
    let matching =
        table.jobs.values().rev().filter(|job| wanted.status.is_none_or(|status| status == job.status));
    let lines: Vec<Value> = matching.take(limit).map(|job| Value::Object(members(job))).collect();
    answer(json!({ "jobs": lines, "total": table.jobs.len() }).to_string())
}

async fn show(State(jobs): State<Jobs>, Path(id): Path<String>) -> Response {
    let Some(job) = jobs.get(&id) else { return unknown(&id) };
    match describe(&jobs, &job).await {
        Ok(text) => answer(text),
        Err(error) => failed(&error),
    }
}

/// What is told of a job, its response included where that is JSON.
pub(super) async fn describe(jobs: &Jobs, job: &Job) -> Result<String, Error> {
    let mut text = Value::Object(members(job)).to_string();
    let succeeded = job.response.as_ref().filter(|_| job.status == Status::Succeeded);
    if succeeded.is_some_and(record::Response::is_json) {
        let response = tokio::fs::read_to_string(jobs.file(&job.id, "response")).await?;
        // An object, so that there is a brace to put it before.
        text.truncate(text.len().saturating_sub(1));
        text.push_str(",\"response\":");
        text.push_str(response.trim_end());
        text.push('}');
    }
    Ok(text)
}

fn members(job: &Job) -> Map<String, Value> {
    let mut members = Map::from_iter([
        ("id".to_owned(), json!(job.id)),
        ("status".to_owned(), json!(job.status)),
        ("request".to_owned(), json!(job.target)),
        ("accepted".to_owned(), json!(job.accepted)),
    ]);
    if let Some(finished) = job.finished {
        members.insert("finished".into(), json!(finished));
    }
    if let Some(response) = &job.response {
        members.insert("code".into(), json!(response.code));
        members.insert("response_url".into(), format!("/v2/jobs/{}/response", job.id).into());
        if let Some(error) = &response.error {
            members.insert("error".into(), json!(error));
        }
    }
    if let Some(callback) = &job.callback {
        let record::Callback { url, tries, state, error } = callback;
        let told = json!({ "url": url, "tries": tries, "status": state, "error": error });
        members.insert("callback".into(), told);
    }
    members
}

/// The very response that the request would have got at once; 202 while there is none.
async fn response(State(jobs): State<Jobs>, Path(id): Path<String>) -> Response {
    let Some(job) = jobs.get(&id) else { return unknown(&id) };
    if job.response.is_some() {
        return kept_response(&jobs, &job).await;
    }
    let text = Value::Object(members(&job)).to_string();
    let headers = HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::RETRY_AFTER, HeaderValue::from_static("1")),
    ]);
    (StatusCode::ACCEPTED, headers, text).into_response()
}

/// The response that is kept of a job.
pub(super) async fn kept_response(jobs: &Jobs, job: &Job) -> Response {
    let Some(kept) = &job.response else { return unknown(&job.id) };
    match tokio::fs::File::open(jobs.file(&job.id, "response")).await {
        Ok(file) => {
            let mut headers = record::headers(&kept.headers);
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(kept.bytes));
            (kept.status(), headers, Body::from_stream(ReaderStream::new(file))).into_response()
        }
        Err(_) => unknown(&job.id),
    }
}

/// Stops a job, or forgets what came of it.
async fn cancel(State(jobs): State<Jobs>, Path(id): Path<String>) -> Response {
    let Some(job) = jobs.get(&id) else { return unknown(&id) };
    match jobs.delete(&id).await {
        Ok(()) => {
            let status = if job.status.is_final() { "deleted" } else { "cancelled" };
            answer(json!({ "id": id, "status": status }).to_string())
        }
        Err(error) => failed(&error),
    }
}
