//! From the acknowledged put of an object to its result, through functions that only copy.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::samples::{median, milliseconds, quantile};
use super::{EDGE, HUB, Options};
use crate::demo::aligned;
use crate::http::Connection;
use crate::process::Step;
use crate::sites::{Sites, text};

/// Objects that are put at once to measure throughput.
const BURST: usize = 100;
/// How many objects go ahead of the measurement.
const WARM_UP: usize = 3;
const LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_micros(500);

pub fn put_to_result(sites: &Sites, folder: &Path, options: &Options) -> anyhow::Result<String> {
    let mut rows = vec![["PUT TO RESULT", "MEDIAN ms", "P90 ms", "BURST objects/s"].map(str::to_owned)];
    for (label, prefix, last) in
        [("one function on one site", "one", EDGE), ("two functions on two sites", "two", HUB)]
    {
        let step = Step::begin(label);
        let lane = Lane { sites, folder, prefix, last };
        let mut times = Vec::new();
        for index in 0..options.objects + WARM_UP {
            step.say(&format!("object {index}"));
            let time = milliseconds(lane.one(&format!("{index}.txt"))?);
            if index >= WARM_UP {
                times.push(time);
            }
        }
        let burst = lane.burst()?;
        step.done("");
        rows.push([
            label.to_owned(),
            format!("{:.1}", median(&times)),
            format!("{:.1}", quantile(&times, 0.9)),
            format!("{burst:.1}"),
        ]);
    }
    let note = format!(
        "Each function is a confined /bin/sh process of its own, two at once at most. {} objects one after the other, \
         then {BURST} at once.\n",
        options.objects
    );
    Ok(aligned(&rows) + &note)
}

/// One way that objects take.
struct Lane<'a> {
    sites: &'a Sites,
    folder: &'a Path,
    prefix: &'a str,
    /// The site where results arrive.
    last: &'a str,
}

impl Lane<'_> {
    fn one(&self, name: &str) -> anyhow::Result<Duration> {
        let path = self.file(name)?;
        let put = self.put(&[path])?;
        self.wait_for(&mut self.connect()?, name)?;
        Ok(put.elapsed())
    }

    /// Results per second of many objects put at once.
    fn burst(&self) -> anyhow::Result<f64> {
        let names: Vec<String> = (0..BURST).map(|index| format!("burst-{index}.txt")).collect();
        let paths = names.iter().map(|name| self.file(name)).collect::<anyhow::Result<Vec<_>>>()?;
        let put = self.put(&paths)?;
        let mut connection = self.connect()?;
        for name in &names {
            self.wait_for(&mut connection, name)?;
        }
        let count = u32::try_from(BURST).map_or(0.0, f64::from);
        Ok(count / put.elapsed().as_secs_f64())
    }

    fn file(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.join(name);
        std::fs::write(&path, format!("{} {name} of the benchmark\n", self.prefix))?;
        Ok(path)
    }

    /// Puts files into the edge's bucket; answers when the first was acknowledged.
    fn put(&self, paths: &[PathBuf]) -> anyhow::Result<Instant> {
        let mut copy = self.sites.avocet();
        copy.arg("cp").args(paths).arg(format!("{EDGE}:bench/{}-in/", self.prefix));
        let mut child = copy.stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let first = lines.next();
        let acknowledged = Instant::now();
        lines.for_each(drop);
        let status = child.wait()?;
        if first.is_none() || !status.success() {
            bail!("avocet cp failed: {status}");
        }
        Ok(acknowledged)
    }

    fn connect(&self) -> anyhow::Result<(Connection, String)> {
        let access = self.sites.site(self.last)?.access()?;
        let headers = format!("Authorization: Bearer {}\r\n", text(&access, "/token"));
        Ok((Connection::open(text(&access, "/inference"))?, headers))
    }

    fn wait_for(&self, connection: &mut (Connection, String), name: &str) -> anyhow::Result<()> {
        let path = format!("/site/v1/objects/bench/{}-out/{name}", self.prefix);
        let deadline = Instant::now() + LIMIT;
        loop {
            match connection.0.send("GET", &path, &connection.1, b"")? {
                (200, _) => return Ok(()),
                (404, _) if Instant::now() < deadline => std::thread::sleep(POLL),
                (404, _) => bail!("no result for {name} after {} s", LIMIT.as_secs()),
                (status, body) => bail!("{path}: {status} {}", String::from_utf8_lossy(&body)),
            }
        }
    }
}
