//! What a request to a served model costs over the bare call of its engine, on each engine there is.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::json;

use super::memory::cpu_seconds;
use super::samples::{median, microseconds};
use super::{EDGE, FAST, Model, Options};
use crate::demo::aligned;
use crate::http::Connection;
use crate::process::{self, Step};
use crate::setup::Tools;
use crate::sites::{Sites, text};

/// Clients at once in the second measurement.
const CLIENTS: usize = 16;

/// A request for a model, and how often it is worth sending.
struct Load {
    what: &'static str,
    headers: String,
    body: Vec<u8>,
    requests: usize,
}

/// What a round measured, in microseconds.
#[derive(Default)]
struct Measured {
    bare: Vec<f64>,
    round_trip: Vec<f64>,
    cpu: Vec<f64>,
    cpu_many: Vec<f64>,
    rate_many: Vec<f64>,
}

pub fn compare(
    sites: &Sites,
    infer: &Path,
    tools: &Tools,
    models: &[Model],
    options: &Options,
) -> anyhow::Result<String> {
    let engines: Vec<(&str, &str)> = [("rten", EDGE), ("onnxruntime", FAST)]
        .into_iter()
        .filter(|(_, site)| sites.site(site).is_ok())
        .collect();
    let headings = [
        "SERVING",
        "ENGINE",
        "BARE µs",
        "HTTP µs",
        "OVER BARE",
        "CPU µs/request",
        "16 CLIENTS CPU µs",
        "16 CLIENTS requests/s",
    ];
    let mut rows = vec![headings.map(str::to_owned)];
    for model in models {
        let load = load(model)?;
        let mut measured: Vec<Measured> = engines.iter().map(|_| Measured::default()).collect();
        let step = Step::begin(&format!("serving {}", model.name));
        // Engines take turns within a round, so that noise meets all of them.
        for round in 0..=options.rounds {
            step.say(&format!("round {round} of {}", options.rounds));
            let bare = bare(infer, tools, model, load.requests)?;
            for ((engine, site), measured) in engines.iter().zip(&mut measured) {
                let once = measure(sites, site, model, &load)?;
                if round == 0 {
                    continue; // warm-up
                }
                let bare = bare.iter().find(|(name, _)| name == engine);
                measured.bare.push(bare.with_context(|| format!("{engine} did not run {}", model.name))?.1);
                measured.round_trip.push(once.round_trip);
                measured.cpu.push(once.cpu);
                measured.cpu_many.push(once.cpu_many);
                measured.rate_many.push(once.rate_many);
            }
        }
        step.done("");
        for ((engine, _), measured) in engines.iter().zip(&measured) {
            let (bare, round_trip) = (median(&measured.bare), median(&measured.round_trip));
            rows.push([
                format!("{} ({})", model.name, load.what),
                (*engine).to_owned(),
                format!("{bare:.1}"),
                format!("{round_trip:.1}"),
                format!("{:+.1} µs, {:.2}x", round_trip - bare, round_trip / bare),
                format!("{:.1}", median(&measured.cpu)),
                format!("{:.1}", median(&measured.cpu_many)),
                format!("{:.0}", median(&measured.rate_many)),
            ]);
        }
    }
    let note = "BARE: the engine called in a process of its own, one thread. HTTP: a request's round trip over a kept \
                connection, from a client on the same cores. CPU: of the serving site, engine included.\n";
    Ok(aligned(&rows) + note)
}

