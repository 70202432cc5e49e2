//! The hub, its sites and what lies between them, second by second.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use store::{Key, Store};
use types::{Application, Assignment, Digest, Kind, Resource};

use super::chance::Chance;
use super::clocks;
use super::hub::Hub;
use super::promises::{self, Before, Promises};
use super::site::{Nature, Report, Site};
use crate::snapshot::Reader;
use crate::testing::{self, at};
use crate::{Events, Snapshot, Write, note_report};

/// How often the controllers look at what they wrote themselves before they must rest.
const LOOKS: usize = 100;

pub struct Tree {
    pub store: Store,
    /// What is stored, for those who judge it.
    pub seen: Reader,
    events: Events,
    pub hub: Option<Hub>,
    /// When a hub that is down comes back.
    pub hub_back_at: i64,
    /// After how many writes the hub ends, if it is to end.
    pub hub_ends_after: Option<usize>,
    pub sites: BTreeMap<String, Site>,
    /// Reports under way, and when they arrive.
    mail: Vec<(i64, Report)>,
    pub now: i64,
    /// By how many seconds somebody set the hub's clock.
    pub set_by: i64,
    /// When which site is to work again whose label was wrong for a moment.
    pub relabel: Vec<(i64, String)>,
    pub chance: Chance,
    pub promises: Promises,
    /// What happened, for people who look for a mistake.
    pub journal: Vec<String>,
}

impl Tree {
    pub async fn new(seed: u64, count: usize) -> Self {
        let store = testing::store();
        let mut tree = Self {
            seen: Reader::default(),
            events: Events::new(store.clone()),
            store,
            hub: Some(Hub::start(0, 0)),
            hub_back_at: 0,
            hub_ends_after: None,
            sites: BTreeMap::new(),
            mail: vec![],
            now: 0,
            set_by: 0,
            relabel: vec![],
            chance: Chance::new(seed),
            promises: Promises::default(),
            journal: vec![],
        };
        for index in 0..count {
            let name = format!("s{index:04}");
            // One always fails, and some are slow.
            let nature = match index {
                17 => Nature::Broken,
                41 | 53 => Nature::Slow,
                _ => Nature::Good,
            };
            tree.join(&name, nature).await;
        }
        tree
    }

    pub async fn join(&mut self, name: &str, nature: Nature) {
        self.sites.insert(name.to_owned(), Site::new(name, nature, &mut self.chance));
        self.apply("site", name, json!({"tier": "edge"})).await;
        self.change::<types::SiteSpec>("", name, true, |site| site.status.version = "1".into()).await;
        self.note(format!("{name} joins"));
    }

    pub fn note(&mut self, what: impl Into<String>) {
        self.journal.push(format!("{:>6} {}", self.now, what.into()));
    }

    /// What people write.
    pub async fn apply(&mut self, kind: &str, name: &str, spec: Value) {
        testing::apply(&self.store, kind, name, spec, at(self.now)).await;
    }

    pub async fn change<S: Kind>(
        &self,
        namespace: &str,
        name: &str,
        is_status: bool,
        change: impl FnOnce(&mut Resource<S>),
    ) {
        testing::change(&self.store, (namespace, name), is_status, change).await;
    }

    pub async fn function(&mut self, name: &str, version: &str) {
        let artifact = json!({"digest": Digest::of(version.as_bytes()), "size": 1});
        self.apply("function", name, json!({"runtime": "shell", "handler": version, "artifact": artifact}))
            .await;
    }

    pub fn application(&self, name: &str) -> Application {
        let key = Key::new(types::ApplicationSpec::PLURAL, "default", name);
        self.store.get(&key).unwrap().parse().unwrap()
    }

    /// How many sites run something, and how many are to.
    pub fn running(&mut self) -> (usize, usize) {
        let (snapshot, _) = self.seen.read(&self.store);
        let running = self.sites.values().filter(|site| !site.runs.is_empty()).count();
        (running, snapshot.assignments.len())
    }

    pub fn is_complete(&self) -> bool {
        ["changes", "moves"]
            .iter()
            .all(|name| self.application(name).status.rollout.is_some_and(|rollout| rollout.complete))
    }

