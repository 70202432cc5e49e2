//! What `--keep` leaves running, and how it is stopped.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::sites::Sites;

/// How long sites get to end.
const END: Duration = Duration::from_secs(15);

/// The sites of a kept demo.
pub struct Running;

impl Running {
    fn file(folder: &Path) -> PathBuf {
        folder.join("running.json")
    }

    /// Notes the sites and lets go of them.
    pub fn keep(folder: &Path, sites: &mut Sites) -> anyhow::Result<()> {
        let noted: Vec<Value> = sites
            .all
            .iter()
            .map(|site| json!({"site": site.name, "pid": site.pid(), "data": site.data}))
            .collect();
        std::fs::write(Self::file(folder), serde_json::to_vec_pretty(&noted)?)?;
        sites.all.iter_mut().for_each(|site| site.keep());
        Ok(())
    }

    /// The sites noted that still run: name and process.
    fn alive(folder: &Path) -> Vec<(String, Pid)> {
        let bytes = std::fs::read(Self::file(folder)).unwrap_or_default();
        let noted: Vec<Value> = serde_json::from_slice(&bytes).unwrap_or_default();
        let alive = noted.iter().filter_map(|site| {
            let pid = Pid::from_raw(i32::try_from(site.get("pid")?.as_i64()?).ok()?)?;
            let data = site.get("data")?.as_str()?;
            let is_ours = is_site(pid, data);
            is_ours.then(|| (site.get("site").and_then(Value::as_str).unwrap_or_default().to_owned(), pid))
        });
        alive.collect()
    }

    pub fn refuse_second(folder: &Path) -> anyhow::Result<()> {
        if !Self::alive(folder).is_empty() {
            bail!(
                "an earlier demo still runs in {}; stop it with: cargo xtask demo --stop",
                folder.display()
            );
        }
        Ok(())
    }

    pub fn stop(folder: &Path) -> anyhow::Result<()> {
        let alive = Self::alive(folder);
        if alive.is_empty() {
            println!("nothing runs that a demo left in {}", folder.display());
        }
        for (_, pid) in &alive {
            kill_process(*pid, Signal::TERM).context("can't end a site")?;
        }
        let deadline = Instant::now() + END;
        while !Self::alive(folder).is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        for (_, pid) in Self::alive(folder) {
            kill_process(pid, Signal::KILL).context("can't kill a site")?;
        }
        alive.iter().for_each(|(site, _)| println!("stopped site {site}"));
        let _ = std::fs::remove_file(Self::file(folder));
        Ok(())
    }
}

/// Whether the process is a site with that data folder: numbers of processes are used again.
fn is_site(pid: Pid, data: &str) -> bool {
    let number = pid.as_raw_nonzero();
    let words = std::fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
    words.split(|byte| *byte == 0).any(|word| word == data.as_bytes())
}
