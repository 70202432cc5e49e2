//! What the hub counts of its own work, in the names that Kubernetes' API server has for it and in the text form of
//! Prometheus. All series exist from the start: to record is to add to a few atomic numbers, without a lock.

mod process;
mod series;
mod text;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, Method};
use axum::middleware::Next;
use axum::response::Response;
use types::{KindInfo, kinds};

use crate::Hub;
use crate::request::RequestInfo;
use crate::target::Subresource;
use series::{Labels, Series};
use text::Text;

/// What was counted since the start. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    requests: BTreeMap<Labels, Series>,
    /// Watches under way, by plural and group.
    watches: HashMap<(&'static str, &'static str), AtomicI64>,
    /// Requests at work that change nothing, and those that do.
    reading: AtomicI64,
    changing: AtomicI64,
}

impl Default for Metrics {
    fn default() -> Self {
        let watches = kinds().map(|info| ((info.plural, info.group), AtomicI64::new(0)));
        Self(Arc::new(Inner {
            requests: Labels::all().map(|labels| (labels, Series::default())).collect(),
            watches: watches.collect(),
            reading: AtomicI64::new(0),
            changing: AtomicI64::new(0),
        }))
    }
}

impl Metrics {
    /// Counts a request until what is answered is dropped.
    pub fn at_work(&self, method: &Method) -> Gauge {
        let is_reading = matches!(*method, Method::GET | Method::HEAD);
        Gauge::raise(self, if is_reading { Counted::Reading } else { Counted::Changing })
    }

    /// Counts a watch until what is answered is dropped.
    pub fn watch(&self, info: &KindInfo) -> Gauge {
        Gauge::raise(self, Counted::Watch(info.plural, info.group))
    }

    fn gauge(&self, of: Counted) -> Option<&AtomicI64> {
        match of {
            Counted::Reading => Some(&self.0.reading),
            Counted::Changing => Some(&self.0.changing),
            Counted::Watch(plural, group) => self.0.watches.get(&(plural, group)),
        }
    }

    fn record(&self, labels: &Labels, code: u16, since: Instant) {
        if let Some(series) = self.0.requests.get(labels) {
            series.count(code);
            // A watch is answered at once, and lasts.
            if labels.verb != "WATCH" {
                series.took(since.elapsed());
            }
        }
    }
}

/// What goes up and down.
#[derive(Debug, Clone, Copy)]
enum Counted {
    Reading,
    Changing,
    Watch(&'static str, &'static str),
}

/// Counts one until it is dropped.
pub struct Gauge {
    metrics: Metrics,
    of: Counted,
}

impl Gauge {
    fn raise(metrics: &Metrics, of: Counted) -> Self {
        if let Some(gauge) = metrics.gauge(of) {
            gauge.fetch_add(1, Ordering::Relaxed);
        }
        Self { metrics: metrics.clone(), of }
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        if let Some(gauge) = self.metrics.gauge(self.of) {
            gauge.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Counts every request once it is answered.
pub async fn measure(State(hub): State<Arc<Hub>>, request: Request, next: Next) -> Response {
    let since = Instant::now();
    let method = request.method().clone();
    let at_work = hub.metrics.at_work(&method);
    let response = next.run(request).await;
    drop(at_work);
    let labels = response.extensions().get::<Labels>().copied();
    let labels = labels.unwrap_or_else(|| Labels::of_path(&method));
    hub.metrics.record(&labels, response.status().as_u16(), since);
    response
}

/// Tells [`measure`] what an answer was about.
pub fn label(response: &mut Response, info: &RequestInfo, method: &Method) {
    response.extensions_mut().insert(Labels::of(info, method));
}

/// `GET /metrics`.
pub async fn show(State(hub): State<Arc<Hub>>) -> ([(HeaderName, &'static str); 1], String) {
    let mut text = Text::default();
    let metrics = &hub.metrics.0;
    text.head("apiserver_request_total", "counter", "Requests, by what they were about and their answer.");
    for (labels, series) in &metrics.requests {
        for (code, count) in series.codes() {
            text.line("apiserver_request_total", &labels.pairs(Some(&code)), count);
        }
    }
    let name = "apiserver_request_duration_seconds";
    text.head(name, "histogram", "Seconds from a request to its answer, but for watches.");
    for (labels, series) in &metrics.requests {
        text.histogram(name, &labels.pairs(None), series);
    }
    let name = "apiserver_current_inflight_requests";
    text.head(name, "gauge", "Requests at work.");
    for (kind, gauge) in [("mutating", &metrics.changing), ("readOnly", &metrics.reading)] {
        text.line(name, &[("request_kind", kind)], gauge.load(Ordering::Relaxed));
    }
    text.head("apiserver_longrunning_requests", "gauge", "Watches under way.");
    for info in kinds() {
        let Some(gauge) = hub.metrics.gauge(Counted::Watch(info.plural, info.group)) else { continue };
        let pairs = Labels::of_kind(info, Subresource::None, "WATCH", "cluster").pairs(None);
        text.line("apiserver_longrunning_requests", &pairs, gauge.load(Ordering::Relaxed));
    }
    text.head("apiserver_storage_objects", "gauge", "Objects that are kept.");
    for info in kinds().filter(|info| !info.is_alias()) {
        let pairs = [("resource", info.qualified())];
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
        text.line("apiserver_storage_objects", &pairs, hub.store.count_all(info.plural));
    }
    let egress = &hub.egress;
    for (name, kind, help, value) in [
        ("avocet_artifact_bytes_sent_total", "counter", "Bytes of artifacts and images sent.", egress.sent()),
        ("avocet_artifact_downloads", "gauge", "Artifacts and images being sent.", egress.under_way() as u64),
        (
            "avocet_artifact_downloads_refused_total",
            "counter",
            "Downloads that were told to come again later.",
            egress.refused(),
        ),
    ] {
        text.head(name, kind, help);
        text.line(name, &[], value);
    }
    let fill = hub.mailbox.fill().await.unwrap_or_default();
    let name = "avocet_mailbox_bytes";
    text.head(name, "gauge", "Bytes that wait for a site; `^` stands for those that the hub above knows.");
    fill.iter().for_each(|(site, fill)| text.line(name, &[("site", site)], fill.bytes));
    let name = "avocet_mailbox_deliveries";
    text.head(
        name,
        "gauge",
        "Deliveries that wait for a site; `^` stands for those that the hub above knows.",
    );
    fill.iter().for_each(|(site, fill)| text.line(name, &[("site", site)], fill.deliveries));
    process::show(&mut text);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores")], text.into_string())
}
