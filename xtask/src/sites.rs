//! Starts sites as processes of their own, each with its own data folder and free ports.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::process;
use crate::setup::Tools;
use crate::signals;

/// How long a site may take to come up.
const START: Duration = Duration::from_secs(60);
/// How long a site may take to end before it is killed.
const END: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(50);

/// What a site is started with.
pub struct SiteOptions<'a> {
    pub name: &'a str,
    pub tier: &'a str,
    pub tools: &'a Tools,
    /// Whether it may use ONNX Runtime.
    pub onnxruntime: bool,
}

/// A running site. Ends with its owner, unless kept.
pub struct Site {
    child: Child,
    pub data: PathBuf,
    pub log: PathBuf,
    pub name: String,
    kept: bool,
}

impl Site {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Goes on when this process ends.
    pub fn keep(&mut self) {
        self.kept = true;
        if let Some(pid) = pid(&self.child) {
            signals::release(pid);
        }
    }

    /// The keys to it.
    pub fn access(&self) -> anyhow::Result<Value> {
        let path = self.data.join("site/access.json");
        let bytes = std::fs::read(&path).with_context(|| format!("can't read {}", path.display()))?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "site {} ended: {status}; from {}:\n{}",
                self.name,
                self.log.display(),
                process::tail(&self.log)
            );
        }
        Ok(())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Some(pid) = pid(&self.child) {
            let _ = kill_process(pid, Signal::TERM);
            let deadline = Instant::now() + END;
            while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(POLL);
            }
            signals::release(pid);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pid(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()).ok()?)
}

/// A hub with its own site, and the sites that joined it.
pub struct Sites {
    avocet: PathBuf,
    folder: PathBuf,
    pub url: String,
    pub kubeconfig: PathBuf,
    pub all: Vec<Site>,
}

impl Sites {
    /// Starts a hub with a site; `folder` takes data folders and logs.
    pub fn start(avocet: &Path, folder: &Path, hub: &SiteOptions<'_>) -> anyhow::Result<Self> {
        let avocet = avocet.to_owned();
        let data = folder.join(hub.name);
        let mut command = site_command(&avocet, "up", hub, &data);
        command.args(["--site", hub.name, "--listen", "127.0.0.1:0"]);
        let mut site = spawn(command, hub.name, folder, data)?;
        let url = loop_until(START, || {
            site.check()?;
            let log = std::fs::read_to_string(&site.log).unwrap_or_default();
            let line = log.lines().find_map(|line| line.strip_prefix("hub is up: "));
            Ok(line.map(str::to_owned))
        })?;
        let url = url.with_context(|| {
            format!("the hub did not come up; from {}:\n{}", site.log.display(), process::tail(&site.log))
        })?;
        let kubeconfig = site.data.join("kubeconfig");
        Ok(Self { avocet, folder: folder.to_owned(), url, kubeconfig, all: vec![site] })
    }

    /// Starts a site that joins the hub with a token.
    pub fn join(&mut self, options: &SiteOptions<'_>) -> anyhow::Result<()> {
        self.join_with(options, &[])
    }

    /// The same, with further arguments.
    pub fn join_with(&mut self, options: &SiteOptions<'_>, further: &[&str]) -> anyhow::Result<()> {
        let said = process::output(self.avocet().args(["join-token", "--site", options.name]))?;
        let token = said.lines().next().context("avocet join-token printed nothing")?.trim().to_owned();
        let data = self.folder.join(options.name);
        let mut command = site_command(&self.avocet, "agent", options, &data);
        command.args(["--join", &self.url]).args(further).env("AVOCET_JOIN_TOKEN", token);
        self.all.push(spawn(command, options.name, &self.folder, data)?);
        Ok(())
    }

    /// The command line of the hub's admin.
    pub fn avocet(&self) -> Command {
        let mut command = Command::new(&self.avocet);
        clean(&mut command).arg("--kubeconfig").arg(&self.kubeconfig);
        command
    }

    /// What `avocet … -o json` answers.
    pub fn ask(&self, words: &[&str]) -> anyhow::Result<Value> {
        let said = process::output(self.avocet().args(words).args(["-o", "json"]))?;
        serde_json::from_str(&said).with_context(|| format!("`avocet {}` printed no JSON", words.join(" ")))
    }

