//! A hub as a site of another one.
//!
//! The uplink has a membership of its own, as every site has, and speaks for all sites below:
//!
//! ```text
//! sites of this hub ──children──▶ Sites above            Assignments above ──relay──▶ Assignments here
//! their reports ─────reports───▶ statuses above          the mailbox above ◀─deliveries─▶ the mailbox here
//! ```
//!
//! All that it brings down is kept by this hub, so the sites below go on, and new ones join, with the hub above away.

mod children;
mod deliveries;
mod relay;
mod reports;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::{Client, Hub};
use daemon::{Shutdown, Tasks};
use store::{Key, Ledger};
use tokio::sync::watch;
use tracing::{error, info};
use types::{Kind, Site, SiteSpec, SiteStatus, SmallMap, Time};

use crate::identity::Identity;
use crate::links::{self, Links, Named};
use crate::membership::{Joining, Membership, join};
use crate::parts::Pace;
use crate::site::supervise;
use crate::{Error, heartbeat};

/// How a hub is set up as a site of another one.
#[derive(Debug, Clone)]
pub struct Uplink {
    /// As what to join, and where that is kept.
    pub joining: Joining,
    /// How often the hub above hears of this one.
    pub heartbeat: Duration,
}

/// Joins the hub above, as soon as it can be reached, and follows it from then on. The hub's own sites need not wait
/// for that.
pub fn start_uplink(uplink: Uplink, hub: Hub, tasks: &Tasks) {
    let (shutdown, all) = (tasks.shutdown(), tasks.clone());
    tasks.spawn("uplink", async move {
        let membership = match join(&uplink.joining, &shutdown).await {
            Ok(membership) => membership,
            Err(Error::Interrupted) => return,
            Err(error) => {
                error!(error = %daemon::chain(&error), "can't become a site of the hub above; going on alone");
                return;
            }
        };
        match Up::open(&uplink, membership, hub) {
            Ok(up) => up.follow(uplink.heartbeat, &all),
            Err(error) => error!(error = %daemon::chain(&error), "can't follow the hub above; going on alone"),
        }
    });
}

/// An Assignment that was not taken, and why.
#[derive(Debug, Clone, PartialEq)]
struct Clash {
    uid: String,
    generation: i64,
    since: Time,
    message: String,
}

/// The parts that tasks share. Cheap to clone.
#[derive(Clone)]
struct Up {
    hub: Hub,
    membership: Membership,
    identity: Identity,
    client: Client,
    links: Links,
    ledger: Ledger,
    tier: String,
    labels: SmallMap,
    /// Sites that became known above in this session, and when: they may not have been assigned yet what they had.
    young: Arc<Mutex<HashMap<String, Instant>>>,
    /// Counts how often that happened.
    registered: watch::Sender<u64>,
    /// By site and name.
    clashes: Arc<Mutex<HashMap<(String, String), Clash>>>,
    /// Counts how often those changed.
    clashed: watch::Sender<u64>,
    /// Deliveries that are not to be sent before their time.
    later: deliveries::Later,
    /// How large parts of deliveries fit the way to the hub above.
    pace: Pace,
}

impl Up {
    fn open(uplink: &Uplink, membership: Membership, hub: Hub) -> Result<Self, Error> {
        let Joining { data, tier, labels, .. } = &uplink.joining;
        let identity = Identity::open(data, &membership)?;
        let client = identity.client().clone();
        if let Some(parent) = &hub.parent {
            parent.join(client.clone());
        }
        let links = Links::open(data.join("links.json"), membership.parent.clone(), Named::default());
        Ok(Self {
            hub,
            membership,
            identity,
            client,
            links,
            ledger: Ledger::open(&data.join("uplink.db"))?,
            tier: tier.clone(),
            labels: labels.clone(),
            young: Arc::default(),
            registered: watch::Sender::new(0),
            clashes: Arc::default(),
            clashed: watch::Sender::new(0),
            later: deliveries::Later::default(),
            pace: Pace::default(),
        })
    }

    fn follow(self, every: Duration, tasks: &Tasks) {
        info!(site = self.membership.site, hub = self.membership.url, "following the hub above");
        let up = self.clone();
        supervise(tasks, "uplink-heartbeat", move |shutdown| {
            let (identity, membership, links) =
                (up.identity.clone(), up.membership.clone(), up.links.clone());
            let up = up.clone();
            heartbeat::beat(identity, membership, move || up.status(), links, every, shutdown)
        });
        let up = self.clone();
        supervise(tasks, "uplink-links", move |shutdown| {
            links::measure(up.links.clone(), up.client.clone(), up.membership.site.clone(), shutdown)
        });
        let up = self.clone();
        supervise(tasks, "uplink-sites", move |shutdown| up.clone().session(shutdown));
        let up = self.clone();
        supervise(tasks, "uplink-outbox", move |shutdown| deliveries::send_all(up.clone(), shutdown));
        supervise(tasks, "uplink-inbox", move |shutdown| deliveries::receive_all(self.clone(), shutdown));
    }

    /// One session with the hub above: all is told and asked anew at its beginning, so that nothing of it need be
    /// remembered there.
    async fn session(self, shutdown: Shutdown) -> Result<(), Error> {
        heartbeat::check_hub(&self.client, &self.membership).await?;
        let mut children = children::Telling::begin(&self).await?;
        children.tell_first().await?;
        tokio::select! {
            () = shutdown.wait() => Ok(()),
            ended = children.follow() => ended,
            ended = relay::follow(&self) => ended,
            ended = reports::tell(&self) => ended,
        }
    }

    /// This hub's own site, if it has one.
    fn own(&self) -> Option<Site> {
        self.hub.store.get(&site_key(&self.membership.site))?.parse().ok()
    }

    /// What is told of this hub's own site.
    fn status(&self) -> SiteStatus {
        let alone = || SiteStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            architecture: std::env::consts::ARCH.into(),
            operating_system: std::env::consts::OS.into(),
            ..SiteStatus::default()
        };
        let status = self.own().map_or_else(alone, |site| site.status);
        SiteStatus { conditions: vec![], ..status }
    }

    /// Whether the hub above wrote an object that is here.
    fn is_relayed(&self, object: &store::Object) -> bool {
        object.metadata.labels.get(types::names::label::ORIGIN) == Some(&self.membership.hub)
    }

    fn clashes(&self) -> MutexGuard<'_, HashMap<(String, String), Clash>> {
        self.clashes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn young(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.young.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn site_key(name: &str) -> Key {
    Key::new(SiteSpec::PLURAL, "", name)
}
