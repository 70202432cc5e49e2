//! What goes first when the site's disk gets full.
//!
//! A part of the disk is kept free. Where less is left, the oldest telemetry goes: logs of functions that have ended, and
//! payload logs that are full. Where that is not enough functions wait, for what they make would need the rest; they go on by
//! themselves once there is room. Outputs and objects are never taken away.

mod telemetry;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use daemon::Shutdown;
use tokio::sync::watch;
use tracing::{info, warn};
use types::Complaint;

use crate::Error;
use crate::facts;
use crate::invocations::Invocations;

/// How often the disk is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// The part of the disk that is kept free where nobody says how much, and the bounds of that.
const PART: u64 = 50;
const LEAST: u64 = 16 << 20;
const MOST: u64 = 512 << 20;
/// What is put aside, in bytes, to be given back on a disk that is full: deleting records needs some space first.
const BALLAST: u64 = 1 << 20;

/// How short of space the disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pressure {
    /// As much is free as is to be.
    None,
    /// The oldest telemetry goes.
    Short,
    /// Functions wait, too.
    Paused,
}

/// How the site minds its disk. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Storage(Arc<Shared>);

struct Shared {
    data: PathBuf,
    logs: PathBuf,
    /// In bytes.
    keep_free: u64,
    invocations: Invocations,
    pressure: watch::Sender<Pressure>,
    dropped_files: AtomicU64,
    dropped_bytes: AtomicU64,
    /// One look at a time.
    looking: Mutex<()>,
}

impl Storage {
    /// Minds the disk that `data` is on; `keep_free` bytes of it are kept free, 0 of them for none.
    pub(crate) fn new(data: &Path, logs: &Path, keep_free: Option<u64>, invocations: Invocations) -> Self {
        let default = || facts::disk(data).map_or(0, |(size, _)| (size / PART).clamp(LEAST, MOST));
        Self(Arc::new(Shared {
            data: data.to_owned(),
            logs: logs.to_owned(),
            keep_free: keep_free.unwrap_or_else(default),
            invocations,
            pressure: watch::Sender::new(Pressure::None),
            dropped_files: AtomicU64::new(0),
            dropped_bytes: AtomicU64::new(0),
            looking: Mutex::new(()),
        }))
    }

