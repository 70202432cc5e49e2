//! The way from a hub to the hub above: what is told up, and brought down, while it is not cut.

use std::collections::{BTreeMap, HashSet};

use planner::branch;
use store::{Deletion, Key};
use types::names::label::{ORIGIN, VIA};
use types::{Assignment, AssignmentSpec, AssignmentStatus, Kind, ObjectMeta, Site, SiteSpec, SiteStatus};

use super::Branch;
use super::level::Level;
use crate::note_report;
use crate::testing::{self, at};

/// For how long nothing is taken away from a site that has just become known above, in seconds.
const YOUNG: i64 = 60;

#[derive(Default)]
pub struct Link {
    mute_until: i64,
    deaf_until: i64,
    /// Since when nothing that is said arrives.
    pub mute_since: Option<i64>,
    /// The sites that the hub above was told of, and since when. It is kept on the disk of the hub below.
    told: BTreeMap<String, i64>,
    /// The newest list that was followed.
    seen: u64,
}

impl Link {
    pub fn cut(&mut self, mute_until: i64, deaf_until: i64) {
        (self.mute_until, self.deaf_until) = (mute_until, deaf_until);
    }

    pub fn was_told(&self, site: &str) -> bool {
        self.told.contains_key(site)
    }
}

/// Lets all that waits pass in one second.
pub async fn pass_on(top: &mut Level, name: &str, branch: &mut Branch, now: i64) {
    let (is_mute, is_deaf) = (now < branch.link.mute_until, now < branch.link.deaf_until);
    let are_there = top.hub.is_some() && branch.level.hub.is_some();
    if are_there && !is_mute {
        branch.link.mute_since = None;
        top.hub.as_ref().unwrap().heartbeats.hear(name);
        tell_sites(top, name, branch, now).await;
    } else {
        branch.link.mute_since.get_or_insert(now);
    }
    if are_there && !is_deaf {
        bring(top, branch, now).await;
    }
    if are_there && !is_mute {
        report(top, branch).await;
    }
}

async fn tell_sites(top: &mut Level, name: &str, branch: &mut Branch, now: i64) {
    let sites = branch::families(branch.level.snapshot().sites.clone(), name);
    let heartbeats = top.hub.as_ref().unwrap().heartbeats.clone();
    let gone: Vec<String> = branch
        .link
        .told
        .keys()
        .filter(|told| !sites.iter().any(|site| site.name() == *told))
        .cloned()
        .collect();
    for gone in gone {
        let _ = top.store.delete(Key::new(SiteSpec::PLURAL, "", &*gone), Deletion::at(at(now))).await;
        top.empty(&gone, now).await;
        heartbeats.forget(&gone);
        branch.link.told.remove(&gone);
    }
    for site in sites {
        heartbeats.tell(site.name(), name, branch::problem(&site));
        let mut labels = site.metadata.labels.clone();
        labels.insert(VIA.into(), name.into());
        let status = SiteStatus { conditions: vec![], ..site.status.clone() };
        let Some(known) = top.snapshot().site(site.name()).cloned() else {
            branch.link.told.insert(site.name().to_owned(), now);
            let metadata = ObjectMeta { labels, ..ObjectMeta::named(site.name()) };
            let new = Site { status, ..Site::new(metadata, site.spec.clone()) };
            let key = Key::new(SiteSpec::PLURAL, "", site.name());
            top.store.create(key, serde_json::to_value(&new).unwrap(), at(now)).await.unwrap();
            continue;
        };
        if known.metadata.labels != labels {
            testing::change::<SiteSpec>(&top.store, ("", site.name()), false, |site| {
                site.metadata.labels = labels
            })
            .await;
        }
        if known.status.version != status.version {
            top.set_version(site.name()).await;
        }
    }
}

/// Brings what is assigned to the branch, and removes what is no longer.
async fn bring(top: &mut Level, branch: &mut Branch, now: i64) {
    let version = top.store.version();
    assert!(branch::is_newer(version, branch.link.seen));
    branch.link.seen = version;
    let (leaves, link) = (&branch.leaves, &branch.link);
    let theirs: Vec<Assignment> = top
        .snapshot()
        .assignments
        .iter()
        .filter(|one| leaves.contains_key(one.namespace()))
        .cloned()
        .collect();
    let place = |one: &Assignment| (one.namespace().to_owned(), one.name().to_owned());
    let listed: HashSet<branch::Place> = theirs.iter().map(place).collect();
    let store = &branch.level.store;
    for theirs in theirs {
        let key = Key::new(AssignmentSpec::PLURAL, theirs.namespace(), theirs.name());
        let brought = branch::brought(theirs, "top");
        match store.get(&key).map(|found| found.parse::<Assignment>().unwrap()) {
            None => {
                let manifest = serde_json::to_value(&brought).unwrap();
                store.create(key, manifest, at(now)).await.unwrap();
            }
            Some(known) if known.metadata.annotations == brought.metadata.annotations => {}
            Some(_) => drop(store.update(key, serde_json::to_value(&brought).unwrap(), false).await.unwrap()),
        }
    }
    let is_young = |site: &str| link.told.get(site).is_some_and(|since| now - since < YOUNG);
    let kept = branch.level.snapshot().assignments.iter();
    let kept: Vec<branch::Place> =
        kept.filter(|one| one.metadata.labels.contains_key(ORIGIN)).map(place).collect();
    let (gone, _) = branch::gone(kept, &listed, is_young);
    for (site, name) in gone {
        let key = Key::new(AssignmentSpec::PLURAL, &*site, &*name);
        assert!(top.store.get(&key).is_none(), "{key} is taken away, though it is wanted above");
        branch.level.store.delete(key, Deletion::at(at(now))).await.unwrap();
    }
}

/// Tells how what was brought stands.
async fn report(top: &mut Level, branch: &mut Branch) {
    let steady = top.hub.as_ref().unwrap().heartbeats.steady();
    for one in branch.level.snapshot().assignments.clone() {
        let Some((uid, status)) = branch::report(&one) else { continue };
        let known = crate::Snapshot::named(&top.snapshot().assignments, one.namespace(), one.name());
        let is_news = known
            .is_some_and(|known| known.metadata.uid == uid && known.status.conditions != status.conditions);
        if is_news {
            let place = (one.namespace(), one.name());
            testing::change::<AssignmentSpec>(&top.store, place, true, |known| {
                // How far the site is, is this hub's to say.
                let progress = known.status.progress.clone();
                known.status = AssignmentStatus { progress, ..status };
                note_report(known, steady);
            })
            .await;
        }
    }
}
