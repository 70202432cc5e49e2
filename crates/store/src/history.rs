//! The recent changes, kept for watchers: each kind's in a log of its own, so that a busy kind neither wakes nor
//! scans past the watchers of a quiet one.

use std::collections::{HashMap, VecDeque};
use std::sync::{PoisonError, RwLock};

use tokio::sync::watch;

use crate::watch::{Event, Expired};

/// How much of the past is kept for watchers that reconnect. Whichever limit is met first, the oldest goes.
#[derive(Debug, Clone, Copy)]
pub struct HistoryLimits {
    /// Changes, of all kinds together.
    pub events: usize,
    /// Bytes of JSON of the objects that they keep alive.
    pub bytes: usize,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self { events: 16_384, bytes: 64 << 20 }
    }
}

/// How many changes a reader takes at once, so that one that is far behind does not hold all of them.
const TAKEN_AT_ONCE: usize = 256;

pub(crate) struct History {
    limits: HistoryLimits,
    logs: RwLock<Logs>,
    /// Wakes those who watch all kinds.
    latest: watch::Sender<u64>,
}

struct Logs {
    kinds: HashMap<&'static str, Log>,
    /// The version of the latest change of any kind.
    version: u64,
    /// The version that the history begins after.
    beginning: u64,
    events: usize,
    bytes: usize,
    /// Kinds whose watchers were not woken yet.
    unannounced: Vec<&'static str>,
}

struct Log {
    events: VecDeque<Event>,
    /// A watch from this version or later misses nothing.
    oldest: u64,
    latest: watch::Sender<u64>,
}

/// What a reader took.
pub(crate) struct Taken {
    pub(crate) events: Vec<Event>,
    /// The version up to which there is nothing else.
    pub(crate) version: u64,
    /// Whether nothing was left.
    pub(crate) is_all: bool,
}

impl Logs {
    fn log(&mut self, plural: &'static str) -> &mut Log {
        let (oldest, version) = (self.beginning, self.version);
        self.kinds.entry(plural).or_insert_with(|| Log {
            events: VecDeque::new(),
            oldest,
            latest: watch::Sender::new(version),
        })
    }

    fn forget_oldest(&mut self) -> Option<Event> {
        let first = |log: &Log| log.events.front().map(|event| event.version);
        let log =
            self.kinds.values_mut().filter(|log| !log.events.is_empty()).min_by_key(|log| first(log))?;
        let event = log.events.pop_front()?;
        log.oldest = event.version;
        self.events -= 1;
        self.bytes -= event.bytes();
        Some(event)
    }

    fn oldest(&self, plural: Option<&str>) -> u64 {
        let of_kind = |plural| self.kinds.get(plural).map_or(self.beginning, |log| log.oldest);
        let of_all = || self.kinds.values().map(|log| log.oldest).max().unwrap_or(self.beginning);
        plural.map_or_else(of_all, of_kind)
    }

    fn check(&self, plural: Option<&str>, seen: u64) -> Result<(), Expired> {
        let oldest = self.oldest(plural);
        // A version from the future is one of a time that a restored backup has undone.
        if seen < oldest || seen > self.version { Err(Expired { asked: seen, oldest }) } else { Ok(()) }
    }
}

impl Log {
    fn after(&self, seen: u64) -> impl Iterator<Item = &Event> {
        let start = self.events.partition_point(|event| event.version <= seen);
        self.events.range(start..).take(TAKEN_AT_ONCE)
    }
}

impl History {
    pub(crate) fn starting_at(version: u64, limits: HistoryLimits) -> Self {
        let logs = Logs {
            kinds: HashMap::new(),
            version,
            beginning: version,
            events: 0,
            bytes: 0,
            unannounced: Vec::new(),
        };
        Self { limits, logs: RwLock::new(logs), latest: watch::Sender::new(version) }
    }

    /// Adds a change. Nobody is woken before [`Self::announce`].
    pub(crate) fn push(&self, event: Event) {
        let plural = event.object.key.plural;
        let mut forgotten = Vec::new();
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        logs.version = event.version;
        logs.events += 1;
        logs.bytes += event.bytes();
        logs.log(plural).events.push_back(event);
        if !logs.unannounced.contains(&plural) {
            logs.unannounced.push(plural);
        }
        while logs.events > self.limits.events || logs.bytes > self.limits.bytes {
            let Some(event) = logs.forget_oldest() else { break };
            forgotten.push(event);
        }
        drop(logs);
        // Objects are taken apart outside of the lock.
        drop(forgotten);
    }

