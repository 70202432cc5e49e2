//! One job as it is kept.

use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use types::Time;

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Accepted, and not begun.
    Queued,
    /// Being computed. After a crash it begins anew.
    Running,
    /// Its response is there.
    Succeeded,
    /// It has none, and won't be tried again.
    Failed,
}

impl Status {
    /// Whether nothing more happens.
    pub fn is_final(self) -> bool {
        matches!(self, Status::Succeeded | Status::Failed)
    }
}

/// Longest header that is kept, in bytes, and how many of one name.
const LONGEST_HEADER: usize = 4096;
const MOST_ALIKE: usize = 32;

/// A request that is answered later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Job {
    pub id: String,
    pub status: Status,
    /// Path and query of the request.
    pub target: String,
    /// What the request's body is.
    pub headers: Vec<(String, String)>,
    pub request_bytes: u64,
    pub accepted: Time,
    pub finished: Option<Time>,
    /// How many processes ended that had begun it.
    pub begun: u32,
    /// What the response's body is.
    pub response: Option<Response>,
    pub callback: Option<Callback>,
    /// When this process accepted, read or finished it: ages are told by this clock, which never jumps.
    #[serde(skip, default = "Instant::now")]
    pub since: Instant,
}

/// An answer whose body is in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Response {
    pub code: u16,
    pub headers: Vec<(String, String)>,
    pub bytes: u64,
    /// Why the job failed.
    pub error: Option<String>,
}

impl Response {
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Whether the body is JSON as it is.
    pub fn is_json(&self) -> bool {
        self.headers
            .iter()
            .any(|(name, value)| name == "content-type" && value.starts_with("application/json"))
    }
}

/// Who is to be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Callback {
    pub url: String,
    pub tries: u32,
    pub state: Told,
    /// Why the last try failed.
    pub error: Option<String>,
}

/// Whether somebody was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Told {
    Waiting,
    Delivered,
    /// Given up.
    Failed,
}

impl Job {
    /// As it is found after the process that kept it has ended.
    pub fn reopened(self) -> Job {
        match self.status {
            Status::Running => Job { status: Status::Queued, begun: self.begun + 1, ..self },
            Status::Queued => self,
            Status::Succeeded | Status::Failed => {
                let age = self.finished.map(|finished| daemon::now().0.duration_since(finished.0));
                let age =
                    age.filter(|age| age.is_positive()).map_or(Duration::ZERO, |age| age.unsigned_abs());
                Job { since: self.since.checked_sub(age).unwrap_or(self.since), ..self }
            }
        }
    }

    /// What it asks, without the query: the version of a model, by one of its names.
    pub fn address(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The kind of file that it needs.
    pub fn file_kind(&self) -> &'static str {
        if self.status.is_final() { "response" } else { "request" }
    }

    /// Bytes that it takes on the disk.
    pub fn bytes(&self) -> u64 {
        self.request_bytes + self.response.as_ref().map_or(0, |response| response.bytes)
    }

    /// Whether somebody still has to be told.
    pub fn is_to_be_told(&self) -> bool {
        let waiting = |callback: &Callback| callback.state == Told::Waiting;
        self.status.is_final() && self.callback.as_ref().is_some_and(waiting)
    }
}

/// Those of these headers that are there, each as often as it is; none that is too long to be kept.
pub(super) fn pick(headers: &HeaderMap, names: &[&str]) -> Vec<(String, String)> {
    let texts = |name: &'_ &str| {
        let name = (*name).to_owned();
        let values = headers.get_all(&name).iter().filter_map(|value| value.to_str().ok().map(str::to_owned));
        let values: Vec<String> =
            values.filter(|value| value.len() <= LONGEST_HEADER).take(MOST_ALIKE).collect();
        values.into_iter().map(move |value| (name.clone(), value))
    };
    names.iter().flat_map(texts).collect()
}

/// The headers of a record.
pub(super) fn headers(kept: &[(String, String)]) -> HeaderMap {
    let parse = |(name, value): &(String, String)| {
        Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
    };
    let mut headers = HeaderMap::new();
    for (name, value) in kept.iter().filter_map(parse) {
        headers.append(name, value);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(status: &str, finished: Option<Time>) -> Job {
        let json = serde_json::json!({
            "id": "a", "status": status, "target": "/v2/models/m/infer?x=y", "headers": [], "request_bytes": 1,
            "accepted": "2026-01-01T00:00:00Z", "finished": finished, "begun": 0, "response": null, "callback": null,
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn only_a_process_that_ended_while_it_computed_a_job_counts_against_it() {
        assert_eq!(job("queued", None).reopened().begun, 0);
        let once = job("running", None).reopened();
        assert_eq!((once.begun, once.status), (1, Status::Queued));
        assert_eq!(once.reopened().begun, 1);
    }

    #[test]
    fn a_result_is_as_old_as_the_clock_says_at_the_start_but_never_of_tomorrow() {
        let hour = Duration::from_secs(3600);
        let age = |finished| job("succeeded", Some(Time(finished))).reopened().since.elapsed();
        assert!(age(daemon::now().0 - hour) >= hour);
        assert!(age(daemon::now().0 + hour) < hour);
        assert!(job("queued", None).reopened().since.elapsed() < hour, "waiting counts from the start");
    }
}
