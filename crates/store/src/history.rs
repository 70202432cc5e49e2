//! The recent changes, kept for watchers: each kind's in a log of its own, so that a busy kind neither wakes nor
//! scans past the watchers of a quiet one. Of one kind, who watches one namespace is woken for that alone, and reads
//! nothing else: each site watches its own.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::watch::{Event, Expired};

/// How much of the past is kept for watchers that reconnect. Whichever limit is met first, the oldest goes.
#[derive(Debug, Clone, Copy)]
pub struct HistoryLimits {
    /// Changes, of all kinds together.
    pub events: usize,
    /// Bytes of JSON of the objects that they keep alive.
    pub bytes: usize,
    /// How long ago they may be; but the latest thousand are kept whatever their age.
    pub age: Duration,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self { events: 16_384, bytes: 64 << 20, age: Duration::from_secs(300) }
    }
}

/// How many changes are kept whatever their age.
const LATEST: usize = 1000;
/// How many parts of the age that is kept are told apart.
const MARKS: u32 = 30;
/// How many changes are forgotten at once for their age, so that nobody waits for long meanwhile.
const FORGOTTEN_AT_ONCE: usize = 1024;

/// How many changes a reader takes at once, so that one that is far behind does not hold all of them.
const TAKEN_AT_ONCE: usize = 256;

