//! What happened to resources, in order, from a version on.

use std::sync::Arc;

use tokio::sync::watch;

use crate::Object;
use crate::history::History;

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

/// One change. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The version that the change made.
    pub version: u64,
    /// The object after the change.
    pub object: Arc<Object>,
    /// The object before the change; `None` of a new one.
    pub previous: Option<Arc<Object>>,
}

impl Event {
    pub(crate) fn new(kind: EventKind, object: Arc<Object>, previous: Option<Arc<Object>>) -> Self {
        Self { kind, version: object.version(), object, previous }
    }

    /// How much of the JSON of objects it may keep alive.
    pub(crate) fn bytes(&self) -> usize {
        self.object.json().len() + self.previous.as_ref().map_or(0, |object| object.json().len())
    }
}

/// The version is older than what is remembered, or was never made; list again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct Expired {
    /// The version that was asked for.
    pub asked: u64,
    /// The oldest from which a watch can begin.
    pub oldest: u64,
}

/// A reader of changes; it misses none and repeats none.
pub struct Watch {
    history: Arc<History>,
    plural: Option<&'static str>,
    latest: watch::Receiver<u64>,
    seen: u64,
}

impl Watch {
    pub(crate) fn begin(
        history: Arc<History>,
        plural: Option<&'static str>,
        from: u64,
    ) -> Result<Self, Expired> {
        let latest = history.subscribe(plural, from)?;
        Ok(Self { history, plural, latest, seen: from })
    }

    /// Waits for changes and takes those that there are, at least one and at most a few hundred. Cancel safe.
    ///
    /// # Errors
    /// If the reader was so slow that changes were forgotten.
    pub async fn next(&mut self) -> Result<Vec<Event>, Expired> {
        loop {
            let _ = self.latest.borrow_and_update();
            let taken = self.history.take(self.plural, self.seen)?;
            self.seen = taken.version;
            if !taken.events.is_empty() {
                return Ok(taken.events);
            }
            if self.latest.changed().await.is_err() {
                // The store is gone; there will never be another change.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The version up to which changes were taken.
    pub fn version(&self) -> u64 {
        self.seen
    }

    /// The latest version if no change waits to be taken; `None` if one does, or was forgotten.
    pub fn progress(&mut self) -> Option<u64> {
        let taken = self.history.take(self.plural, self.seen).ok()?;
        if !taken.events.is_empty() {
            return None;
        }
        self.seen = taken.version;
        Some(self.seen)
    }
}