fn load(model: &Model) -> anyhow::Result<Load> {
    if model.name == "affine" {
        let body =
            json!({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]});
        return Ok(Load {
            what: "4 numbers, JSON",
            headers: "Content-Type: application/json\r\n".into(),
            body: serde_json::to_vec(&body)?,
            requests: 2000,
        });
    }
    const BYTES: usize = 224 * 224 * 3 * 4;
    let header = json!({
        "parameters": {"binary_data_output": true},
        "inputs": [{
            "name": "image", "shape": [1, 224, 224, 3], "datatype": "FP32",
            "parameters": {"binary_data_size": BYTES},
        }],
    });
    let mut body = serde_json::to_vec(&header)?;
    let headers = format!(
        "Content-Type: application/octet-stream\r\nInference-Header-Content-Length: {}\r\n",
        body.len()
    );
    body.resize(body.len() + BYTES, 0);
    Ok(Load { what: "602 kB, binary", headers, body, requests: 30 })
}

/// Median times of the bare call, by engine.
fn bare(infer: &Path, tools: &Tools, model: &Model, runs: usize) -> anyhow::Result<Vec<(String, f64)>> {
    let library = tools.onnxruntime.as_deref().unwrap_or(Path::new("off"));
    let mut command = Command::new(infer);
    command.arg(&model.path).args(["1", &runs.to_string()]).env("AVOCET_ONNXRUNTIME", library);
    let said = process::output(&mut command)?;
    let time = |line: &str| {
        let word = line.split_once("median ")?.1.split([' ', ',']).next()?;
        Some((line.split(' ').next()?.to_owned(), parse_time(word)?))
    };
    Ok(said.lines().filter_map(time).collect())
}

/// Microseconds, from `1.23ms` and its like.
fn parse_time(word: &str) -> Option<f64> {
    let units = [("ns", 1e-3), ("µs", 1.0), ("ms", 1e3), ("s", 1e6)];
    units.iter().find_map(|(unit, factor)| Some(word.strip_suffix(unit)?.parse::<f64>().ok()? * factor))
}

/// One round at one site.
struct Once {
    round_trip: f64,
    cpu: f64,
    cpu_many: f64,
    rate_many: f64,
}

fn measure(sites: &Sites, site: &str, model: &Model, load: &Load) -> anyhow::Result<Once> {
    let site = sites.site(site)?;
    let access = site.access()?;
    let url = text(&access, "/inference");
    let path = format!("/v2/models/{}/infer", model.name);
    let requests = |count: usize| -> anyhow::Result<Vec<f64>> {
        let mut connection = Connection::open(url)?;
        (0..count).map(|_| request(&mut connection, &path, load).map(microseconds)).collect()
    };
    requests(load.requests / 10 + 1)?;
    let before = cpu_seconds(site.pid())?;
    let round_trip = median(&requests(load.requests)?);
    let alone = cpu_seconds(site.pid())? - before;
    let (started, before) = (Instant::now(), cpu_seconds(site.pid())?);
    let each = load.requests / CLIENTS + 1;
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| requests(each).map(drop))).collect();
        clients.into_iter().try_for_each(|client| {
            client.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a client of the benchmark panicked")))
        })
    })?;
    let together = cpu_seconds(site.pid())? - before;
    let count = |requests: usize| u32::try_from(requests).map_or(1.0, f64::from);
    Ok(Once {
        round_trip,
        cpu: alone * 1e6 / count(load.requests),
        cpu_many: together * 1e6 / count(each * CLIENTS),
        rate_many: count(each * CLIENTS) / started.elapsed().as_secs_f64(),
    })
}

fn request(connection: &mut Connection, path: &str, load: &Load) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let (status, body) = connection.send("POST", path, &load.headers, &load.body)?;
    if status != 200 {
        bail!("{path}: {status} {}", String::from_utf8_lossy(&body));
    }
    Ok(started.elapsed())
}

#[cfg(test)]
mod tests {
    use super::parse_time;

    #[test]
    fn times_are_read_in_every_unit() {
        for (word, microseconds) in
            [("250ns", 0.25), ("1.50µs", 1.5), ("2.25ms", 2250.0), ("1.5s", 1_500_000.0)]
        {
            assert!((parse_time(word).unwrap() - microseconds).abs() < 1e-9, "{word}");
        }
        assert_eq!(parse_time("soon"), None);
    }
}
