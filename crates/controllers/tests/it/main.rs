//! From manifests to assignments and back, over a real store, with the loop that production runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod lifecycle;
mod sites;

use std::time::Duration;

use avocet_controllers::{Events, Heartbeats, Measurements, run};
use daemon::Tasks;
use serde_json::{Value, json};
use store::{Deletion, Key, Ledger, Object, Store};
use types::Digest;

struct Hub {
    store: Store,
    heartbeats: Heartbeats,
    tasks: Tasks,
}

impl Hub {
    fn start(grace: Duration) -> Self {
        let plurals: Vec<&'static str> = types::kinds().map(|info| info.plural).collect();
        let store = Store::open(Ledger::memory().unwrap(), &plurals).unwrap();
        let heartbeats = Heartbeats::new(grace);
        let tasks = Tasks::default();
        let (running, heard, events) = (store.clone(), heartbeats.clone(), Events::new(store.clone()));
        tasks.supervise("controllers", move |shutdown| {
            run(running.clone(), heard.clone(), Measurements::default(), events.clone(), shutdown)
        });
        Self { store, heartbeats, tasks }
    }

    async fn apply(&self, kind: &str, name: &str, spec: Value) {
        let info = types::kind_named(kind).unwrap();
        let namespace = if info.namespaced { "default" } else { "" };
        let key = Key::new(info.plural, namespace, name);
        let manifest = json!({"apiVersion": types::API_VERSION, "kind": info.kind,
            "metadata": {"name": name, "namespace": namespace}, "spec": spec});
        let manifest = info.admit(&manifest).unwrap();
        match self.store.create(key.clone(), manifest.clone(), daemon::now()).await {
            Err(store::Error::Exists(_)) => self.store.update(key, manifest, false).await.unwrap(),
            other => other.unwrap(),
        };
    }

