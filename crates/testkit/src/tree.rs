//! A hub and the sites below it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::TcpListener;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::Process;
use crate::{LIMIT, wait_until};

/// Every site takes free ports and tells the hub of itself often.
const SITE: [&str; 10] = [
    "--listen-inference",
    "127.0.0.1:0",
    "--listen-grpc",
    "127.0.0.1:0",
    "--listen-objects",
    "127.0.0.1:0",
    "--listen-site-registry",
    "127.0.0.1:0",
    "--heartbeat",
    "1",
];

/// The folder of one test, and the program that it tests.
pub struct Tree {
    binary: PathBuf,
    /// Where its hubs listen.
    address: String,
    folder: TempDir,
}

impl Tree {
    /// An empty tree. In the tests of the crate `avocet` the program is `env!("CARGO_BIN_EXE_avocet")`.
    ///
    /// # Panics
    /// If there is no place for temporary files.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        Self::at(binary, "127.0.0.1")
    }

    /// The same, with hubs that listen on another address.
    ///
    /// # Panics
    /// If there is no place for temporary files.
    pub fn at(binary: impl Into<PathBuf>, address: &str) -> Self {
        Self { binary: binary.into(), address: address.to_owned(), folder: tempfile::tempdir().unwrap() }
    }

    /// The test's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file into the test's folder.
    ///
    /// # Panics
    /// If the disk fails.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A hub and its own site of tier `cloud` (`avocet up`), running. Others count as silent after 3 seconds.
    pub fn hub(&self, name: &str) -> Hub {
        self.hub_at(name, quiet_port())
    }

    /// The same on a port of the caller's choice.
    pub fn hub_at(&self, name: &str, port: u16) -> Hub {
        self.start_hub(name, "cloud", port, &[])
    }

    /// The same with further arguments.
    pub fn hub_with(&self, name: &str, further: &[&str]) -> Hub {
        self.start_hub(name, "cloud", quiet_port(), further)
    }

    /// A hub and its own site of tier `plant` that is a site of another hub with a new token (`avocet up --join`),
    /// running.
    pub fn hub_below(&self, above: &Hub, name: &str, further: &[&str]) -> Hub {
        let (url, token) = (above.url(), above.join_token(name));
        let join = ["--join", &url, "--token", &token];
        self.start_hub(name, "plant", quiet_port(), &[&join, further].concat())
    }

    fn start_hub(&self, name: &str, tier: &str, port: u16, further: &[&str]) -> Hub {
        let listen = format!("{}:{port}", self.address);
        let hub = [
            "up",
            "--site",
            name,
            "--tier",
            tier,
            "--grace",
            "3",
            "--listen",
            &listen,
            "--listen-registry",
            "127.0.0.1:0",
        ];
        let mut hub = Hub {
            site: self.process(name, &[&hub, &SITE[..], further].concat()),
            address: self.address.clone(),
            port,
        };
        hub.restart();
        hub
    }

    /// A site that joins with a new token (`avocet agent`), running. Its tier is `edge` unless the further
    /// arguments say something else.
    pub fn site(&self, hub: &Hub, name: &str, further: &[&str]) -> Site {
        let mut site = self.site_with_token(hub, name, &hub.join_token(name), further);
        site.restart();
        site
    }

    /// A site that joins with this token, not started.
    pub fn site_with_token(&self, hub: &Hub, name: &str, token: &str, further: &[&str]) -> Site {
        let url = hub.url();
        let agent = ["agent", "--join", &url, "--token", token];
        self.process(name, &[&agent, &SITE[..], further].concat())
    }

    fn process(&self, name: &str, arguments: &[&str]) -> Site {
        let folder = self.folder().join("processes").join(name);
        Site { name: name.to_owned(), process: Process::new(name, &self.binary, folder, arguments) }
    }
}

