//! What the machine of a site has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use inference::Repository;
use runtimes::Runtimes;
use types::{Amount, Capacity, Claim, Endpoints, OutputsStatus, SiteStatus, SmallMap};

use crate::config::Access;
use crate::usage::{self, Readings};
use crate::{links, outbox};

/// What of the machine's memory we may have, and use.
const MEMORY_LIMIT: &str = "/sys/fs/cgroup/memory.max";
const MEMORY_IN_USE: &str = "/sys/fs/cgroup/memory.current";
/// The resource whose amount changes while a site works.
const DISK: &str = "disk";
/// Free space on the disk is news when it changed by this factor and by so many bytes: not every file is.
const DISK_CHANGED: (f64, f64) = (1.2, 67_108_864.0);

/// What the machine has: most of it for good, the rest as it is now. Cheap enough to look at every heartbeat.
#[derive(Clone)]
pub(crate) struct Facts {
    lasting: SiteStatus,
    data: PathBuf,
}

impl Facts {
    /// Looks at the machine; `claims` are what its operator says of it, which counts more than what is found.
    pub(crate) fn gather(
        data: &Path,
        access: &Access,
        repository: &Repository,
        runtimes: &Runtimes,
        claims: &BTreeMap<String, String>,
    ) -> Self {
        let engines = repository.engines().list();
        let engines: Vec<_> = engines.into_iter().filter(|engine| engine.available).collect();
        let mut found = found_claims();
        for engine in engines.iter().filter(|engine| !engine.version.is_empty()) {
            found.insert(format!("engine.{}", engine.name), engine.version.clone());
        }
        found.extend(claims.clone());
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        // 0 where the system doesn't say.
        let memory = daemon::machine_memory().unwrap_or(0);
        let usable_memory = daemon::usable_memory().unwrap_or(0);
        let gpus = gpus(Path::new("/proc/driver/nvidia/gpus"));
        let mut extended = SmallMap::new();
        if !gpus.is_empty() {
            extended.insert("gpu".to_owned(), Amount::of(gpus.len() as u64));
            found.entry("gpu".to_owned()).or_insert_with(|| gpus.join(", "));
        }
        if let Some((size, _)) = disk(data) {
            extended.insert(DISK.to_owned(), Amount::of(size));
        }
        let mut allocatable = extended.clone();
        allocatable.insert("cpu".to_owned(), Amount::of(cpus as u64));
        allocatable.insert("memory".to_owned(), Amount::of(usable_memory));
        let lasting = SiteStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            endpoints: Endpoints { inference: access.inference.clone(), objects: access.objects.clone() },
            capacity: Capacity {
                cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
                memory_bytes: memory,
                extended,
            },
            allocatable,
            claims: found.into_iter().map(|(name, value)| Claim { name, value }).collect(),
            architecture: std::env::consts::ARCH.into(),
            operating_system: std::env::consts::OS.into(),
            engines: engines.iter().map(|engine| engine.name.to_owned()).collect(),
            runtimes: runtimes
                .available()
                .into_iter()
                .map(|(runtime, _)| runtime.as_str().to_owned())
                .collect(),
            ..SiteStatus::default()
        };
        Self { lasting, data: data.to_owned() }
    }

    /// Whether the site's operator keeps rollouts away.
    pub(crate) fn opted_out(mut self, opted_out: bool) -> Self {
        self.lasting.rollout_opt_out = opted_out;
        self
    }

    /// As things are now, while so many invocations wait.
    pub(crate) fn now(&self, waiting: usize) -> SiteStatus {
        let mut status = self.lasting.clone();
        let disk = disk(&self.data);
        status.usage = usage::of(&Readings {
            loadavg: &read("/proc/loadavg"),
            cpus: status.capacity.cpus,
            meminfo: &read("/proc/meminfo"),
            memory_limit: number(MEMORY_LIMIT).zip(number(MEMORY_IN_USE)),
            disk,
            waiting,
        });
        if let Some((_, free)) = disk {
            status.allocatable.insert(DISK.to_owned(), Amount::of(free));
        }
        status
    }
}

