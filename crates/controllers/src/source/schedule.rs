//! Whose turn it is.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use types::Source;
use types::names::annotation;

/// How long after the first failure the next try is; each further failure doubles it, up to the interval.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// The interval of a retry is at most that, whatever the Source's own is.
const LAST_RETRY: Duration = Duration::from_secs(600);
/// How many Sources may wait to be looked at because somebody asked.
const LONGEST_QUEUE: usize = 10_000;

/// Sources that somebody wants to be looked at now, by namespace and name. Cheap to clone.
#[derive(Clone, Default)]
pub struct SourceQueue(Arc<Queue>);

#[derive(Default)]
struct Queue {
    waiting: Mutex<BTreeSet<(String, String)>>,
    arrived: Notify,
}

impl SourceQueue {
    /// Has a Source looked at as soon as may be; asking twice is asking once.
    pub fn ask(&self, namespace: &str, name: &str) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < LONGEST_QUEUE {
            waiting.insert((namespace.to_owned(), name.to_owned()));
        }
        drop(waiting);
        self.0.arrived.notify_one();
    }

    /// Waits until somebody asks.
    pub async fn asked(&self) {
        self.0.arrived.notified().await;
    }

    /// Whether somebody asked for a Source; then they no longer do.
    pub fn take(&self, source: &Source) -> bool {
        let key = (source.namespace().to_owned(), source.name().to_owned());
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&key)
    }

    /// Forgets those who asked for what isn't there.
    pub fn keep_only(&self, sources: &[Source]) {
        let is_there = |(namespace, name): &(String, String)| {
            sources.iter().any(|source| (source.namespace(), source.name()) == (namespace, name))
        };
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).retain(is_there);
    }
}

/// When each Source has its next turn.
#[derive(Default)]
pub struct Schedule {
    known: HashMap<String, Known>,
}

struct Known {
    next: Instant,
    failures: u32,
    is_running: bool,
    /// The generation and the wish that the last turn was for.
    last: (i64, String),
}

fn wish(source: &Source) -> (i64, String) {
    let asked = source.metadata.annotations.get(annotation::RECONCILE_AT).cloned().unwrap_or_default();
    let deleting = if source.is_deleting() { "deleting" } else { "" };
    (source.metadata.generation, asked + deleting)
}

impl Schedule {
    /// Whether it is a Source's turn; then it runs.
    pub fn begin(&mut self, source: &Source, queue: &SourceQueue, now: Instant) -> bool {
        let known = self.known.entry(source.metadata.uid.clone()).or_insert_with(|| Known {
            next: now,
            failures: 0,
            is_running: false,
            last: (0, String::new()),
        });
        if known.is_running || (source.spec.suspend && !source.is_deleting()) {
            return false;
        }
        let is_due = known.next <= now || known.last != wish(source);
        if !(queue.take(source) || is_due) {
            return false;
        }
        known.is_running = true;
        known.last = wish(source);
        true
    }

    /// Notes that a turn ended, well or not; `spread` from 0 to 1 keeps Sources apart.
    pub fn end(&mut self, source: &Source, is_well: bool, spread: f64, now: Instant) {
        let Some(known) = self.known.get_mut(&source.metadata.uid) else { return };
        known.is_running = false;
        let interval = source.spec.interval.duration();
        known.failures = if is_well { 0 } else { known.failures + 1 };
        let wait = match known.failures {
            0 => interval.mul_f64(0.95 + 0.1 * spread),
            failures => (FIRST_RETRY * 2_u32.saturating_pow(failures - 1).min(1024))
                .min(LAST_RETRY)
                .min(interval.max(FIRST_RETRY)),
        };
        known.next = now + wait;
    }

    /// When the next turn is, if nobody asks before.
    pub fn next(&self) -> Option<Instant> {
        self.known.values().filter(|known| !known.is_running).map(|known| known.next).min()
    }

    /// Forgets Sources that are gone.
    pub fn keep_only(&mut self, sources: &[Source]) {
        self.known.retain(|uid, known| {
            known.is_running
                || sources.iter().any(|source| source.metadata.uid == *uid && !source.spec.suspend)
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use types::ObjectMeta;

    use super::*;

    fn source(interval: &str) -> Source {
        let spec = json!({"git": {"url": "https://git.example.com/x"}, "interval": interval});
        let metadata =
            ObjectMeta { namespace: "a".into(), uid: "1".into(), generation: 1, ..ObjectMeta::named("s") };
        Source::new(metadata, serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn a_source_is_looked_at_at_once_then_each_interval_and_whenever_asked() {
        let (mut schedule, queue, start) = (Schedule::default(), SourceQueue::default(), Instant::now());
        let mut source = source("60s");
        assert!(schedule.begin(&source, &queue, start));
        assert!(!schedule.begin(&source, &queue, start), "it runs");
        schedule.end(&source, true, 0.5, start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!schedule.begin(&source, &queue, at(59)));
        assert!(schedule.begin(&source, &queue, at(60)));
        schedule.end(&source, true, 0.5, at(60));
        queue.ask("a", "s");
        queue.ask("a", "s");
        assert!(schedule.begin(&source, &queue, at(61)));
        schedule.end(&source, true, 0.5, at(61));
        assert!(!schedule.begin(&source, &queue, at(62)));
        source.metadata.annotations.insert(annotation::RECONCILE_AT.into(), "now".into());
        assert!(schedule.begin(&source, &queue, at(62)));
        schedule.end(&source, true, 0.5, at(62));
        source.metadata.generation = 2;
        assert!(schedule.begin(&source, &queue, at(63)));
        schedule.end(&source, true, 0.5, at(63));
        source.spec.suspend = true;
        assert!(!schedule.begin(&source, &queue, at(1000)));
    }

    #[test]
    fn failures_are_tried_again_less_and_less_often() {
        let (mut schedule, queue, mut now) = (Schedule::default(), SourceQueue::default(), Instant::now());
        let source = source("1h");
        let mut waits = Vec::new();
        for _ in 0..10 {
            assert!(schedule.begin(&source, &queue, now));
            schedule.end(&source, false, 0.5, now);
            let next = schedule.next().unwrap();
            waits.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 600, 600, 600]);
    }
}
