//! What thousands of sites cost their hub. The agents are simulated: each speaks as a real one does, over TLS with a key of
//! its own, with its watch, its wait for deliveries and all else on one connection. It runs nothing.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::Options;
use super::counted::Sent;
use super::load::{Client, Server};
use super::memory::{cpu_seconds, own_bytes, peak_bytes};
use super::multiplexed::{Lines, Multiplexed};
use super::samples::{median, milliseconds, quantile};
use super::servers::{self, API, Running};
use super::store::runtime;
use crate::demo::aligned;
use crate::process::Step;
use crate::workspace::Workspace;

/// As sites do it unless told otherwise.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// How many agents join or connect at once.
const AT_ONCE: usize = 100;
/// How long the hub gets to settle.
const SETTLE: Duration = Duration::from_secs(5);
/// How long nobody asks for anything: some heartbeats of all, and longer than the hub keeps its history.
const REST: Duration = Duration::from_secs(330);
/// After how long who could not connect tries again, as often as there are such.
const AGAIN: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// Files that a process needs besides.
const OTHER_FILES: usize = 200;

/// What was measured with so many agents.
#[derive(Default)]
struct Measured {
    joined_per_second: f64,
    kilobytes: f64,
    cpu_per_second: f64,
    uplink_kilobits: f64,
    applied: Vec<f64>,
    ready: f64,
    applying_cpu: f64,
    back: Vec<f64>,
    back_cpu: f64,
    peak_megabytes: f64,
}

pub fn measure(workspace: &Workspace, folder: &Path, options: &Options) -> anyhow::Result<String> {
    let files = servers::raise_file_limit()?;
    let most = options.agents.min(files.saturating_sub(OTHER_FILES));
    let mut counts = vec![most.min(1000), most];
    counts.dedup();
    let mut rows = vec![
        [
            "AGENTS",
            "JOIN /s",
            "KB/AGENT",
            "CPU µs/AGENT·s",
            "SENT kbit/s",
            "APPLIED P50 ms",
            "P99 ms",
            "ALL READY s",
            "HUB CPU s",
            "ALL BACK P50 s",
            "P99 s",
            "HUB CPU s",
            "PEAK MB",
        ]
        .map(str::to_owned),
    ];
    for count in counts {
        let step = Step::begin(&format!("{count} simulated agents"));
        let hub = servers::hub(workspace, &folder.join(count.to_string()))?;
        let authority = servers::authority(&folder.join(count.to_string()))?;
        let measured = runtime()?.block_on(one(&hub, &authority, count, options, &step));
        let measured = measured.with_context(|| format!("{count} agents"))?;
        step.done("");
        rows.push([
            count.to_string(),
            format!("{:.0}", measured.joined_per_second),
            format!("{:.1}", measured.kilobytes),
            format!("{:.0}", measured.cpu_per_second),
            format!("{:.2}", measured.uplink_kilobits),
            format!("{:.0}", median(&measured.applied)),
            format!("{:.0}", quantile(&measured.applied, 0.99)),
            format!("{:.1}", measured.ready),
            format!("{:.1}", measured.applying_cpu),
            format!("{:.1}", median(&measured.back)),
            format!("{:.1}", quantile(&measured.back, 0.99)),
            format!("{:.1}", measured.back_cpu),
            format!("{:.0}", measured.peak_megabytes),
        ]);
    }
    let limit = if most < options.agents {
        format!("No more than {most} agents: a process may have {files} files open on this machine. ")
    } else {
        String::new()
    };
    let note = "Agents are simulated, in one thread on the hub's cores: TLS with a key of its own, one \
                connection with a watch and a wait for deliveries each, heartbeats every 20 s, and they run nothing. KB/AGENT: growth of \
                the hub's resident memory, but for pages of files, from before the first joined until all were at rest for five and a half \
                minutes; CPU: what the hub works for one agent at rest; SENT: \
                by one agent at rest, as TLS has it. APPLIED: from before an application of one \
                component on all sites is changed until the hub has taken an agent's word that it runs; ALL READY: until the \
                application says so. ALL BACK: from the moment at which all connections are cut, and all agents return at \
                once without the pause that real ones make (who is turned away tries again after a second), until an agent has its answer and its watch again.\n";
    Ok(aligned(&rows) + &limit + note)
}

