//! Charts, rendered by the real `helm`.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::build::{Manifest, joined, parse};
use crate::error::shorten;
use crate::tree::resolve;
use crate::{Error, Tree, program};

/// How long a chart may take.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);
/// How much a chart may become, in bytes.
const LONGEST: u64 = 32 << 20;

/// How a chart is rendered.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Helm {
    /// The release's name.
    pub release: String,
    /// Its namespace.
    pub namespace: String,
    /// Values that replace those of the chart.
    pub values: Map<String, Value>,
    /// Files of the chart's folder with more values, in order; `values` come after them.
    pub value_files: Vec<String>,
}

/// What the chart in a folder becomes. Hooks are left out: nothing here runs them.
pub fn render(tree: &mut Tree, folder: &str, helm: &Helm) -> Result<Vec<Manifest>, Error> {
    let place = tempfile::tempdir().map_err(Error::io("make a folder for a chart"))?;
    let chart = place.path().join("chart");
    unpack(tree, folder, &chart)?;
    let values = place.path().join("values.json");
    let text = Value::Object(helm.values.clone()).to_string();
    std::fs::write(&values, text).map_err(Error::io("write a chart's values"))?;
    let memory = tree.limits().memory_bytes;
    let mut command = program::limited("helm", memory);
    command.args(["template", "--include-crds", "--no-hooks", "--namespace", &helm.namespace]);
    for file in &helm.value_files {
        let inside = resolve("", file).filter(|inside| tree.has_file(&joined(folder, inside)));
        let inside = inside.ok_or_else(|| {
            Error::invalid(joined(folder, file), "is no file of the chart; see spec.helm.valueFiles")
        })?;
        command.arg("--values").arg(chart.join(inside));
    }
    command.arg("--values").arg(&values).arg("--").arg(&helm.release).arg(&chart);
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    for home in ["HOME", "HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "TMPDIR"] {
        command.env(home, place.path());
    }
    let rendered = run(command, folder, memory)?;
    let file = joined(folder, "Chart.yaml");
    let mut manifests = parse(&file, &rendered, tree.limits().manifests)?;
    manifests.iter_mut().for_each(|manifest| manifest.origin.line = 0);
    Ok(manifests)
}

fn unpack(tree: &mut Tree, folder: &str, chart: &Path) -> Result<(), Error> {
    let files: Vec<String> = tree.files_below(folder).map(str::to_owned).collect();
    for file in files {
        let inside = if folder.is_empty() { &file } else { file.get(folder.len() + 1..).unwrap_or_default() };
        let path = chart.join(inside);
        let content = tree.read(&file)?;
        let write = || {
            std::fs::create_dir_all(path.parent().unwrap_or(chart))?;
            std::fs::write(&path, content)
        };
        write().map_err(Error::io("unpack a chart"))?;
    }
    Ok(())
}

/// Runs helm to its end, at the latest when its time is over.
fn run(mut command: Command, folder: &str, memory: u64) -> Result<String, Error> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(Error::io("start helm"))?;
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let (output, complaint) = (child.stdout.take(), child.stderr.take());
    let reader = |from: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = from.map(|from| from.take(LONGEST).read_to_end(&mut text));
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let output = reader(output.map(|from| Box::new(from) as Box<dyn Read + Send>));
    let complaint = reader(complaint.map(|from| Box::new(from) as Box<dyn Read + Send>));
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(Error::io("wait for helm"))? {
            break status;
        }
        if began.elapsed() > PATIENCE {
            let _ = group.map(|group| kill_process_group(group, Signal::KILL));
            let _ = child.wait();
            return Err(Error::TimedOut { action: "render the chart".into(), seconds: PATIENCE.as_secs() });
        }
        std::thread::sleep(LOOK);
    };
    let (output, complaint) = (output.join().unwrap_or_default(), complaint.join().unwrap_or_default());
    if program::is_missing(status) {
        return Err(Error::Missing { program: "helm" });
    }
    if !status.success() {
        program::check_memory("helm", "render the chart", &complaint, memory)?;
        let problem = shorten(&complaint);
        return Err(Error::invalid(joined(folder, "Chart.yaml"), format!("helm refuses it: {problem}")));
    }
    Ok(output)
}
