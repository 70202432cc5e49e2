//! The order of waiting runs, and which of them run together: plain state, no thread; the time is an argument.
//!
//! The most urgent first, then first come, first served; except that a model that is busy in all its instances, or
//! that waits for a fuller batch, lets others pass, so that one slow model doesn't occupy every thread with waiting.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// Bounds of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    /// Most waiting entries.
    pub entries: usize,
    /// Most waiting weight (bytes of input); a single entry may exceed it when nothing else waits.
    pub weight: usize,
}

/// The part of a queue that what isn't asked for may fill.
const SPARE: usize = 8;

/// What is true of all entries of one model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// How many runs may go on at once.
    pub instances: usize,
    /// Most samples in one run; 1 merges nothing.
    pub max_batch: usize,
    /// Longest wait for a fuller batch.
    pub max_delay: Duration,
    /// Most waiting entries.
    pub max_waiting: usize,
}

pub(crate) struct Entry<T> {
    /// Which model: entries of one key share its instances.
    pub key: u64,
    pub policy: Policy,
    /// Lower is more urgent.
    pub priority: u32,
    pub arrived: Instant,
    /// When it is too late to begin.
    pub deadline: Option<Instant>,
    /// Entries of one key and bucket may run together.
    pub bucket: u64,
    pub samples: usize,
    pub weight: usize,
    pub item: T,
}

/// What a free thread should do.
pub(crate) enum Next<T> {
    /// Run these together, then call [`Queue::finish`].
    Run { key: u64, batch: Vec<T> },
    /// Wait for a push, a finish, or until this moment.
    Wait(Option<Instant>),
}

/// Why an entry was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full { waiting: usize },
    Closed,
}

pub(crate) struct Queue<T> {
    lanes: HashMap<u64, Lane<T>>,
    waiting: usize,
    weight: usize,
    /// Counts entries, to keep the order of arrival.
    pushed: u64,
    capacity: Capacity,
    closed: bool,
}

/// Priority, then order of arrival.
type Place = (u32, u64);

/// The entries of one model.
struct Lane<T> {
    waiting: BTreeMap<Place, Entry<T>>,
    running: usize,
}

impl<T> Queue<T> {
    pub fn new(capacity: Capacity) -> Self {
        Queue { lanes: HashMap::new(), waiting: 0, weight: 0, pushed: 0, capacity, closed: false }
    }

    pub fn push(&mut self, entry: Entry<T>) -> Result<(), Refused> {
        if self.closed {
            return Err(Refused::Closed);
        }
        if self.is_full_for(&entry) {
            return Err(Refused::Full { waiting: self.waiting });
        }
        let waiting = self.waiting(entry.key);
        if waiting >= entry.policy.max_waiting {
            return Err(Refused::Full { waiting });
        }
        let lane = self.lanes.entry(entry.key).or_default();
        self.pushed += 1;
        self.waiting += 1;
        self.weight = self.weight.saturating_add(entry.weight);
        lane.waiting.insert((entry.priority, self.pushed), entry);
        Ok(())
    }

    /// The most urgent batch that may run now.
    pub fn next(&mut self, now: Instant) -> Next<T> {
        let mut first: Option<(Place, u64)> = None;
        let mut wake: Option<Instant> = None;
        for (&key, lane) in &self.lanes {
            match lane.ready_at(now) {
                Some((place, at)) if at <= now => {
                    first = Some(first.map_or((place, key), |first| first.min((place, key))));
                }
                Some((_, at)) => wake = Some(wake.map_or(at, |wake| wake.min(at))),
                None => {}
            }
        }
        let Some((place, key)) = first else { return Next::Wait(wake) };
        let batch = self.take(key, place);
        Next::Run { key, batch }
    }

    fn take(&mut self, key: u64, place: Place) -> Vec<T> {
        let Some(lane) = self.lanes.get_mut(&key) else { return Vec::new() };
        lane.running += 1;
        let entries = lane.take(place);
        self.waiting -= entries.len();
        for entry in &entries {
            self.weight = self.weight.saturating_sub(entry.weight);
        }
        entries.into_iter().map(|entry| entry.item).collect()
    }

