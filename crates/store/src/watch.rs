//! What happened to resources, in order, from a version on.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::Object;

/// What happened to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It is new.
    Added,
    /// It changed.
    Modified,
    /// It is gone; the object is its last state, with the version of the deletion.
    Deleted,
}

/// One change.
#[derive(Debug, Clone)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The version that the change made.
    pub version: u64,
    /// The object after the change.
    pub object: Arc<Object>,
}

/// The version is older than what is remembered; list again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("version {asked} is too old; the oldest remembered is {oldest}; list again and watch from there")]
pub struct Expired {
    /// The version that was asked for.
    pub asked: u64,
    /// The oldest from which a watch can begin.
    pub oldest: u64,
}

/// How many changes are remembered for watchers that reconnect.
const REMEMBERED: usize = 16_384;

/// The recent changes of a store.
pub(crate) struct History {
    recent: Mutex<Recent>,
    latest: watch::Sender<u64>,
}

struct Recent {
    events: VecDeque<Event>,
    /// A watch from this version or later misses nothing.
    oldest: u64,
}

impl History {
    pub(crate) fn starting_at(version: u64) -> Self {
        let recent = Recent { events: VecDeque::new(), oldest: version };
        Self { recent: Mutex::new(recent), latest: watch::Sender::new(version) }
    }

    pub(crate) fn push(&self, event: Event) {
        let version = event.version;
        {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.events.push_back(event);
            if recent.events.len() > REMEMBERED
                && let Some(forgotten) = recent.events.pop_front()
            {
                recent.oldest = forgotten.version;
            }
        }
        self.latest.send_replace(version);
    }

    pub(crate) fn watch(self: &Arc<Self>, from: u64) -> Result<Watch, Expired> {
        let watch = Watch { history: self.clone(), latest: self.latest.subscribe(), seen: from };
        watch.check_not_expired()?;
        Ok(watch)
    }
}

/// A reader of changes; it misses none and repeats none.
pub struct Watch {
    history: Arc<History>,
    latest: watch::Receiver<u64>,
    seen: u64,
}

impl Watch {
    fn check_not_expired(&self) -> Result<(), Expired> {
        let oldest = self.history.recent.lock().unwrap_or_else(PoisonError::into_inner).oldest;
        if self.seen < oldest { Err(Expired { asked: self.seen, oldest }) } else { Ok(()) }
    }

    /// Waits for changes and takes all there are, at least one. Cancel safe.
    ///
    /// # Errors
    /// If the reader was so slow that changes were forgotten.
    pub async fn next(&mut self) -> Result<Vec<Event>, Expired> {
        loop {
            let _ = self.latest.borrow_and_update();
            let events = self.take()?;
            if !events.is_empty() {
                return Ok(events);
            }
            if self.latest.changed().await.is_err() {
                // The store is gone; there will never be another change.
                std::future::pending::<()>().await;
            }
        }
    }

    fn take(&mut self) -> Result<Vec<Event>, Expired> {
        self.check_not_expired()?;
        let recent = self.history.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let start = recent.events.partition_point(|event| event.version <= self.seen);
        let events: Vec<Event> = recent.events.iter().skip(start).cloned().collect();
        if let Some(last) = events.last() {
            self.seen = last.version;
        }
        Ok(events)
    }

    /// The version up to which changes were taken.
    pub fn version(&self) -> u64 {
        self.seen
    }
}
