//! The order of waiting runs: plain state, no clock, no thread.
//!
//! First come, first served, except that a run whose model is busy in all its instances lets others pass, so
//! that one slow model doesn't occupy every thread with waiting.

use std::collections::{HashMap, VecDeque};

/// Bounds of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    /// Most waiting entries.
    pub entries: usize,
    /// Most waiting weight (bytes of input); a single entry may exceed it when nothing else waits.
    pub weight: usize,
}

pub(crate) struct Entry<T> {
    /// Which model: entries of one key share its instances.
    pub key: u64,
    /// How many of this key may run at once.
    pub instances: usize,
    pub weight: usize,
    pub item: T,
}

pub(crate) struct Queue<T> {
    waiting: VecDeque<Entry<T>>,
    running: HashMap<u64, usize>,
    weight: usize,
    capacity: Capacity,
    closed: bool,
}

/// Why an entry was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full { waiting: usize },
    Closed,
}

impl<T> Queue<T> {
    pub fn new(capacity: Capacity) -> Self {
        Queue { waiting: VecDeque::new(), running: HashMap::new(), weight: 0, capacity, closed: false }
    }

    pub fn push(&mut self, entry: Entry<T>) -> Result<(), Refused> {
        if self.closed {
            return Err(Refused::Closed);
        }
        let waiting = self.waiting.len();
        let heavy = waiting > 0 && self.weight.saturating_add(entry.weight) > self.capacity.weight;
        if waiting >= self.capacity.entries || heavy {
            return Err(Refused::Full { waiting });
        }
        self.weight = self.weight.saturating_add(entry.weight);
        self.waiting.push_back(entry);
        Ok(())
    }

    /// The next entry whose model has a free instance; it counts as running until [`Queue::finish`].
    pub fn take(&mut self) -> Option<(u64, T)> {
        let running = &self.running;
        let free = |entry: &Entry<T>| running.get(&entry.key).copied().unwrap_or(0) < entry.instances.max(1);
        let at = self.waiting.iter().position(free)?;
        let entry = self.waiting.remove(at)?;
        self.weight = self.weight.saturating_sub(entry.weight);
        *self.running.entry(entry.key).or_default() += 1;
        Some((entry.key, entry.item))
    }

    pub fn finish(&mut self, key: u64) {
        if let Some(count) = self.running.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.running.remove(&key);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes no more entries and gives up the waiting ones.
    pub fn close(&mut self) -> Vec<T> {
        self.closed = true;
        self.weight = 0;
        self.waiting.drain(..).map(|entry| entry.item).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(entries: usize, weight: usize) -> Queue<&'static str> {
        Queue::new(Capacity { entries, weight })
    }

    fn entry(key: u64, instances: usize, item: &'static str) -> Entry<&'static str> {
        Entry { key, instances, weight: 10, item }
    }

    #[test]
    fn a_busy_model_lets_others_pass_and_keeps_its_place() {
        let mut queue = queue(9, 1000);
        for (key, item) in [(1, "a"), (1, "b"), (2, "c"), (1, "d")] {
            queue.push(entry(key, 1, item)).unwrap();
        }
        assert_eq!(queue.take(), Some((1, "a")));
        assert_eq!(queue.take(), Some((2, "c")));
        assert_eq!(queue.take(), None);
        queue.finish(1);
        assert_eq!(queue.take(), Some((1, "b")));
        queue.finish(1);
        assert_eq!(queue.take(), Some((1, "d")));
        assert!(queue.is_empty());
    }

    #[test]
    fn a_full_queue_refuses_by_count_and_by_weight() {
        let mut by_count = queue(2, 1000);
        by_count.push(entry(1, 1, "a")).unwrap();
        by_count.push(entry(1, 1, "b")).unwrap();
        assert_eq!(by_count.push(entry(1, 1, "c")), Err(Refused::Full { waiting: 2 }));
        let mut by_weight = queue(9, 5);
        by_weight.push(entry(1, 1, "one may exceed it")).unwrap();
        assert_eq!(by_weight.push(entry(1, 1, "c")), Err(Refused::Full { waiting: 1 }));
        by_weight.take();
        by_weight.push(entry(1, 1, "again")).unwrap();
    }

    #[test]
    fn a_closed_queue_hands_back_what_waited() {
        let mut queue = queue(9, 1000);
        queue.push(entry(1, 1, "a")).unwrap();
        assert_eq!(queue.close(), ["a"]);
        assert_eq!(queue.push(entry(1, 1, "b")), Err(Refused::Closed));
        assert_eq!(queue.take(), None);
    }

    proptest::proptest! {
        #[test]
        fn no_model_ever_runs_more_than_its_instances(
            steps in proptest::collection::vec((0_u64..3, proptest::bool::ANY), 0..200),
        ) {
            let mut queue = Queue::new(Capacity { entries: 16, weight: usize::MAX });
            let mut running: Vec<u64> = Vec::new();
            for (key, push) in steps {
                if push {
                    let instances = key as usize + 1;
                    let _ = queue.push(Entry { key, instances, weight: 1, item: () });
                } else if let Some((key, ())) = queue.take() {
                    running.push(key);
                    let count = running.iter().filter(|&&other| other == key).count();
                    proptest::prop_assert!(count as u64 <= key + 1);
                } else if let Some(key) = running.pop() {
                    queue.finish(key);
                }
            }
        }
    }
}