    /// Wakes those who watch a kind that changed.
    pub(crate) fn announce(&self) {
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        let version = logs.version;
        let kinds = std::mem::take(&mut logs.unannounced);
        let woken: Vec<_> = kinds.iter().map(|plural| logs.log(plural).latest.clone()).collect();
        drop(logs);
        for latest in woken {
            latest.send_replace(version);
        }
        self.latest.send_replace(version);
    }

    pub(crate) fn subscribe(
        &self,
        plural: Option<&'static str>,
        from: u64,
    ) -> Result<watch::Receiver<u64>, Expired> {
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        logs.check(plural, from)?;
        Ok(plural.map_or_else(|| self.latest.subscribe(), |plural| logs.log(plural).latest.subscribe()))
    }

    /// The next changes after a version, of one kind or of all, in order.
    pub(crate) fn take(&self, plural: Option<&'static str>, seen: u64) -> Result<Taken, Expired> {
        let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
        logs.check(plural, seen)?;
        let mut events: Vec<Event> = match plural {
            Some(plural) => {
                logs.kinds.get(plural).into_iter().flat_map(|log| log.after(seen)).cloned().collect()
            }
            None => logs.kinds.values().flat_map(|log| log.after(seen)).cloned().collect(),
        };
        let now = logs.version;
        drop(logs);
        if plural.is_none() {
            events.sort_unstable_by_key(|event| event.version);
            events.truncate(TAKEN_AT_ONCE);
        }
        let is_all = events.len() < TAKEN_AT_ONCE;
        let version = if is_all { now } else { events.last().map_or(now, |event| event.version) };
        Ok(Taken { events, version, is_all })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::object::Draft;
    use crate::{EventKind, Key};

    fn event(plural: &'static str, version: u64) -> Event {
        let draft = Draft::of(Key::new(plural, "", "a"), json!({"metadata": {}})).unwrap();
        let object = Arc::new(draft.finish(version).unwrap());
        Event::new(EventKind::Modified, object, None)
    }

    fn versions(history: &History, plural: Option<&'static str>, seen: u64) -> Vec<u64> {
        history.take(plural, seen).unwrap().events.iter().map(|event| event.version).collect()
    }

    #[test]
    fn bytes_bound_what_is_remembered() {
        let one = event("a", 11).bytes();
        let history = History::starting_at(10, HistoryLimits { events: 1000, bytes: 3 * one });
        (11..21).for_each(|version| history.push(event("a", version)));
        assert_eq!(history.take(Some("a"), 16).err(), Some(Expired { asked: 16, oldest: 17 }));
        assert_eq!(versions(&history, Some("a"), 17), [18, 19, 20]);
    }

    #[test]
    fn a_busy_kind_expires_no_watcher_of_a_quiet_one() {
        let history = History::starting_at(10, HistoryLimits { events: 3, bytes: 1 << 20 });
        history.push(event("quiet", 11));
        (12..30).for_each(|version| history.push(event("busy", version)));
        assert!(history.take(Some("quiet"), 10).is_err(), "its own change was forgotten");
        assert!(versions(&history, Some("quiet"), 11).is_empty());
        assert!(history.take(None, 11).is_err(), "a watcher of all misses some");
    }

    #[test]
    fn all_kinds_are_read_in_the_order_of_versions() {
        let history = History::starting_at(0, HistoryLimits::default());
        (1..=600).for_each(|version| history.push(event(if version % 3 == 0 { "a" } else { "b" }, version)));
        let (mut seen, mut read) = (0, Vec::new());
        while seen < 600 {
            let taken = history.take(None, seen).unwrap();
            read.extend(taken.events.iter().map(|event| event.version));
            seen = taken.version;
        }
        assert_eq!(read, (1..=600).collect::<Vec<_>>());
    }

    #[test]
    fn a_version_that_was_never_made_can_not_be_watched_from() {
        let history = History::starting_at(10, HistoryLimits::default());
        assert!(history.subscribe(Some("a"), 11).is_err());
    }
}
