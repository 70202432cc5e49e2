//! Rollouts over a real store in memory, with sites that do as they are told, or don't, and a clock of our own.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use store::{Key, Store};
use types::{Application, Assignment, Digest, Kind, Resource, RolloutStatus, SiteSpec};

use crate::application::Moment;
use crate::placement::Planning;
use crate::snapshot::Reader;
use crate::testing::{self, at};
use crate::{Events, Measurements, Write, application, placement};

/// How a site takes what it is told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mood {
    /// It runs it at once.
    Good,
    /// It runs all but versions whose name begins with `bad`.
    Picky,
    /// It prepares for ever.
    Slow,
    /// It can't be reached.
    Away,
}

pub struct World {
    pub store: Store,
    events: Events,
    pub reader: Reader,
    moods: BTreeMap<String, Mood>,
    pub seconds: i64,
    pub began: i64,
    /// By how many seconds somebody set the hub's clock.
    pub set_by: i64,
}

impl World {
    pub async fn new(sites: &[(&str, Mood)]) -> Self {
        let store = testing::store();
        let events = Events::new(store.clone());
        let mut world = Self {
            store,
            events,
            reader: Reader::default(),
            moods: BTreeMap::new(),
            seconds: 0,
            began: 0,
            set_by: 0,
        };
        for (name, mood) in sites {
            world.apply("site", name, json!({"tier": "edge"})).await;
            world.mood(name, *mood).await;
        }
        world.apply("placement", "edges", json!({"tiers": ["edge"]})).await;
        world
    }

    pub async fn apply(&self, kind: &str, name: &str, spec: Value) {
        testing::apply(&self.store, kind, name, spec, at(self.seconds)).await;
    }

    pub async fn annotate(&self, key: &str, value: &str) {
        let mut app = self.app();
        app.metadata.annotations.insert(key.into(), value.into());
        self.put(&app, false).await;
    }

