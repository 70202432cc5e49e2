//! The hub's API, as kube, the Kubernetes client for Rust, finds it.

use std::collections::BTreeSet;
use std::future::ready;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures::StreamExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, Config, CustomResource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use testkit::LIMIT;

use crate::support::tree;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(group = "avocet.dev", version = "v1alpha1", kind = "Placement", namespaced, status = "Status")]
#[serde(rename_all = "camelCase")]
struct PlacementSpec {
    #[serde(default)]
    tiers: Vec<String>,
    number_of_sites: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Status {
    number_of_selected_sites: u32,
}

fn placement(name: &str) -> Placement {
    Placement::new(name, PlacementSpec { tiers: vec!["edge".into()], number_of_sites: None })
}

fn block_on(task: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(task);
}

async fn placements(kubeconfig: &Path) -> Api<Placement> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Api::namespaced(Client::try_from(config).unwrap(), "default")
}

async fn wait_until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !is_so().await {
        assert!(begin.elapsed() < LIMIT, "{what}: not yet");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[test]
fn kube_watches_through_a_restart_of_the_hub() {
    let tree = tree();
    let mut hub = tree.hub("cloud");
    block_on(async {
        let api = placements(&hub.kubeconfig()).await;
        let create = async |name: &str| {
            let created = api.create(&PostParams::default(), &placement(name)).await.unwrap();
            (created.name_any(), created.resource_version().unwrap())
        };
        let mut written = vec![create("before").await, create("goes").await];

        let told = Arc::new(Mutex::new(Vec::new()));
        let listed = Arc::new(Mutex::new(BTreeSet::new()));
        let (reader, writer) = reflector::store();
        let events = watcher(api.clone(), watcher::Config::default()).default_backoff();
        let follow = reflector(writer, events).for_each(|event| {
            let id = |object: &Placement| (object.name_any(), object.resource_version().unwrap());
            match event {
                Ok(Event::Apply(object)) => told.lock().unwrap().push(id(&object)),
                Ok(Event::InitApply(object)) => drop(listed.lock().unwrap().insert(id(&object))),
                _ => {}
            }
            ready(())
        });
        let same = async || {
            let Ok(list) = api.list(&ListParams::default()).await else { return false };
            let ids = |object: &Placement| (object.name_any(), object.resource_version().unwrap());
            let there: BTreeSet<_> = list.iter().map(ids).collect();
            let shown: BTreeSet<_> = reader.state().iter().map(|object| ids(object)).collect();
            there == shown
        };
        let script = async {
            wait_until("the store is filled", same).await;
            written.push(create("during").await);
            wait_until("the store follows", same).await;
            hub.kill_9();
            hub.restart();
            api.delete("goes", &DeleteParams::default()).await.unwrap();
            written.push(create("after").await);
            wait_until("the store follows the restarted hub", same).await;
            wait_until("the last is told", async || reader.state().len() == 3).await;
        };
        tokio::select! {
            () = follow => panic!("the watch ended"),
            () = script => {}
        }
        let (told, listed) = (told.lock().unwrap().clone(), listed.lock().unwrap().clone());
        // After the restart the objects are listed anew; controllers may have written to them meanwhile.
        let number = |version: &str| version.parse::<u64>().unwrap();
        for (name, version) in &written {
            let mut shown = told.iter().chain(&listed);
            let is_seen = shown.any(|(seen, at)| seen == name && number(at) >= number(version));
            assert!(is_seen, "{name} at {version} was missed: {told:?} {listed:?}");
        }
        let once: BTreeSet<_> = told.iter().collect();
        assert_eq!(once.len(), told.len(), "told twice: {told:?}");
    });
}

#[test]
fn kube_applies_on_the_server_and_sees_conflicts() {
    let tree = tree();
    let hub = tree.hub("cloud");
    block_on(async {
        let api = placements(&hub.kubeconfig()).await;
        let manifest = |sites: u32| {
            json!({
                "apiVersion": "avocet.dev/v1alpha1", "kind": "Placement", "metadata": {"name": "edge"},
                "spec": {"tiers": ["edge"], "numberOfSites": sites},
            })
        };
        let apply = async |parameters: PatchParams, sites: u32| {
            api.patch("edge", &parameters, &Patch::Apply(manifest(sites))).await
        };
        let applied = apply(PatchParams::apply("one"), 1).await.unwrap();
        assert_eq!(applied.spec.number_of_sites, Some(1));
        let conflict = apply(PatchParams::apply("two"), 2).await.unwrap_err();
        let kube::Error::Api(status) = conflict else { panic!("{conflict}") };
        assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
        assert!(status.message.contains("conflict with \"one\": .spec.numberOfSites"), "{}", status.message);
        let forced = apply(PatchParams::apply("two").force(), 2).await.unwrap();
        assert_eq!(forced.spec.number_of_sites, Some(2));
        let managers: BTreeSet<_> =
            forced.managed_fields().iter().filter_map(|entry| entry.manager.clone()).collect();
        assert!(managers.is_superset(&BTreeSet::from(["one".to_owned(), "two".to_owned()])), "{managers:?}");

        let merge = Patch::Merge(json!({"spec": {"numberOfSites": 3}}));
        let merged = api.patch("edge", &PatchParams::default(), &merge).await.unwrap();
        assert_eq!(merged.spec.number_of_sites, Some(3));
        let mut stale = forced;
        stale.spec.number_of_sites = Some(4);
        let refused = api.replace("edge", &PostParams::default(), &stale).await.unwrap_err();
        assert!(matches!(refused, kube::Error::Api(status) if status.code == 409));
        wait_until("a status is reported", async || {
            api.get("edge").await.is_ok_and(|found| found.status.is_some())
        })
        .await;
    });
}
