//! Follows the site's Assignments at the hub.

use std::time::Duration;

use api::{Client, client};
use daemon::Shutdown;
use futures::StreamExt;
use tracing::{debug, info};
use types::{Assignment, AssignmentSpec, Kind};

use crate::assignments::Assignments;
use crate::heartbeat::check_hub;
use crate::{Error, Membership};

const WATCH: Duration = Duration::from_secs(300);
/// The hub sends a bookmark at least every 30 s; one that is quiet for so long is not there any more.
const SILENCE: Duration = Duration::from_secs(90);

/// One session with the hub: lists, then watches until the connection ends. Call it again and again.
pub(crate) async fn follow(
    client: Client,
    membership: Membership,
    assignments: Assignments,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let site = &membership.site;
    check_hub(&client, &membership).await?;
    let (list, mut version) = client.list::<AssignmentSpec>(site).await?;
    debug!(count = list.len(), version, "assignments listed");
    assignments.replace(list).await?;
    loop {
        let mut changes = Box::pin(client.watch(AssignmentSpec::PLURAL, site, &version, WATCH).await?);
        loop {
            let change = tokio::select! {
                () = shutdown.wait() => return Ok(()),
                change = tokio::time::timeout(SILENCE, changes.next()) => match change {
                    Ok(change) => change,
                    Err(_) => return Err(Error::Silent),
                },
            };
            let Some(change) = change.transpose()? else { break };
            if change.kind == "ERROR" {
                info!("the hub has forgotten how far we were; listing again");
                return Ok(());
            }
            if let Some(seen) =
                change.object.pointer("/metadata/resourceVersion").and_then(|seen| seen.as_str())
            {
                seen.clone_into(&mut version);
            }
            take(&change, &assignments).await?;
        }
    }
}

async fn take(change: &client::Change, assignments: &Assignments) -> Result<(), Error> {
    use serde::Deserialize;
    if change.kind == "BOOKMARK" {
        return Ok(());
    }
    let assignment = Assignment::deserialize(&change.object).map_err(Error::Assignment)?;
    match change.kind.as_str() {
        "DELETED" => {
            info!(assignment = assignment.name(), "no longer assigned");
            assignments.remove(assignment.name()).await?;
        }
        _ => assignments.put(assignment).await?,
    }
    Ok(())
}
