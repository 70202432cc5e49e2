//! The model server beside Triton, MLServer and LitServe, and beside the bare engine: processor time a request, latency,
//! throughput, what a cached answer costs, and what happens while models come and go.

mod client;
mod life;
mod peer;
mod requests;
mod triton;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use self::peer::{Peer, Request};
use self::requests::Load;
use super::Options;
use super::samples::{median, quantile};
use super::servers::free_port;
use crate::demo::aligned;
use crate::http::Connection;
use crate::process::{self, Step, in_path};
use crate::setup::{self, ServingTools};
use crate::workspace::Workspace;

/// What is measured with.
pub struct Bench<'a> {
    workspace: &'a Workspace,
    folder: &'a Path,
    options: &'a Options,
    tools: ServingTools,
    onnxruntime: Option<PathBuf>,
}

pub fn measure(workspace: &Workspace, folder: &Path, options: &Options) -> anyhow::Result<String> {
    std::fs::create_dir_all(folder)?;
    let onnxruntime = setup::setup(workspace, setup::Scope::Demo)?.onnxruntime;
    let tools = setup::serving_tools(workspace)?;
    let bench = Bench { workspace, folder, options, tools, onnxruntime };
    let loads = requests::loads(workspace, &bench.tools.models)?;
    requests::write_repository(&loads, &folder.join("models"))?;
    Ok([
        bench.small(&loads.iris)?,
        bench.large(&[&loads.ocr, &loads.magika])?,
        life::measure(&bench, &loads)?,
    ]
    .join("\n"))
}

