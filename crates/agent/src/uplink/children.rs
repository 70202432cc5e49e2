//! Tells the hub above of the sites below this one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use api::{Child, Children, ChildrenAnswer, Refused};
use planner::branch;
use reqwest::Method;
use store::Error::{Conflict, NotFound};
use tracing::{info, warn};
use types::{
    Condition, ConditionStatus, Kind, Site, SiteSpec, SiteStatus, Taint, TaintEffect, condition,
    set_condition,
};

use super::{Up, site_key};
use crate::Error;

/// The sites that the hub above was told of at any time, and that are its to forget once they are gone here.
const TABLE: &str = "children";
/// How many sites one request tells of.
const AT_ONCE: usize = 100;
/// How soon after a change it is told; changes in between are told together.
const GATHER: Duration = Duration::from_millis(250);
/// How often what was refused is told again, and all is compared.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
const LONGEST_ANSWER: Duration = Duration::from_secs(60);
/// Keeps placements away from a hub that has no agent beside it.
const HUB_ALONE: &str = "avocet.dev/hub-alone";
/// The condition of a site here that says whether the hub above took it.
const UPLINKED: &str = "Uplinked";

/// What was told in one session.
pub(super) struct Telling<'a> {
    up: &'a Up,
    told: BTreeMap<String, Child>,
    /// Sites that the hub above knows from here, in this session or an earlier one.
    known: BTreeSet<String>,
    /// The version of the store that was looked at last.
    version: u64,
}

impl<'a> Telling<'a> {
    pub(super) async fn begin(up: &'a Up) -> Result<Self, Error> {
        let rows: Vec<(String, bool)> = up.ledger.read(|tables| tables.range(TABLE, "", "", usize::MAX))?;
        let known = rows.into_iter().map(|(name, _)| name).collect();
        Ok(Self { up, told: BTreeMap::new(), known, version: 0 })
    }

    /// Tells whatever changes, until the hub above can't be told.
    pub(super) async fn follow(mut self) -> Result<(), Error> {
        loop {
            if let Ok(mut changes) = self.up.hub.store.watch_kind(SiteSpec::PLURAL, self.version) {
                let _ = tokio::time::timeout(LOOK_AGAIN, changes.next()).await;
            }
            tokio::time::sleep(GATHER).await;
            self.tell_all().await?;
        }
    }

    /// Tells of all sites, and that these are all.
    pub(super) async fn tell_first(&mut self) -> Result<(), Error> {
        self.tell_all().await?;
        let all = self.told.keys().cloned().collect();
        self.send(Children { all: Some(all), ..Children::default() }).await
    }

    /// Tells all that was not told yet.
    async fn tell_all(&mut self) -> Result<(), Error> {
        self.version = self.up.hub.store.version();
        let roster = self.roster();
        let gone: Vec<String> = self
            .known
            .iter()
            .filter(|name| !roster.iter().any(|child| child.name == **name))
            .cloned()
            .collect();
        let changed: Vec<Child> =
            roster.into_iter().filter(|child| self.told.get(&child.name) != Some(child)).collect();
        for gone in gone.chunks(AT_ONCE) {
            self.send(Children { gone: gone.to_vec(), ..Children::default() }).await?;
        }
        for children in changed.chunks(AT_ONCE) {
            self.send(Children { children: children.to_vec(), ..Children::default() }).await?;
        }
        Ok(())
    }