/// Below the ports that kernels hand out by themselves, so that nobody takes it while its owner is away.
fn quiet_port() -> u16 {
    loop {
        let random = RandomState::new().build_hasher().finish();
        let port = 10_000 + u16::try_from(random % 20_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// What a command printed and how it ended.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Whether it exited with 0.
    pub success: bool,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Ran {
    /// Runs a command to its end.
    ///
    /// # Panics
    /// If it can't be started.
    pub fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { success: output.status.success(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// What it printed.
    ///
    /// # Panics
    /// If it failed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.success, "failed:\n{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// The JSON that it printed.
    ///
    /// # Panics
    /// If it failed or printed something else.
    #[track_caller]
    pub fn json(self) -> Value {
        let printed = self.ok();
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error} in {printed}"))
    }

    /// What it complained of.
    ///
    /// # Panics
    /// If it succeeded.
    #[track_caller]
    pub fn refused(self) -> String {
        assert!(!self.success, "succeeded:\n{}{}", self.stdout, self.stderr);
        self.stderr
    }
}

/// A site's process and its keys.
pub struct Site {
    /// Its name.
    pub name: String,
    /// Its process.
    pub process: Process,
}

impl Site {
    /// Starts it, for the first time or again with the same data folder, and waits until it serves.
    #[track_caller]
    pub fn restart(&mut self) {
        self.process.start_until(&format!("site {} is up", self.name));
    }

    /// Kills it with signal 9.
    #[track_caller]
    pub fn kill_9(&mut self) {
        self.process.kill_9();
    }

    /// Where the site itself keeps its state.
    pub fn data(&self) -> PathBuf {
        self.process.data().join("site")
    }

    /// A field of its `access.json`, for example `inference` or `token`.
    ///
    /// # Panics
    /// If it never started.
    #[track_caller]
    pub fn access(&self, field: &str) -> String {
        let text = std::fs::read_to_string(self.data().join("access.json")).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()[field].as_str().unwrap().to_owned()
    }

    /// Runs a command on the site directly, without a hub.
    pub fn cli(&self, arguments: &[&str]) -> Ran {
        let access = self.data().join("access.json");
        let mut command = self.process.command(arguments);
        Ran::of(command.env("AVOCET_SITE_ACCESS", access))
    }

    /// Its last invocations, oldest first, as it tells them itself.
    #[track_caller]
    pub fn invocations(&self) -> Vec<Value> {
        let list = self.cli(&["get", "invocations", "-o", "json"]).json();
        list["items"].as_array().unwrap().clone()
    }
}

/// A running `avocet up`: a site that is also the hub.
pub struct Hub {
    site: Site,
    address: String,
    port: u16,
}

impl Deref for Hub {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl DerefMut for Hub {
    fn deref_mut(&mut self) -> &mut Site {
        &mut self.site
    }
}

impl Hub {
    /// Its address, which it keeps over restarts.
    pub fn url(&self) -> String {
        format!("https://{}:{}", self.address, self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The file that commands find it by.
    pub fn kubeconfig(&self) -> PathBuf {
        self.process.data().join("kubeconfig")
    }

    /// Runs a command with this hub's kubeconfig.
    pub fn cli(&self, arguments: &[&str]) -> Ran {
        let mut command = self.process.command(arguments);
        Ran::of(command.env("AVOCET_KUBECONFIG", self.kubeconfig()))
    }

    /// A new join token.
    #[track_caller]
    pub fn join_token(&self, site: &str) -> String {
        self.cli(&["join-token", "--site", site]).ok().trim().to_owned()
    }

    /// Waits until every component of an application runs.
    #[track_caller]
    pub fn wait_until_ready(&self, application: &str) {
        wait_until(&format!("application {application} is ready"), LIMIT, || {
            let seen = self.cli(&["get", "application", application, "-o", "json"]).json();
            let conditions = seen["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let is_ready = conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
            if is_ready { Ok(()) } else { Err(seen["status"].to_string()) }
        });
    }
}
