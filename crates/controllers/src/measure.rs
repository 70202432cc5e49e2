//! Values of metrics that placements look at, asked of those who know them.
//!
//! Who does not answer in time, or answers too much, costs nothing but the freshness of the values: those known last
//! count for a while, then the metric is missing, and what is selected stays.

mod columns;
mod schedule;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use daemon::Shutdown;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use reqwest::Url;
use serde_json::Value;
use store::Store;
use tracing::{debug, warn};
use types::{HttpJson, Kind, MetricProvider, Placement, PlacementSpec, PrometheusQuery};

pub(crate) use columns::Columns;
use schedule::Schedule;

/// How often values are asked for.
const PERIOD: Duration = Duration::from_secs(15);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long values count after they were told.
const FRESH: Duration = Duration::from_secs(120);
/// The longest answer, in bytes.
const LONGEST: usize = 16 << 20;
/// How many questions one origin is asked at once.
const AT_ONCE: usize = 8;
/// How many different questions are asked at all; the first ones by the names of placements.
const MOST: usize = 1024;
/// How many questions are asked for one who only wants to know what would be.
const MOST_NEW: usize = AT_ONCE;
/// How often it is looked whether something is to be asked.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

type Values = BTreeMap<String, f64>;
/// Answers with the time when they came.
type Told = HashMap<Asked, (Instant, Arc<Values>)>;

/// Values that were told, by who told them.
#[derive(Clone, Default)]
pub struct Measurements {
    told: Arc<Mutex<Told>>,
    /// Whom the operator lets the hub ask: who writes a placement names any address, also one that only the hub reaches.
    origins: Arc<[String]>,
}

/// A question to somebody outside.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Asked {
    Prometheus { url: String, query: String, label: String },
    Json { url: String, pointer: String },
}

impl Asked {
    fn of(provider: &MetricProvider) -> Option<Self> {
        if let Some(PrometheusQuery { url, query, label }) = &provider.prometheus {
            return Some(Self::Prometheus { url: url.clone(), query: query.clone(), label: label.clone() });
        }
        let HttpJson { url, pointer } = provider.http.as_ref()?;
        Some(Self::Json { url: url.clone(), pointer: pointer.clone() })
    }

    fn url(&self) -> &str {
        match self {
            Self::Prometheus { url, .. } | Self::Json { url, .. } => url,
        }
    }

    /// Whom it is asked of; empty where the URL is none.
    fn origin(&self) -> String {
        Url::parse(self.url()).map_or_else(|_| String::new(), |url| url.origin().ascii_serialization())
    }
}

impl Measurements {
    /// Asks these origins, such as `http://prometheus:9090`, and nobody else.
    ///
    /// # Errors
    /// If one is no origin: what to write.
    pub fn of(origins: &[String]) -> Result<Self, String> {
        let parse = |text: &String| {
            let url = Url::parse(text).ok().filter(|url| {
                matches!(url.scheme(), "http" | "https") && url.path() == "/" && url.query().is_none()
            });
            let url = url.ok_or_else(|| {
                format!("`{text}` is no origin; write http://HOST:PORT or https://HOST, without a path")
            })?;
            Ok::<_, String>(url.origin().ascii_serialization())
        };
        let origins: Arc<[String]> = origins.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Self { origins, ..Self::default() })
    }

    fn may_ask(&self, url: &str) -> bool {
        Url::parse(url).is_ok_and(|url| self.origins.contains(&url.origin().ascii_serialization()))
    }

    /// What was told of late in answer to a metric's question; nothing of metrics that nobody is asked for.
    fn told(&self, provider: &MetricProvider) -> Option<Arc<Values>> {
        let asked = Asked::of(provider)?;
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.get(&asked).filter(|(when, _)| when.elapsed() <= FRESH).map(|(_, values)| values.clone())
    }

    /// The questions of placements that may be asked.
    fn questions(&self, placements: &[Placement]) -> Vec<Asked> {
        let mut asked: Vec<Asked> = Vec::new();
        let metrics = placements.iter().flat_map(|placement| &placement.spec.metrics);
        for question in metrics.filter_map(|metric| Asked::of(&metric.provider)) {
            if !self.may_ask(question.url()) {
                debug!(url = question.url(), "not asked for a metric; --metrics-origin allows it");
            } else if asked.len() >= MOST {
                warn!(url = question.url(), "not asked for a metric: {MOST} other questions are asked");
                break;
            } else if !asked.contains(&question) {
                asked.push(question);
            }
        }
        asked
    }

    /// The values that are known now, and those of these placements' metrics that nobody asked for yet: each is asked for
    /// once, [`MOST_NEW`] at most. Nothing of that is known to others.
    pub async fn knowing_of(&self, placements: &[Placement]) -> Self {
        let known = self.told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut asked = self.questions(placements);
        asked.retain(|question| !known.contains_key(question));
        asked.truncate(MOST_NEW);
        let own = Self { told: Arc::new(Mutex::new(known)), origins: self.origins.clone() };
        if asked.is_empty() {
            return own;
        }
        match patient_client() {
            Ok(client) => {
                let answers = futures::stream::iter(asked).map(|asked| async {
                    let answer = ask(&client, &asked).await;
                    own.take(asked, answer);
                });
                answers.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
            }
            Err(problem) => warn!(problem, "can't ask for metrics"),
        }
        own
    }

    fn take(&self, asked: Asked, answer: Result<Values, String>) {
        match answer {
            Ok(values) => self.tell(asked, values),
            Err(problem) => debug!(url = asked.url(), problem, "no values of a metric"),
        }
    }

    fn tell(&self, asked: Asked, values: Values) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(asked, (Instant::now(), Arc::new(values)));
    }

    fn forget_all_but(&self, asked: &[Asked]) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|known, _| asked.contains(known));
    }
}