    /// Minds it until the shutdown.
    pub(crate) async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        loop {
            self.clone().look_now().await?;
            if !shutdown.sleep(LOOK).await {
                return Ok(());
            }
        }
    }

    /// As soon as the site starts, before anything runs.
    pub(crate) async fn look_now(self) -> Result<(), Error> {
        let look = move || {
            let free = || facts::disk(&self.0.data).map(|(_, free)| free);
            self.look(&free)
        };
        tokio::task::spawn_blocking(look).await.map_err(|_| Error::Interrupted)
    }

    /// Whether functions are to wait.
    pub(crate) fn is_paused(&self) -> bool {
        *self.0.pressure.borrow() == Pressure::Paused
    }

    /// Tells when that may have changed.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Pressure> {
        self.0.pressure.subscribe()
    }

    /// What the hub is told.
    pub(crate) fn complaints(&self) -> Vec<Complaint> {
        let what = match *self.0.pressure.borrow() {
            Pressure::None => return vec![],
            Pressure::Short => "the oldest logs go first",
            Pressure::Paused => "logs are gone, functions wait until there is room, and outputs are kept",
        };
        let message = format!(
            "less than {} MiB of the site's disk is free: {what}; remove objects, or let outputs reach the hub",
            self.0.keep_free >> 20
        );
        vec![Complaint { kind: "StoragePressure".to_owned(), message }]
    }

    /// In Prometheus' text format.
    pub(crate) fn text(&self) -> String {
        let level = *self.0.pressure.borrow() as u8;
        let (files, bytes) = (self.0.dropped_files.load(Relaxed), self.0.dropped_bytes.load(Relaxed));
        format!(
            "# HELP avocet_storage_pressure 1 while the oldest telemetry makes room, 2 while functions wait for room\n\
             # TYPE avocet_storage_pressure gauge\n\
             avocet_storage_pressure {level}\n\
             # HELP avocet_telemetry_dropped_files_total Logs that went to make room\n\
             # TYPE avocet_telemetry_dropped_files_total counter\n\
             avocet_telemetry_dropped_files_total {files}\n\
             # HELP avocet_telemetry_dropped_bytes_total Bytes of logs that went to make room\n\
             # TYPE avocet_telemetry_dropped_bytes_total counter\n\
             avocet_telemetry_dropped_bytes_total {bytes}\n"
        )
    }

    /// Looks at what is free, makes room, and notes what follows. Blocks.
    fn look(&self, free: &dyn Fn() -> Option<u64>) {
        let shared = &*self.0;
        let _one_at_a_time = shared.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut left) = free().filter(|_| shared.keep_free > 0) else { return };
        self.mind_ballast(left);
        if left < shared.keep_free {
            let dropped =
                telemetry::drop_oldest(&shared.logs, shared.keep_free - left, |id| self.is_over(id));
            if dropped.files > 0 {
                let telemetry::Dropped { files, bytes } = dropped;
                warn!(files, bytes, "the disk is nearly full; the oldest logs are gone");
                shared.dropped_files.fetch_add(files, Relaxed);
                shared.dropped_bytes.fetch_add(bytes, Relaxed);
            }
            left = free().unwrap_or(left);
        }
        let before = *shared.pressure.borrow();
        let now = pressure(before, left, shared.keep_free);
        if now != before {
            match now {
                Pressure::None => info!("there is room on the disk again"),
                Pressure::Short => warn!(keep_free = shared.keep_free, "the disk is nearly full"),
                Pressure::Paused => {
                    warn!(
                        keep_free = shared.keep_free,
                        "the disk is full; functions wait until there is room"
                    );
                }
            }
            shared.pressure.send_replace(now);
        }
    }

    /// Whether a function's log is that of a run that has ended.
    fn is_over(&self, id: &str) -> bool {
        // Where the records can't be read nothing is known of it.
        self.0.invocations.get(id).is_ok_and(|found| found.is_none_or(|found| found.has_ended()))
    }

    /// Gives the ballast back on a disk that is full, and puts it aside again where there is plenty.
    fn mind_ballast(&self, free: u64) {
        let path = self.0.data.join("ballast");
        if free < BALLAST {
            if std::fs::remove_file(&path).is_ok() {
                warn!("the disk is full; what was put aside for that is given back");
            }
        } else if free > self.0.keep_free + BALLAST && !path.exists() {
            let zeros = vec![0; usize::try_from(BALLAST).unwrap_or(0)];
            // Of no account if it can't be kept.
            let _ = daemon::write_durably(&path, &zeros);
        }
    }
}

