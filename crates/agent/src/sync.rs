//! Follows the site's Assignments at the hub.

use std::time::Duration;

use api::{Client, client};
use daemon::Shutdown;
use futures::StreamExt;
use store::Ledger;
use tracing::{debug, info};
use types::{Assignment, AssignmentSpec, Kind};

use crate::assignments::Assignments;
use crate::heartbeat::check_hub;
use crate::{Error, Membership};

/// By hub.
const SEEN: &str = "hub-versions";
const WATCH: Duration = Duration::from_secs(300);
/// The hub sends a bookmark at least every 30 s; one that is quiet for so long is not there any more.
const SILENCE: Duration = Duration::from_secs(90);

/// One session with the hub: lists, then watches until the connection ends. Call it again and again.
pub(crate) async fn follow(
    client: Client,
    membership: Membership,
    assignments: Assignments,
    ledger: Ledger,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let site = &membership.site;
    check_hub(&client, &membership).await?;
    let (list, mut version) = client.list::<AssignmentSpec>(site).await?;
    debug!(count = list.len(), version, "assignments listed");
    let seen = Seen { ledger, hub: membership.hub.clone() };
    seen.check(&version)?;
    assignments.replace(list).await?;
    seen.note(&version).await?;
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
            // The site's own reports come back, too, and are no news to keep.
            if take(&change, &assignments).await? {
                seen.note(&version).await?;
            }
        }
    }
}

/// The newest version of a hub that the site followed, on its disk. A hub that shows an older one was made from a copy of
/// what it once was: it does not know what it has told since, and is not obeyed.
struct Seen {
    ledger: Ledger,
    hub: String,
}

impl Seen {
    fn check(&self, version: &str) -> Result<(), Error> {
        let found = version.parse().unwrap_or_default();
        let seen: u64 = self.ledger.read(|tables| tables.get(SEEN, &self.hub))?.unwrap_or_default();
        if found < seen { Err(Error::OlderHub { found, seen }) } else { Ok(()) }
    }

    async fn note(&self, version: &str) -> Result<(), Error> {
        let (hub, version) = (self.hub.clone(), version.parse::<u64>().unwrap_or_default());
        let known: Option<u64> = self.ledger.read(|tables| tables.get(SEEN, &hub))?;
        if known.is_some_and(|known| known >= version) {
            return Ok(());
        }
        Ok(self.ledger.write(move |tables| tables.put(SEEN, &hub, &version)).await?)
    }
}

/// Answers whether the change was news.
async fn take(change: &client::Change, assignments: &Assignments) -> Result<bool, Error> {
    use serde::Deserialize;
    if change.kind == "BOOKMARK" {
        return Ok(false);
    }
    let assignment = Assignment::deserialize(&change.object).map_err(Error::Assignment)?;
    if change.kind != "DELETED" {
        return Ok(assignments.put(assignment).await?);
    }
    info!(assignment = assignment.name(), "no longer assigned");
    assignments.remove(assignment.name()).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hub_that_shows_an_older_version_than_before_is_not_obeyed() {
        let ledger = Ledger::memory().unwrap();
        let seen = |hub: &str| Seen { ledger: ledger.clone(), hub: hub.to_owned() };
        seen("one").check("7").unwrap();
        seen("one").note("7").await.unwrap();
        seen("one").note("5").await.unwrap();
        let refused = seen("one").check("6").unwrap_err();
        assert!(matches!(refused, Error::OlderHub { found: 6, seen: 7 }), "{refused}");
        assert!(refused.to_string().contains("avocet restore"), "{refused}");
        seen("one").check("7").unwrap();
        seen("one").check("1700000000000000").unwrap();
        seen("another").check("1").unwrap();
    }
}
