//! The servers that are measured, as processes.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::bench::memory;
use crate::http::Connection;
use crate::process::tail;
use crate::sites::loop_until;

const START: Duration = Duration::from_secs(60);

/// A request over HTTP.
pub struct Request<'a> {
    pub path: &'a str,
    /// Each ends with CR LF.
    pub headers: &'a str,
    pub body: &'a [u8],
}

/// A server, which ends with its owner, as its workers do.
pub struct Peer {
    pub name: &'static str,
    pub url: String,
    /// From its start to its first answer.
    pub cold: Duration,
    child: Child,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["--", &group]).status();
        let _ = self.child.wait();
        // Some workers outlive who started them, and would be measured with the next server.
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
    }
}

impl Peer {
    /// Starts a server; it is up when it answers a request.
    pub fn start(
        name: &'static str,
        port: u16,
        mut command: Command,
        first: &Request<'_>,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log)?;
        let began = Instant::now();
        let child =
            command.process_group(0).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
        let mut peer = Self { name, url: format!("http://127.0.0.1:{port}"), cold: Duration::ZERO, child };
        let up = loop_until(START, || {
            let answer = Connection::open(&peer.url)
                .and_then(|mut connection| connection.send("POST", first.path, first.headers, first.body));
            Ok(answer.ok().filter(|(status, _)| *status == 200))
        })?;
        up.with_context(|| format!("{name} did not come up:\n{}", tail(&log)))?;
        peer.cold = began.elapsed();
        Ok(peer)
    }

    /// Processor time of the server and its processes.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        self.processes()?.into_iter().map(memory::cpu_seconds).sum()
    }

    /// Resident memory of the server and its processes.
    pub fn resident_bytes(&self) -> anyhow::Result<f64> {
        self.processes()?.into_iter().map(memory::resident_bytes).sum()
    }

    /// Proportional memory of the server and its processes: what they share counts once.
    pub fn proportional_bytes(&self) -> anyhow::Result<f64> {
        self.processes()?.into_iter().map(memory::proportional_bytes).sum()
    }

    fn processes(&self) -> anyhow::Result<Vec<u32>> {
        let mut parents = Vec::new();
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let parent =
                stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse::<u32>().ok());
            parents.extend(parent.map(|parent| (pid, parent)));
        }
        let mut found = vec![self.child.id()];
        let mut at = 0;
        while let Some(&parent) = found.get(at) {
            found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
            at += 1;
        }
        Ok(found)
    }
}
