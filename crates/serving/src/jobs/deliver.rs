//! Sends what became of a job to whom its sender named: at least once, signed.

use std::time::Duration;

use super::callback::signature;
use super::record::{Callback, Job, Told};
use super::{Error, Jobs, front};

/// How long the other side may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is tried; with waits that double up to an hour this is most of a day.
const TRIES: u32 = 24;
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// A client that goes where it is sent and no further.
pub(super) fn client() -> Result<reqwest::Client, String> {
    // A machine without a list of authorities can still be called over plain HTTP.
    let tls = daemon::tls::client_of_all().or_else(|_| daemon::tls::client_of_nobody());
    let tls = tls.map_err(|error| error.to_string())?;
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(PATIENCE)
        .build();
    client.map_err(|error| daemon::chain(&error))
}

impl Jobs {
    /// Tries once to tell of a job, and remembers what came of it.
    pub(super) async fn call(&self, id: &str) -> Result<(), Error> {
        let Some(job) = self.get(id).filter(Job::is_to_be_told) else { return Ok(()) };
        let Some(callback) = job.callback.clone() else { return Ok(()) };
        let outcome = self.send(&job, &callback.url).await;
        let tries = callback.tries + 1;
        let state = match &outcome {
            Ok(()) => Told::Delivered,
            Err(_) if tries >= TRIES => Told::Failed,
            Err(_) => Told::Waiting,
        };
        if let Err(problem) = &outcome {
            tracing::warn!(job = id, tries, problem, "the result was not delivered");
        }
        let callback = Callback { tries, state, error: outcome.err(), ..callback };
        self.save(Job { callback: Some(callback), ..job }, None).await?;
        if state == Told::Waiting {
            let wait = FIRST_WAIT.saturating_mul(1 << tries.min(16)).min(LONGEST_WAIT);
            self.inner.calls.push_later(id.to_owned(), wait);
        }
        Ok(())
    }

    async fn send(&self, job: &Job, url: &str) -> Result<(), String> {
        // What was allowed when the job came may not be any more.
        let url = self.inner.options.origins.check(url).map_err(|error| error.to_string())?;
        let body = front::describe(self, job).await.map_err(|error| error.to_string())?;
        let timestamp = daemon::now().0.as_second().to_string();
        let signed = signature(&self.inner.options.secret, &timestamp, body.as_bytes());
        let request = self.inner.http.post(url).header("content-type", "application/json");
        let request = request.header("avocet-job", &job.id).header("avocet-timestamp", timestamp);
        let request = request.header("avocet-signature", signed.unwrap_or_default()).body(body);
        let response = request.send().await.map_err(|error| daemon::chain(&error.without_url()))?;
        let status = response.status();
        if status.is_success() { Ok(()) } else { Err(format!("it was answered with {status}")) }
    }
}