    pub fn site(&self, name: &str) -> anyhow::Result<&Site> {
        self.all.iter().find(|site| site.name == name).with_context(|| format!("there is no site {name}"))
    }

    /// Fails if a site has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.all.iter_mut().try_for_each(Site::check)
    }

    /// Waits until every site reports to the hub and has told where it listens.
    pub fn wait_for_sites(&mut self) -> anyhow::Result<()> {
        let wanted: Vec<String> = self.all.iter().map(|site| site.name.clone()).collect();
        let mut missing = Vec::new();
        let ready = loop_until(START, || {
            self.check()?;
            let sites = self.ask(&["get", "sites"])?;
            let is_up = |name: &&String| {
                let found = items(&sites).iter().find(|site| text(site, "/metadata/name") == **name);
                found.is_some_and(|site| {
                    condition(site, "Ready").0 == "True"
                        && !text(site, "/status/endpoints/inference").is_empty()
                })
            };
            missing = wanted.iter().filter(|name| !is_up(name)).cloned().collect();
            Ok(missing.is_empty().then_some(()))
        })?;
        ready.with_context(|| format!("not ready after {} s: site {}", START.as_secs(), missing.join(", ")))
    }

    /// Waits until an application is ready; `say` hears how far it is.
    pub fn wait_for_application(
        &mut self,
        name: &str,
        limit: Duration,
        say: &dyn Fn(&str),
    ) -> anyhow::Result<()> {
        let mut last = String::new();
        let ready = loop_until(limit, || {
            self.check()?;
            let application = self.ask(&["get", "applications", name])?;
            let (status, message) = condition(&application, "Ready");
            last = format!("{} ready. {message}", text(&application, "/status/ready"));
            say(&last);
            Ok((status == "True").then_some(()))
        })?;
        ready.with_context(|| format!("application {name} was not ready after {} s: {last}", limit.as_secs()))
    }
}

fn site_command(avocet: &Path, word: &str, options: &SiteOptions<'_>, data: &Path) -> Command {
    let mut command = Command::new(avocet);
    clean(&mut command).args([word, "--tier", options.tier]).arg("--data").arg(data);
    command.args(["--listen-inference", "127.0.0.1:0", "--listen-grpc", "127.0.0.1:0"]);
    command.args(["--listen-objects", "127.0.0.1:0", "--listen-site-registry", "127.0.0.1:0"]);
    if word == "up" {
        command.args(["--listen-registry", "127.0.0.1:0"]);
    }
    command.arg("--python").arg(&options.tools.functions_python);
    let library = options.tools.onnxruntime.as_deref().filter(|_| options.onnxruntime);
    command.env("AVOCET_ONNXRUNTIME", library.unwrap_or(Path::new("off")));
    command
}

/// What the user's shell sets for their own sites must not reach these.
fn clean(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AVOCET_") {
            command.env_remove(name);
        }
    }
    command
}

fn spawn(mut command: Command, name: &str, folder: &Path, data: PathBuf) -> anyhow::Result<Site> {
    std::fs::create_dir_all(folder)?;
    let log = folder.join(format!("{name}.log"));
    let file = File::create(&log).with_context(|| format!("can't write {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    // A group of its own: Ctrl-C reaches the sites through `signals`, or not at all once they are kept.
    command.process_group(0);
    let child = command.spawn().with_context(|| format!("can't start site {name}"))?;
    if let Some(pid) = pid(&child) {
        signals::adopt(pid);
    }
    Ok(Site { child, data, log, name: name.to_owned(), kept: false })
}

/// Asks again and again until there is an answer, or the limit is reached.
pub fn loop_until<T>(
    limit: Duration,
    mut ask: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<Option<T>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask()? {
            return Ok(Some(answer));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// A text in JSON, or nothing.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The items of a list.
pub fn items(value: &Value) -> &[Value] {
    value.get("items").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Status and message of a condition.
fn condition<'a>(resource: &'a Value, kind: &str) -> (&'a str, &'a str) {
    let conditions = resource.pointer("/status/conditions").and_then(Value::as_array);
    let found = conditions.into_iter().flatten().find(|condition| text(condition, "/type") == kind);
    found.map_or(("", ""), |condition| (text(condition, "/status"), text(condition, "/message")))
}
