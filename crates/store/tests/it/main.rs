//! What the store promises: exact compare-and-swap, watches that miss and repeat nothing, finalizers, durability.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods
)]
mod durability;
mod formats;
mod properties;
mod sealing;

use avocet_store::{Deletion, Error, EventKind, Key, Ledger, Store};
use serde_json::{Value, json};
use types::Time;

const PLURALS: [&str; 2] = ["models", "sites"];

fn now() -> Time {
    Time("2026-01-01T00:00:00Z".parse().unwrap())
}

fn store() -> Store {
    Store::open(Ledger::memory().unwrap(), &PLURALS).unwrap()
}

fn key(name: &str) -> Key {
    Key::new("models", "default", name)
}

fn manifest(value: u32) -> Value {
    json!({"metadata": {}, "spec": {"value": value}, "status": {}})
}

#[tokio::test]
async fn a_write_with_an_old_version_is_refused_and_names_both() {
    let store = store();
    let created = store.create(key("a"), manifest(1), now()).await.unwrap();
    let mut mine = created.manifest();
    mine["spec"]["value"] = json!(2);
    store.update(key("a"), mine.clone(), false).await.unwrap();
    let refused = store.update(key("a"), mine, false).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Conflict { expected, .. } if *expected == created.metadata.resource_version)
    );
}

#[tokio::test]
async fn of_many_who_swap_at_once_exactly_one_wins_each_round() {
    let store = store();
    let mut current = store.create(key("a"), manifest(0), now()).await.unwrap();
    for round in 1..20_u32 {
        let tries = (0..8).map(|writer| {
            let mut mine = current.manifest();
            mine["spec"]["value"] = json!(round * 100 + writer);
            store.update(key("a"), mine, false)
        });
        let won = futures_join(tries).await.into_iter().filter(Result::is_ok).count();
        assert_eq!(won, 1, "round {round}");
        current = store.get(&key("a")).unwrap();
    }
}

/// Polls all together, so that they meet in one group; answers in their order.
async fn futures_join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, answer) in waiting.iter_mut().filter(|(_, answer)| answer.is_none()) {
            if let std::task::Poll::Ready(ready) = future.as_mut().poll(context) {
                *answer = Some(ready);
            }
        }
        let is_done = waiting.iter().all(|(_, answer)| answer.is_some());
        if is_done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    waiting.into_iter().filter_map(|(_, answer)| answer).collect()
}

#[tokio::test]
async fn status_and_spec_are_written_apart_and_only_the_spec_counts_generations() {
    let store = store();
    let created = store.create(key("a"), manifest(1), now()).await.unwrap();
    let mut report = created.manifest();
    report["spec"]["value"] = json!(99);
    report["status"] = json!({"ready": true});
    let reported = store.update(key("a"), report, true).await.unwrap();
    assert_eq!(reported.manifest()["spec"]["value"], 1);
    assert_eq!(reported.metadata.generation, 1);
    let mut changed = reported.manifest();
    changed["spec"]["value"] = json!(2);
    changed["status"] = json!({});
    let changed = store.update(key("a"), changed, false).await.unwrap();
    assert_eq!(changed.manifest()["status"]["ready"], true);
    assert_eq!(changed.metadata.generation, 2);
}

#[tokio::test]
async fn a_write_that_changes_nothing_makes_no_version() {
    let store = store();
    let created = store.create(key("a"), manifest(1), now()).await.unwrap();
    let same = store.update(key("a"), created.manifest(), false).await.unwrap();
    assert_eq!(same.metadata.resource_version, created.metadata.resource_version);
}

#[tokio::test]
async fn a_finalizer_holds_a_deletion_until_it_is_taken_off() {
    let store = store();
    let mut held = manifest(1);
    held["metadata"]["finalizers"] = json!(["avocet.dev/test"]);
    store.create(key("a"), held, now()).await.unwrap();
    let marked = store.delete(key("a"), Deletion::at(now())).await.unwrap();
    assert!(marked.metadata.deletion_timestamp.is_some() && store.get(&key("a")).is_some());
    let mut released = marked.manifest();
    released["metadata"]["finalizers"] = json!([]);
    store.update(key("a"), released, false).await.unwrap();
    assert!(store.get(&key("a")).is_none());
}

#[tokio::test]
async fn a_watch_from_a_list_misses_nothing_and_repeats_nothing() {
    let store = store();
    store.create(key("before"), manifest(0), now()).await.unwrap();
    let (_, version) = store.list("models", None);
    let mut watch = store.watch(version).unwrap();
    for value in 0..50 {
        store.create(key(&format!("n{value}")), manifest(value), now()).await.unwrap();
    }
    store.delete(key("n7"), Deletion::at(now())).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 51 {
        seen.extend(watch.next().await.unwrap());
    }
    let versions: Vec<u64> = seen.iter().map(|event| event.version).collect();
    assert!(versions.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(seen.iter().filter(|event| event.kind == EventKind::Added).count(), 50);
    assert_eq!(seen[50].kind, EventKind::Deleted);
}

#[tokio::test]
async fn a_watch_from_too_long_ago_says_so() {
    let store = store();
    let created = store.create(key("a"), manifest(0), now()).await.unwrap();
    let from: u64 = created.metadata.resource_version.parse().unwrap();
    for value in 1..16_500 {
        let mut next = created.manifest();
        next["metadata"]["resourceVersion"] = json!("");
        next["spec"]["value"] = json!(value);
        store.update(key("a"), next, false).await.unwrap();
    }
    assert!(store.watch(from).is_err());
    assert!(store.watch(store.version()).is_ok());
}

#[tokio::test]
async fn lists_keep_to_their_namespace_and_kind() {
    let store = store();
    for (plural, namespace, name) in
        [("models", "a", "1"), ("models", "a", "2"), ("models", "b", "1"), ("sites", "", "s")]
    {
        store.create(Key::new(plural, namespace, name), manifest(0), now()).await.unwrap();
    }
    assert_eq!(store.list("models", Some("a")).0.len(), 2);
    assert_eq!(store.list("models", None).0.len(), 3);
    assert_eq!(store.list("sites", None).0.len(), 1);
}
