//! How often one artifact leaves the hub when many agents want it at once, with and without neighbours. The agents are
//! real processes on this machine.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::json;

use super::Options;
use super::memory::cpu_seconds;
use crate::demo::aligned;
use crate::http::Connection;
use crate::process::{self, Step};
use crate::setup::{self, Scope, Tools};
use crate::sites::{SiteOptions, Sites, loop_until};
use crate::workspace::Workspace;

const HUB: &str = "cloud";
/// What makes agents neighbours.
const PEERS: [&str; 2] = ["--listen-peers", "127.0.0.1:0"];
const LONGEST: Duration = Duration::from_secs(600);
const SENT: &str = "avocet_artifact_bytes_sent_total ";

pub fn measure(workspace: &Workspace, folder: &Path, options: &Options) -> anyhow::Result<String> {
    let tools = setup::setup(workspace, Scope::Demo)?;
    let mut rows = vec![
        ["NEIGHBOURS", "AGENTS", "ARTIFACT MB", "HUB SENT MB", "EGRESS RATIO", "ALL HAVE IT s", "HUB CPU s"]
            .map(str::to_owned),
    ];
    for (word, further) in [("no", &[][..]), ("yes", &PEERS[..])] {
        let folder = folder.join(word);
        let round = Round { workspace, tools: &tools, folder: &folder, options, further };
        let measured = round.run()?;
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        rows.push([
            word.to_owned(),
            options.receivers.to_string(),
            format!("{:.1}", megabytes(measured.size)),
            format!("{:.1}", megabytes(measured.sent)),
            format!("{:.2}", measured.sent as f64 / measured.size as f64),
            format!("{:.1}", measured.seconds),
            format!("{:.1}", measured.cpu),
        ]);
        std::fs::remove_dir_all(&folder).with_context(|| format!("can't remove {}", folder.display()))?;
    }
    let note = "Real agents on the hub's cores and disk, all of which get an Assignment of one new artifact at once. EGRESS \
                RATIO: bytes that the hub sent of it, by its size; ALL HAVE IT: from before the application is applied \
                (which uploads the artifact) until it lies, checked and synced, on the disk of every agent.\n";
    Ok(aligned(&rows) + note)
}

struct Round<'a> {
    workspace: &'a Workspace,
    tools: &'a Tools,
    folder: &'a Path,
    options: &'a Options,
    further: &'a [&'a str],
}

struct Measured {
    size: u64,
    sent: u64,
    seconds: f64,
    cpu: f64,
}

impl Round<'_> {
    fn run(&self) -> anyhow::Result<Measured> {
        let step = Step::begin(&format!("{} agents", self.options.receivers));
        let hub = SiteOptions { name: HUB, tier: "cloud", tools: self.tools, onnxruntime: false };
        let mut sites = Sites::start(&self.workspace.shipped(), self.folder, &hub)?;
        for number in 0..self.options.receivers {
            let name = format!("agent-{number}");
            let site = SiteOptions { name: &name, tier: "edge", tools: self.tools, onnxruntime: false };
            sites.join_with(&site, self.further)?;
            step.say(&name);
        }
        sites.wait_for_sites()?;
        let manifest = self.write_application()?;
        let hub = sites.site(HUB)?.pid();
        let (sent, busy, began) = (sent(&sites)?, cpu_seconds(hub)?, Instant::now());
        step.say("distributing");
        process::output(sites.avocet().args(["apply", "-f"]).arg(&manifest))?;
        let function = sites.ask(&["get", "functions", "large"])?;
        let digest = function.pointer("/spec/artifact/digest").and_then(|digest| digest.as_str());
        let digest =
            digest.and_then(|digest| digest.strip_prefix("sha256:")).context("the function has no digest")?;
        let size = function.pointer("/spec/artifact/size").and_then(serde_json::Value::as_u64);
        let agents = sites.all.iter().filter(|site| site.name != HUB);
        let mut missing: Vec<PathBuf> =
            agents.map(|site| site.data.join("site/artifacts/blobs").join(digest)).collect();
        let all = loop_until(LONGEST, || {
            missing.retain(|file| !file.is_file());
            Ok(missing.is_empty().then(|| began.elapsed()))
        })?;
        let Some(all) = all else { bail!("{} agents lack the artifact", missing.len()) };
        let measured = Measured {
            size: size.context("the function has no size")?,
            sent: self::sent(&sites)? - sent,
            seconds: all.as_secs_f64(),
            cpu: cpu_seconds(hub)? - busy,
        };
        step.done("");
        Ok(measured)
    }

    /// A function with a large file that can't be compressed.
    fn write_application(&self) -> anyhow::Result<PathBuf> {
        let function = self.folder.join("large");
        std::fs::create_dir_all(&function)?;
        std::fs::write(function.join("run.sh"), "true\n")?;
        let mut noise = vec![0; self.options.artifact_mebibytes << 20];
        daemon::fill_random(&mut noise)?;
        std::fs::write(function.join("weights.bin"), noise)?;
        let named = |kind: &str, name: &str, spec| json!({"apiVersion": "avocet.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        let component = json!({
            "name": "large", "placement": "everywhere", "function": "large",
            "inputs": [{"path": "large/in"}], "outputs": [{"path": "large/out"}],
        });
        let artifact = json!({"path": function});
        let manifests = [
            named("Placement", "everywhere", json!({"tiers": ["edge"]})),
            named(
                "Function",
                "large",
                json!({"runtime": "shell", "handler": "run.sh", "artifact": artifact}),
            ),
            named("Application", "large", json!({"components": [component]})),
        ];
        let documents: Vec<String> = manifests.iter().map(|manifest| format!("---\n{manifest}\n")).collect();
        let path = self.folder.join("large.yaml");
        std::fs::write(&path, documents.concat())?;
        Ok(path)
    }
}

/// How many bytes of artifacts the hub has sent.
fn sent(sites: &Sites) -> anyhow::Result<u64> {
    let kubeconfig = std::fs::read_to_string(&sites.kubeconfig)?;
    let token = kubeconfig.split("token").nth(1).unwrap_or_default();
    let token: String = token
        .chars()
        .skip_while(|letter| !letter.is_ascii_hexdigit())
        .take_while(char::is_ascii_hexdigit)
        .collect();
    let mut hub = Connection::open(&sites.url.replace("https://", "http://"))?;
    let (status, body) = hub.send("GET", "/metrics", &format!("Authorization: Bearer {token}\r\n"), b"")?;
    let text = String::from_utf8_lossy(&body);
    let line = text.lines().find_map(|line| line.strip_prefix(SENT));
    line.and_then(|number| number.parse().ok())
        .with_context(|| format!("the hub answered {status} and does not tell what it sent"))
}
