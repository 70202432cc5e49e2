//! One hub of a tree: its real controllers over a store that outlives it.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use store::{Deletion, Key, Store};
use types::names::label::REVISION;
use types::{Application, ApplicationStatus, Assignment, AssignmentSpec, Digest, Kind, SiteSpec};

use super::super::chance::Chance;
use super::super::hub::Hub;
use super::super::site::Report;
use crate::snapshot::Reader;
use crate::testing::{self, at};
use crate::{Events, Snapshot, note_report};

/// How often the controllers look at what they wrote themselves before they must rest.
const LOOKS: usize = 100;

pub struct Level {
    name: String,
    pub store: Store,
    reader: Reader,
    events: Events,
    pub hub: Option<Hub>,
    back_at: i64,
    /// After how many writes the hub ends, if it is to end.
    pub ends_after: Option<usize>,
}

impl Level {
    pub fn new(name: &str) -> Self {
        let store = testing::store();
        Self {
            name: name.to_owned(),
            reader: Reader::default(),
            events: Events::new(store.clone()),
            store,
            hub: Some(Hub::start(0, 0)),
            back_at: 0,
            ends_after: None,
        }
    }

    pub fn come_back(&mut self, now: i64) {
        if self.hub.is_none() && now >= self.back_at {
            self.hub = Some(Hub::start(now, 0));
        }
        if let Some(hub) = &self.hub {
            hub.tick(now);
        }
    }

    pub fn heal(&mut self, now: i64) {
        self.ends_after = None;
        self.back_at = now;
    }

    /// Lets the controllers write until they rest, or the hub ends.
    pub async fn look(&mut self, now: i64, chance: &mut Chance) {
        for _ in 0..LOOKS {
            let Some(hub) = &mut self.hub else { return };
            let writes = hub.look(&self.store, now, 0);
            if writes.is_empty() {
                return;
            }
            for write in writes {
                // Conflicts are thought over again.
                let _ = write.apply(&self.store, &self.events, at(now)).await;
                let Some(left) = &mut self.ends_after else { continue };
                *left -= 1;
                if *left == 0 {
                    (self.ends_after, self.hub) = (None, None);
                    self.back_at = now + chance.seconds(0, 90);
                    return;
                }
            }
        }
        panic!("the controllers of {} never rest", self.name);
    }

    pub fn snapshot(&mut self) -> &Snapshot {
        self.reader.read(&self.store).0
    }

    pub async fn apply(&self, kind: &str, name: &str, spec: Value, now: i64) {
        testing::apply(&self.store, kind, name, spec, at(now)).await;
    }

    pub async fn function(&self, name: &str, version: &str, now: i64) {
        let artifact = json!({"digest": Digest::of(version.as_bytes()), "size": 1});
        self.apply(
            "function",
            name,
            json!({"runtime": "shell", "handler": version, "artifact": artifact}),
            now,
        )
        .await;
    }

    pub async fn application(&self, name: &str, placement: &str, function: &str, concurrency: usize) {
        let component = json!({"name": "work", "placement": placement, "function": function});
        let rollout = json!({"type": "Progressive", "maxConcurrency": concurrency, "maxFailures": 2,
            "minSuccessTime": "2s", "progressDeadline": "120s"});
        self.apply("application", name, json!({"components": [component], "rollout": rollout}), 0).await;
    }

    /// A site reported for the first time.
    pub async fn set_version(&self, site: &str) {
        testing::change::<SiteSpec>(&self.store, ("", site), true, |site| site.status.version = "1".into())
            .await;
    }

    pub async fn label(&self, site: &str, works: bool) {
        let value = if works { "yes" } else { "no" };
        testing::change::<SiteSpec>(&self.store, ("", site), false, |site| {
            site.metadata.labels.insert("works".into(), value.into());
        })
        .await;
    }

    pub fn assigned(&mut self, site: &str) -> Vec<Assignment> {
        let assignments = &self.snapshot().assignments;
        assignments.iter().filter(|one| one.namespace() == site).cloned().collect()
    }

    /// Takes what a site tells, as the API does it.
    pub async fn take(&mut self, report: &Report) {
        let Some(hub) = &self.hub else { return };
        let steady = hub.heartbeats.steady();
        let known =
            Snapshot::named(&self.reader.read(&self.store).0.assignments, &report.site, &report.assignment);
        if known.is_none_or(|known| {
            known.metadata.uid != report.uid || known.status.conditions.first() == Some(&report.condition)
        }) {
            return;
        }
        let place = (report.site.as_str(), report.assignment.as_str());
        testing::change::<AssignmentSpec>(&self.store, place, true, |assignment| {
            assignment.status.observed_generation = report.condition.observed_generation;
            assignment.status.conditions = vec![report.condition.clone()];
            note_report(assignment, steady);
        })
        .await;
    }

    /// Removes what is in the namespace of a site that is gone.
    pub async fn empty(&self, site: &str, now: i64) {
        for object in self.store.list(AssignmentSpec::PLURAL, Some(site)).0 {
            self.store.delete(object.key.clone(), Deletion::at(at(now))).await.unwrap();
        }
    }

    fn read(&self, name: &str) -> Application {
        let key = Key::new(types::ApplicationSpec::PLURAL, "default", name);
        self.store.get(&key).unwrap().parse().unwrap()
    }

    pub fn status(&self, application: &str) -> ApplicationStatus {
        self.read(application).status
    }

    pub fn is_complete(&self, application: &str) -> bool {
        self.status(application).rollout.is_some_and(|rollout| rollout.complete)
    }

    /// The version that the function of that name has.
    pub fn wanted(&self, function: &str) -> String {
        let key = Key::new(types::FunctionSpec::PLURAL, "default", function);
        let function: types::Function = self.store.get(&key).unwrap().parse().unwrap();
        function.spec.handler
    }

    /// Which sites were told of which revision of an application. (Those that were told and are lost are told of the one
    /// before again.)
    pub fn told(&mut self, application: &str) -> BTreeSet<(String, String)> {
        let all = self.snapshot().assignments.iter().filter(|one| one.spec.application == application);
        let revision = |one: &Assignment| one.metadata.labels.get(REVISION).cloned().unwrap_or_default();
        all.map(|one| (one.namespace().to_owned(), revision(one))).collect()
    }
}
