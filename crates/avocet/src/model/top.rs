//! `models top`: what models are doing, out of `/metrics` of the servers that serve them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use api::Client;
use clap::Args;
use indicatif::HumanBytes;
use reqwest::Method;
use serde::Serialize;
use serde_json::json;

use super::samples::{Sample, samples};
use crate::cli::{ClientOptions, Format};
use crate::config::{SiteClient, sites};
use crate::output::{print_table, print_value};

#[derive(Args)]
#[command(after_help = "Examples:\n  avocet model top\n  avocet model top --site edge --once -o json\n  \
                        avocet model top --server http://localhost:8000    of `avocet serve`")]
pub struct TopOptions {
    /// Only this site
    #[arg(long, value_name = "NAME")]
    pub site: Option<String>,
    /// A server that is no site, such as `avocet serve`
    #[arg(long, value_name = "URL", conflicts_with = "site")]
    pub server: Option<String>,
    /// Seconds between two looks
    #[arg(long, default_value_t = 2, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub every: u64,
    /// Look twice, print what happened between, and end
    #[arg(long)]
    pub once: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// Site, model and version.
type Key = (String, String, String);

/// What one version's counters and gauges say.
#[derive(Clone, Default)]
struct Figures(BTreeMap<String, f64>);

impl Figures {
    fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// Growth of a counter; one that fell was begun anew.
    fn since(&self, before: &Figures, name: &str) -> f64 {
        let (now, before) = (self.get(name).unwrap_or(0.0), before.get(name).unwrap_or(0.0));
        if now < before { now } else { now - before }
    }
}

/// What a version did between two looks; absent is what nothing is known of.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    site: String,
    model: String,
    version: String,
    requests_per_second: f64,
    errors_per_second: f64,
    p50_milliseconds: Option<f64>,
    p99_milliseconds: Option<f64>,
    queue_percent: Option<f64>,
    compute_percent: Option<f64>,
    batch_size: Option<f64>,
    cache_hit_percent: Option<f64>,
    memory_bytes: Option<f64>,
    drift_psi: Option<f64>,
}

pub async fn top(client: &ClientOptions, options: &TopOptions) -> anyhow::Result<()> {
    let servers = match &options.server {
        Some(url) => vec![SiteClient { name: url.clone(), client: Client::new(url, "", None)? }],
        None => sites(client, options.site.as_deref()).await?,
    };
    let (first, _) = look(&servers).await;
    let (mut before, mut looked) = (first, Instant::now());
    loop {
        tokio::time::sleep(Duration::from_secs(options.every)).await;
        let ((now, answered), at) = (look(&servers).await, Instant::now());
        if options.once && answered == 0 {
            let count = servers.len();
            bail!(
                "none of {count} servers told what its models are doing; is it the right address, and do they run?"
            );
        }
        let rows = rows(&before, &now, at - looked);
        match options.output {
            Format::Json | Format::Yaml => print_value(&json!({ "items": rows }), options.output)?,
            _ => show(&rows, !options.once),
        }
        if options.once {
            return Ok(());
        }
        (before, looked) = (now, at);
    }
}

/// What all servers tell, and how many did. One that can't be reached must not hide the others.
async fn look(servers: &[SiteClient]) -> (BTreeMap<Key, Figures>, usize) {
    let (mut all, mut answered) = (BTreeMap::new(), 0);
    for server in servers {
        match metrics(server).await {
            Ok(text) => {
                collect(&server.name, &text, &mut all);
                answered += 1;
            }
            Err(error) => eprintln!("warning: {error:#}"),
        }
    }
    (all, answered)
}

async fn metrics(server: &SiteClient) -> anyhow::Result<String> {
    let request = server.client.request(Method::GET, "/metrics");
    let told = || format!("can't read the metrics of `{}`", server.name);
    let response = server.client.send(request).await.with_context(told)?;
    response.text().await.with_context(told)
}

/// Of several samples of one name (a failure's reasons, a feature's drift) counters add up and drift is the worst.
fn collect(site: &str, text: &str, all: &mut BTreeMap<Key, Figures>) {
    for Sample { name, labels, value } in samples(text) {
        let (Some(model), Some(version)) = (labels.get("model"), labels.get("version")) else { continue };
        let key = (site.to_owned(), model.clone(), version.clone());
        let name = match labels.get("quantile") {
            Some(quantile) => format!("{name}:{quantile}"),
            None => name,
        };
        let Figures(figures) = all.entry(key).or_default();
        let worst = name == "avocet_model_drift_psi";
        let merged = figures.get(&name).map_or(value, |old| if worst { old.max(value) } else { old + value });
        figures.insert(name, merged);
    }
}

fn rows(before: &BTreeMap<Key, Figures>, now: &BTreeMap<Key, Figures>, passed: Duration) -> Vec<Row> {
    let nothing = Figures::default();
    // A version that was not there has done everything since.
    let row =
        |(key, figures): (&Key, &Figures)| row(key, before.get(key).unwrap_or(&nothing), figures, passed);
    now.iter().map(row).collect()
}