    /// An instance of this key is free again.
    pub fn finish(&mut self, key: u64) {
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.running = lane.running.saturating_sub(1);
            if lane.running == 0 && lane.waiting.is_empty() {
                self.lanes.remove(&key);
            }
        }
    }

    /// Takes out entries that nobody waits for any more.
    pub fn extract(&mut self, mut unwanted: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut extracted = Vec::new();
        for lane in self.lanes.values_mut() {
            for (_, entry) in lane.waiting.extract_if(.., |_, entry| unwanted(&entry.item)) {
                self.waiting -= 1;
                self.weight = self.weight.saturating_sub(entry.weight);
                extracted.push(entry.item);
            }
        }
        self.lanes.retain(|_, lane| lane.running > 0 || !lane.waiting.is_empty());
        extracted
    }

    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Entries of this key that wait.
    pub fn waiting(&self, key: u64) -> usize {
        self.lanes.get(&key).map_or(0, |lane| lane.waiting.len())
    }

    /// Whether this entry is one too many.
    pub fn is_full(&self, entry: &Entry<T>) -> bool {
        self.is_full_for(entry) || self.waiting(entry.key) >= entry.policy.max_waiting
    }

    fn is_full_for(&self, entry: &Entry<T>) -> bool {
        let heavy = self.waiting > 0 && self.weight.saturating_add(entry.weight) > self.capacity.weight;
        self.waiting >= self.capacity.entries || heavy
    }

    /// Whether so little waits that there is room for what isn't asked for.
    pub fn has_room_to_spare(&self, entry: &Entry<T>) -> bool {
        let Capacity { entries, weight } = self.capacity;
        let heavy = self.weight.saturating_add(entry.weight) > weight / SPARE;
        self.waiting < (entries / SPARE).max(1) && !heavy && !self.is_full(entry)
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes no more entries and gives up the waiting ones, in order.
    pub fn close(&mut self) -> Vec<T> {
        self.closed = true;
        (self.waiting, self.weight) = (0, 0);
        let lanes = self.lanes.values_mut();
        let mut left: Vec<(Place, Entry<T>)> =
            lanes.flat_map(|lane| std::mem::take(&mut lane.waiting)).collect();
        left.sort_by_key(|(place, _)| *place);
        left.into_iter().map(|(_, entry)| entry.item).collect()
    }
}

/// Entries of one bucket that may run together.
struct Forming {
    bucket: u64,
    /// Of the most urgent.
    place: Place,
    samples: usize,
    /// When the most impatient can't wait any longer.
    start: Instant,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Lane { waiting: BTreeMap::new(), running: 0 }
    }
}

impl<T> Lane<T> {
    /// Which entry leads the next batch and when that may run; `None` while every instance is busy.
    ///
    /// A batch may run once it is full or one of its entries has waited for long enough. Of those that may, the most
    /// urgent is next.
    fn ready_at(&self, now: Instant) -> Option<(Place, Instant)> {
        let (&place, head) = self.waiting.first_key_value()?;
        if self.running >= head.policy.instances.max(1) {
            return None;
        }
        if head.policy.max_delay.is_zero() {
            return Some((place, now));
        }
        let mut batches: Vec<Forming> = Vec::new();
        for (&place, entry) in &self.waiting {
            let start = entry.latest_start();
            match batches.iter_mut().find(|batch| batch.bucket == entry.bucket) {
                Some(batch) => {
                    batch.samples = batch.samples.saturating_add(entry.samples);
                    batch.start = batch.start.min(start);
                }
                None => batches.push(Forming { bucket: entry.bucket, place, samples: entry.samples, start }),
            }
        }
        let ready = |batch: &&Forming| batch.samples >= head.policy.max_batch || batch.start <= now;
        // They are in the order of their first entries.
        match batches.iter().find(ready) {
            Some(batch) => Some((batch.place, now)),
            None => batches.iter().map(|batch| (batch.place, batch.start)).min_by_key(|(_, start)| *start),
        }
    }

    /// The entry at a place, and behind it whatever fits into one run with it, in order.
    fn take(&mut self, place: Place) -> Vec<Entry<T>> {
        let Some(head) = self.waiting.remove(&place) else { return Vec::new() };
        let (bucket, max_batch) = (head.bucket, head.policy.max_batch);
        let mut samples = head.samples;
        let mut batch = vec![head];
        if samples < max_batch {
            let mut fits = |entry: &Entry<T>| {
                let fits = entry.bucket == bucket && entry.samples <= max_batch - samples;
                samples += if fits { entry.samples } else { 0 };
                fits
            };
            let places: Vec<Place> =
                self.waiting.iter().filter(|(_, entry)| fits(entry)).map(|(place, _)| *place).collect();
            batch.extend(places.iter().filter_map(|place| self.waiting.remove(place)));
        }
        batch
    }
}

impl<T> Entry<T> {
    /// Until when it waits for company: its model's delay, but never over half of the time that it has.
    fn latest_start(&self) -> Instant {
        let patience = self.deadline.map(|deadline| deadline.saturating_duration_since(self.arrived) / 2);
        self.arrived + patience.map_or(self.policy.max_delay, |patience| patience.min(self.policy.max_delay))
    }
}

#[cfg(test)]
#[path = "queue/tests.rs"]
mod tests;