async fn one(
    hub: &Running,
    authority: &str,
    count: usize,
    options: &Options,
    step: &Step,
) -> anyhow::Result<Measured> {
    let (mut measured, plain) = (Measured::default(), &hub.server);
    let empty = own_bytes(hub.pid())?;
    step.say("joining");
    let began = Instant::now();
    let agents = join(plain, authority, count).await?;
    let counted = f64::from(u32::try_from(count)?);
    measured.joined_per_second = counted / began.elapsed().as_secs_f64();

    step.say("connecting");
    let mut fleet = Fleet::connect(&agents).await?;
    tokio::time::sleep(SETTLE).await;
    step.say("at rest");
    let (busy, sent) = (cpu_seconds(hub.pid())?, all_sent(&agents));
    fleet.rest(REST).await?;
    let agent_seconds = REST.as_secs_f64() * counted;
    measured.cpu_per_second = (cpu_seconds(hub.pid())? - busy) * 1e6 / agent_seconds;
    measured.uplink_kilobits = (all_sent(&agents) - sent) * 8.0 / 1e3 / agent_seconds;
    measured.kilobytes = (own_bytes(hub.pid())? - empty) / 1e3 / counted;

    step.say("applying");
    let mut person = plain.connect().await?;
    for (plural, manifest) in manifests() {
        let path = format!("{API}/namespaces/default/{plural}");
        person.expect(&plain.request("POST", &path, &manifest.to_string())).await?;
    }
    fleet.applied(Instant::now()).await?;
    until_ready(&mut person, plain).await?;
    let (mut readies, mut used) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds.clamp(1, 3) {
        let busy = cpu_seconds(hub.pid())?;
        let began = Instant::now();
        person.expect(&change(plain, round)).await?;
        measured.applied.extend(fleet.applied(began).await?.into_iter().map(milliseconds));
        until_ready(&mut person, plain).await?;
        readies.push(began.elapsed().as_secs_f64());
        used.push(cpu_seconds(hub.pid())? - busy);
    }
    (measured.ready, measured.applying_cpu) = (median(&readies), median(&used));

    step.say("coming back");
    let busy = cpu_seconds(hub.pid())?;
    drop(fleet);
    let began = Instant::now();
    let mut fleet = Fleet::connect_within(&agents, count).await?;
    let back = fleet.connected.drain(..).map(|at| at.duration_since(began).as_secs_f64());
    measured.back = back.collect();
    measured.back_cpu = cpu_seconds(hub.pid())? - busy;
    measured.peak_megabytes = peak_bytes(hub.pid())? / 1e6;
    Ok(measured)
}

/// A site and how it speaks.
#[derive(Clone)]
struct Agent {
    site: String,
    instance: String,
    server: Server,
}

/// Bytes that all agents have sent.
#[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
fn all_sent(agents: &[Agent]) -> f64 {
    agents.first().map_or(0, |agent| agent.server.sent.load(Ordering::Relaxed)) as f64
}

async fn join(plain: &Server, authority: &str, count: usize) -> anyhow::Result<Vec<Agent>> {
    let (mut tasks, places) = (JoinSet::new(), Arc::new(Semaphore::new(AT_ONCE)));
    let (sent, authority): (_, Arc<str>) = (Sent::default(), authority.into());
    for index in 0..count {
        let (plain, authority, places) = (plain.clone(), authority.clone(), places.clone());
        let sent = sent.clone();
        tasks.spawn(async move {
            let _place = places.acquire().await?;
            let site = format!("site-{index}");
            let mut client = plain.connect().await?;
            let asked = json!({"site": site, "ttlSeconds": 600}).to_string();
            let token = client.expect(&plain.request("POST", "/avocet/v1/join-tokens", &asked)).await?;
            let token: Value = serde_json::from_slice(&token)?;
            let key = daemon::tls::new_key()?;
            let request = daemon::tls::request(&key, &format!("site:{site}"), "avocet:sites")?;
            let joining =
                json!({"token": token.get("token"), "request": request, "tier": "edge"}).to_string();
            let joined = client.expect(&plain.request("POST", "/avocet/v1/join", &joining)).await?;
            let joined: Value = serde_json::from_slice(&joined)?;
            let certificate = joined.get("certificate").and_then(Value::as_str).context("no certificate")?;
            let mut tls = daemon::tls::client_with_certificate(&authority, certificate, &key)?;
            tls.alpn_protocols = vec![daemon::tls::MULTIPLEXED.to_vec()];
            let instance = format!("{index:016x}");
            let server = Server {
                host: plain.host.clone(),
                tls: Some(TlsConnector::from(Arc::new(tls))),
                headers: String::new(),
                from: Some(Ipv4Addr::new(127, 0, 1, u8::try_from(index % 200)?)),
                sent,
            };
            anyhow::Ok(Agent { site, instance, server })
        });
    }
    let mut agents = Vec::new();
    while let Some(agent) = tasks.join_next().await {
        agents.push(agent??);
    }
    Ok(agents)
}

