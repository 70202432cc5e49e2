//! The telemetry that lies on the disk: logs of functions, and payload logs that are full. Spans never lie there.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What was dropped.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    pub files: u64,
    pub bytes: u64,
}

/// Drops the oldest until so many bytes are free again, or none is left. The log of a run stays while it is not over.
pub(super) fn drop_oldest(logs: &Path, bytes: u64, is_over: impl Fn(&str) -> bool) -> Dropped {
    let mut found = files(logs, |name| name.strip_suffix(".log").is_some_and(&is_over));
    // `payloads.jsonl.1` and older ones; the newest is being written.
    found.extend(files(&logs.join("payloads"), |name| {
        name.rsplit_once(".jsonl.").is_some_and(|(_, number)| number.parse::<u32>().is_ok())
    }));
    found.sort();
    let mut dropped = Dropped::default();
    for (_, path, size) in found {
        if dropped.bytes >= bytes {
            break;
        }
        if std::fs::remove_file(path).is_ok() {
            dropped.files += 1;
            dropped.bytes += size;
        }
    }
    dropped
}

/// The files of a folder that are taken, with when they were last written and their sizes in bytes. What can't be read now
/// is not seen.
fn files(folder: &Path, takes: impl Fn(&str) -> bool) -> Vec<(SystemTime, PathBuf, u64)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let taken = entries.filter(|entry| entry.file_name().to_str().is_some_and(&takes));
    let described = taken.filter_map(|entry| {
        let metadata = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
        Some((metadata.modified().ok()?, entry.path(), metadata.len()))
    });
    described.collect()
}
