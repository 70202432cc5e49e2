//! How busy a site is, for placements that look at it. Cheap to look at, and news only where it changed much.

use std::time::Duration;

use types::{SiteMetric, SmallMap};

use crate::links;

/// How long after anything was told usage alone is told again, at least: each time the hub writes it down.
pub(crate) const SELDOM: Duration = Duration::from_secs(60);
/// By how much a share must have changed to be news.
const SHARE: f64 = 0.15;
/// By which factor and by how many a number of invocations must have changed to be news.
const QUEUE: (f64, f64) = (1.5, 2.0);

/// What the system tells.
pub(crate) struct Readings<'a> {
    pub loadavg: &'a str,
    pub cpus: u32,
    pub meminfo: &'a str,
    /// What of its memory the machine's keeper lets us have, and what of that we use, in bytes.
    pub memory_limit: Option<(u64, u64)>,
    /// Size of the disk and what of it is free, in bytes.
    pub disk: Option<(u64, u64)>,
    pub waiting: usize,
}

/// By name; what the system doesn't tell is left out.
pub(crate) fn of(readings: &Readings) -> SmallMap<f64> {
    let values = [
        (SiteMetric::Cpu, load(readings.loadavg, readings.cpus)),
        (SiteMetric::Memory, memory(readings)),
        (SiteMetric::Disk, readings.disk.and_then(|(size, free)| used(size, free))),
        (SiteMetric::Invocations, Some(readings.waiting as f64)),
    ];
    let told = |(metric, value): (SiteMetric, Option<f64>)| Some((metric.name().to_owned(), rounded(value?)));
    values.into_iter().filter_map(told).collect()
}

/// Whether usage changed so much that it matters to anybody.
pub(crate) fn is_news(told: &SmallMap<f64>, now: &SmallMap<f64>) -> bool {
    let (factor, least) = QUEUE;
    let changed = |(name, now): (&String, &f64)| match told.get(name) {
        None => true,
        Some(told) if name == SiteMetric::Invocations.name() => links::differs(*told, *now, factor, least),
        Some(told) => (told - now).abs() >= SHARE,
    };
    told.len() != now.len() || now.iter().any(changed)
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// The second number is the mean of five minutes.
fn load(loadavg: &str, cpus: u32) -> Option<f64> {
    let mean: f64 = loadavg.split_whitespace().nth(1)?.parse().ok()?;
    (mean.is_finite() && cpus > 0).then(|| mean / f64::from(cpus))
}

fn memory(readings: &Readings) -> Option<f64> {
    if let Some((limit, in_use)) = readings.memory_limit.filter(|(limit, _)| *limit > 0) {
        return Some((in_use as f64 / limit as f64).min(1.0));
    }
    let kibibytes = |name: &str| -> Option<u64> {
        let line = readings.meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line?.trim().strip_suffix(" kB")?.trim().parse().ok()
    };
    used(kibibytes("MemTotal")?, kibibytes("MemAvailable")?)
}

fn used(all: u64, free: u64) -> Option<f64> {
    (all > 0).then(|| 1.0 - free.min(all) as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings() -> Readings<'static> {
        Readings {
            loadavg: "3.10 2.00 1.00 2/345 678",
            cpus: 4,
            meminfo: "MemTotal:  1000 kB\nMemFree:  1 kB\nMemAvailable:  250 kB\n",
            memory_limit: None,
            disk: Some((1000, 900)),
            waiting: 7,
        }
    }

    fn told(values: &[(&str, f64)]) -> SmallMap<f64> {
        values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    #[test]
    fn usage_is_read_as_linux_tells_it_and_what_it_does_not_tell_is_left_out() {
        let wanted = [("cpu", 0.5), ("memory", 0.75), ("disk", 0.1), ("invocations", 7.0)];
        assert_eq!(of(&readings()), told(&wanted));
        let limited = Readings { memory_limit: Some((400, 100)), ..readings() };
        assert_eq!(of(&limited)["memory"], 0.25);
        let strange = Readings { loadavg: "?", meminfo: "", disk: None, ..readings() };
        assert_eq!(of(&strange), told(&[("invocations", 7.0)]));
    }

    #[test]
    fn an_idle_machine_has_no_news() {
        let idle = told(&[("cpu", 0.05), ("memory", 0.3), ("disk", 0.5), ("invocations", 0.0)]);
        let mut now = idle.clone();
        for (name, value, news) in [
            ("cpu", 0.15, false),
            ("cpu", 0.2, true),
            ("memory", 0.4, false),
            ("memory", 0.9, true),
            ("invocations", 2.0, false),
            ("invocations", 3.0, true),
        ] {
            let before = now.insert(name.to_owned(), value).unwrap();
            assert_eq!(is_news(&idle, &now), news, "{name} {value}");
            now.insert(name.to_owned(), before);
        }
        assert!(is_news(&SmallMap::new(), &idle));
    }
}
