//! A request that prefers to be answered later becomes a job.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use store::ledger;

use super::callback::Refused;
use super::record::{Callback, Job, Status, Told, pick};
use super::room::{Full, Room};
use super::{Error, Jobs, TABLE};
use crate::error::ApiError;

/// For how long a client may be kept waiting for the response itself.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// What a job keeps of its request's headers: what the body is, and whose trace it belongs to. How the answer may be
/// packed isn't kept, so that responses are kept unpacked.
const KEPT: [&str; 5] =
    ["content-type", "content-encoding", "inference-header-content-length", "traceparent", "tracestate"];
/// Longest path and query in bytes, and longest URL to call back.
const LONGEST: usize = 2048;
/// Seconds after which to try again when there is no room.
const RETRY_AFTER: &str = "30";

/// Why a request is no job.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error(transparent)]
    Inference(#[from] inference::Error),
    #[error(transparent)]
    Callback(#[from] Refused),
    #[error("the header Avocet-Callback needs Prefer: respond-async beside it")]
    NotLater,
    #[error("the path or callback is over {LONGEST} bytes; make it shorter")]
    Long,
    #[error("the body can't be read to its end, or is over the limit of {limit} bytes")]
    Body { limit: usize },
    #[error("there are {jobs} jobs of {bytes} bytes already; fetch and delete some, or try again later")]
    Full { jobs: usize, bytes: u64 },
    #[error(transparent)]
    Bounded(ApiError),
    #[error(transparent)]
    Kept(#[from] Error),
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = match &self {
            Problem::Inference(_) => StatusCode::NOT_FOUND,
            Problem::Callback(Refused::NotAllowed(_)) => StatusCode::FORBIDDEN,
            Problem::Callback(_) | Problem::NotLater | Problem::Long => StatusCode::BAD_REQUEST,
            Problem::Body { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Problem::Full { .. } => StatusCode::TOO_MANY_REQUESTS,
            Problem::Bounded(error) => error.status(),
            Problem::Kept(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let text = daemon::chain(&self);
        let mut response = super::front::refusal(status, &text);
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            let seconds = axum::http::HeaderValue::from_static(RETRY_AFTER);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

/// Answers at once unless the client prefers to be answered later.
pub(super) async fn later(State(jobs): State<Jobs>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let wanted = Wanted::of(request.uri(), request.headers());
    match wanted {
        None if request.headers().contains_key("avocet-callback") => Problem::NotLater.into_response(),
        None => next.run(request).await,
        Some(wanted) => jobs.accept(&wanted, request).await.unwrap_or_else(IntoResponse::into_response),
    }
}

/// A model's version, to be asked later.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    model: String,
    version: Option<String>,
    /// For how long the client waits for the response before it is told where that will be.
    wait: Duration,
}

impl Wanted {
    fn of(uri: &Uri, headers: &HeaderMap) -> Option<Wanted> {
        let parts: Vec<&str> = uri.path().split('/').skip(1).collect();
        let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        let preferences: Vec<&str> =
            values.flat_map(|value| value.split([',', ';'])).map(str::trim).collect();
        let prefers = preferences.iter().any(|preference| preference.eq_ignore_ascii_case("respond-async"));
        let wait = preferences.iter().find_map(|preference| wait(preference)).unwrap_or_default();
        let wanted = |model: &str, version: Option<&str>| {
            Some(Wanted { model: model.into(), version: version.map(str::to_owned), wait })
        };
        match parts.as_slice() {
            ["v2", "models", model, "infer"] if prefers => wanted(model, None),
            ["v2", "models", model, "versions", version, "infer"] if prefers => wanted(model, Some(version)),
            ["api", "v1", "models", tag, "prediction"] if prefers || asks(uri) => {
                let (model, version) = tag.split_once(':').unwrap_or((tag, "default"));
                wanted(model, Some(version).filter(|version| *version != "default"))
            }
            _ => None,
        }
    }
}

/// How long `wait=SECONDS` says, within what is granted.
fn wait(preference: &str) -> Option<Duration> {
    let (name, seconds) = preference.split_once('=')?;
    let seconds: u64 = seconds.trim().parse().ok().filter(|_| name.trim().eq_ignore_ascii_case("wait"))?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

/// Whether MLBuffet's route is asked with `?async=true`.
fn asks(uri: &Uri) -> bool {
    uri.query().unwrap_or_default().split('&').any(|pair| pair == "async=true")
}

impl Jobs {
    async fn accept(&self, wanted: &Wanted, request: Request) -> Result<Response, Problem> {
        let known = self.inner.repository.get(&wanted.model, wanted.version.as_deref());
        if let Err(
            error @ (inference::Error::UnknownModel { .. } | inference::Error::UnknownVersion { .. }),
        ) = known
        {
            return Err(error.into());
        }
        let callback = self.callback(request.headers())?;
        let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
        if target.len() > LONGEST {
            return Err(Problem::Long);
        }
        let headers = pick(request.headers(), &KEPT);
        let (body, held) = self.inner.bodies.bound(request.into_body());
        let body = self.body(body).await;
        held.check().map_err(Problem::Bounded)?;
        let body = body?;
        let accepted = daemon::now();
        let random = daemon::random_hex(12).map_err(Error::Disk)?;
        let job = Job {
            // In the order of acceptance, and nobody guesses one.
            id: format!("{:012x}{random}", accepted.0.as_millisecond()),
            status: Status::Queued,
            target,
            headers,
            request_bytes: body.len() as u64,
            accepted,
            finished: None,
            begun: 0,
            response: None,
            callback,
            since: Instant::now(),
        };
        let (id, location) = (job.id.clone(), format!("/v2/jobs/{}", job.id));
        let room = self.room_for_request(&id, job.request_bytes);
        let room = room.map_err(|Full { jobs, bytes }| Problem::Full { jobs, bytes })?;
        self.keep(job, body, room).await?;
        drop(held);
        if let Some(response) = self.response_within(&id, wanted.wait).await {
            return Ok(([("location", location)], response).into_response());
        }
        let answer = json!({ "id": id, "status": Status::Queued });
        let headers = [
            ("location", location.as_str()),
            ("preference-applied", "respond-async"),
            ("content-type", "application/json"),
        ];
        Ok((StatusCode::ACCEPTED, headers, answer.to_string()).into_response())
    }

    /// The response of a job, if it is there within that time.
    async fn response_within(&self, id: &str, wait: Duration) -> Option<Response> {
        if wait.is_zero() {
            return None;
        }
        let mut saved = self.inner.saved.subscribe();
        let finished = async {
            loop {
                // One that is deleted is not waited for.
                let job = self.get(id)?;
                if job.response.is_some() {
                    return Some(super::front::kept_response(self, &job).await);
                }
                saved.changed().await.ok()?;
            }
        };
        tokio::time::timeout(wait, finished).await.ok().flatten()
    }

    fn callback(&self, headers: &HeaderMap) -> Result<Option<Callback>, Problem> {
        let Some(url) = headers.get("avocet-callback") else { return Ok(None) };
        let url = url.to_str().map_err(|error| Refused::Url(error.to_string()))?;
        if url.len() > LONGEST {
            return Err(Problem::Long);
        }
        let url = self.inner.options.origins.check(url)?.to_string();
        Ok(Some(Callback { url, tries: 0, state: Told::Waiting, error: None }))
    }

    async fn body(&self, body: Body) -> Result<axum::body::Bytes, Problem> {
        let limit = self.inner.options.body_limit;
        axum::body::to_bytes(body, limit).await.map_err(|_| Problem::Body { limit })
    }

    /// Makes a job durable and puts it in line. Once the commit has begun it is done even if nobody waits for it any
    /// more; before, nothing stays.
    async fn keep(&self, job: Job, body: axum::body::Bytes, room: Room) -> Result<(), Error> {
        let written = tokio::task::spawn_blocking(move || room.fill(&body)).await;
        let room = written.map_err(std::io::Error::other)??;
        let (record, jobs) = (job.clone(), self.clone());
        let change = move |tables: &ledger::Tables| Ok::<_, Error>(tables.put(TABLE, &record.id, &record)?);
        let show = move |()| {
            let mut table = jobs.table();
            jobs.inner.runs.push(job.id.clone());
            table.jobs.insert(job.id.clone(), job);
            drop(table);
            room.keep();
        };
        self.inner.ledger.write_then(change, show).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(uri: &str, prefer: &'static str) -> Option<Wanted> {
        let headers =
            HeaderMap::from_iter([(header::HeaderName::from_static("prefer"), prefer.parse().unwrap())]);
        Wanted::of(&uri.parse().unwrap(), &headers)
    }

    #[test]
    fn only_inference_is_done_later_and_only_if_that_is_preferred() {
        let m = |version: Option<&str>, wait| {
            let wait = Duration::from_secs(wait);
            Some(Wanted { model: "m".into(), version: version.map(str::to_owned), wait })
        };
        let later = "wait=10, Respond-Async";
        assert_eq!(wanted("/v2/models/m/infer", later), m(None, 10));
        assert_eq!(wanted("/v2/models/m/infer", "respond-async, wait=86400"), m(None, 60));
        assert_eq!(wanted("/v2/models/m/infer", "respond-async; wait=-1"), m(None, 0));
        assert_eq!(wanted("/v2/models/m/versions/2/infer", later), m(Some("2"), 10));
        assert_eq!(wanted("/api/v1/models/m:3/prediction", later), m(Some("3"), 10));
        assert_eq!(wanted("/api/v1/models/m/prediction?async=true", ""), m(None, 0));
        for other in ["/v2/models/m", "/v2/repository/index", "/v2/models/m/infer/x", "/api/v1/models/m"] {
            assert_eq!(wanted(other, later), None, "{other}");
        }
        assert_eq!(wanted("/v2/models/m/infer?async=true", "return=minimal"), None);
    }
}
