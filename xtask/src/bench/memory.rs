//! Memory of sites at rest, and the program's size.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use super::samples::median;
use super::{EDGE, FAST, HUB, Options};
use crate::demo::aligned;
use crate::process::{self, Step, in_path};
use crate::sites::Sites;

/// The program's size, stripped if the machine can.
pub fn binary_size(avocet: &Path, folder: &Path) -> anyhow::Result<String> {
    let size = |path: &Path| std::fs::metadata(path).map(|metadata| megabytes(metadata.len()));
    let whole = size(avocet).with_context(|| format!("can't read {}", avocet.display()))?;
    if in_path("strip").is_none() {
        return Ok(format!("program: {whole:.1} MB (not stripped: there is no `strip`)"));
    }
    let stripped = folder.join("avocet-stripped");
    process::output(Command::new("strip").arg("-o").arg(&stripped).arg(avocet))?;
    Ok(format!("program: {:.1} MB stripped ({whole:.1} MB as built)", size(&stripped)?))
}

/// Resident memory of each process, with nothing to do.
pub fn at_rest(sites: &Sites, options: &Options) -> anyhow::Result<String> {
    let step = Step::begin(&format!("sites rest for {} s", options.rest));
    let before: Vec<f64> =
        sites.all.iter().map(|site| cpu_seconds(site.pid())).collect::<anyhow::Result<_>>()?;
    std::thread::sleep(Duration::from_secs(options.rest));
    let after: Vec<f64> =
        sites.all.iter().map(|site| cpu_seconds(site.pid())).collect::<anyhow::Result<_>>()?;
    let mut samples: Vec<Vec<(f64, f64)>> = vec![Vec::new(); sites.all.len()];
    for _ in 0..options.rounds.max(1) {
        for (site, samples) in sites.all.iter().zip(&mut samples) {
            samples.push(memory(site.pid())?);
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    step.done("");
    let mut rows = vec![["AT REST", "RSS MB", "PSS MB", "CPU ms/s"].map(str::to_owned)];
    for (index, site) in sites.all.iter().enumerate() {
        let samples = samples.get(index).map_or(&[][..], Vec::as_slice);
        let cpu = after.get(index).unwrap_or(&0.0) - before.get(index).unwrap_or(&0.0);
        rows.push([
            label(&site.name).to_owned(),
            format!("{:.1}", median(&samples.iter().map(|(rss, _)| *rss).collect::<Vec<_>>())),
            format!("{:.1}", median(&samples.iter().map(|(_, pss)| *pss).collect::<Vec<_>>())),
            format!("{:.2}", cpu / Duration::from_secs(options.rest.max(1)).as_secs_f64() * 1e3),
        ]);
    }
    Ok(aligned(&rows))
}

fn label(site: &str) -> &'static str {
    match site {
        HUB => "up: hub and site, two children",
        EDGE => "agent: joined, no models, built-in engine",
        FAST => "agent: the same with ONNX Runtime found",
        _ => "site",
    }
}

/// Resident and proportional set size of a process in MB.
fn memory(pid: u32) -> anyhow::Result<(f64, f64)> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("can't read {path}"))?;
    let field = |name: &str| -> Option<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        Some(megabytes(kibibytes * 1024))
    };
    field("Rss:").zip(field("Pss:")).with_context(|| format!("{path} names no Rss and Pss"))
}

/// Resident memory of a process in bytes.
pub fn resident_bytes(pid: u32) -> anyhow::Result<f64> {
    Ok(memory(pid)?.0 * 1e6)
}

/// Memory of a process in bytes, where what several share counts in part.
pub fn proportional_bytes(pid: u32) -> anyhow::Result<f64> {
    Ok(memory(pid)?.1 * 1e6)
}

/// The most resident memory that a process had since [`forget_peak`], in bytes.
pub fn peak_bytes(pid: u32) -> anyhow::Result<f64> {
    of_status(pid, "VmHWM:")
}

/// Resident memory of a process but for pages of files, in bytes.
pub fn own_bytes(pid: u32) -> anyhow::Result<f64> {
    of_status(pid, "RssAnon:")
}

/// What a process's status says under a name, in bytes.
fn of_status(pid: u32, name: &str) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("can't read {path}"))?;
    let said = text.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = said.and_then(|said| said.trim().strip_suffix(" kB")?.trim().parse::<u32>().ok());
    Ok(f64::from(kibibytes.with_context(|| format!("{path} names no {name}"))?) * 1024.0)
}

/// Begins anew to look for the most memory that a process has.
pub fn forget_peak(pid: u32) -> anyhow::Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    std::fs::write(&path, "5").with_context(|| format!("can't write {path}"))
}

/// Processor time that the threads of a process have used.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/task");
    let mut nanoseconds = 0;
    for thread in std::fs::read_dir(&path).with_context(|| format!("can't read {path}"))? {
        // A thread may be gone by now.
        let text = std::fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        nanoseconds += text.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanoseconds).as_secs_f64())
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