    pub async fn put<S: Kind>(&self, resource: &Resource<S>, is_status: bool) {
        let key = Key::new(S::PLURAL, resource.namespace(), resource.name());
        let mut manifest = serde_json::to_value(resource).unwrap();
        manifest["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        self.store.update(key, manifest, is_status).await.unwrap();
    }

    pub fn read<S: Kind>(&self, namespace: &str, name: &str) -> Option<Resource<S>> {
        self.store.get(&Key::new(S::PLURAL, namespace, name))?.parse().ok()
    }

    pub fn all<S: Kind>(&self) -> Vec<Resource<S>> {
        self.store.list(S::PLURAL, None).0.iter().map(|object| object.parse().unwrap()).collect()
    }

    pub fn app(&self) -> Application {
        self.read("default", "app").unwrap()
    }

    pub fn rollout(&self) -> RolloutStatus {
        self.app().status.rollout.unwrap_or_default()
    }

    pub fn progressing(&self) -> (String, String) {
        let conditions = self.app().status.conditions;
        let found = types::condition(&conditions, "Progressing").unwrap();
        (found.reason.clone(), found.message.clone())
    }

    /// Which version of the function each site is told to run.
    pub fn versions(&self) -> BTreeMap<String, String> {
        let version = |assignment: &Assignment| {
            assignment.spec.function.as_ref().map_or(String::new(), |function| function.spec.handler.clone())
        };
        let all: Vec<Assignment> = self.all();
        all.iter().map(|assignment| (assignment.namespace().to_owned(), version(assignment))).collect()
    }

    pub fn running(&self, version: &str) -> Vec<String> {
        let versions = self.versions();
        versions.into_iter().filter(|(_, told)| told == version).map(|(site, _)| site).collect()
    }

    /// Changes how a site is, and so whether it is heard.
    pub async fn mood(&mut self, name: &str, mood: Mood) {
        self.moods.insert(name.to_owned(), mood);
        let mut site: Resource<SiteSpec> = self.read("", name).unwrap();
        let (status, reason) =
            if mood == Mood::Away { ("Unknown", "Silent") } else { ("True", "HeartbeatsArrive") };
        let ready = json!({"type": "Ready", "status": status, "reason": reason, "message": "",
            "lastTransitionTime": at(self.seconds)});
        site.status.version = "1".into();
        types::set_condition(&mut site.status.conditions, serde_json::from_value(ready).unwrap());
        self.put(&site, true).await;
    }

    pub async fn label(&self, name: &str, key: &str, value: &str) {
        let mut site: Resource<SiteSpec> = self.read("", name).unwrap();
        site.metadata.labels.insert(key.into(), value.into());
        self.put(&site, false).await;
    }

    /// So many more invocations of the function at a site came to an end.
    pub async fn invoke(&self, site: &str, succeeded: u64, failed: u64) {
        let mut assignment: Assignment = self.read(site, "work.app.default").unwrap();
        assignment.status.invocations.succeeded += succeeded;
        assignment.status.invocations.failed += failed;
        self.put(&assignment, true).await;
    }

    pub async fn function(&self, version: &str) {
        let artifact = json!({"digest": Digest::of(version.as_bytes()), "size": 1});
        let spec = json!({"runtime": "shell", "handler": version, "artifact": artifact});
        self.apply("function", "f", spec).await;
    }

    pub async fn application(&self, rollout: Value) {
        let component = json!({"name": "work", "placement": "edges", "function": "f"});
        self.apply("application", "app", json!({"components": [component], "rollout": rollout})).await;
    }

    /// What the controllers want to write now.
    pub fn wanted(&mut self) -> Vec<Write> {
        let moment =
            Moment { now: at(self.seconds), began: at(self.began), wall: at(self.seconds + self.set_by) };
        let (snapshot, _) = self.reader.read(&self.store);
        let measured = Measurements::default();
        let mut writes = placement::reconcile(&mut Planning::default(), snapshot, &measured, moment.now);
        writes.extend(application::reconcile(snapshot, moment));
        writes
    }

    /// Looks until nothing is left to write. A hub that is killed forgets all it had, after so many writes.
    pub async fn settle(&mut self, mut killed_after: usize) {
        for _ in 0..1000 {
            let writes = self.wanted();
            if writes.is_empty() {
                return;
            }
            for write in writes {
                // Conflicts are thought over again.
                let _ = write.apply(&self.store, &self.events, at(self.seconds)).await;
                killed_after = killed_after.wrapping_sub(1);
                if killed_after == 0 {
                    self.reader = Reader::default();
                    self.began = self.seconds;
                    break;
                }
            }
            self.check();
        }
        panic!("the controllers never rest: {:#?}", self.wanted());
    }

    /// What must hold whenever a hub may be killed.
    pub fn check(&self) {
        for (site, version) in self.versions() {
            assert!(!version.is_empty(), "{site} always has its function");
        }
    }

    /// Sites report what became of what they were told; their clocks are an hour off.
    pub async fn report(&self) {
        let assignments: Vec<Assignment> = self.all();
        for mut assignment in assignments {
            let version = assignment.spec.function.as_ref().unwrap().spec.handler.clone();
            let (status, reason) = match self.moods[assignment.namespace()] {
                Mood::Away => continue,
                Mood::Picky if version.starts_with("bad") => ("False", "FunctionFailed"),
                Mood::Slow => ("False", "Preparing"),
                _ => ("True", "Running"),
            };
            let generation = assignment.metadata.generation;
            let skewed = at(self.seconds + if assignment.namespace() < "c" { 3600 } else { -3600 });
            let available = json!({"type": "Available", "status": status, "reason": reason,
                "message": "as it is", "observedGeneration": generation, "lastTransitionTime": skewed});
            let available: types::Condition = serde_json::from_value(available).unwrap();
            let is_known = assignment.status.conditions.first().is_some_and(|known| {
                let time = available.last_transition_time;
                types::Condition { last_transition_time: time, ..known.clone() } == available
            });
            if !is_known {
                assignment.status.conditions = vec![available];
                assignment.status.observed_generation = generation;
                self.put(&assignment, true).await;
            }
        }
    }

    /// Lets so many seconds pass, in which nothing changes but the time.
    pub async fn pass_long(&mut self, seconds: i64) {
        self.pass(6).await;
        self.seconds += seconds;
        self.pass(1).await;
    }

    /// Lets so many seconds pass, in which sites and controllers do their work.
    pub async fn pass(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.settle(usize::MAX).await;
            self.report().await;
            self.seconds += 1;
        }
        self.settle(usize::MAX).await;
    }
}

pub const SITES: [(&str, Mood); 5] =
    [("a", Mood::Good), ("b", Mood::Picky), ("c", Mood::Good), ("d", Mood::Good), ("e", Mood::Good)];

pub fn one_at_a_time() -> Value {
    json!({"type": "Progressive", "maxConcurrency": 1, "progressDeadline": "30s"})
}

/// Five sites that run the good version; `b` takes no bad one.
pub async fn world(rollout: Value) -> World {
    let mut world = World::new(&SITES).await;
    world.function("good").await;
    world.application(rollout).await;
    world.pass(10).await;
    let rollout = world.rollout();
    assert_eq!((rollout.number, rollout.complete, rollout.sites.done), (1, true, 5), "{rollout:?}");
    assert_eq!(rollout.last_good, rollout.revision);
    world
}
