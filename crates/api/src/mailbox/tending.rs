//! What the hub does for its boxes all the time: it remembers who may put what into them, says which of them are full, and
//! drops those of sites that are no more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use controllers::{Events, Occurrence};
use daemon::Shutdown;
use store::{EventKind, Key};
use tracing::warn;
use types::{Condition, ConditionStatus, Kind, ObjectMeta, Site, SiteSpec, condition, set_condition};

use super::UP;
use super::arriving::ArrivingError;
use super::usage::Fill;
use crate::Hub;

/// How often it is looked how full boxes are.
const LOOK: Duration = Duration::from_secs(30);
/// The condition of a site whose box takes no more.
const FULL: &str = "MailboxFull";

/// Tends the boxes until the end.
///
/// # Errors
/// If the disk fails; call it again.
pub async fn tend(hub: Hub, events: Events, shutdown: Shutdown) -> Result<(), ArrivingError> {
    let remembers = async {
        let followed = hub.mailbox.writers.follow(&hub, &shutdown).await;
        followed.map_err(|error| objects::Error::from(error).into())
    };
    tokio::try_join!(remembers, look_after(&hub, &events, &shutdown)).map(drop)
}

async fn look_after(hub: &Hub, events: &Events, shutdown: &Shutdown) -> Result<(), ArrivingError> {
    let sites = hub.store.list(SiteSpec::PLURAL, None).0;
    let sites = sites.iter().filter_map(|site| site.resource::<SiteSpec>().ok());
    let mut told: BTreeSet<String> = sites.filter(is_full).map(|site| site.name().to_owned()).collect();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let version = hub.store.version();
        drop_lost(hub, events).await?;
        let Ok(mut sites) = hub.store.watch_kind(SiteSpec::PLURAL, version) else { continue };
        loop {
            let changes = tokio::select! {
                () = shutdown.wait() => return Ok(()),
                _ = look.tick() => {
                    hub.mailbox.give_up_old()?;
                    tell_full(hub, events, &mut told).await?;
                    continue;
                }
                changes = sites.next() => changes,
            };
            let Ok(changes) = changes else { break };
            let gone = changes.iter().filter(|change| change.kind == EventKind::Deleted);
            let gone: Vec<&str> = gone.map(|change| change.object.key.name.as_str()).collect();
            for site in &gone {
                hub.mailbox.writers.forget(site).await.map_err(objects::Error::from)?;
            }
            if !gone.is_empty() {
                break;
            }
        }
    }
}

fn is_full(site: &Site) -> bool {
    condition(&site.status.conditions, FULL).is_some_and(|known| known.status == ConditionStatus::True)
}

fn is_there(hub: &Hub, site: &str) -> bool {
    hub.store.get(&Key::new(SiteSpec::PLURAL, "", site)).is_some()
}

/// What waits for a site that was deleted is dropped, and that is said.
async fn drop_lost(hub: &Hub, events: &Events) -> Result<(), ArrivingError> {
    for (site, (deliveries, bytes)) in hub.mailbox.drop_lost(|site| !is_there(hub, site)).await? {
        let message =
            format!("{deliveries} deliveries of {bytes} bytes that waited for it were dropped with it");
        warn!(site, deliveries, bytes, "what waited for a site that was deleted was dropped");
        let about = Site::new(ObjectMeta::named(&site), SiteSpec::default());
        events.record(Occurrence::warning(&about, "DeliveriesDropped", message), daemon::now()).await;
    }
    Ok(())
}

/// Says at sites whether their boxes take more. Of those that were never full nothing is said.
async fn tell_full(hub: &Hub, events: &Events, told: &mut BTreeSet<String>) -> Result<(), ArrivingError> {
    let fill = hub.mailbox.fill().await?.into_iter().filter(|(site, fill)| fill.is_full && site != UP);
    let mut full: BTreeMap<String, Fill> = fill.collect();
    for site in told.iter() {
        full.entry(site.clone()).or_default();
    }
    for (name, fill) in full {
        let key = Key::new(SiteSpec::PLURAL, "", &*name);
        let Some(mut site) = hub.store.get(&key).and_then(|found| found.resource::<SiteSpec>().ok()) else {
            told.remove(&name);
            continue;
        };
        if is_full(&site) == fill.is_full {
            continue;
        }
        let Fill { deliveries, bytes, .. } = fill;
        let (status, reason, message) = match fill.is_full {
            true => (
                ConditionStatus::True,
                "NoRoom",
                format!(
                    "its box at the hub takes no more: {deliveries} deliveries of {bytes} bytes wait in it; other sites \
                     keep what they have for it until it has fetched some"
                ),
            ),
            false => (ConditionStatus::False, "HasRoom", String::new()),
        };
        let occurrence = match fill.is_full {
            true => Occurrence::warning(&site, "MailboxFull", message.clone()),
            false => Occurrence::normal(&site, "MailboxHasRoom", "its box at the hub takes more again"),
        };
        let condition = Condition {
            kind: FULL.into(),
            status,
            observed_generation: site.metadata.generation,
            last_transition_time: daemon::now(),
            reason: reason.into(),
            message,
        };
        set_condition(&mut site.status.conditions, condition);
        // Our own types always are JSON. Where somebody else was faster it is said at the next look.
        let manifest = serde_json::to_value(&site).unwrap_or_default();
        if hub.store.update(key, manifest, true).await.is_ok() {
            if fill.is_full {
                told.insert(name)
            } else {
                told.remove(&name)
            };
            events.record(occurrence, daemon::now()).await;
        }
    }
    Ok(())
}
