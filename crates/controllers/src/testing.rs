//! What tests of controllers share: a store of all kinds in memory, a time to begin at, and people who apply.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use store::{Key, Ledger, Store};
use types::{Kind, Resource, Time};

/// An empty store of all kinds.
pub fn store() -> Store {
    let plurals: Vec<&'static str> = types::kinds().map(|info| info.plural).collect();
    Store::open(Ledger::memory().unwrap(), &plurals).unwrap()
}

/// A time that people read, so many seconds after the beginning.
pub fn at(seconds: i64) -> Time {
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    Time(start + SignedDuration::from_secs(seconds))
}

/// Creates or changes what people write.
pub async fn apply(store: &Store, kind: &str, name: &str, spec: Value, now: Time) {
    let info = types::kind_named(kind).unwrap();
    let namespace = if info.namespaced { "default" } else { "" };
    let key = Key::new(info.plural, namespace, name);
    let known = store.get(&key).map(|object| object.manifest());
    let mut manifest = known.clone().unwrap_or_else(|| {
        json!({"apiVersion": types::API_VERSION, "kind": info.kind,
            "metadata": {"name": name, "namespace": namespace}})
    });
    manifest["spec"] = spec;
    let manifest = info.admit(&manifest).unwrap();
    match known {
        None => drop(store.create(key, manifest, now).await.unwrap()),
        Some(_) => drop(store.update(key, manifest, false).await.unwrap()),
    }
}

/// Changes what is there, if it is there.
pub async fn change<S: Kind>(
    store: &Store,
    (namespace, name): (&str, &str),
    is_status: bool,
    change: impl FnOnce(&mut Resource<S>),
) {
    let key = Key::new(S::PLURAL, namespace, name);
    let Some(object) = store.get(&key) else { return };
    let mut resource: Resource<S> = object.parse().unwrap();
    change(&mut resource);
    let mut manifest = serde_json::to_value(&resource).unwrap();
    manifest["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    store.update(key, manifest, is_status).await.unwrap();
}
