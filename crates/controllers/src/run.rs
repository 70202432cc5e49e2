//! The loop of the controllers of our own kinds.

use std::time::{Duration, Instant};

use daemon::Shutdown;
use store::{Error, Store, Watch};
use tracing::{debug, warn};
use types::core::ClusterRoleBody;
use types::{Kind, Time};

use crate::placement::Planning;
use crate::snapshot::Reader;
use crate::{Events, Heartbeats, Measurements, Write, aggregation, application, placement, site};

/// How often controllers look even if nothing changed: silence is a change that no watch tells.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// And how many times as long as a look took they wait for that at least: a fleet at rest costs next to nothing.
const SELDOM: u32 = 50;
/// Changes come in bursts; one look serves all that arrive within this time.
const GATHER: Duration = Duration::from_millis(5);
/// How many times as long as a look took the next one waits at least: with many sites and much to tell, most of the
/// machine is for those who tell it.
const CALM: u32 = 3;

/// Runs the controllers of our own kinds until the shutdown.
///
/// # Errors
/// If the store failed for another reason than a conflict; call it again.
pub async fn run(
    store: Store,
    heartbeats: Heartbeats,
    measurements: Measurements,
    events: Events,
    shutdown: Shutdown,
) -> Result<(), Error> {
    // The version of the roles that were looked at last: they change rarely.
    let mut roles = u64::MAX;
    let mut reader = Reader::default();
    let mut planning = Planning::default();
    loop {
        let look = Instant::now();
        let (snapshot, version) = reader.read(&store);
        let now = daemon::now();
        let moment = heartbeats.moment(now);
        let mut writes = site::reconcile(snapshot, &heartbeats, moment);
        writes.extend(placement::reconcile(&mut planning, snapshot, &measurements, moment.now));
        writes.extend(application::reconcile(snapshot, moment));
        let latest = store.latest_of(&[ClusterRoleBody::PLURAL]);
        if std::mem::replace(&mut roles, latest) != latest {
            writes.extend(aggregation::reconcile(&store));
        }
        let look = look.elapsed();
        let overtaken = write_all(writes, &store, &events, now).await?;
        // Where so much changed that a watch can't begin there, it is looked at once more.
        if !overtaken && let Ok(watch) = store.watch(version) {
            tokio::select! {
                () = shutdown.wait() => {}
                _ = tokio::time::timeout(LOOK_AGAIN.max(look * SELDOM), change_of_ours(watch)) => {}
            }
        }
        if !shutdown.sleep(GATHER.max(look * CALM)).await {
            return Ok(());
        }
    }
}

/// Makes the writes in their order, and answers whether one of them was overtaken. None waits for those before it to be
/// durable: they share commits, and a crash leaves the first of them. Where one commit fails and the disk takes the next, what
/// is left is not the beginning; the next look makes the rest.
async fn write_all(writes: Vec<Write>, store: &Store, events: &Events, now: Time) -> Result<bool, Error> {
    let mut begun = Vec::with_capacity(writes.len());
    for write in writes {
        begun.push((write.key.clone(), write.begin(store, now).await));
    }
    let mut overtaken = false;
    for (key, begun) in begun {
        let made = match begun {
            Ok(begun) => begun.end(events, now).await,
            Err(error) => Err(error),
        };
        match made {
            Ok(()) => debug!(%key, "written"),
            Err(Error::Conflict { .. } | Error::NotFound(_) | Error::Exists(_)) => overtaken = true,
            Err(error) => {
                warn!(%key, %error, "can't write");
                return Err(error);
            }
        }
    }
    Ok(overtaken)
}

/// Waits for a change that our own kinds are concerned by.
async fn change_of_ours(mut watch: Watch) {
    // A watch that has lost track may have missed one.
    while let Ok(changes) = watch.next().await {
        let mut plurals = changes.iter().map(|change| change.object.key.plural);
        if plurals.any(|plural| types::kind_named(plural).is_some_and(types::KindInfo::is_ours)) {
            return;
        }
    }
}