impl Bench<'_> {
    /// Avocet with all models of the benchmark, each of them also with a cache.
    fn avocet(&self, arguments: &[&str], first: &Request<'_>) -> anyhow::Result<(Peer, u16)> {
        let (port, grpc) = (free_port()?, free_port()?);
        let mut command = Command::new(self.workspace.shipped());
        command.arg("serve").args(arguments);
        command.args(["--http-port", &port.to_string(), "--grpc-port", &grpc.to_string()]);
        let library = self.onnxruntime.as_deref().unwrap_or(Path::new("off"));
        command.env("AVOCET_ONNXRUNTIME", library);
        Ok((Peer::start("avocet", port, command, first, self.folder)?, grpc))
    }

    fn litserve(&self, load: &Load) -> anyhow::Result<Peer> {
        let port = free_port()?;
        let mut command = Command::new(&self.tools.litserve);
        command.arg(self.script("litserve_server.py")).arg(port.to_string()).arg(&load.file);
        Peer::start("LitServe", port, command, &load.json("/predict"), self.folder)
    }

    fn mlserver(&self, load: &Load) -> anyhow::Result<Peer> {
        let port = free_port()?;
        let folder = self.folder.join("mlserver");
        std::fs::create_dir_all(&folder)?;
        let settings = serde_json::json!({
            "debug": false, "host": "127.0.0.1", "http_port": port, "grpc_port": free_port()?,
            "metrics_port": free_port()?, "parallel_workers": 0,
        });
        std::fs::write(folder.join("settings.json"), settings.to_string())?;
        let model = serde_json::json!({
            "name": load.name, "implementation": "mlserver_model.Model", "parameters": {"uri": load.file},
        });
        std::fs::write(folder.join("model-settings.json"), model.to_string())?;
        std::fs::copy(self.script("mlserver_model.py"), folder.join("mlserver_model.py"))?;
        let mut command = Command::new(&self.tools.mlserver);
        command.args(["-m", "mlserver.cli.main", "start"]).arg(&folder);
        Peer::start("MLServer", port, command, &load.json(&load.path), self.folder)
    }

    /// None, said once, where Triton's server does not run.
    fn triton(&self, load: &Load) -> Option<(Peer, u16)> {
        let tools = self.tools.triton.as_ref()?;
        let started = triton::start(tools, load, &self.script("triton_model.py"), self.folder);
        started.inspect_err(|error| println!("  - Triton is not measured with {}: {error:#}", load.name)).ok()
    }

    /// Processor time and median of a run by ONNX Runtime alone, one thread, in microseconds.
    fn bare(&self, load: &Load) -> anyhow::Result<(f64, f64)> {
        let body = self.folder.join(format!("{}.json", load.name));
        std::fs::write(&body, &load.body)?;
        let mut command = Command::new(&self.tools.litserve);
        command.arg(self.script("bare.py")).arg(&load.file).arg(&body);
        let said = process::output(command.arg(self.options.seconds.to_string()))?;
        let mut numbers = said.split_whitespace().map(str::parse::<f64>);
        numbers
            .next()
            .zip(numbers.next())
            .and_then(|(cpu, time)| cpu.ok().zip(time.ok()))
            .with_context(|| said)
    }

    fn script(&self, name: &str) -> PathBuf {
        self.workspace.root.join("xtask/src/bench/serving").join(name)
    }

    fn repository(&self) -> String {
        self.folder.join("models").display().to_string()
    }

    /// A request of 16 bytes of numbers.
    fn small(&self, load: &Load) -> anyhow::Result<String> {
        let headings = [
            "IRIS FOREST",
            "",
            "CLIENTS",
            "CPU µs/request",
            "P50 µs",
            "P99 µs",
            "requests/s",
            "RSS MB",
            "COLD s",
        ];
        let mut rows = vec![headings.map(str::to_owned)];
        let (avocet, grpc) = self.avocet(&[&self.repository()], &load.json(&load.path))?;
        rows.extend(self.small_rows(&avocet, grpc, load)?);
        drop(avocet);
        if let Some((triton, grpc)) = self.triton(load) {
            rows.extend(self.small_rows(&triton, grpc, load)?);
        }
        for peer in [self.mlserver(load)?, self.litserve(load)?] {
            let path = if peer.name == "LitServe" { "/predict" } else { &load.path };
            for clients in [1, 16, 64] {
                rows.push(self.small_row(&peer, "JSON", clients, &load.json(path))?);
            }
        }
        let mut bare = Vec::new();
        for _ in 0..self.options.rounds {
            bare.push(self.bare(load)?);
        }
        let (cpu, p50): (Vec<f64>, Vec<f64>) = bare.into_iter().unzip();
        let mut row = ["ONNX Runtime in Python", "no server", "1", "", "", "", "", "", ""].map(str::to_owned);
        row[3] = format!("{:.1}", median(&cpu));
        row[4] = format!("{:.0}", median(&p50));
        rows.push(row);
        let note = "CPU: of the server and its processes, model included. The clients are threads on the same cores \
                    (gRPC: h2load), which bounds requests/s. COLD: from the start to the first answer; avocet with six \
                    models. Triton runs ONNX Runtime in its Python backend, which costs a hop to another process; \
                    its cached answers don't take it.\n";
        Ok(aligned(&rows) + note)
    }

    /// Everything that a server of the Open Inference Protocol is asked.
    fn small_rows(&self, peer: &Peer, grpc: u16, load: &Load) -> anyhow::Result<Vec<[String; 9]>> {
        let mut rows = Vec::new();
        for clients in [1, 16, 64] {
            rows.push(self.small_row(peer, "JSON", clients, &load.json(&load.path))?);
            rows.push(self.small_row(peer, "binary", clients, &load.binary())?);
            rows.push(self.small_row(peer, "JSON, cached", clients, &load.json(&load.cached_path))?);
            if in_path("h2load").is_some() {
                rows.push(self.grpc_row(peer, grpc, clients, load)?);
            }
        }
        Ok(rows)
    }

    fn small_row(
        &self,
        peer: &Peer,
        what: &str,
        clients: usize,
        request: &Request<'_>,
    ) -> anyhow::Result<[String; 9]> {
        let step = Step::begin(&format!("{}, {what}, {clients} clients", peer.name));
        let measured = self.rounds(peer, |time| client::load(peer, request, clients, time))?;
        step.done("");
        measured.row(peer, what, clients)
    }

    fn grpc_row(&self, peer: &Peer, port: u16, clients: usize, load: &Load) -> anyhow::Result<[String; 9]> {
        let step = Step::begin(&format!("{}, gRPC, {clients} clients", peer.name));
        let message = self.folder.join("message");
        std::fs::write(&message, &load.grpc)?;
        let url = format!("http://127.0.0.1:{port}");
        let before = answered(peer, load)?;
        let mut sent = 0;
        let measured = self.rounds(peer, |time| {
            let taken = client::load_grpc(&url, &message, clients, time, self.folder)?;
            sent += taken.len();
            Ok(taken)
        })?;
        // h2load looks at HTTP's status only, and gRPC's errors are answered with 200.
        let succeeded = answered(peer, load)? - before;
        anyhow::ensure!(
            usize::try_from(succeeded)? >= sent,
            "{sent} calls were sent and {succeeded} succeeded"
        );
        step.done("");
        measured.row(peer, "gRPC", clients)
    }

    fn rounds(
        &self,
        peer: &Peer,
        mut load: impl FnMut(Duration) -> anyhow::Result<Vec<f64>>,
    ) -> anyhow::Result<Measured> {
        load(Duration::from_secs(1))?;
        let mut measured = Measured::default();
        for _ in 0..self.options.rounds {
            let before = peer.cpu_seconds()?;
            let time = Duration::from_secs(self.options.seconds);
            let taken = load(time)?;
            let count = f64::from(u32::try_from(taken.len())?);
            measured.cpu.push((peer.cpu_seconds()? - before) * 1e6 / count);
            measured.rate.push(count / time.as_secs_f64());
            measured.latencies.extend(taken);
        }
        Ok(measured)
    }

    /// Tensors of many numbers, and a model that works for milliseconds; one client where nothing else is said.
    fn large(&self, loads: &[&Load]) -> anyhow::Result<String> {
        let headings =
            ["LARGER REQUESTS", "SERVER", "KB", "CPU µs/request", "OVER BARE", "P50 µs", "OVER BARE"];
        let mut rows = vec![headings.map(str::to_owned)];
        for load in loads {
            let (avocet, _) = self.avocet(&[&self.repository()], &load.json(&load.path))?;
            let mut peers = vec![self.mlserver(load)?, self.litserve(load)?];
            peers.extend(self.triton(load).map(|(triton, _)| triton));
            let step = Step::begin(&load.name);
            let json = load.json(&load.path);
            let mut cases = vec![(&avocet, "JSON", 1, json), (&avocet, "binary", 1, load.binary())];
            if !load.long_body.is_empty() {
                let long = || load.long_json(&load.cached_path);
                cases.push((&avocet, "JSON of 200 KB, cached", 1, long()));
                cases.push((&avocet, "JSON of 200 KB, cached, 16 clients", 16, long()));
            }
            for peer in &peers {
                let path = if peer.name == "LitServe" { "/predict" } else { &load.path };
                cases.push((peer, "JSON", 1, load.json(path)));
                if peer.name == "Triton" {
                    cases.push((peer, "binary", 1, load.binary()));
                }
            }
            let mut bare = Vec::new();
            let mut measured: Vec<Measured> = cases.iter().map(|_| Measured::default()).collect();
            // They take turns, so that noise meets all of them.
            for _ in 0..self.options.rounds {
                bare.push(self.bare(load)?);
                for ((peer, _, clients, request), measured) in cases.iter().zip(&mut measured) {
                    let before = peer.cpu_seconds()?;
                    let time = Duration::from_secs(self.options.seconds);
                    let taken = client::load(peer, request, *clients, time)?;
                    let count = f64::from(u32::try_from(taken.len())?);
                    measured.cpu.push((peer.cpu_seconds()? - before) * 1e6 / count);
                    measured.latencies.push(median(&taken));
                }
            }
            step.done("");
            let (bare_cpu, bare_time): (Vec<f64>, Vec<f64>) = bare.into_iter().unzip();
            let (bare_cpu, bare_time) = (median(&bare_cpu), median(&bare_time));
            let mut row =
                [load.name.as_str(), "ONNX Runtime in Python", "", "", "", "", ""].map(str::to_owned);
            row[3] = format!("{bare_cpu:.0}");
            row[5] = format!("{bare_time:.0}");
            rows.push(row);
            for ((peer, what, _, request), measured) in cases.iter().zip(&measured) {
                let (cpu, time) = (median(&measured.cpu), median(&measured.latencies));
                rows.push([
                    format!("{}, {what}", load.name),
                    peer.name.to_owned(),
                    format!("{}", request.body.len() / 1000),
                    format!("{cpu:.0}"),
                    format!("{:+.0} µs, {:.2}x", cpu - bare_cpu, cpu / bare_cpu),
                    format!("{time:.0}"),
                    format!("{:+.0} µs, {:.2}x", time - bare_time, time / bare_time),
                ]);
            }
        }
        Ok(aligned(&rows))
    }
}

