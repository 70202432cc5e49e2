//! What has ended is remembered within bounds. Failures have bounds of their own: what succeeds does not push them out.

use std::sync::atomic::Ordering::Relaxed;

use store::ledger::{self, Tables};
use tracing::warn;

use super::departed::UNASSIGNED;
use super::{Invocation, Invocations, State, TABLE, UNASSIGNED_REASON, read_counts, write_counts};

/// Those that succeeded, in the order of their ends, so that the oldest can be forgotten. Older versions kept all that had
/// ended here.
const SUCCEEDED: &str = "ended-invocations";
/// Those that failed, in the order of their ends.
const FAILED: &str = "failed-invocations";

/// How many that ended are remembered, with their logs: what is forgotten can't be replayed, and the same content under the
/// same key would run again.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub succeeded: u64,
    pub failed: u64,
    /// Those that had not run when their component left the site. They run when it comes back.
    pub unassigned: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { succeeded: 20_000, failed: 20_000, unassigned: 200_000 }
    }
}

/// How many are forgotten at once at most, and as a part of the bound at least, so that it is rare.
const AT_ONCE: (u64, u64) = (500, 40);

/// Where it is noted that an invocation ended.
fn place(invocation: &Invocation) -> (&'static str, String) {
    let key = format!("{}/{}", invocation.changed, invocation.id);
    match invocation.state {
        State::Failed if invocation.reason == UNASSIGNED_REASON => {
            let Invocation { sequence, id, .. } = invocation;
            (UNASSIGNED, format!("{}/{sequence:020}/{id}", invocation.trigger()))
        }
        State::Failed => (FAILED, key),
        _ => (SUCCEEDED, key),
    }
}

/// Notes that an invocation ended.
pub(super) fn note(tables: &Tables, invocation: &Invocation) -> Result<(), ledger::Error> {
    let (table, key) = place(invocation);
    tables.put(table, &key, &invocation.id)
}

/// Takes that back.
pub(super) fn take_back(tables: &Tables, invocation: &Invocation) -> Result<(), ledger::Error> {
    let (table, key) = place(invocation);
    if !tables.delete(table, &key)? {
        tables.delete(SUCCEEDED, &key)?;
    }
    Ok(())
}

/// What was forgotten in one go.
#[derive(Default)]
struct Forgotten {
    ids: Vec<String>,
    failures: u64,
}

impl Invocations {
    /// Forgets the oldest that ended where there are too many. Failures that are forgotten are counted.
    pub(crate) async fn forget_oldest(&self, bounds: Bounds) -> Result<(), ledger::Error> {
        let Bounds { succeeded, failed, unassigned } = bounds;
        for (table, bound) in [(SUCCEEDED, succeeded), (FAILED, failed), (UNASSIGNED, unassigned)] {
            let forgotten = self.ledger.write(move |tables| forget(tables, table, bound)).await?;
            let Forgotten { ids, failures: count } = forgotten;
            if count > 0 {
                self.forgotten.fetch_add(count, Relaxed);
                warn!(
                    count,
                    bound, "the oldest failures are forgotten, with their logs; they can't be replayed"
                );
            }
            for id in ids {
                // A log that is not there is what is wanted.
                let _ = tokio::fs::remove_file(self.log_file(&id)).await;
            }
        }
        Ok(())
    }
}

fn forget(tables: &Tables, table: &'static str, bound: u64) -> Result<Forgotten, ledger::Error> {
    let mut forgotten = Forgotten::default();
    let excess = tables.count(table, "")?.saturating_sub(bound);
    if excess == 0 {
        return Ok(forgotten);
    }
    let (most, part) = AT_ONCE;
    let count = excess.clamp((bound / part).clamp(1, most), most);
    let oldest: Vec<(String, String)> =
        tables.range(table, "", "", usize::try_from(count).unwrap_or(usize::MAX))?;
    for (key, id) in oldest {
        tables.delete(table, &key)?;
        let Some(invocation) = tables.get::<Invocation>(TABLE, &id)? else { continue };
        if invocation.state == State::Failed && table == SUCCEEDED {
            note(tables, &invocation)?;
            continue;
        }
        if invocation.state == State::Failed {
            let mut counts = read_counts(tables, &invocation)?;
            counts.forgotten += 1;
            write_counts(tables, &invocation, &counts)?;
            forgotten.failures += 1;
        }
        tables.delete(TABLE, &id)?;
        forgotten.ids.push(id);
    }
    Ok(forgotten)
}
