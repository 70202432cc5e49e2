//! What Linux says of this process and of the machine; elsewhere nothing.

use std::fs::read_to_string;

use super::text::{Kind, Text};

/// Ticks a second in `/proc/self/stat`: fixed for programs, whatever the kernel's own clock.
const TICKS: f64 = 100.0;

pub(super) fn write(text: &mut Text) {
    if let Some(bytes) = read_to_string("/proc/self/status").ok().and_then(|status| field(&status, "VmRSS:"))
    {
        text.family("process_resident_memory_bytes", Kind::Gauge, "Resident memory of this process");
        text.sample(&[], bytes);
    }
    if let Some(seconds) = read_to_string("/proc/self/stat").ok().and_then(|stat| cpu_seconds(&stat)) {
        text.family("process_cpu_seconds_total", Kind::Counter, "Processor time of this process");
        text.sample(&[], seconds);
    }
    let Ok(machine) = read_to_string("/proc/meminfo") else { return };
    let (Some(total), Some(free)) = (field(&machine, "MemTotal:"), field(&machine, "MemAvailable:")) else {
        return;
    };
    text.family("nv_cpu_memory_total_bytes", Kind::Gauge, "Memory of the machine");
    text.sample(&[], total);
    text.family("nv_cpu_memory_used_bytes", Kind::Gauge, "Memory of the machine that is in use");
    text.sample(&[], total.saturating_sub(free));
}

/// A line such as `VmRSS:    5120 kB`, in bytes.
fn field(lines: &str, name: &str) -> Option<u64> {
    let rest = lines.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// User and system time. The program's name in the second field may hold anything, parentheses too.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_whatever_the_program_is_called() {
        assert_eq!(field("Name: a\nVmRSS:\t    5120 kB\n", "VmRSS:"), Some(5120 * 1024));
        assert_eq!(field("VmRSS:\t many kB\n", "VmRSS:"), None);
        assert_eq!(cpu_seconds("7 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0"), Some(2.0));
        assert_eq!(cpu_seconds("7 (a"), None);
    }
}
