//! Counters of one model version, in the terms of the protocol's statistics extension.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::histogram::Histogram;

/// A count and the time spent on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timed {
    pub count: u64,
    pub nanoseconds: u64,
}

impl Timed {
    fn add(&mut self, duration: Duration) {
        self.count += 1;
        self.nanoseconds += nanoseconds(duration);
    }
}

/// Runs that had the same number of samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchStats {
    /// Merging the inputs of a batch's requests.
    pub compute_input: Timed,
    /// Running in the engine, conversions included.
    pub compute: Timed,
    /// Taking the outputs apart.
    pub compute_output: Timed,
}

/// Why a request got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Too many were waiting, or it waited for too long.
    Rejected,
    /// The engine failed.
    Engine,
    /// It didn't fit.
    Invalid,
    /// Whoever asked went away before it ran.
    Canceled,
}

/// Failed requests by what failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Too many were waiting, or they waited for too long.
    pub rejected: u64,
    /// The engine failed.
    pub engine: u64,
    /// They didn't fit the model or the limits.
    pub invalid: u64,
    /// Whoever asked went away before they ran.
    pub canceled: u64,
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatsSnapshot {
    /// Samples answered: a batch of three counts three.
    pub inference_count: u64,
    /// Runs of the model.
    pub execution_count: u64,
    /// End of the last run, milliseconds since 1970; 0 when there was none.
    pub last_inference: u64,
    /// Answered requests, from acceptance to answer, those out of the cache included.
    pub success: Timed,
    /// Requests refused after validation or failed.
    pub fail: Timed,
    /// The same by what failed.
    pub failures: Failures,
    /// Waiting for a thread and for company.
    pub queue: Timed,
    /// Each request's run: merging inputs, running, taking outputs apart.
    pub compute_input: Timed,
    pub compute: Timed,
    pub compute_output: Timed,
    /// Requests answered out of the cache, with the time to find the answer.
    pub cache_hit: Timed,
    /// Requests that were looked for and not found, with the time to look and to keep the answer.
    pub cache_miss: Timed,
    /// Copied requests that this version answered like the one that was asked, and those it answered otherwise.
    pub shadow_agreed: u64,
    pub shadow_differed: u64,
    /// Runs by their number of samples, for the first 256 numbers met.
    pub batches: BTreeMap<u64, BatchStats>,
    /// Half of the answered requests took no longer, from acceptance to answer.
    pub median: Duration,
    /// All but a hundredth of the answered requests took no longer.
    pub p99: Duration,
}

#[derive(Default)]
struct Counter {
    count: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Counter {
    fn add(&self, duration: Duration) {
        self.count.fetch_add(1, Relaxed);
        self.nanoseconds.fetch_add(nanoseconds(duration), Relaxed);
    }

    fn read(&self) -> Timed {
        Timed { count: self.count.load(Relaxed), nanoseconds: self.nanoseconds.load(Relaxed) }
    }
}

/// Where the time of one run went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    pub input: Duration,
    pub infer: Duration,
    pub output: Duration,
}

impl Spent {
    pub fn total(&self) -> Duration {
        self.input + self.infer + self.output
    }
}

/// Batch sizes told apart; a stranger chooses them.
const MAX_SIZES: usize = 256;

#[derive(Default)]
pub(crate) struct Stats {
    inferences: AtomicU64,
    executions: AtomicU64,
    last: AtomicU64,
    success: Counter,
    fail: Counter,
    rejected: AtomicU64,
    invalid: AtomicU64,
    canceled: AtomicU64,
    queue: Counter,
    input: Counter,
    compute: Counter,
    output: Counter,
    cache_hit: Counter,
    cache_miss: Counter,
    agreed: AtomicU64,
    differed: AtomicU64,
    batches: Mutex<BTreeMap<u64, BatchStats>>,
    latency: Histogram,
    /// Of late: mean nanoseconds of a run and mean bytes of its inputs.
    recent: [AtomicU64; 2],
}