/// How short of space a disk is with so much left. Once functions wait, they go on a little later than they stopped, so that
/// they don't stop and go all the time.
fn pressure(before: Pressure, left: u64, keep_free: u64) -> Pressure {
    let stops = keep_free / 2;
    let goes_on = keep_free / 4 * 3;
    match before {
        _ if left >= keep_free => Pressure::None,
        _ if left < stops => Pressure::Paused,
        Pressure::Paused if left < goes_on => Pressure::Paused,
        _ => Pressure::Short,
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use store::Ledger;

    use super::*;

    const DISK: u64 = 1000;

    fn storage(folder: &Path, keep_free: u64) -> Storage {
        let logs = folder.join("logs");
        std::fs::create_dir_all(&logs).unwrap();
        let invocations = Invocations::load(Ledger::memory().unwrap(), logs.clone()).unwrap();
        Storage::new(folder, &logs, Some(keep_free), invocations)
    }

    fn log(folder: &Path, name: &str, bytes: usize, age: u64) -> PathBuf {
        let path = folder.join("logs").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, vec![b'x'; bytes]).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        path
    }

    fn used(folder: &Path) -> u64 {
        let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
        let sizes = entries.map(|entry| match entry.metadata().unwrap() {
            metadata if metadata.is_dir() => used(&entry.path()),
            metadata => metadata.len(),
        });
        sizes.sum()
    }

    #[test]
    fn the_oldest_logs_go_first_then_functions_wait_and_go_on_by_themselves() {
        let folder = tempfile::tempdir().unwrap();
        let storage = storage(folder.path(), 400);
        let look = || storage.look(&|| Some(DISK - used(folder.path())));
        let old = log(folder.path(), "old.log", 100, 900);
        let payloads = log(folder.path(), "payloads/payloads.jsonl.1", 100, 800);
        let young = log(folder.path(), "young.log", 100, 700);
        look();
        assert_eq!((storage.complaints(), storage.is_paused()), (vec![], false));
        let outputs = folder.path().join("outbox");
        std::fs::write(&outputs, vec![0; 450]).unwrap();
        look();
        assert!(!old.exists() && !payloads.exists() && young.exists());
        assert_eq!(storage.complaints(), []);
        assert!(storage.text().contains("avocet_telemetry_dropped_files_total 2\n"), "{}", storage.text());
        assert!(storage.text().contains("avocet_telemetry_dropped_bytes_total 200\n"), "{}", storage.text());
        std::fs::write(&outputs, vec![0; 700]).unwrap();
        look();
        assert!(!young.exists() && !storage.is_paused());
        assert!(storage.complaints()[0].message.contains("the oldest logs go first"));
        std::fs::write(&outputs, vec![0; 850]).unwrap();
        let mut told = storage.subscribe();
        look();
        assert!(storage.is_paused() && told.has_changed().unwrap());
        assert!(storage.complaints()[0].message.contains("functions wait"));
        told.mark_unchanged();
        std::fs::write(&outputs, vec![0; 750]).unwrap();
        look();
        assert!(storage.is_paused(), "it does not stop and go all the time");
        std::fs::write(&outputs, vec![0; 600]).unwrap();
        look();
        assert!(!storage.is_paused() && told.has_changed().unwrap());
        assert_eq!(storage.complaints(), []);
        assert_eq!(std::fs::metadata(&outputs).unwrap().len(), 600);
    }

    #[test]
    fn the_log_of_what_has_not_ended_stays() {
        use crate::invocations::State;
        let folder = tempfile::tempdir().unwrap();
        let storage = storage(folder.path(), 400);
        let [runs, ended] = ["runs", "ended"].map(|id| log(folder.path(), &format!("{id}.log"), 10, 900));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let invocation = |id: &str, state: &str| -> crate::Invocation {
            serde_json::from_value(serde_json::json!({
                "id": id, "site": "edge", "assignment": "a", "application": "a", "component": "c", "function": "f",
                "bucket": "b", "key": "k", "etag": "e", "state": state, "attempts": 0, "interruptions": 0,
                "created": "2026-01-01T00:00:00Z", "changed": "2026-01-01T00:00:00Z", "durationMilliseconds": 0,
            }))
            .unwrap()
        };
        for (id, state) in [("runs", "Running"), ("ended", "Succeeded")] {
            let invocation = invocation(id, state);
            assert_eq!(invocation.has_ended(), invocation.state == State::Succeeded);
            runtime.block_on(storage.0.invocations.update(&invocation)).unwrap();
        }
        storage.look(&|| Some(0));
        assert!(runs.exists() && !ended.exists());
    }

    #[test]
    fn a_disk_that_is_full_gets_the_ballast_back() {
        let folder = tempfile::tempdir().unwrap();
        let storage = storage(folder.path(), 4 * BALLAST);
        let ballast = folder.path().join("ballast");
        storage.look(&|| Some(5 * BALLAST));
        assert!(!ballast.exists(), "there is no plenty");
        storage.look(&|| Some(6 * BALLAST));
        assert_eq!(std::fs::metadata(&ballast).unwrap().len(), BALLAST);
        storage.look(&|| Some(2 * BALLAST));
        assert!(ballast.exists());
        storage.look(&|| Some(BALLAST - 1));
        assert!(!ballast.exists());
    }

    #[test]
    fn who_keeps_nothing_free_is_never_short() {
        let folder = tempfile::tempdir().unwrap();
        let storage = storage(folder.path(), 0);
        let kept = log(folder.path(), "old.log", 10, 900);
        storage.look(&|| Some(0));
        assert!(kept.exists() && !storage.is_paused() && storage.complaints().is_empty());
    }
}