    async fn site(&self, name: &str, tier: &str) {
        self.heartbeats.hear(name);
        self.apply("site", name, json!({"tier": tier})).await;
        let key = Key::new("sites", "", name);
        let mut told = self.store.get(&key).unwrap().manifest();
        told["status"]["version"] = json!("1");
        told["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        self.store.update(key, told, true).await.unwrap();
    }

    async fn application(&self) {
        let artifact = json!({"digest": Digest::of(b"f"), "size": 1});
        self.apply("function", "f", json!({"runtime": "shell", "handler": "f.sh", "artifact": artifact}))
            .await;
        self.apply("placement", "edges", json!({"tiers": ["edge"]})).await;
        let component = json!({"name": "work", "placement": "edges", "function": "f",
            "inputs": [{"path": "data/in"}], "outputs": [{"path": "data/out"}]});
        self.apply("application", "app", json!({"components": [component]})).await;
    }

    /// Waits until a resource is as `holds` says.
    async fn until(
        &self,
        plural: &'static str,
        namespace: &str,
        name: &str,
        holds: impl Fn(&Object) -> bool,
    ) {
        let key = Key::new(plural, namespace, name);
        let reached = async {
            let mut watch = self.store.watch(self.store.version()).unwrap();
            while !self.store.get(&key).is_some_and(|object| holds(&object)) {
                watch.next().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(10), reached).await.unwrap_or_else(|_| {
            panic!("{key} did not get there: {:#?}", self.store.get(&key).map(|object| object.manifest()))
        });
    }

    fn assigned(&self, site: &str) -> usize {
        self.store.list("assignments", Some(site)).0.len()
    }
}

fn message(object: &Object, condition: &str) -> String {
    let conditions = object.manifest()["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|entry| entry["type"] == condition);
    found.map_or_else(String::new, |found| found["message"].as_str().unwrap().to_owned())
}

const ASSIGNMENT: &str = "work.app.default";

#[tokio::test]
async fn an_application_becomes_assignments_and_their_reports_become_its_status() {
    let hub = Hub::start(Duration::from_secs(60));
    hub.site("plant", "edge").await;
    hub.site("cloud", "cloud").await;
    hub.application().await;
    hub.until("assignments", "plant", ASSIGNMENT, |_| true).await;
    assert_eq!(hub.assigned("cloud"), 0);
    hub.until("applications", "default", "app", |app| app.manifest()["status"]["ready"] == "0/1").await;

    let key = Key::new("assignments", "plant", ASSIGNMENT);
    let mut report = hub.store.get(&key).unwrap().manifest();
    report["status"] = json!({"conditions": [{"type": "Available", "status": "True", "observedGeneration": 1,
        "lastTransitionTime": daemon::now(), "reason": "Running", "message": ""}],
        "invocations": {"succeeded": 3}, "observedGeneration": 1});
    hub.store.update(key, report, true).await.unwrap();
    hub.until("applications", "default", "app", |app| {
        app.manifest()["status"]["ready"] == "1/1"
            && app.manifest()["status"]["invocations"]["succeeded"] == 3
    })
    .await;
    assert!(hub.tasks.end(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn promise_1_a_policy_that_selects_nothing_keeps_the_last_good_decision() {
    let hub = Hub::start(Duration::from_secs(60));
    hub.site("plant", "edge").await;
    hub.application().await;
    hub.until("assignments", "plant", ASSIGNMENT, |_| true).await;
    hub.apply("placement", "edges", json!({"tiers": ["moon"]})).await;
    hub.until("placements", "default", "edges", |placement| {
        message(placement, "Satisfied").contains("what was decided before is kept (plant)")
    })
    .await;
    assert_eq!(hub.assigned("plant"), 1);
}

#[tokio::test]
async fn promise_1_a_policy_that_cannot_be_followed_keeps_the_last_decision_and_says_what_to_correct() {
    let hub = Hub::start(Duration::from_secs(60));
    hub.site("plant", "edge").await;
    hub.application().await;
    hub.until("assignments", "plant", ASSIGNMENT, |_| true).await;
    for (spec, complaint) in [
        (
            json!({"predicates": [{"celExpressions": ["site.spec.tier =="]}]}),
            "celExpressions: `site.spec.tier ==`",
        ),
        (
            json!({"tolerations": [{"key": "", "operator": "Equal"}]}),
            "If the key is empty, operator must be Exists.",
        ),
        (json!({"constraints": {"labels": ["location = (DE)"]}}), "`location = (DE)` is not a constraint"),
        (json!({"constraints": {"metrics": ["load > 5"]}}), "names a metric that spec.metrics does not have"),
    ] {
        hub.apply("placement", "edges", spec).await;
        hub.until("placements", "default", "edges", |placement| {
            let told = message(placement, "Misconfigured");
            told.contains(complaint) && told.contains("what was decided before is kept (plant)")
        })
        .await;
        assert_eq!(hub.assigned("plant"), 1);
    }
    hub.apply("placement", "edges", json!({"tiers": ["edge"]})).await;
    hub.until("placements", "default", "edges", |placement| {
        message(placement, "Misconfigured").is_empty() && message(placement, "Satisfied").is_empty()
    })
    .await;
}

#[tokio::test]
async fn decisions_say_since_when_and_in_which_group_a_site_is() {
    let hub = Hub::start(Duration::from_secs(60));
    for name in ["a", "b", "c"] {
        hub.site(name, "edge").await;
    }
    let groups = json!({"sitesPerGroup": 1, "groups": [{"name": "canary", "labelSelector":
        {"matchLabels": {"avocet.dev/tier": "edge"}}}]});
    hub.apply("placement", "grouped", json!({"numberOfSites": 2, "decisionGroups": groups})).await;
    hub.until("placementdecisions", "default", "grouped-decision-2", |decision| {
        let manifest = decision.manifest();
        manifest["status"]["decisions"][0]["group"] == 1
            && manifest["status"]["decisions"][0]["since"].is_string()
            && manifest["metadata"]["labels"]["avocet.dev/decision-group-name"] == "canary"
    })
    .await;
    let second = json!({"index": 1, "name": "canary", "sites": 1, "decisions": ["grouped-decision-2"]});
    hub.until("placements", "default", "grouped", |placement| {
        placement.manifest()["status"]["decisionGroups"][1] == second
    })
    .await;
}

#[tokio::test]
async fn an_application_runs_on_all_sites_of_a_decision_in_parts() {
    let hub = Hub::start(Duration::from_secs(60));
    for index in 0..110 {
        hub.site(&format!("s{index}"), "edge").await;
    }
    hub.application().await;
    hub.until("applications", "default", "app", |app| {
        app.manifest()["status"]["rollout"]["sites"]["progressing"] == 110
    })
    .await;
    assert_eq!(hub.store.list("assignments", None).0.len(), 110);
    assert_eq!(hub.store.list("placementdecisions", None).0.len(), 2);
}

#[tokio::test]
async fn promise_1_a_silent_site_keeps_its_assignment() {
    let hub = Hub::start(Duration::from_millis(300));
    hub.site("plant", "edge").await;
    hub.application().await;
    hub.until("assignments", "plant", ASSIGNMENT, |_| true).await;
    hub.until("sites", "", "plant", |site| message(site, "Ready").contains("no heartbeat")).await;
    hub.until("applications", "default", "app", |app| message(app, "Ready").contains("is silent")).await;
    assert_eq!(hub.assigned("plant"), 1);
    hub.heartbeats.hear("plant");
    hub.until("sites", "", "plant", |site| message(site, "Ready").is_empty()).await;
}

#[tokio::test]
async fn what_is_deleted_takes_its_assignments_and_decisions_with_it() {
    let hub = Hub::start(Duration::from_secs(60));
    hub.site("plant", "edge").await;
    hub.application().await;
    hub.until("assignments", "plant", ASSIGNMENT, |_| true).await;
    let mut watch = hub.store.watch(hub.store.version()).unwrap();
    for (plural, name) in [("applications", "app"), ("placements", "edges")] {
        hub.store.delete(Key::new(plural, "default", name), Deletion::at(daemon::now())).await.unwrap();
    }
    while hub.assigned("plant") > 0 || !hub.store.list("placementdecisions", None).0.is_empty() {
        tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_missing_function_is_named_in_the_application_status() {
    let hub = Hub::start(Duration::from_secs(60));
    hub.site("plant", "edge").await;
    hub.apply("placement", "edges", json!({"tiers": ["edge"]})).await;
    let component = json!({"name": "work", "placement": "edges", "function": "nowhere"});
    hub.apply("application", "app", json!({"components": [component]})).await;
    hub.until("applications", "default", "app", |app| {
        message(app, "Ready") == "work: Function `nowhere` does not exist in this namespace; apply it"
    })
    .await;
}

#[tokio::test]
async fn what_happens_is_told_in_events() {
    let hub = Hub::start(Duration::from_secs(60));
    hub.site("plant", "edge").await;
    hub.application().await;
    hub.until("assignments", "plant", ASSIGNMENT, |_| true).await;
    let key = Key::new("assignments", "plant", ASSIGNMENT);
    for (available, reason, message) in [("True", "Running", ""), ("False", "Broken", "no such engine")] {
        let mut report = hub.store.get(&key).unwrap().manifest();
        report["status"] = json!({"conditions": [{"type": "Available", "status": available, "observedGeneration": 1,
            "lastTransitionTime": daemon::now(), "reason": reason, "message": message}]});
        hub.store.update(key.clone(), report, true).await.unwrap();
        let is_told = |app: &Object| message_ends(app, message);
        hub.until("applications", "default", "app", is_told).await;
    }
    hub.apply("placement", "edges", json!({"tiers": ["moon"]})).await;
    for (kind, reason, message) in [
        ("Site", "SiteJoined", "its heartbeats arrive"),
        ("Placement", "DecisionChanged", "selected plant"),
        ("Placement", "Unsatisfied", "what was decided before is kept (plant)"),
        ("Application", "ComponentAvailable", "component work runs on plant"),
        ("Application", "ComponentFailed", "component work: site `plant`: no such engine"),
    ] {
        let mut watch = hub.store.watch(hub.store.version()).unwrap();
        let is_it = |event: &Object| {
            event.manifest()["involvedObject"]["kind"] == kind
                && event.manifest()["reason"] == reason
                && event.manifest()["message"].as_str().unwrap().contains(message)
        };
        while !hub.store.list("events", Some("default")).0.iter().any(|event| is_it(event)) {
            let next = tokio::time::timeout(Duration::from_secs(10), watch.next()).await;
            next.unwrap_or_else(|_| {
                panic!("{kind} {reason} is not told: {:#?}", hub.store.list("events", None).0)
            })
            .unwrap();
        }
    }
}

fn message_ends(app: &Object, end: &str) -> bool {
    let told = message(app, "Ready");
    if end.is_empty() { app.manifest()["status"]["ready"] == "1/1" } else { told.ends_with(end) }
}