impl Stats {
    /// One run of the engine, whatever its number of requests.
    pub fn ran(&self, samples: u64, bytes: usize, spent: Spent) {
        self.inferences.fetch_add(samples, Relaxed);
        self.executions.fetch_add(1, Relaxed);
        self.last.store(now_milliseconds(), Relaxed);
        self.expect(bytes, spent.infer);
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        if batches.len() >= MAX_SIZES && !batches.contains_key(&samples) {
            return;
        }
        let batch = batches.entry(samples).or_default();
        batch.compute_input.add(spent.input);
        batch.compute.add(spent.infer);
        batch.compute_output.add(spent.output);
    }

    /// Notes how long a run on this many bytes of input takes.
    pub fn expect(&self, bytes: usize, run: Duration) {
        let [time, size] = &self.recent;
        smooth(time, nanoseconds(run).max(1));
        smooth(size, (bytes as u64).max(1));
    }

    /// One request of such a run, and what it took in all.
    pub fn succeeded(&self, all: Duration, queue: Duration, spent: Spent) {
        self.success.add(all);
        self.latency.record(all);
        self.queue.add(queue);
        self.input.add(spent.input);
        self.compute.add(spent.infer);
        self.output.add(spent.output);
    }

    pub fn failed(&self, why: Failure, spent: Duration) {
        self.fail.add(spent);
        match why {
            Failure::Rejected => self.rejected.fetch_add(1, Relaxed),
            Failure::Invalid => self.invalid.fetch_add(1, Relaxed),
            Failure::Canceled => self.canceled.fetch_add(1, Relaxed),
            Failure::Engine => 0,
        };
    }

    pub fn hit(&self, spent: Duration) {
        self.cache_hit.add(spent);
        self.success.add(spent);
        self.latency.record(spent);
    }

    pub fn missed(&self, spent: Duration) {
        self.cache_miss.add(spent);
    }

    pub fn compared(&self, agreed: bool) {
        if agreed { &self.agreed } else { &self.differed }.fetch_add(1, Relaxed);
    }

    /// How long a run on this many bytes of input will take, by the last ones; `None` before the first.
    pub fn expected(&self, bytes: usize) -> Option<Duration> {
        let [time, size] = &self.recent;
        let (time, size) = (time.load(Relaxed), size.load(Relaxed));
        let scaled = |bytes: u64| time.saturating_mul(bytes.div_ceil(size).max(1));
        (time > 0 && size > 0).then(|| Duration::from_nanos(scaled(bytes as u64)))
    }

    pub fn snapshot(&self) -> StatsSnapshot {
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let fail = self.fail.read();
        let [rejected, invalid, canceled] =
            [&self.rejected, &self.invalid, &self.canceled].map(|count| count.load(Relaxed));
        let others = rejected.saturating_add(invalid).saturating_add(canceled);
        let engine = fail.count.saturating_sub(others);
        StatsSnapshot {
            inference_count: self.inferences.load(Relaxed),
            execution_count: self.executions.load(Relaxed),
            last_inference: self.last.load(Relaxed),
            success: self.success.read(),
            fail,
            failures: Failures { rejected, engine, invalid, canceled },
            queue: self.queue.read(),
            compute_input: self.input.read(),
            compute: self.compute.read(),
            compute_output: self.output.read(),
            cache_hit: self.cache_hit.read(),
            cache_miss: self.cache_miss.read(),
            shadow_agreed: self.agreed.load(Relaxed),
            shadow_differed: self.differed.load(Relaxed),
            batches,
            median: self.latency.quantile(0.5),
            p99: self.latency.quantile(0.99),
        }
    }
}

/// Moves a mean an eighth of the way to a new value; the first one is taken as it is. Racing updates may lose one.
fn smooth(mean: &AtomicU64, value: u64) {
    let old = mean.load(Relaxed);
    let new = if old == 0 { value } else { (old.saturating_mul(7).saturating_add(value) / 8).max(1) };
    mean.store(new, Relaxed);
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn now_milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
