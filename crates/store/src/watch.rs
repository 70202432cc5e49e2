//! What happened to resources, in order, from a version on.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::Object;
use crate::history::{History, Scope};

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
    scope: Scope,
    announcements: Arc<Notify>,
    /// Waits for the next of them; kept from one question to the next, so that it is enrolled only once.
    announced: Pin<Box<OwnedNotified>>,
    /// Whether there may be changes that were not taken.
    is_behind: bool,
    seen: u64,
}

impl Watch {
    pub(crate) fn begin(history: Arc<History>, scope: Scope, from: u64) -> Result<Self, Expired> {
        let announcements = history.subscribe(&scope, from)?;
        let mut announced = Box::pin(announcements.clone().notified_owned());
        announced.as_mut().enable();
        Ok(Self { history, scope, announcements, announced, is_behind: true, seen: from })
    }

    /// Waits for changes and takes those that there are, at least one and at most a few hundred. Cancel safe.
    ///
    /// # Errors
    /// If the reader was so slow that changes were forgotten.
    pub async fn next(&mut self) -> Result<Vec<Event>, Expired> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// The same for who polls.
    ///
    /// # Errors
    /// If the reader was so slow that changes were forgotten.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Vec<Event>, Expired>> {
        loop {
            if self.is_behind {
                let taken = self.history.take(&self.scope, self.seen)?;
                self.seen = taken.version;
                self.is_behind = !taken.is_all;
                if !taken.events.is_empty() {
                    return Poll::Ready(Ok(taken.events));
                }
            }
            ready!(self.announced.as_mut().poll(context));
            // Enrolled again before it looks, so that nothing comes in between.
            self.announced.set(self.announcements.clone().notified_owned());
            self.announced.as_mut().enable();
            self.is_behind = true;
        }
    }

    /// The version up to which changes were taken.
    pub fn version(&self) -> u64 {
        self.seen
    }

    /// The latest version if no change waits to be taken; `None` if one does, or was forgotten.
    pub fn progress(&mut self) -> Option<u64> {
        let taken = self.history.take(&self.scope, self.seen).ok()?;
        if !taken.events.is_empty() {
            return None;
        }
        self.seen = taken.version;
        Some(self.seen)
    }
}
