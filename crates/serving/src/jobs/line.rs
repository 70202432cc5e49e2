//! Who waits for their turn, some of them not before a certain time.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use daemon::Shutdown;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Turns in the order in which they are due, whether that is at once or later: nobody overtakes.
#[derive(Default)]
pub(super) struct Line {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    /// By when they are due, and then in the order of their coming.
    turns: BTreeMap<(Instant, u64), String>,
    came: u64,
}

impl Line {
    /// Takes everybody out and these in.
    pub fn reset(&self, ids: impl IntoIterator<Item = String>) {
        let now = Instant::now();
        self.change(|waiting| {
            waiting.turns.clear();
            ids.into_iter().for_each(|id| waiting.add(id, now));
        });
    }

    pub fn push(&self, id: String) {
        self.push_at(id, Instant::now());
    }

    pub fn push_later(&self, id: String, wait: Duration) {
        self.push_at(id, Instant::now() + wait);
    }

    pub fn push_at(&self, id: String, due: Instant) {
        self.change(|waiting| waiting.add(id, due));
    }

    /// The next one, once there is one; `None` when it is time to end.
    pub async fn next(&self, shutdown: &Shutdown) -> Option<String> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if shutdown.is_due() {
                return None;
            }
            let due = match self.change_quietly(Waiting::take) {
                Ok(id) => return Some(id),
                Err(due) => due,
            };
            let due = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(due) => {}
                () = shutdown.wait() => {}
            }
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Waiting) -> T) -> T {
        let changed = self.change_quietly(change);
        self.changed.notify_waiters();
        changed
    }

    fn change_quietly<T>(&self, change: impl FnOnce(&mut Waiting) -> T) -> T {
        change(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Waiting {
    fn add(&mut self, id: String, due: Instant) {
        self.came += 1;
        self.turns.insert((due, self.came), id);
    }

    /// Somebody whose turn it is, or when that will be.
    fn take(&mut self) -> Result<String, Option<Instant>> {
        let Some(first) = self.turns.first_entry() else { return Err(None) };
        let due = first.key().0;
        if due <= Instant::now() { Ok(first.remove()) } else { Err(Some(due)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_come_in_the_order_in_which_they_are_due() {
        let (line, shutdown) = (Line::default(), Shutdown::default());
        line.push("first".into());
        line.push_later("late".into(), Duration::from_millis(5));
        line.push("second".into());
        for expected in ["first", "second", "late"] {
            assert_eq!(line.next(&shutdown).await.as_deref(), Some(expected));
        }
    }

    #[tokio::test]
    async fn those_who_try_again_and_again_let_others_pass() {
        let (line, shutdown) = (Line::default(), Shutdown::default());
        line.push("again".into());
        line.push("once".into());
        for expected in ["again", "once", "again"] {
            let next = line.next(&shutdown).await.unwrap();
            assert_eq!(next, expected);
            line.push_later(next, Duration::ZERO);
        }
    }

    #[tokio::test]
    async fn a_reset_leaves_only_the_new_ones() {
        let (line, shutdown) = (Line::default(), Shutdown::default());
        line.push("old".into());
        line.push_later("older".into(), Duration::ZERO);
        line.reset(["new".to_owned()]);
        line.push("last".into());
        assert_eq!(line.next(&shutdown).await.as_deref(), Some("new"));
        assert_eq!(line.next(&shutdown).await.as_deref(), Some("last"));
    }
}
