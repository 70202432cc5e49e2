//! What the system says of this process, where it has a `/proc`; elsewhere nothing is told.

use std::fs;

use super::text::Text;

/// Ticks of the system's clock in a second, which is the same wherever there is a `/proc`.
const TICKS: f64 = 100.0;

/// Writes the `process_` metrics.
pub fn show(text: &mut Text) {
    let Some(times) = times() else { return };
    let mut tell = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            text.head(name, kind, help);
            text.line(name, &[], value);
        }
    };
    let help = "Total user and system CPU time spent in seconds.";
    tell("process_cpu_seconds_total", "counter", help, Some(times.cpu));
    tell("process_max_fds", "gauge", "Maximum number of open file descriptors.", most_files());
    tell("process_open_fds", "gauge", "Number of open file descriptors.", open_files());
    let help = "Resident memory size in bytes.";
    tell("process_resident_memory_bytes", "gauge", help, memory("VmRSS:"));
    let help = "Start time of the process since unix epoch in seconds.";
    tell("process_start_time_seconds", "gauge", help, started(times.start));
    let help = "Virtual memory size in bytes.";
    tell("process_virtual_memory_bytes", "gauge", help, memory("VmSize:"));
}

/// Seconds that the process worked, and that the system ran when it began.
struct Times {
    cpu: f64,
    start: f64,
}

fn times() -> Option<Times> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in brackets, may have spaces itself.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: Vec<f64> = fields.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
    let seconds = |index: usize| ticks.get(index).map(|ticks| ticks / TICKS);
    Some(Times { cpu: seconds(11)? + seconds(12)?, start: seconds(19)? })
}

fn started(after_boot: f64) -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let boot = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(boot.trim().parse::<f64>().ok()? + after_boot)
}

fn open_files() -> Option<f64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    u32::try_from(count).ok().map(f64::from)
}

fn most_files() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    files.split_whitespace().next()?.parse().ok()
}

/// A line of the process's status, in bytes.
fn memory(name: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?;
    Some(kibibytes.parse::<f64>().ok()? * 1024.0)
}