/// Of what a reader wants to know.
#[derive(Clone)]
pub(crate) enum Scope {
    All,
    Kind(&'static str),
    /// A kind in one namespace.
    Place(&'static str, Arc<str>),
}

pub(crate) struct History {
    limits: HistoryLimits,
    logs: RwLock<Logs>,
    /// Wakes those who watch all kinds.
    announcements: Arc<Notify>,
}

struct Logs {
    kinds: HashMap<&'static str, Log>,
    /// The version of the latest change of any kind.
    version: u64,
    /// The version that the history begins after.
    beginning: u64,
    events: usize,
    bytes: usize,
    /// Which version was the latest at some times, the oldest first.
    marks: VecDeque<(Instant, u64)>,
    /// What changed up to this version is older than what is kept.
    aged: u64,
    /// Kinds, and their watched namespaces, whose watchers were not woken yet.
    unannounced: HashSet<(&'static str, Option<Arc<str>>)>,
}

struct Log {
    events: VecDeque<Event>,
    /// A watch from this version or later misses nothing.
    oldest: u64,
    announcements: Arc<Notify>,
    /// Namespaces that somebody watches, and some that nobody watches any more.
    places: HashMap<Arc<str>, Place>,
    /// How many of them make it worth a look for those.
    places_to_look: usize,
}

/// How many namespaces are kept without a look whether somebody watches them.
const FEW_PLACES: usize = 64;

struct Place {
    /// Its changes after `since`; those before are in the log of the kind only.
    events: VecDeque<Event>,
    since: u64,
    /// A watch of this namespace from this version or later misses nothing.
    oldest: u64,
    /// Shared with those who watch it.
    announcements: Arc<Notify>,
}

impl Place {
    fn is_watched(&self) -> bool {
        Arc::strong_count(&self.announcements) > 1
    }
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
        let oldest = self.beginning;
        self.kinds.entry(plural).or_insert_with(|| Log {
            events: VecDeque::new(),
            oldest,
            announcements: Arc::default(),
            places: HashMap::new(),
            places_to_look: FEW_PLACES,
        })
    }

    /// Forgets the oldest change, if it made no later version than this one.
    fn forget_oldest(&mut self, up_to: u64) -> Option<Event> {
        let first = |log: &Log| log.events.front().map(|event| event.version);
        let log =
            self.kinds.values_mut().filter(|log| !log.events.is_empty()).min_by_key(|log| first(log))?;
        let event = log.events.pop_front_if(|first| first.version <= up_to)?;
        log.oldest = event.version;
        if let Some(place) = log.places.get_mut(event.object.key.namespace.as_str()) {
            place.oldest = event.version;
            place.events.pop_front_if(|first| first.version == event.version);
        }
        self.events -= 1;
        self.bytes -= event.bytes();
        Some(event)
    }

    fn oldest(&self, scope: &Scope) -> u64 {
        match scope {
            Scope::All => self.kinds.values().map(|log| log.oldest).max().unwrap_or(self.beginning),
            Scope::Kind(plural) => self.kinds.get(plural).map_or(self.beginning, |log| log.oldest),
            Scope::Place(plural, namespace) => self.kinds.get(plural).map_or(self.beginning, |log| {
                log.places.get(namespace).map_or(log.oldest, |place| place.oldest)
            }),
        }
    }

    fn check(&self, scope: &Scope, seen: u64) -> Result<(), Expired> {
        let oldest = self.oldest(scope);
        // A version from the future is one of a time that a restored backup has undone.
        if seen < oldest || seen > self.version { Err(Expired { asked: seen, oldest }) } else { Ok(()) }
    }
}

impl Log {
    /// A namespace that is watched from now on.
    fn place(&mut self, namespace: &Arc<str>, version: u64) -> &Place {
        if self.places.len() >= self.places_to_look && !self.places.contains_key(namespace) {
            self.places.retain(|_, place| place.is_watched());
            self.places_to_look = FEW_PLACES.max(2 * self.places.len());
        }
        let oldest = self.oldest;
        let new = || Place { events: VecDeque::new(), since: version, oldest, announcements: Arc::default() };
        self.places.entry(namespace.clone()).or_insert_with(new)
    }

    fn after(&self, seen: u64) -> impl Iterator<Item = &Event> {
        after(&self.events, seen)
    }

    /// The next changes of one namespace.
    fn take_in(&self, namespace: &str, seen: u64) -> Vec<Event> {
        match self.places.get(namespace).filter(|place| place.since <= seen) {
            Some(place) => after(&place.events, seen).take(TAKEN_AT_ONCE).cloned().collect(),
            None => {
                let there = self.after(seen).filter(|event| event.object.key.namespace == namespace);
                there.take(TAKEN_AT_ONCE).cloned().collect()
            }
        }
    }
}

fn after(events: &VecDeque<Event>, seen: u64) -> impl Iterator<Item = &Event> {
    let start = events.partition_point(|event| event.version <= seen);
    events.range(start..)
}

impl History {
    pub(crate) fn starting_at(version: u64, limits: HistoryLimits) -> Self {
        let logs = Logs {
            kinds: HashMap::new(),
            version,
            beginning: version,
            events: 0,
            bytes: 0,
            marks: VecDeque::new(),
            aged: 0,
            unannounced: HashSet::new(),
        };
        Self { limits, logs: RwLock::new(logs), announcements: Arc::default() }
    }

    /// Adds a change. Nobody is woken before [`Self::announce`].
    pub(crate) fn push(&self, event: Event) {
        let plural = event.object.key.plural;
        let mut forgotten = Vec::new();
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        logs.version = event.version;
        logs.events += 1;
        logs.bytes += event.bytes();
        let log = logs.log(plural);
        let namespace = event.object.key.namespace.as_str();
        let place = log.places.get_key_value(namespace).map(|(name, _)| name.clone());
        if let Some(place) = log.places.get_mut(namespace) {
            place.events.push_back(event.clone());
        }
        log.events.push_back(event);
        logs.unannounced.insert((plural, None));
        if place.is_some() {
            logs.unannounced.insert((plural, place));
        }
        while logs.events > self.limits.events || logs.bytes > self.limits.bytes {
            let Some(event) = logs.forget_oldest(u64::MAX) else { break };
            forgotten.push(event);
        }
        drop(logs);
        // Objects are taken apart outside of the lock.
        drop(forgotten);
    }

    /// Forgets what is older than what is kept, as of now; to be called now and then.
    pub(crate) fn forget_old(&self, now: Instant) {
        let age = self.limits.age;
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        if logs.marks.back().is_none_or(|(noted, _)| now.duration_since(*noted) >= age / MARKS) {
            let mark = (now, logs.version);
            logs.marks.push_back(mark);
        }
        while let Some((_, version)) = logs.marks.pop_front_if(|(noted, _)| now.duration_since(*noted) >= age)
        {
            logs.aged = version;
        }
        drop(logs);
        while self.forget_some() {}
    }

    /// Forgets some of what is too old; whether there may be more of it.
    fn forget_some(&self) -> bool {
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        let (aged, most) = (logs.aged, logs.events.saturating_sub(LATEST).min(FORGOTTEN_AT_ONCE));
        let forgotten: Vec<Event> = std::iter::from_fn(|| logs.forget_oldest(aged)).take(most).collect();
        drop(logs);
        // Objects are taken apart outside of the lock, as `forgotten` is.
        forgotten.len() == FORGOTTEN_AT_ONCE
    }

    /// Wakes those who watch what changed.
    pub(crate) fn announce(&self) {
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        let mut woken = Vec::new();
        for (plural, namespace) in std::mem::take(&mut logs.unannounced) {
            let log = logs.log(plural);
            let Some(namespace) = namespace else {
                woken.push(log.announcements.clone());
                continue;
            };
            match log.places.get(&namespace) {
                Some(place) if place.is_watched() => woken.push(place.announcements.clone()),
                // Nobody watches there any more.
                _ => drop(log.places.remove(&namespace)),
            }
        }
        drop(logs);
        for announcements in woken {
            announcements.notify_waiters();
        }
        self.announcements.notify_waiters();
    }

    pub(crate) fn subscribe(&self, scope: &Scope, from: u64) -> Result<Arc<Notify>, Expired> {
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        logs.check(scope, from)?;
        let version = logs.version;
        Ok(match scope {
            Scope::All => self.announcements.clone(),
            Scope::Kind(plural) => logs.log(plural).announcements.clone(),
            Scope::Place(plural, namespace) => {
                logs.log(plural).place(namespace, version).announcements.clone()
            }
        })
    }

    /// The next changes after a version, in order.
    pub(crate) fn take(&self, scope: &Scope, seen: u64) -> Result<Taken, Expired> {
        let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
        logs.check(scope, seen)?;
        let mut events: Vec<Event> = match scope {
            Scope::All => {
                let first = |log: &Log| log.after(seen).take(TAKEN_AT_ONCE).cloned().collect::<Vec<_>>();
                logs.kinds.values().flat_map(first).collect()
            }
            Scope::Kind(plural) => {
                let log = logs.kinds.get(plural).into_iter();
                log.flat_map(|log| log.after(seen)).take(TAKEN_AT_ONCE).cloned().collect()
            }
            Scope::Place(plural, namespace) => {
                logs.kinds.get(plural).map(|log| log.take_in(namespace, seen)).unwrap_or_default()
            }
        };
        let now = logs.version;
        drop(logs);
        if matches!(scope, Scope::All) {
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
        event_in("", plural, version)
    }

    fn event_in(namespace: &str, plural: &'static str, version: u64) -> Event {
        let draft = Draft::of(Key::new(plural, namespace, "a"), json!({"metadata": {}})).unwrap();
        let object = Arc::new(draft.finish(version).unwrap());
        Event::new(EventKind::Modified, object, None)
    }

    fn versions(history: &History, scope: &Scope, seen: u64) -> Vec<u64> {
        history.take(scope, seen).unwrap().events.iter().map(|event| event.version).collect()
    }

    #[test]
    fn bytes_bound_what_is_remembered() {
        let one = event("a", 11).bytes();
        let history = History::starting_at(10, HistoryLimits { bytes: 3 * one, ..HistoryLimits::default() });
        (11..21).for_each(|version| history.push(event("a", version)));
        assert_eq!(history.take(&Scope::Kind("a"), 16).err(), Some(Expired { asked: 16, oldest: 17 }));
        assert_eq!(versions(&history, &Scope::Kind("a"), 17), [18, 19, 20]);
    }

    #[test]
    fn what_is_old_is_forgotten_but_for_the_latest_changes() {
        let (history, began) = (History::starting_at(0, HistoryLimits::default()), Instant::now());
        let after = |seconds: u64| history.forget_old(began + Duration::from_secs(seconds));
        let is_known = |version| history.take(&Scope::Kind("a"), version).is_ok();
        after(0);
        (1..=10_000).for_each(|version| history.push(event("a", version)));
        after(150);
        assert!(is_known(0));
        (10_001..=11_000).for_each(|version| history.push(event("a", version)));
        after(299);
        assert!(is_known(0));
        after(300);
        assert!(is_known(0), "how old they are is known by some seconds only");
        after(450);
        assert!(is_known(10_000) && !is_known(9_999));
        after(100_000);
        assert!(is_known(10_000), "the latest thousand stay");
        (11_001..=11_500).for_each(|version| history.push(event("a", version)));
        after(100_000);
        assert!(is_known(10_500) && !is_known(10_499), "those were old already");
        history.push(event("a", 11_501));
        after(200_000);
        assert!(is_known(10_501) && !is_known(10_500));
    }

    #[test]
    fn a_busy_kind_expires_no_watcher_of_a_quiet_one() {
        let history = History::starting_at(10, HistoryLimits { events: 3, ..HistoryLimits::default() });
        history.push(event("quiet", 11));
        (12..30).for_each(|version| history.push(event("busy", version)));
        assert!(history.take(&Scope::Kind("quiet"), 10).is_err(), "its own change was forgotten");
        assert!(versions(&history, &Scope::Kind("quiet"), 11).is_empty());
        assert!(history.take(&Scope::All, 11).is_err(), "a watcher of all misses some");
    }

    #[test]
    fn all_kinds_are_read_in_the_order_of_versions() {
        let history = History::starting_at(0, HistoryLimits::default());
        (1..=600).for_each(|version| history.push(event(if version % 3 == 0 { "a" } else { "b" }, version)));
        let (mut seen, mut read) = (0, Vec::new());
        while seen < 600 {
            let taken = history.take(&Scope::All, seen).unwrap();
            read.extend(taken.events.iter().map(|event| event.version));
            seen = taken.version;
        }
        assert_eq!(read, (1..=600).collect::<Vec<_>>());
    }

    #[test]
    fn a_version_that_was_never_made_can_not_be_watched_from() {
        let history = History::starting_at(10, HistoryLimits::default());
        assert!(history.subscribe(&Scope::Kind("a"), 11).is_err());
    }

    #[test]
    fn a_busy_namespace_neither_wakes_nor_expires_who_watches_a_quiet_one() {
        let history = History::starting_at(10, HistoryLimits { events: 3, ..HistoryLimits::default() });
        let quiet = Scope::Place("a", "quiet".into());
        let announcements = history.subscribe(&quiet, 10).unwrap();
        let announced = || {
            let mut announced = Box::pin(announcements.clone().notified_owned());
            announced.as_mut().enable();
            announced
        };
        let mut woken = announced();
        for version in 11..30 {
            history.push(event_in("busy", "a", version));
            history.announce();
        }
        assert!(!woken.as_mut().enable());
        assert!(history.take(&Scope::Kind("a"), 10).is_err());
        assert!(versions(&history, &quiet, 10).is_empty());
        history.push(event_in("quiet", "a", 30));
        history.announce();
        assert!(woken.as_mut().enable());
        assert_eq!(versions(&history, &quiet, 10), [30]);
        (31..40).for_each(|version| history.push(event_in("busy", "a", version)));
        assert!(history.take(&quiet, 10).is_err(), "its own change was forgotten");
        assert!(versions(&history, &quiet, 30).is_empty());
    }

    #[test]
    fn who_watches_a_namespace_reads_what_came_before_it_was_watched_too() {
        let history = History::starting_at(0, HistoryLimits { events: 8, ..HistoryLimits::default() });
        let place = Scope::Place("a", "here".into());
        let push = |versions: std::ops::RangeInclusive<u64>| {
            for version in versions {
                let namespace = if version % 2 == 0 { "here" } else { "there" };
                history.push(event_in(namespace, "a", version));
            }
        };
        push(1..=4);
        let _watched = history.subscribe(&place, 1).unwrap();
        push(5..=8);
        assert_eq!(versions(&history, &place, 1), [2, 4, 6, 8]);
        assert_eq!(versions(&history, &place, 4), [6, 8]);
        assert_eq!(versions(&history, &place, 6), [8]);
        // What is forgotten is forgotten in both places.
        push(9..=13);
        assert!(history.take(&place, 3).is_err());
        assert_eq!(versions(&history, &place, 4), [6, 8, 10, 12]);
        push(14..=20);
        assert!(history.take(&place, 11).is_err());
        assert_eq!(versions(&history, &place, 12), [14, 16, 18, 20]);
        assert_eq!(history.logs.read().unwrap().kinds["a"].places["here"].events.len(), 4);
    }

    #[test]
    fn namespaces_that_nobody_watches_any_more_are_forgotten() {
        let history = History::starting_at(10, HistoryLimits::default());
        drop(history.subscribe(&Scope::Place("a", "left".into()), 10).unwrap());
        history.push(event_in("left", "a", 11));
        history.announce();
        assert!(history.logs.read().unwrap().kinds["a"].places.is_empty());
        assert!(history.subscribe(&Scope::Place("a", "left".into()), 10).is_ok());

        let _stays = history.subscribe(&Scope::Place("a", "stays".into()), 11).unwrap();
        for number in 0..10_000 {
            drop(history.subscribe(&Scope::Place("a", format!("n{number}").into()), 11).unwrap());
        }
        let logs = history.logs.read().unwrap();
        assert!(logs.kinds["a"].places.len() <= FEW_PLACES && logs.kinds["a"].places.contains_key("stays"));
    }
}
