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

use avocet_store::{Change, Deletion, Error, EventKind, Key, Ledger, Store};
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
async fn of_changes_that_are_made_together_all_are_made_or_none() {
    let store = store();
    let old = store.create(key("old"), manifest(1), now()).await.unwrap();
    let (_, version) = store.list("models", None);
    let mut replaced = old.manifest();
    replaced["spec"]["value"] = json!(2);
    replaced["status"] = json!({"ready": true});
    let put =
        |name: &str, manifest: &Value| Change::Put { key: key(name), manifest: manifest.clone(), now: now() };
    let gone = Change::Delete { key: key("gone"), deletion: Deletion::at(now()) };
    let refused = vec![put("new", &manifest(3)), put("old", &replaced), gone.clone()];
    let error = store.change_all(refused).await.unwrap_err();
    assert!(matches!(error, Error::NotFound(missing) if missing == key("gone")));
    assert_eq!(store.version(), version);
    assert_eq!(store.get(&key("old")).unwrap(), old);
    assert!(store.get(&key("new")).is_none());

    let mut watch = store.watch(version).unwrap();
    store.create(key("gone"), manifest(0), now()).await.unwrap();
    let status = json!({"metadata": {}, "status": {"ready": false}});
    let status = Change::Update { key: key("new"), manifest: status, status: true };
    let made = vec![put("new", &manifest(3)), put("old", &replaced), gone, status];
    store.change_all(made).await.unwrap();
    let changed = store.get(&key("old")).unwrap();
    assert_eq!((&changed.manifest()["spec"]["value"], changed.metadata.generation), (&json!(2), 2));
    assert_eq!(changed.manifest()["status"]["ready"], true, "a status is put with all else");
    assert_eq!(changed.metadata.uid, old.metadata.uid);
    let new = store.get(&key("new")).unwrap().manifest();
    assert_eq!((&new["spec"]["value"], &new["status"]["ready"]), (&json!(3), &json!(false)));
    assert!(store.get(&key("gone")).is_none());
    let mut seen = Vec::new();
    while seen.len() < 5 {
        seen.extend(watch.next().await.unwrap());
    }
    let versions: Vec<u64> = seen.iter().map(|event| event.version).collect();
    assert_eq!(versions, (version + 1..version + 6).collect::<Vec<u64>>());
}

#[tokio::test]
async fn who_puts_what_changed_meanwhile_is_refused_and_who_puts_what_is_there_makes_nothing_twice() {
    let store = store();
    let old = store.create(key("a"), manifest(1), now()).await.unwrap();
    store.update(key("a"), manifest(2), false).await.unwrap();
    let stale = Change::Put { key: key("a"), manifest: old.manifest(), now: now() };
    assert!(matches!(store.change_all(vec![stale]).await, Err(Error::Conflict { .. })));
    let new = Change::Put { key: key("a"), manifest: manifest(3), now: now() };
    assert!(matches!(store.change_all(vec![new]).await, Err(Error::Exists(_))));
    assert_eq!(store.get(&key("a")).unwrap().manifest()["spec"]["value"], 2);
}

#[tokio::test]
async fn changes_that_fail_leave_nothing_for_others_of_their_commit() {
    let store = store();
    let make = |names: [&str; 2]| {
        let creations =
            names.map(|name| Change::Create { key: key(name), manifest: manifest(1), now: now() });
        store.change_all(creations.into())
    };
    // All are in one commit; the second one fails at its second change.
    let made = futures_join([make(["a", "b"]), make(["c", "a"]), make(["c", "d"])].into_iter()).await;
    assert_eq!(made.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    let (stored, _) = store.list("models", None);
    let versions: Vec<(&str, u64)> =
        stored.iter().map(|object| (object.key.name.as_str(), object.version())).collect();
    assert_eq!(versions, [("a", 2), ("b", 3), ("c", 4), ("d", 5)]);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_seen_while_others_write_can_be_watched_from() {
    let store = store();
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for number in 0..2000 {
                store.create(key(&format!("m{number}")), manifest(number), now()).await.unwrap();
            }
        }
    });
    while !writer.is_finished() {
        let version = store.version();
        assert!(store.watch(version).is_ok(), "{version}");
    }
    writer.await.unwrap();
}