/// A client that waits for nobody for long; if there is no TLS: what is wrong with it.
fn patient_client() -> Result<reqwest::Client, String> {
    // A machine without a list of authorities can still ask over plain HTTP.
    let tls = daemon::tls::client_of_all().or_else(|_| daemon::tls::client_of_nobody());
    let tls = tls.map_err(|error| error.to_string())?;
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .timeout(PATIENCE)
        .connect_timeout(PATIENCE)
        .redirect(reqwest::redirect::Policy::none())
        .build();
    client.map_err(|error| error.to_string())
}

/// Asks for the values of all placements' metrics, each again and again, until the shutdown.
pub async fn run_measurements(store: Store, measurements: Measurements, shutdown: Shutdown) {
    // Made when it is needed: most hubs ask nobody.
    let mut client = None;
    let mut schedule = Schedule::default();
    let mut seen = None;
    let mut answers = FuturesUnordered::new();
    loop {
        let version = Some(store.latest_of(&[PlacementSpec::PLURAL]));
        if std::mem::replace(&mut seen, version) != version {
            let (objects, _) = store.list(PlacementSpec::PLURAL, None);
            let placements: Vec<Placement> =
                objects.iter().filter_map(|object| object.resource().ok()).collect();
            let asked = measurements.questions(&placements);
            if client.is_none() && !asked.is_empty() {
                match patient_client() {
                    Ok(made) => client = Some(made),
                    Err(problem) => warn!(problem, "can't ask for metrics"),
                }
            }
            measurements.forget_all_but(&asked);
            schedule.keep(&asked, Instant::now());
        }
        if let Some(client) = &client {
            answers.extend(schedule.next(Instant::now()).into_iter().map(|asked| {
                let client = client.clone();
                async move {
                    let answer = ask(&client, &asked).await;
                    (asked, answer)
                }
            }));
        }
        tokio::select! {
            () = shutdown.wait() => return,
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            Some((asked, answer)) = answers.next() => {
                schedule.done(&asked, answer.is_ok());
                measurements.take(asked, answer);
            }
        }
    }
}

async fn ask(client: &reqwest::Client, asked: &Asked) -> Result<Values, String> {
    match asked {
        Asked::Prometheus { url, query, label } => {
            let url = format!("{}/api/v1/query", url.trim_end_matches('/'));
            let answer = fetch(client.get(url).query(&[("query", query)])).await?;
            prometheus_values(&answer, label)
                .ok_or_else(|| "is no answer of Prometheus to a query".to_owned())
        }
        Asked::Json { url, pointer } => {
            let answer = fetch(client.get(url)).await?;
            let numbers = answer.pointer(pointer).and_then(Value::as_object);
            let numbers = numbers.ok_or_else(|| format!("has no object at `{pointer}`"))?;
            Ok(numbers.iter().filter_map(|(site, value)| Some((site.clone(), value.as_f64()?))).collect())
        }
    }
}

async fn fetch(request: reqwest::RequestBuilder) -> Result<Value, String> {
    let answer = request.send().await.and_then(reqwest::Response::error_for_status);
    let mut chunks = answer.map_err(|error| error.to_string())?.bytes_stream();
    let mut body = Vec::new();
    while let Some(chunk) = chunks.next().await {
        body.extend_from_slice(&chunk.map_err(|error| error.to_string())?);
        if body.len() > LONGEST {
            return Err(format!("answers more than {LONGEST} bytes"));
        }
    }
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}

/// The samples of an instant query, by the label that names the site.
fn prometheus_values(answer: &Value, label: &str) -> Option<Values> {
    let samples = answer.pointer("/data/result")?.as_array()?;
    let value = |sample: &Value| {
        let site = sample.pointer("/metric")?.get(label)?.as_str()?.to_owned();
        Some((site, sample.pointer("/value/1")?.as_str()?.parse().ok()?))
    };
    Some(samples.iter().filter_map(value).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn samples_of_prometheus_are_read_by_the_label_that_names_the_site() {
        let answer = json!({"status": "success", "data": {"resultType": "vector", "result": [
            {"metric": {"site": "plant", "job": "x"}, "value": [1.0, "0.25"]},
            {"metric": {"job": "x"}, "value": [1.0, "7"]},
            {"metric": {"site": "shop"}, "value": [1.0, "NaN"]},
        ]}});
        let values = prometheus_values(&answer, "site").unwrap();
        assert_eq!(values.get("plant"), Some(&0.25));
        assert!(values["shop"].is_nan());
        assert_eq!(values.len(), 2);
        assert_eq!(prometheus_values(&json!({"status": "error"}), "site"), None);
    }

    #[test]
    fn only_origins_that_the_operator_named_are_asked() {
        let measurements = Measurements::of(&["http://prometheus:9090".to_owned()]).unwrap();
        assert!(measurements.may_ask("http://prometheus:9090/api"));
        for stranger in [
            "http://prometheus",
            "https://prometheus:9090",
            "http://169.254.169.254/",
            "file:///etc/passwd",
            "",
        ] {
            assert!(!measurements.may_ask(stranger), "{stranger}");
            assert!(!Measurements::default().may_ask(stranger), "{stranger}");
        }
        for odd in ["prometheus", "http://a/b", "ftp://a"] {
            assert!(Measurements::of(&[odd.to_owned()]).is_err(), "{odd}");
        }
    }
}
