//! Who waits for their turn, some of them not before a certain time.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use daemon::Shutdown;
use tokio::sync::Notify;
use tokio::time::Instant;

#[derive(Default)]
pub(super) struct Line {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    now: VecDeque<String>,
    later: BTreeSet<(Instant, String)>,
}

impl Line {
    /// Takes everybody out and these in.
    pub fn reset(&self, ids: impl IntoIterator<Item = String>) {
        self.change(|waiting| *waiting = Waiting { now: ids.into_iter().collect(), later: BTreeSet::new() });
    }

    pub fn push(&self, id: String) {
        self.change(|waiting| waiting.now.push_back(id));
    }

    pub fn push_later(&self, id: String, wait: Duration) {
        self.change(|waiting| waiting.later.insert((Instant::now() + wait, id)));
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
    /// Somebody whose turn it is, or when that will be.
    fn take(&mut self) -> Result<String, Option<Instant>> {
        let first = self.later.first().map(|(due, _)| *due);
        if first.is_some_and(|due| due <= Instant::now())
            && let Some((_, id)) = self.later.pop_first()
        {
            return Ok(id);
        }
        self.now.pop_front().ok_or(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_come_in_order_and_later_ones_come_too() {
        let (line, shutdown) = (Line::default(), Shutdown::default());
        line.push("first".into());
        line.push("second".into());
        assert_eq!(line.next(&shutdown).await.as_deref(), Some("first"));
        assert_eq!(line.next(&shutdown).await.as_deref(), Some("second"));
        line.push_later("late".into(), Duration::from_millis(5));
        assert_eq!(line.next(&shutdown).await.as_deref(), Some("late"));
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
