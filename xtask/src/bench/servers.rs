//! The servers that are measured: a hub alone, and etcd where it is installed.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tokio_rustls::TlsConnector;

use super::load::{Request, Server};
use crate::process::{in_path, tail};
use crate::sites::loop_until;
use crate::workspace::Workspace;

const START: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(20);
pub const API: &str = "/apis/avocet.dev/v1alpha1";

/// A process that is measured. Ends with its owner.
pub struct Running {
    child: Child,
    pub server: Server,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It ends by itself, so that a recording of what it ran is whole.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let ended = loop_until(END, || Ok(self.child.try_wait()?));
        if !matches!(ended, Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Lets this process and its children have as many files open as the machine allows; answers how many.
pub fn raise_file_limit() -> anyhow::Result<usize> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .context("can't raise the limit of open files")?;
    Ok(maximum.and_then(|maximum| usize::try_from(maximum).ok()).unwrap_or(usize::MAX))
}

/// A hub without a site, on its port for plain HTTP from this machine.
pub fn hub(workspace: &Workspace, folder: &Path) -> anyhow::Result<Running> {
    let (data, log) = (folder.join("hub"), folder.join("hub.log"));
    std::fs::create_dir_all(folder)?;
    let file = File::create(&log)?;
    let mut command = Command::new(workspace.shipped());
    command
        .args([
            "hub",
            "--listen",
            "127.0.0.1:0",
            "--listen-registry",
            "127.0.0.1:0",
            "--log",
            "error",
            "--data",
        ])
        .arg(&data);
    // What the hub can do is measured, not what it lets one client do.
    command.args(["--max-requests-per-second", "1000000"]);
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let child = command.spawn().context("can't start the hub")?;
    let mut running = Running { child, server: Server::default() };
    let host = loop_until(START, || {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        Ok(said.lines().find_map(|line| line.strip_prefix("hub is up: https://")).map(str::to_owned))
    })?;
    running.server.host = host.with_context(|| format!("the hub did not come up:\n{}", tail(&log)))?;
    let kubeconfig = std::fs::read_to_string(data.join("kubeconfig"))?;
    let token = kubeconfig.lines().find_map(|line| line.trim().strip_prefix("token:"));
    let token = token.context("the kubeconfig has no token")?.trim().trim_matches('"');
    running.server.headers = format!("Authorization: Bearer {token}\r\nContent-Type: application/json\r\n");
    Ok(running)
}

/// The same hub, over TLS as from other machines.
pub fn encrypted(hub: &Running, folder: &Path) -> anyhow::Result<Server> {
    let tls = TlsConnector::from(Arc::new(daemon::tls::client(&authority(folder)?)?));
    Ok(Server { tls: Some(tls), ..hub.server.clone() })
}

/// What the hub in a folder is known by, in PEM.
pub fn authority(folder: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(folder.join("hub/hub/ca.crt")).context("the hub has no authority")
}

/// A single etcd, asked through its own HTTP and JSON gateway; `None` where it is not installed.
pub fn etcd(folder: &Path) -> anyhow::Result<Option<Running>> {
    let Some(program) = in_path("etcd") else { return Ok(None) };
    std::fs::create_dir_all(folder)?;
    let log = folder.join("etcd.log");
    let file = File::create(&log)?;
    let (client, peer) = (free_port()?, free_port()?);
    let (client, peer) = (format!("127.0.0.1:{client}"), format!("127.0.0.1:{peer}"));
    let urls = [format!("http://{client}"), format!("http://{peer}")];
    let [url, peer_url] = &urls;
    let mut command = Command::new(program);
    command.arg("--data-dir").arg(folder.join("etcd"));
    command.args(["--listen-client-urls", url, "--advertise-client-urls", url]);
    command.args(["--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url]);
    command.args(["--initial-cluster", &format!("default={peer_url}"), "--log-level", "error"]);
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let child = command.spawn().context("can't start etcd")?;
    let running = Running { child, server: Server { host: client.clone(), ..Server::default() } };
    let up = loop_until(START, || {
        let health =
            crate::http::Connection::open(url).and_then(|mut one| one.send("GET", "/health", "", b""));
        Ok(health.ok().filter(|(status, body)| *status == 200 && body.starts_with(b"{\"health\":\"true\"")))
    })?;
    up.with_context(|| format!("etcd did not come up:\n{}", tail(&log)))?;
    Ok(Some(running))
}

pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A change of a function of the hub, at whatever version it is.
pub fn patch(server: &Server, name: &str, round: usize) -> Request {
    let headers = server.headers.replace("application/json", "application/merge-patch+json");
    let path = format!("{API}/namespaces/default/functions/{name}");
    Server { headers, ..server.clone() }.request("PATCH", &path, &manifest(name, round))
}

/// A function's manifest of about 1 KB once it is stored.
pub fn manifest(name: &str, round: usize) -> String {
    let digest = "0".repeat(64);
    let payload = "x".repeat(400);
    format!(
        r#"{{"apiVersion":"avocet.dev/v1alpha1","kind":"Function","metadata":{{"name":"{name}","annotations":{{"payload":"{payload}"}}}},"spec":{{"runtime":"shell","handler":"{}.sh","artifact":{{"digest":"sha256:{digest}"}}}}}}"#,
        marker(round)
    )
}

/// What tells a round in what watchers read; of one length, so that none contains another.
pub fn marker(round: usize) -> String {
    format!("round-{round:06}")
}

/// The same as etcd shows it.
pub fn encoded_marker(round: usize) -> String {
    STANDARD.encode(marker(round))
}

/// Bodies for etcd's gateway: the value is as large as what the hub stores.
pub fn etcd_put(name: &str, round: usize) -> String {
    // The marker first and of a length that base64 does not smear.
    let value = STANDARD.encode(format!("{}{}", marker(round), "x".repeat(988)));
    format!(r#"{{"key":"{}","value":"{value}"}}"#, STANDARD.encode(name))
}