    /// One second: sites do their work, reports arrive, and the hub looks until it has nothing to write.
    pub async fn step(&mut self) {
        self.now += 1;
        let now = self.now;
        if self.hub.is_none() && now >= self.hub_back_at {
            self.note("the hub is back");
            self.hub = Some(Hub::start(now, self.set_by));
            self.promises.clocks.hub_started(self.set_by);
        }
        if let Some(hub) = &self.hub {
            hub.tick(now);
        }
        self.let_sites_work();
        self.deliver().await;
        self.look().await;
        clocks::in_time(self);
    }

    fn let_sites_work(&mut self) {
        let now = self.now;
        let (snapshot, _) = self.seen.read(&self.store);
        let assignments = &snapshot.assignments;
        for site in self.sites.values_mut() {
            if self.hub.is_some() {
                let first = assignments.partition_point(|one| one.namespace() < site.name.as_str());
                let last = assignments.partition_point(|one| one.namespace() <= site.name.as_str());
                let told: Vec<&Assignment> = assignments[first..last].iter().collect();
                site.hear(&told, now, &mut self.chance);
            }
            site.work(now);
            let Some(hub) = &self.hub else { continue };
            if site.beats(now) {
                hub.heartbeats.hear(&site.name);
            }
            for report in site.report(now) {
                self.mail.push((now + self.chance.seconds(0, 4), report.clone()));
                if self.chance.one_in(10) {
                    // Somebody in between sends it twice.
                    self.mail.push((now + self.chance.seconds(0, 30), report));
                }
            }
        }
    }

    /// Reports arrive in another order than they were sent, twice, or not at all.
    async fn deliver(&mut self) {
        let now = self.now;
        let (due, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.mail).into_iter().partition(|(when, _)| *when <= now);
        self.mail = rest;
        for (_, report) in due {
            let Some(site) = self.sites.get_mut(&report.site) else { continue };
            let Some(hub) = self.hub.as_ref().filter(|_| !site.is_mute(now)) else {
                site.missed(&report);
                continue;
            };
            let steady = hub.heartbeats.steady();
            let (snapshot, _) = self.seen.read(&self.store);
            let known = Snapshot::named(&snapshot.assignments, &report.site, &report.assignment);
            let is_its = |known: &Assignment| known.metadata.uid == report.uid;
            if known.is_none_or(|known| {
                !is_its(known) || known.status.conditions.first() == Some(&report.condition)
            }) {
                continue;
            }
            self.change::<types::AssignmentSpec>(&report.site, &report.assignment, true, |assignment| {
                assignment.status.observed_generation = report.condition.observed_generation;
                assignment.status.conditions = vec![report.condition.clone()];
                // As the API does it.
                note_report(assignment, steady);
            })
            .await;
        }
    }

    /// Lets the controllers write until they rest, or the hub ends.
    async fn look(&mut self) {
        for _ in 0..LOOKS {
            let Some(hub) = &mut self.hub else { return };
            let writes = hub.look(&self.store, self.now, self.set_by);
            if writes.is_empty() {
                return;
            }
            self.write(writes).await;
        }
        let Some(hub) = &mut self.hub else { return };
        let left = hub.look(&self.store, self.now, self.set_by);
        panic!("the controllers never rest: {left:#?}");
    }

    async fn write(&mut self, writes: Vec<Write>) {
        let before = Before::new(self);
        for write in writes {
            promises::allow(self, &before, &write);
            let wall = at(self.now + self.set_by);
            if write.key.plural == types::AssignmentSpec::PLURAL
                && !matches!(write.action, crate::Action::Status(_))
            {
                let action = match &write.action {
                    crate::Action::Delete { .. } => "deletes",
                    _ if self.store.get(&write.key).is_none() => "creates",
                    _ => "changes",
                };
                self.note(format!("{action} {}", write.key));
            }
            // Conflicts are thought over again.
            let _ = write.apply(&self.store, &self.events, wall).await;
            if let Some(left) = &mut self.hub_ends_after {
                *left -= 1;
                if *left == 0 {
                    self.hub_ends_after = None;
                    self.hub = None;
                    self.hub_back_at = self.now + self.chance.seconds(0, 40);
                    let back_at = self.hub_back_at;
                    self.note(format!("the hub ends after this write, until {back_at}"));
                    return;
                }
            }
        }
        promises::after(self, &before);
    }
}
