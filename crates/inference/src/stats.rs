//! Counters of one model version, in the terms of the protocol's statistics extension.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A count and the time spent on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timed {
    pub count: u64,
    pub nanoseconds: u64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatsSnapshot {
    /// Samples answered: a batch of three counts three.
    pub inference_count: u64,
    /// Runs of the model.
    pub execution_count: u64,
    /// End of the last run, milliseconds since 1970; 0 when there was none.
    pub last_inference: u64,
    /// Answered requests, from acceptance to answer.
    pub success: Timed,
    /// Requests refused after validation or failed.
    pub fail: Timed,
    /// Waiting for a thread.
    pub queue: Timed,
    /// Running in the engine, conversions included.
    pub compute: Timed,
}

#[derive(Default)]
struct Counter {
    count: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Counter {
    fn add(&self, duration: Duration) {
        self.count.fetch_add(1, Relaxed);
        self.nanoseconds.fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    fn read(&self) -> Timed {
        Timed { count: self.count.load(Relaxed), nanoseconds: self.nanoseconds.load(Relaxed) }
    }
}

#[derive(Default)]
pub(crate) struct Stats {
    inferences: AtomicU64,
    last: AtomicU64,
    success: Counter,
    fail: Counter,
    queue: Counter,
    compute: Counter,
}

impl Stats {
    pub fn succeeded(&self, samples: u64, queue: Duration, compute: Duration) {
        self.inferences.fetch_add(samples, Relaxed);
        self.success.add(queue + compute);
        self.queue.add(queue);
        self.compute.add(compute);
        self.last.store(now_milliseconds(), Relaxed);
    }

    pub fn failed(&self, spent: Duration) {
        self.fail.add(spent);
    }

    pub fn snapshot(&self) -> StatsSnapshot {
        let compute = self.compute.read();
        StatsSnapshot {
            inference_count: self.inferences.load(Relaxed),
            execution_count: compute.count,
            last_inference: self.last.load(Relaxed),
            success: self.success.read(),
            fail: self.fail.read(),
            queue: self.queue.read(),
            compute,
        }
    }
}

fn now_milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