/// Requests that a model has answered well.
fn answered(peer: &Peer, load: &Load) -> anyhow::Result<u64> {
    let path = format!("/v2/models/{}/stats", load.name);
    let (_, body) = Connection::open(&peer.url)?.send("GET", &path, "", b"")?;
    let stats: Value = serde_json::from_slice(&body)?;
    let count = stats.pointer("/model_stats/0/inference_stats/success/count").and_then(Value::as_u64);
    count.with_context(|| format!("no count of successes in {stats}"))
}

/// What rounds of one load measured.
#[derive(Default)]
struct Measured {
    cpu: Vec<f64>,
    rate: Vec<f64>,
    latencies: Vec<f64>,
}

impl Measured {
    fn row(&self, peer: &Peer, what: &str, clients: usize) -> anyhow::Result<[String; 9]> {
        Ok([
            peer.name.to_owned(),
            what.to_owned(),
            clients.to_string(),
            format!("{:.1}", median(&self.cpu)),
            format!("{:.0}", quantile(&self.latencies, 0.5)),
            format!("{:.0}", quantile(&self.latencies, 0.99)),
            format!("{:.0}", median(&self.rate)),
            format!("{:.0}", peer.resident_bytes()? / 1e6),
            format!("{:.2}", peer.cold.as_secs_f64()),
        ])
    }
}
