//! The model server on a small request, beside LitServe: processor time a request, latency, throughput, cold start and
//! memory, in one run.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::Options;
use super::memory::cpu_seconds;
use super::samples::{median, microseconds, quantile};
use super::servers::free_port;
use crate::demo::aligned;
use crate::http::Connection;
use crate::process::{Step, tail};
use crate::setup;
use crate::sites::loop_until;
use crate::workspace::Workspace;

const START: Duration = Duration::from_secs(60);
/// The committed forest of scikit-learn: 100 trees, 4 numbers in, 3 probabilities out.
const MODEL: &str = "crates/inference/tests/data/classical/iris_forest.onnx";
const BODY: &[u8] = br#"{"inputs":[{"name":"X","shape":[1,4],"datatype":"FP32","data":[5.1,3.5,1.4,0.2]}]}"#;
const HEADERS: &str = "Content-Type: application/json\r\n";

/// A server that answers the request at a path.
struct Peer {
    name: &'static str,
    path: &'static str,
    url: String,
    /// From its start to its first answer.
    cold: Duration,
    child: Child,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Its workers are processes that end with it, if it is asked and not killed.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

pub fn measure(workspace: &Workspace, folder: &Path, options: &Options) -> anyhow::Result<String> {
    std::fs::create_dir_all(folder)?;
    let tools = setup::setup(workspace, setup::Scope::Demo)?;
    let python = setup::bench_python(workspace)?;
    let model = workspace.root.join(MODEL);
    let avocet = || -> anyhow::Result<Peer> {
        let port = free_port()?;
        let mut command = Command::new(workspace.target.join("release/avocet"));
        command.arg("serve").arg(&model).args(["--http-port", &port.to_string(), "--grpc-port", "0"]);
        let library = tools.onnxruntime.as_deref().unwrap_or(Path::new("off"));
        command.env("AVOCET_ONNXRUNTIME", library);
        start("avocet", "/v2/models/iris_forest/infer", port, command, folder)
    };
    let litserve = || -> anyhow::Result<Peer> {
        let port = free_port()?;
        let mut command = Command::new(&python);
        command.arg(workspace.root.join("xtask/src/bench/litserve_iris.py"));
        command.arg(port.to_string()).arg(&model);
        start("LitServe, ONNX Runtime", "/predict", port, command, folder)
    };
    let mut rows = vec![
        [
            "IRIS FOREST, JSON",
            "CLIENTS",
            "CPU µs/request",
            "P50 µs",
            "P99 µs",
            "requests/s",
            "COLD ms",
            "RSS MB",
        ]
        .map(str::to_owned),
    ];
    for begin in [&avocet as &dyn Fn() -> anyhow::Result<Peer>, &litserve] {
        let peer = begin()?;
        let step = Step::begin(peer.name);
        load(&peer, 1, Duration::from_millis(300))?;
        for clients in [1, 16, 64] {
            step.say(&format!("{clients} clients"));
            let (mut cpu, mut rate, mut latencies) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..options.rounds {
                let before = tree_cpu_seconds(peer.child.id())?;
                let time = Duration::from_secs(options.seconds);
                let taken = load(&peer, clients, time)?;
                let spent = tree_cpu_seconds(peer.child.id())? - before;
                let count = f64::from(u32::try_from(taken.len())?);
                cpu.push(spent * 1e6 / count);
                rate.push(count / time.as_secs_f64());
                latencies.extend(taken);
            }
            rows.push([
                peer.name.to_owned(),
                clients.to_string(),
                format!("{:.1}", median(&cpu)),
                format!("{:.0}", quantile(&latencies, 0.5)),
                format!("{:.0}", quantile(&latencies, 0.99)),
                format!("{:.0}", median(&rate)),
                format!("{:.0}", peer.cold.as_secs_f64() * 1e3),
                format!("{:.1}", tree_resident(peer.child.id())? / 1e6),
            ]);
        }
        step.done("");
    }
    let note = "CPU: of the server and its processes, model included. The clients are threads on the same cores, which \
                bounds requests/s.\n";
    Ok(aligned(&rows) + note)
}

fn start(
    name: &'static str,
    path: &'static str,
    port: u16,
    mut command: Command,
    folder: &Path,
) -> anyhow::Result<Peer> {
    let log = folder.join(format!("{}.log", name.replace([' ', ','], "-")));
    let file = File::create(&log)?;
    let began = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
    let url = format!("http://127.0.0.1:{port}");
    let mut peer = Peer { name, path, url, cold: Duration::ZERO, child };
    let up = loop_until(START, || {
        let answer = Connection::open(&peer.url)
            .and_then(|mut connection| connection.send("POST", peer.path, HEADERS, BODY));
        Ok(answer.ok().filter(|(status, _)| *status == 200))
    })?;
    up.with_context(|| format!("{name} did not come up:\n{}", tail(&log)))?;
    peer.cold = began.elapsed();
    Ok(peer)
}

/// Microseconds of each request, of clients that ask one request after the other.
fn load(peer: &Peer, clients: usize, time: Duration) -> anyhow::Result<Vec<f64>> {
    let began = Instant::now();
    let client = || -> anyhow::Result<Vec<f64>> {
        let mut connection = Connection::open(&peer.url)?;
        let mut taken = Vec::new();
        while began.elapsed() < time {
            let asked = Instant::now();
            let (status, body) = connection.send("POST", peer.path, HEADERS, BODY)?;
            ensure!(status == 200, "{}: {status} {}", peer.name, String::from_utf8_lossy(&body));
            taken.push(microseconds(asked.elapsed()));
        }
        Ok(taken)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        let mut all = Vec::new();
        for thread in threads {
            let taken = thread.join().map_err(|_| anyhow::anyhow!("a client of the benchmark panicked"))?;
            all.extend(taken?);
        }
        Ok(all)
    })
}

/// A process and all that it started.
fn tree(root: u32) -> anyhow::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse::<u32>().ok());
        parents.extend(parent.map(|parent| (pid, parent)));
    }
    let mut found = vec![root];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    Ok(found)
}

fn tree_cpu_seconds(root: u32) -> anyhow::Result<f64> {
    tree(root)?.into_iter().map(cpu_seconds).sum()
}

fn tree_resident(root: u32) -> anyhow::Result<f64> {
    tree(root)?.into_iter().map(super::memory::resident_bytes).sum()
}
