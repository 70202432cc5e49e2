//! How much memory this process may use: the machine's, or what its control groups leave it of that.

use std::path::{Path, PathBuf};

/// Bytes of memory that the machine has; `None` where the system doesn't say.
pub fn machine_memory() -> Option<u64> {
    of_machine(Path::new("/"))
}

/// Bytes of memory that this process may use at most: the machine's, or less where a control group (of version 1 or 2)
/// bounds it, as containers and services of systemd are. `None` where the system doesn't say.
pub fn usable_memory() -> Option<u64> {
    usable(Path::new("/"))
}

fn usable(root: &Path) -> Option<u64> {
    of_groups(root).into_iter().chain(of_machine(root)).min()
}

fn of_machine(root: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The bounds of this process's groups, each of which holds. Version 1 says a number above all memory where it has none,
/// version 2 says `max`.
fn of_groups(root: &Path) -> Vec<u64> {
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let files = groups.lines().filter_map(|line| {
        // `4:cpu,memory:/path` in version 1, `0::/path` in version 2.
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let is_memory = controllers.split(',').any(|controller| controller == "memory");
        let (mounted, file) = match (controllers, is_memory) {
            ("", _) => ("sys/fs/cgroup", "memory.max"),
            (_, true) => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => return None,
        };
        Some((root.join(mounted), path.to_owned(), file))
    });
    files.flat_map(|(mounted, path, file)| bounds(&mounted, &path, file)).collect()
}

/// What a group and those above it allow. Inside of a container the path may be the host's, which isn't there: then what
/// is mounted is the group itself.
fn bounds(mounted: &Path, path: &str, file: &str) -> Vec<u64> {
    let group = Path::new(path.trim_start_matches('/'));
    let safe = group.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    let group = if safe { group } else { Path::new("") };
    let files = group.ancestors().map(|group| -> PathBuf { mounted.join(group).join(file) });
    files.filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a machine of 16 GiB with these files says.
    fn usable_with(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in
            [("proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\n")].iter().chain(files)
        {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        usable(root.path())
    }

    #[test]
    fn without_a_bound_it_is_the_machines() {
        assert_eq!(usable_with(&[]), Some(16 << 30));
        assert_eq!(usable_with(&[("proc/meminfo", "nonsense")]), None);
        let none = [("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "max\n")];
        assert_eq!(usable_with(&none), Some(16 << 30));
        let none = [
            ("proc/self/cgroup", "4:memory:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(usable_with(&none), Some(16 << 30));
    }

    #[test]
    fn the_smallest_bound_of_the_group_and_those_above_holds() {
        let files = [
            ("proc/self/cgroup", "0::/system.slice/avocet.service\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "2147483648\n"),
            ("sys/fs/cgroup/system.slice/avocet.service/memory.max", "4294967296\n"),
        ];
        assert_eq!(usable_with(&files), Some(2 << 30));
    }

    #[test]
    fn version_1_and_paths_of_the_host_are_understood() {
        let groups = "5:devices:/docker/ab\n4:cpu,memory:/docker/ab\n0::/docker/ab\n";
        let inside = [
            ("proc/self/cgroup", groups),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n"),
            ("sys/fs/cgroup/devices/memory.limit_in_bytes", "1\n"),
        ];
        assert_eq!(usable_with(&inside), Some(1 << 30));
        let above = [
            ("proc/self/cgroup", "0::/../../other\n"),
            ("sys/fs/cgroup/memory.max", "536870912\n"),
            ("sys/other/memory.max", "1\n"),
        ];
        assert_eq!(usable_with(&above), Some(512 << 20));
    }

    #[test]
    fn this_machine_has_memory() {
        let (all, usable) = (machine_memory().unwrap(), usable_memory().unwrap());
        assert!(usable > 0 && usable <= all);
    }
}
