//! Durable writes per second: through the store, over HTTP to a hub, and to etcd through its own HTTP gateway.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::load::{self, Server};
use super::memory::cpu_seconds;
use super::samples::{median, milliseconds, quantile};
use super::servers::{self, API, Running};
use super::{Options, build_example};
use crate::demo::aligned;
use crate::process::{self, Step};
use crate::workspace::Workspace;

const WRITERS: [usize; 3] = [1, 16, 256];

/// Writes per second, and how long one takes in milliseconds.
struct Rate {
    per_second: f64,
    median: f64,
    p99: f64,
    /// Processor time of the server for each write, in milliseconds; 0 where client and server are one process.
    cpu: f64,
}

pub fn writes(workspace: &Workspace, folder: &Path, options: &Options) -> anyhow::Result<String> {
    build_example(workspace, "avocet-store", "writes")?;
    servers::raise_file_limit()?;
    std::fs::create_dir_all(folder)?;
    let mut columns = vec![("store", through_store(workspace, folder, options)?)];
    let hub = servers::hub(workspace, folder)?;
    let step = Step::begin("writes to a hub over HTTP");
    columns.push(("hub", over_http(&hub, options, prepare_hub, hub_request)?));
    step.done("");
    drop(hub);
    if let Some(etcd) = servers::etcd(folder)? {
        let step = Step::begin("writes to etcd over HTTP");
        columns.push(("etcd", over_http(&etcd, options, |_, _| Ok(()), etcd_request)?));
        step.done("");
    }
    Ok(table(&columns) + &note(columns.len() == 3))
}

fn note(with_etcd: bool) -> String {
    let etcd = if with_etcd {
        "etcd: puts of 1,000-byte values through its own HTTP/JSON gateway, a single member."
    } else {
        "etcd is not in the path; install Debian's etcd-server to compare with it."
    };
    format!(
        "Each write is on disk when it is acknowledged (SQLite in WAL with synchronous=FULL: one fsync a commit). Each \
         writer changes an object of its own, of about 1 KB, on a connection of its own; store: a call in one process; \
         hub: merge patch of a Function, plain HTTP. {etcd} Clients and servers share the machine's cores.\n"
    )
}

fn table(columns: &[(&str, Vec<Rate>)]) -> String {
    let mut rows = vec![
        ["DURABLE WRITES", "WRITERS", "WRITES/s", "MEDIAN ms", "P99 ms", "SERVER CPU ms/WRITE", "TO ETCD"]
            .map(str::to_owned),
    ];
    let etcd = columns.iter().find(|(name, _)| *name == "etcd").map(|(_, rates)| rates);
    for (name, rates) in columns {
        for (index, (writers, rate)) in WRITERS.iter().zip(rates).enumerate() {
            let other = etcd.and_then(|rates| rates.get(index));
            let ratio =
                other.map_or("-".to_owned(), |etcd| format!("{:.2}", rate.per_second / etcd.per_second));
            rows.push([
                (*name).to_owned(),
                writers.to_string(),
                format!("{:.0}", rate.per_second),
                format!("{:.2}", rate.median),
                format!("{:.2}", rate.p99),
                if rate.cpu > 0.0 { format!("{:.3}", rate.cpu) } else { "-".to_owned() },
                ratio,
            ]);
        }
    }
    aligned(&rows)
}

fn through_store(workspace: &Workspace, folder: &Path, options: &Options) -> anyhow::Result<Vec<Rate>> {
    let step = Step::begin("writes through the store");
    let mut command = Command::new(workspace.target.join("release/examples/writes"));
    command.arg(folder).arg(options.seconds.to_string()).args(WRITERS.map(|writers| writers.to_string()));
    let said = process::output(&mut command)?;
    step.done("");
    let rates = said.lines().map(|line| {
        let line: Value = serde_json::from_str(line)?;
        let number = |name: &str| line.get(name).and_then(Value::as_f64).unwrap_or(0.0);
        Ok(Rate {
            per_second: number("writesPerSecond"),
            median: number("p50Micros") / 1e3,
            p99: number("p99Micros") / 1e3,
            cpu: 0.0,
        })
    });
    rates.collect()
}

fn over_http(
    running: &Running,
    options: &Options,
    prepare: fn(&Server, usize) -> anyhow::Result<()>,
    request: fn(&Server, usize, usize) -> load::Request,
) -> anyhow::Result<Vec<Rate>> {
    let (mut rates, server) = (Vec::new(), &running.server);
    for writers in WRITERS {
        prepare(server, writers)?;
        let named = server.clone();
        let write = Arc::new(move |writer, round| request(&named, writer, round));
        let time = Duration::from_secs(options.seconds);
        let before = cpu_seconds(running.pid())?;
        let (per_second, latencies) = runtime()?.block_on(load::write(server, writers, time, write))?;
        let used = cpu_seconds(running.pid())? - before;
        let latencies: Vec<f64> = latencies.into_iter().map(milliseconds).collect();
        let cpu = used * 1e3 / f64::from(u32::try_from(latencies.len())?);
        rates.push(Rate { per_second, median: median(&latencies), p99: quantile(&latencies, 0.99), cpu });
    }
    Ok(rates)
}

/// Clients take one thread, so that servers have the others.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn prepare_hub(server: &Server, writers: usize) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let mut client = server.connect().await?;
        for writer in 0..writers {
            let body = servers::manifest(&format!("f{writer}"), 0);
            let (status, answer) = client
                .send(&server.request("POST", &format!("{API}/namespaces/default/functions"), &body))
                .await?;
            anyhow::ensure!(status == 201 || status == 409, "{status}: {}", String::from_utf8_lossy(&answer));
        }
        Ok(())
    })
}

fn hub_request(server: &Server, writer: usize, round: usize) -> load::Request {
    servers::patch(server, &format!("f{writer}"), round + 1)
}

fn etcd_request(server: &Server, writer: usize, round: usize) -> load::Request {
    server.request("POST", "/v3/kv/put", &servers::etcd_put(&format!("f{writer}"), round + 1))
}