/// Whether anything but links and usage changed so much that it matters to anybody.
pub(crate) fn is_news(told: &SiteStatus, now: &SiteStatus) -> bool {
    let free = |status: &SiteStatus| status.allocatable.get(DISK).map_or(0.0, Amount::value);
    let lasting = |status: &SiteStatus| {
        let mut lasting = SiteStatus {
            links: vec![],
            usage: SmallMap::new(),
            outputs: OutputsStatus::default(),
            ..status.clone()
        };
        lasting.allocatable.remove(DISK);
        lasting
    };
    let (factor, least) = DISK_CHANGED;
    links::differs(free(told), free(now), factor, least)
        || outbox::is_news(&told.outputs, &now.outputs)
        || lasting(told) != lasting(now)
}

/// A number in a file; `None` where there is none, or no limit.
fn number(path: &str) -> Option<u64> {
    read(path).trim().parse().ok()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// What the operating system and the kernel call themselves.
fn found_claims() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let kernel = read("/proc/sys/kernel/osrelease");
    let system = read("/etc/os-release");
    let system = system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let model = read("/proc/cpuinfo");
    let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    for (name, value) in [
        ("kernel", kernel.trim()),
        ("os", system.unwrap_or_default().trim_matches('"')),
        ("cpu", model.map_or("", |(_, model)| model.trim())),
    ] {
        if !value.is_empty() {
            found.insert(name.to_owned(), value.chars().take(256).collect());
        }
    }
    found
}

/// The models of NVIDIA's GPUs, in the driver's own words; none where there is no driver.
fn gpus(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let models = entries.filter_map(|entry| {
        let text = std::fs::read_to_string(entry.path().join("information")).ok()?;
        let model = text.lines().find_map(|line| line.strip_prefix("Model:"));
        Some(model.unwrap_or("unknown").trim().to_owned())
    });
    let mut models: Vec<String> = models.collect();
    models.sort();
    models
}

/// Size of the disk that a folder is on, and what of it is free for us, in bytes.
pub(crate) fn disk(folder: &Path) -> Option<(u64, u64)> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some((found.f_blocks.checked_mul(found.f_frsize)?, found.f_bavail.checked_mul(found.f_frsize)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space_is_news_when_it_changed_much() {
        let free = |mebibytes: u64| SiteStatus {
            allocatable: SmallMap::from([(DISK.to_owned(), Amount::of(mebibytes << 20))]),
            ..SiteStatus::default()
        };
        assert!(!is_news(&free(10_000), &free(9_000)));
        assert!(!is_news(&free(100), &free(40)), "a few files");
        assert!(is_news(&free(10_000), &free(8_000)));
        assert!(is_news(&free(1000), &SiteStatus::default()));
        assert!(is_news(&free(10), &SiteStatus { version: "2".to_owned(), ..free(10) }));
        let busy = SmallMap::from([("cpu".to_owned(), 1.0)]);
        assert!(!is_news(&free(10), &SiteStatus { usage: busy, ..free(10) }), "usage has a pace of its own");
    }

    #[test]
    fn gpus_are_those_that_the_driver_shows() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(gpus(folder.path()), [] as [String; 0]);
        for (name, text) in [("0000:01:00.0", "Model: \t\t NVIDIA L4\nIRQ: 1\n"), ("0000:02:00.0", "IRQ: 2")]
        {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join("information"), text).unwrap();
        }
        assert_eq!(gpus(folder.path()), ["NVIDIA L4", "unknown"]);
    }

    #[test]
    fn the_disk_of_a_folder_is_no_smaller_than_what_is_free_on_it() {
        let folder = tempfile::tempdir().unwrap();
        let (size, free) = disk(folder.path()).unwrap();
        assert!(size > 0 && free <= size);
    }
}