fn row((site, model, version): &Key, before: &Figures, now: &Figures, passed: Duration) -> Row {
    let grown = |name: &str| now.since(before, name);
    let rate = |name: &str| grown(name) / passed.as_secs_f64().max(1e-3);
    let ratio = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
    let percent = |part: f64, whole: f64| ratio(part, whole).map(|ratio| 100.0 * ratio);
    let answered = grown("nv_inference_request_success") > 0.0;
    let quantile = |name: &str| {
        let micros = now.get(&format!("nv_inference_request_summary_us:{name}"))?;
        (micros > 0.0).then_some(micros / 1000.0)
    };
    let (time, hits) = (grown("nv_inference_request_duration_us"), grown("nv_cache_num_hits_per_model"));
    let compute =
        ["input", "infer", "output"].map(|part| grown(&format!("nv_inference_compute_{part}_duration_us")));
    Row {
        site: site.clone(),
        model: model.clone(),
        version: version.clone(),
        requests_per_second: rate("nv_inference_request_success") + rate("nv_inference_request_failure"),
        errors_per_second: rate("nv_inference_request_failure"),
        p50_milliseconds: quantile("0.5"),
        p99_milliseconds: quantile("0.99"),
        queue_percent: percent(grown("nv_inference_queue_duration_us"), time).filter(|_| answered),
        compute_percent: percent(compute.iter().sum(), time).filter(|_| answered),
        batch_size: ratio(grown("nv_inference_count"), grown("nv_inference_exec_count")),
        cache_hit_percent: percent(hits, hits + grown("nv_cache_num_misses_per_model")),
        memory_bytes: now.get("avocet_model_memory_bytes"),
        drift_psi: now.get("avocet_model_drift_psi"),
    }
}

fn show(rows: &[Row], live: bool) {
    if live {
        // Clears the screen and goes to its upper left corner.
        print!("\x1b[2J\x1b[H");
    }
    let heading = [
        "SITE",
        "MODEL",
        "VERSION",
        "REQUESTS/S",
        "ERRORS/S",
        "P50 MS",
        "P99 MS",
        "QUEUE %",
        "COMPUTE %",
        "BATCH",
        "CACHE %",
        "MEMORY",
        "DRIFT",
    ];
    print_table(&heading.map(str::to_owned), &rows.iter().map(cells).collect::<Vec<_>>(), true);
}

fn cells(row: &Row) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let number = |value: Option<f64>, digits: usize| or_dash(value.map(|value| format!("{value:.digits$}")));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bytes of memory, to be read by people"
    )]
    let bytes = |value: f64| HumanBytes(value as u64).to_string();
    vec![
        row.site.clone(),
        row.model.clone(),
        row.version.clone(),
        number(Some(row.requests_per_second), 1),
        number(Some(row.errors_per_second), 1),
        number(row.p50_milliseconds, 2),
        number(row.p99_milliseconds, 2),
        number(row.queue_percent, 0),
        number(row.compute_percent, 0),
        number(row.batch_size, 1),
        number(row.cache_hit_percent, 0),
        or_dash(row.memory_bytes.map(bytes)),
        number(row.drift_psi, 2),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> BTreeMap<Key, Figures> {
        let mut all = BTreeMap::new();
        collect("edge", text, &mut all);
        all
    }

    #[test]
    fn rates_are_of_the_time_between_and_reasons_add_up() {
        let labels = r#"{model="m",version="1"}"#;
        let before = format!("nv_inference_request_success{labels} 10\nnv_inference_count{labels} 900\n");
        let now = format!(
            "nv_inference_request_success{labels} 30\n\
             nv_inference_request_failure{{model=\"m\",reason=\"OTHER\",version=\"1\"}} 1\n\
             nv_inference_request_failure{{model=\"m\",reason=\"BACKEND\",version=\"1\"}} 3\n\
             nv_inference_request_duration_us{labels} 1000\nnv_inference_queue_duration_us{labels} 250\n\
             nv_inference_count{labels} 40\nnv_inference_exec_count{labels} 10\n\
             nv_inference_request_summary_us{{model=\"m\",version=\"1\",quantile=\"0.5\"}} 1500\n\
             avocet_model_drift_psi{{model=\"m\",version=\"1\",input=\"x\",feature=\"0\"}} 0.3\n\
             avocet_model_drift_psi{{model=\"m\",version=\"1\",input=\"x\",feature=\"1\"}} 0.1\n"
        );
        let rows = rows(&at(&before), &at(&now), Duration::from_secs(2));
        let expected = Row {
            site: "edge".into(),
            model: "m".into(),
            version: "1".into(),
            requests_per_second: 12.0,
            errors_per_second: 2.0,
            p50_milliseconds: Some(1.5),
            p99_milliseconds: None,
            queue_percent: Some(25.0),
            compute_percent: Some(0.0),
            batch_size: Some(4.0),
            cache_hit_percent: None,
            memory_bytes: None,
            drift_psi: Some(0.3),
        };
        assert_eq!(rows, [expected]);
    }
}
