//! The loop that calls the controllers.

use std::time::Duration;

use daemon::Shutdown;
use store::{Error, Store};
use tracing::{debug, warn};

use crate::{Heartbeats, Snapshot, aggregation, application, placement, site};

/// How often controllers look even if nothing changed: silence is a change that no watch tells.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Changes come in bursts; one look serves all that arrive within this time.
const GATHER: Duration = Duration::from_millis(5);

/// Runs all controllers until the shutdown.
///
/// # Errors
/// If the store failed for another reason than a conflict; call it again.
pub async fn run(store: Store, heartbeats: Heartbeats, shutdown: Shutdown) -> Result<(), Error> {
    loop {
        let (snapshot, version) = Snapshot::read(&store);
        let now = daemon::now();
        let mut writes = site::reconcile(&snapshot, &heartbeats, now);
        writes.extend(placement::reconcile(&snapshot, now));
        writes.extend(application::reconcile(&snapshot, now));
        writes.extend(aggregation::reconcile(&store));
        let mut conflicts = false;
        for write in writes {
            let key = write.key().clone();
            match write.apply(&store, now).await {
                Ok(()) => debug!(%key, "written"),
                Err(Error::Conflict { .. } | Error::NotFound(_) | Error::Exists(_)) => conflicts = true,
                Err(error) => {
                    warn!(%key, %error, "can't write");
                    return Err(error);
                }
            }
        }
        if !conflicts && store.version() == version {
            let mut watch = store.watch(version)?;
            tokio::select! {
                () = shutdown.wait() => {}
                _ = tokio::time::timeout(LOOK_AGAIN, watch.next()) => {}
            }
        }
        if !shutdown.sleep(GATHER).await {
            return Ok(());
        }
    }
}