    async fn send(&mut self, told: Children) -> Result<(), Error> {
        let Up { client, membership, ledger, .. } = self.up;
        // What may become known there is noted before: a crash in between must not leave it there for ever.
        let new: Vec<String> = told.children.iter().map(|child| child.name.clone()).collect();
        let new: Vec<String> =
            new.into_iter().filter(|name| *name != membership.site && !self.known.contains(name)).collect();
        if !new.is_empty() {
            let rows = new.clone();
            ledger
                .write(move |tables| rows.iter().try_for_each(|name| tables.put(TABLE, name, &true)))
                .await?;
            self.known.extend(new);
        }
        let path = format!("/avocet/v1/sites/{}/children", membership.site);
        let request = client.request(Method::POST, &path).timeout(LONGEST_ANSWER).json(&told);
        let ChildrenAnswer { created, refused } = client.json(request).await?;
        if !created.is_empty() {
            info!(sites = created.join(","), "the hub above knows sites of this one now");
            let now = Instant::now();
            self.up.young().extend(created.into_iter().map(|name| (name, now)));
            self.up.registered.send_modify(|count| *count += 1);
        }
        let mut forgotten = told.gone;
        for child in told.children {
            let refused = refused.iter().find(|refused| refused.site == child.name);
            self.note(&child.name, refused).await?;
            match refused {
                None => drop(self.told.insert(child.name.clone(), child)),
                // It is no site of ours there, and not ours to remove.
                Some(refused) if refused.reason.ends_with("Taken") => forgotten.push(child.name),
                Some(_) => {}
            }
        }
        if !forgotten.is_empty() {
            forgotten.iter().for_each(|name| {
                self.known.remove(name);
                self.told.remove(name);
            });
            let rows = forgotten;
            let write = move |tables: &store::ledger::Tables| {
                rows.iter().try_for_each(|name| tables.delete(TABLE, name).map(drop))
            };
            ledger.write(write).await?;
        }
        Ok(())
    }

    /// Says at a site here whether the hub above took it. Of sites that were always taken nothing is said.
    async fn note(&self, site: &str, refused: Option<&Refused>) -> Result<(), Error> {
        let store = &self.up.hub.store;
        let Some(mut known) = store.get(&site_key(site)).and_then(|found| found.resource::<SiteSpec>().ok())
        else {
            return Ok(());
        };
        let before = condition(&known.status.conditions, UPLINKED);
        if refused.is_none() && before.is_none() {
            return Ok(());
        }
        let (status, reason, message) = match refused {
            Some(refused) => (ConditionStatus::False, refused.reason.clone(), refused.message.clone()),
            None => (ConditionStatus::True, "Known".to_owned(), String::new()),
        };
        if before.is_some_and(|before| before.status == status && before.message == message) {
            return Ok(());
        }
        if let Some(refused) = refused {
            warn!(
                site,
                reason = refused.reason,
                message = refused.message,
                "the hub above does not take a site"
            );
        }
        let condition = Condition {
            kind: UPLINKED.into(),
            status,
            observed_generation: known.metadata.generation,
            last_transition_time: daemon::now(),
            reason,
            message,
        };
        set_condition(&mut known.status.conditions, condition);
        let manifest = serde_json::to_value(&known).map_err(Error::Assignment)?;
        match store.update(site_key(site), manifest, true).await {
            // It is told again.
            Ok(_) | Err(Conflict { .. } | NotFound(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// All sites of this hub, parents before their children.
    fn roster(&self) -> Vec<Child> {
        let own = &self.up.membership.site;
        let (objects, _) = self.up.hub.store.list(SiteSpec::PLURAL, None);
        let sites: Vec<Site> = objects.iter().filter_map(|object| object.resource().ok()).collect();
        let families = branch::families(sites, own);
        [self.own()].into_iter().chain(families.iter().map(child)).collect()
    }

    /// This hub itself. Where it has no agent, nothing is to be placed at it.
    fn own(&self) -> Child {
        let name = self.up.membership.site.clone();
        if let Some(site) = self.up.own() {
            return Child { status: SiteStatus::default(), problem: None, ..child(&site) };
        }
        let taint = Taint {
            key: HUB_ALONE.into(),
            value: String::new(),
            effect: TaintEffect::NoSelect,
            time_added: None,
        };
        let spec = SiteSpec { tier: self.up.tier.clone(), taints: vec![taint], ..SiteSpec::default() };
        let labels = self.up.labels.clone();
        Child { name, labels, spec, status: SiteStatus::default(), problem: None }
    }
}

fn child(site: &Site) -> Child {
    Child {
        name: site.name().to_owned(),
        labels: site.metadata.labels.clone(),
        spec: site.spec.clone(),
        status: SiteStatus { conditions: vec![], ..site.status.clone() },
        problem: branch::problem(site),
    }
}