const MERGE: [(&str, &str); 1] = [("content-type", "application/merge-patch+json")];

/// Agents at work.
struct Fleet {
    tasks: JoinSet<anyhow::Result<()>>,
    /// When the hub had taken an agent's word.
    applied: mpsc::UnboundedReceiver<Instant>,
    /// When each agent was connected.
    connected: Vec<Instant>,
    count: usize,
}

impl Fleet {
    async fn connect(agents: &[Agent]) -> anyhow::Result<Self> {
        Self::connect_within(agents, AT_ONCE).await
    }

    /// Connects all agents, so many at once.
    async fn connect_within(agents: &[Agent], at_once: usize) -> anyhow::Result<Self> {
        let (told, applied) = mpsc::unbounded_channel();
        let (mut ready, places) = (JoinSet::new(), Arc::new(Semaphore::new(at_once)));
        for agent in agents {
            let (agent, places) = (agent.clone(), places.clone());
            ready.spawn(async move {
                let _place = places.acquire().await?;
                let began = Instant::now();
                loop {
                    match agent.connect().await {
                        Ok(connected) => return anyhow::Ok((agent, connected, Instant::now())),
                        Err(error) => ensure!(began.elapsed() < LONGEST, "{}: {error:#}", agent.site),
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            });
        }
        let (mut tasks, mut connected) = (JoinSet::new(), Vec::new());
        while let Some(agent) = ready.join_next().await {
            let (agent, (hub, watch), at) = agent??;
            tasks.spawn(agent.clone().wait(hub.clone()));
            tasks.spawn(agent.work(hub, watch, told.clone()));
            connected.push(at);
        }
        Ok(Self { tasks, applied, connected, count: agents.len() })
    }

    /// Lets them be.
    async fn rest(&mut self, time: Duration) -> anyhow::Result<()> {
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            Some(ended) = self.tasks.join_next() => ended?,
        }
    }

    /// How long each agent took, from a moment on.
    async fn applied(&mut self, began: Instant) -> anyhow::Result<Vec<Duration>> {
        let mut taken = Vec::new();
        while taken.len() < self.count {
            tokio::select! {
                applied = tokio::time::timeout(LONGEST, self.applied.recv()) => {
                    taken.push(applied?.context("no agents")?.duration_since(began));
                }
                Some(ended) = self.tasks.join_next() => ended??,
            }
        }
        Ok(taken)
    }
}

impl Agent {
    async fn beat(&self, hub: &Multiplexed) -> anyhow::Result<()> {
        let now = daemon::now().to_string();
        let told = json!({"instance": self.instance, "now": now}).to_string();
        let path = format!("/avocet/v1/sites/{}/heartbeat", self.site);
        hub.expect("POST", &path, &[], told).await.map(drop)
    }

    /// A connection, with the watch from what was listed.
    async fn connect(&self) -> anyhow::Result<(Multiplexed, Lines)> {
        let common = [
            ("user-agent", concat!("avocet/", env!("CARGO_PKG_VERSION"))),
            ("avocet-instance", &self.instance),
        ];
        let hub = Multiplexed::connect(&self.server, &common).await?;
        self.beat(&hub).await?;
        let path = format!("{API}/sites/{}/status", self.site);
        hub.expect("PATCH", &path, &MERGE, facts().to_string()).await?;
        let path = format!("{API}/namespaces/{}/assignments", self.site);
        let list: Value = serde_json::from_slice(&hub.expect("GET", &path, &[], String::new()).await?)?;
        let version = list.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
        let watch = format!(
            "{path}?watch=true&allowWatchBookmarks=true&timeoutSeconds=3600&resourceVersion={version}"
        );
        let watch = hub.lines(&watch).await?;
        Ok((hub, watch))
    }

    /// Asks for deliveries, for ever; there are none.
    async fn wait(self, hub: Multiplexed) -> anyhow::Result<()> {
        let path = format!("/avocet/v1/mailbox/{}?wait=120", self.site);
        loop {
            hub.expect("GET", &path, &[("avocet-offload", "1")], String::new()).await?;
        }
    }

