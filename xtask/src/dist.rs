//! The program as it ships. What a site at rest runs lies together in the file: the system maps sixteen pages where one is
//! touched, so that functions that lie scattered take several times their size of memory.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::process::{self, Step, in_path};
use crate::setup::Tools;
use crate::sites::{SiteOptions, Sites};
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub struct Options {
    /// Take the order of functions from this file, which an earlier run wrote, instead of recording it. What it names and is
    /// not there any more is left out
    #[arg(long, value_name = "FILE")]
    order: Option<PathBuf>,
}

/// How long sites get until nothing of their start goes on.
const SETTLE: Duration = Duration::from_secs(30);
/// How long they are recorded: several heartbeats, and a look at their links.
const REST: Duration = Duration::from_secs(120);

pub fn dist(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let order = match &options.order {
        Some(order) => order.canonicalize().with_context(|| format!("can't read {}", order.display()))?,
        None => record(workspace)?,
    };
    let argument = format!("link-arg=-Wl,--symbol-ordering-file={}", order.display());
    build(workspace, &["-C", &argument, "-C", "link-arg=-Wl,--no-warn-symbol-ordering"])?;
    let program = workspace.shipped();
    let size = std::fs::metadata(&program)?.len();
    println!("{} ({:.1} MB)", workspace.shown(&program), size as f64 / 1e6);
    Ok(())
}

fn build(workspace: &Workspace, arguments: &[&str]) -> anyhow::Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args(["rustc", "--profile", "dist", "--package", "avocet", "--bin", "avocet", "--"]);
    process::run(cargo.args(arguments))
}

/// Runs a hub and a site, lets them rest, and writes down what they run then; answers the file.
fn record(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    for tool in ["valgrind", "callgrind_control"] {
        ensure!(
            in_path(tool).is_some(),
            "{tool} is not in the path; it records which functions a site uses. Install valgrind, or give the order of an \
             earlier run with --order FILE"
        );
    }
    // With the names of functions.
    build(workspace, &["-C", "strip=none"])?;
    let folder = workspace.target.join("order");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("can't remove {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder)?;
    let program = folder.join("avocet");
    std::fs::copy(workspace.shipped(), &program)?;
    let recorder = recorder(&folder, &program)?;

    let step = Step::begin("recording what a hub and a site run at rest");
    let tools = Tools { functions_python: "python3".into(), ..Tools::default() };
    let site = |name, tier| SiteOptions { name, tier, tools: &tools, onnxruntime: false };
    let mut sites = Sites::start(&recorder, &folder.join("sites"), &site("cloud", "cloud"))?;
    sites.join(&site("edge", "edge"))?;
    sites.wait_for_sites()?;
    std::thread::sleep(SETTLE);
    // Those at the edge have the least memory.
    let pids = [sites.site("edge")?.pid(), sites.site("cloud")?.pid()];
    for pid in pids {
        process::output(Command::new("callgrind_control").args(["-i", "on", &pid.to_string()]))?;
    }
    std::thread::sleep(REST);
    sites.check()?;
    // They write what was recorded when they end.
    drop(sites);
    let mut order: Vec<String> = Vec::new();
    for pid in pids {
        let file = recording(&folder, &pid.to_string());
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
        order.extend(functions(&text, &program.display().to_string()));
    }
    let mut known = std::collections::HashSet::new();
    order.retain(|name| known.insert(name.clone()));
    ensure!(order.len() > 100, "only {} functions were recorded; nothing was", order.len());
    let file = workspace.target.join("order.txt");
    std::fs::write(&file, order.join("\n") + "\n")?;
    step.done(&format!("{} functions, in {}", order.len(), workspace.shown(&file)));
    Ok(file)
}

fn recording(folder: &Path, pid: &str) -> PathBuf {
    folder.join(format!("callgrind.{pid}"))
}

/// A program that runs another one under valgrind, which counts nothing until it is told to.
fn recorder(folder: &Path, program: &Path) -> anyhow::Result<PathBuf> {
    let (recorder, recording) = (folder.join("recorder"), recording(folder, "%p"));
    let options = "--tool=callgrind --instr-atstart=no --demangle=no";
    std::fs::write(
        &recorder,
        format!(
            "#!/bin/sh\nexec valgrind {options} --callgrind-out-file='{}' '{}' \"$@\"\n",
            recording.display(),
            program.display()
        ),
    )?;
    std::fs::set_permissions(&recorder, std::fs::Permissions::from_mode(0o755))?;
    Ok(recorder)
}

/// The functions of one program in what callgrind wrote: lines `ob=` and `fn=`, whose names stand there once and have a
/// number from then on; those with a `c` in front are who is called.
fn functions(text: &str, program: &str) -> Vec<String> {
    let (mut objects, mut names) = (HashMap::new(), HashMap::new());
    let (mut is_ours, mut found) = (false, Vec::new());
    for line in text.lines() {
        let Some((key, value)) = line.split_once("=(") else { continue };
        let Some((number, name)) = value.split_once(')') else { continue };
        let known = if key.ends_with("ob") { &mut objects } else { &mut names };
        match key {
            "ob" | "cob" | "fn" | "cfn" => {}
            _ => continue,
        }
        let name = match name.trim() {
            "" => known.get(number).copied().unwrap_or_default(),
            name => {
                known.insert(number, name);
                name
            }
        };
        match key {
            "ob" => is_ours = name == program,
            // Of what calls itself there are several.
            "fn" if is_ours => found.push(name.split('\'').next().unwrap_or_default().to_owned()),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_the_program_are_found_by_name_and_by_number() {
        let text = "version: 1\nob=(1) /lib/c.so\nfn=(1) malloc\n12 3\n\nob=(2) /bin/avocet\nfl=(1) a.rs\nfn=(2) _R1\n1 2\n\
                    cob=(1)\ncfn=(1)\ncalls=1 0\n1 3\ncob=(3) /lib/m.so\ncfn=(4) _R4'2\n\nfn=(4)\n1 1\nob=(1)\nfn=(5) free\n\
                    ob=(2)\nfn=(3) _R3'2\n";
        assert_eq!(functions(text, "/bin/avocet"), ["_R1", "_R4", "_R3"]);
    }
}
