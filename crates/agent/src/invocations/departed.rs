//! A component leaves the site, and may come back: every input that it did not run meanwhile runs then, once.

use serde::de::IgnoredAny;
use store::ledger::{self, Tables};
use tracing::info;
use types::Assignment;

use super::{
    ARMED, CURSOR, Invocation, Invocations, State, TABLE, UNASSIGNED_REASON, end, reopen, trigger_key,
};
use crate::assignments::application_of;

/// Triggers whose components left, and up to which change of the objects they had taken events.
const LEFT: &str = "left-triggers";
/// What had not run when its component left, by trigger.
pub(super) const UNASSIGNED: &str = "unassigned-invocations";

/// How many are brought back in one commit.
const BATCH: usize = 500;

/// A component leaves the site: its trigger is armed no longer, and knows from where to go on if it comes back.
pub(crate) fn depart(tables: &Tables, assignment: &Assignment) -> Result<(), ledger::Error> {
    disarm(tables, &trigger_key(assignment))
}

fn disarm(tables: &Tables, trigger: &str) -> Result<(), ledger::Error> {
    if tables.delete(ARMED, trigger)? {
        let seen: u64 = tables.get(CURSOR, "objects")?.unwrap_or(0);
        tables.put(LEFT, trigger, &seen)?;
    }
    Ok(())
}

/// Notes that a trigger has seen all that was there before it.
pub(super) fn arm(tables: &Tables, trigger: &str) -> Result<(), ledger::Error> {
    tables.delete(LEFT, trigger)?;
    tables.put(ARMED, trigger, &true)
}

/// Whether an invocation's component is at the site. Of records that older versions made the name alone is known.
pub(super) fn is_assigned(tables: &Tables, invocation: &Invocation) -> Result<bool, ledger::Error> {
    let assigned = application_of(tables, &invocation.assignment)?;
    let uid = &invocation.application_uid;
    Ok(assigned.is_some_and(|assigned| uid.is_empty() || *uid == assigned))
}

/// What became of invocations whose component is gone.
#[derive(Default)]
struct Dismissed {
    ended: Vec<Invocation>,
    /// With their assignment, which is there again.
    stay: Vec<(String, String)>,
    publishing: Vec<Invocation>,
}

impl Invocations {
    /// From which change on objects are new to a trigger that is not armed; `None` if it is.
    pub(crate) fn unarmed_since(&self, assignment: &Assignment) -> Result<Option<u64>, ledger::Error> {
        let trigger = trigger_key(assignment);
        self.ledger.read(|tables| {
            if tables.get::<IgnoredAny>(ARMED, &trigger)?.is_some() {
                return Ok(None);
            }
            Ok(Some(tables.get(LEFT, &trigger)?.unwrap_or(0)))
        })
    }

    /// Disarms triggers whose components left while an older version was at work, which left them armed.
    pub(crate) async fn disarm_others(&self, assigned: Vec<String>) -> Result<(), ledger::Error> {
        let armed: Vec<(String, bool)> =
            self.ledger.read(|tables| tables.range(ARMED, "", "", usize::MAX))?;
        let triggers = armed.into_iter().map(|(trigger, _)| trigger);
        let others: Vec<String> = triggers.filter(|trigger| !assigned.contains(trigger)).collect();
        if others.is_empty() {
            return Ok(());
        }
        self.ledger.write(move |tables| others.iter().try_for_each(|trigger| disarm(tables, trigger))).await
    }

    /// Ends invocations that waited, if their component is not at the site; answers those whose outputs are yet to be
    /// published, which is done all the same. One whose component is back goes on waiting.
    pub(crate) async fn dismiss(&self, ids: Vec<String>) -> Result<Vec<Invocation>, ledger::Error> {
        let (told, now) = (self.clone(), daemon::now());
        let write = move |tables: &Tables| {
            let mut dismissed = Dismissed::default();
            for id in ids {
                let Some(mut invocation) = tables.get::<Invocation>(TABLE, &id)? else { continue };
                if invocation.has_ended() || invocation.state == State::Offloaded {
                    continue;
                }
                if is_assigned(tables, &invocation)? {
                    dismissed.stay.push((invocation.assignment, id));
                } else if invocation.state == State::Publishing {
                    dismissed.publishing.push(invocation);
                } else {
                    invocation.state = State::Failed;
                    invocation.reason = UNASSIGNED_REASON.to_owned();
                    invocation.message = format!(
                        "component `{}` of application `{}` left the site before it ran; it runs if the component \
                         comes back",
                        invocation.component, invocation.application
                    );
                    invocation.changed = now;
                    end(tables, &invocation)?;
                    dismissed.ended.push(invocation);
                }
            }
            Ok::<_, ledger::Error>(dismissed)
        };
        let after = move |dismissed: Dismissed| {
            for invocation in &dismissed.ended {
                told.open.change(&invocation.assignment, -1);
            }
            for (assignment, id) in dismissed.stay {
                told.wait(&assignment, id);
            }
            told.tell();
            (dismissed.ended.len(), dismissed.publishing)
        };
        let (count, publishing) = self.ledger.write_then(write, after).await?;
        if count > 0 {
            info!(count, "invocations that waited for a component that left the site are kept as failed");
        }
        Ok(publishing)
    }

    /// Lets all wait again that had not run when the component left.
    pub(crate) async fn bring_back(&self, assignment: &Assignment) -> Result<(), ledger::Error> {
        let prefix = format!("{}/", trigger_key(assignment));
        loop {
            let (told, prefix, now) = (self.clone(), prefix.clone(), daemon::now());
            let write = move |tables: &Tables| {
                let mut back = Vec::new();
                let rows: Vec<(String, String)> = tables.range(UNASSIGNED, &prefix, "", BATCH)?;
                let is_more = rows.len() == BATCH;
                for (key, id) in rows {
                    let Some(found) = tables.get::<Invocation>(TABLE, &id)? else {
                        tables.delete(UNASSIGNED, &key)?;
                        continue;
                    };
                    // It left again meanwhile.
                    if !is_assigned(tables, &found)? {
                        return Ok((back, false));
                    }
                    reopen(tables, found.clone(), now)?;
                    back.push(found);
                }
                Ok::<_, ledger::Error>((back, is_more))
            };
            let after = move |(back, is_more): (Vec<Invocation>, bool)| {
                for invocation in back {
                    told.open.change(&invocation.assignment, 1);
                    told.wait(&invocation.assignment, invocation.id);
                }
                is_more
            };
            if !self.ledger.write_then(write, after).await? {
                return Ok(());
            }
        }
    }
}