    /// Heartbeats, and says of every new generation of its assignments that it runs.
    async fn work(
        self,
        hub: Multiplexed,
        mut watch: Lines,
        told: mpsc::UnboundedSender<Instant>,
    ) -> anyhow::Result<()> {
        let spread =
            self.site.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let first = tokio::time::Instant::now() + HEARTBEAT.mul_f64(f64::from(spread % 1000) / 1000.0);
        let mut beats = tokio::time::interval_at(first, HEARTBEAT);
        let mut observed = 0;
        loop {
            let line = tokio::select! {
                _ = beats.tick() => {
                    self.beat(&hub).await?;
                    continue;
                }
                line = watch.next() => line?,
            };
            let change: Value = serde_json::from_slice(&line)?;
            let text = |pointer: &str| change.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            ensure!(text("/type") != "ERROR", "{}: {change}", self.site);
            let generation =
                change.pointer("/object/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
            if generation <= observed || !matches!(text("/type"), "ADDED" | "MODIFIED") {
                continue;
            }
            observed = generation;
            let path = format!(
                "{API}/namespaces/{}/assignments/{}/status",
                self.site,
                text("/object/metadata/name")
            );
            let status = json!({"status": {"observedGeneration": generation, "conditions": [{
                "type": "Available", "status": "True", "reason": "Simulated", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": generation,
            }]}});
            hub.expect("PATCH", &path, &MERGE, status.to_string()).await?;
            told.send(Instant::now())?;
        }
    }
}

/// What an agent tells of a common machine.
fn facts() -> Value {
    let claim = |name: &str, value: &str| json!({"name": name, "value": value});
    json!({"status": {
        "version": env!("CARGO_PKG_VERSION"),
        "endpoints": {"inference": "http://10.0.0.7:8000", "objects": "http://10.0.0.7:9000"},
        "capacity": {"cpus": 4, "memoryBytes": 8_000_000_000_u64},
        "allocatable": {"cpu": "4", "memory": "7500000000", "disk": "50000000000"},
        "claims": [claim("kernel", "6.1.0-18-amd64"), claim("os", "Debian GNU/Linux 12 (bookworm)"),
            claim("cpu-model", "Intel(R) Core(TM) i3-N305"), claim("engine.native", env!("CARGO_PKG_VERSION"))],
        "architecture": "x86_64", "operatingSystem": "linux", "engines": ["native", "rten"],
        "runtimes": ["python", "shell", "executable"],
        "links": [{"site": "hub", "roundTripMilliseconds": 20.0, "jitterMilliseconds": 0.5, "megabitsPerSecond": 50.0}],
    }})
}

/// A function on all sites.
fn manifests() -> [(&'static str, Value); 3] {
    let named = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "avocet.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let artifact = json!({"digest": format!("sha256:{}", "0".repeat(64))});
    [
        ("placements", named("Placement", "everywhere", json!({"tiers": ["edge"]}))),
        (
            "functions",
            named("Function", "f", json!({"runtime": "shell", "handler": "h0.sh", "artifact": artifact})),
        ),
        (
            "applications",
            named(
                "Application",
                "app",
                json!({"components": [{"name": "f", "placement": "everywhere", "function": "f",
                    "inputs": [{"path": "letters/in"}], "outputs": [{"path": "letters/out"}]}]}),
            ),
        ),
    ]
}

fn change(server: &Server, round: usize) -> super::load::Request {
    let headers = server.headers.replace("application/json", "application/merge-patch+json");
    let body = json!({"spec": {"handler": format!("h{round}.sh")}}).to_string();
    Server { headers, ..server.clone() }.request(
        "PATCH",
        &format!("{API}/namespaces/default/functions/f"),
        &body,
    )
}

async fn until_ready(person: &mut Client, server: &Server) -> anyhow::Result<()> {
    let began = Instant::now();
    let look = server.request("GET", &format!("{API}/namespaces/default/applications/app"), "");
    loop {
        let application: Value = serde_json::from_slice(&person.expect(&look).await?)?;
        let conditions = application.pointer("/status/conditions").and_then(Value::as_array);
        let is = |kind: &str, status: &str| {
            conditions.into_iter().flatten().any(|condition| {
                condition.get("type").and_then(Value::as_str) == Some(kind)
                    && condition.get("status").and_then(Value::as_str) == Some(status)
            })
        };
        if is("Ready", "True") && !is("Progressing", "True") {
            return Ok(());
        }
        ensure!(began.elapsed() < LONGEST, "the application was not ready: {application}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
