//! What holds for every interleaving of writes, reconnects, slow readers, forgotten history and restarts.

use std::collections::BTreeMap;
use std::sync::Arc;

use avocet_store::{Deletion, Error, EventKind, HistoryLimits, Key, Ledger, Options, Store, Watch};
use proptest::prelude::*;
use serde_json::json;

use super::{PLURALS, key, manifest, now, store};

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// Creates an object or changes it, together with others in one group.
    Write {
        names: Vec<u8>,
    },
    Delete {
        name: u8,
    },
    /// A change of another kind, which no watcher of models must notice.
    Elsewhere,
    /// The reader takes what there is.
    Read,
    /// The reader's connection breaks; it goes on from the last version that it saw.
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(0..6_u8, 1..5).prop_map(|names| Step::Write { names }),
        2 => (0..6_u8).prop_map(|name| Step::Delete { name }),
        1 => Just(Step::Elsewhere),
        3 => Just(Step::Read),
        2 => Just(Step::Reconnect),
    ]
}

/// A client that lists once and then only follows changes, as controllers do.
struct Reader {
    store: Store,
    watch: Watch,
    state: BTreeMap<String, u64>,
    seen: Vec<u64>,
    relists: usize,
}

impl Reader {
    fn new(store: &Store) -> Self {
        let (state, watch) = list(store);
        Self { store: store.clone(), watch, state, seen: Vec::new(), relists: 0 }
    }

    fn relist(&mut self) {
        (self.state, self.watch) = list(&self.store);
        self.relists += 1;
    }

    fn reconnect(&mut self) {
        match self.store.watch_kind("models", self.watch.version()) {
            Ok(watch) => self.watch = watch,
            Err(_) => self.relist(),
        }
    }

    /// Takes all changes that there are.
    async fn read(&mut self) {
        while self.watch.progress().is_none() {
            let Ok(events) = self.watch.next().await else {
                self.relist();
                continue;
            };
            for event in events {
                let name = event.object.key.name.clone();
                assert_eq!(event.object.key.plural, "models");
                assert_eq!(event.version, event.object.version());
                let before = event.previous.as_ref().map(|object| object.version());
                assert_eq!(self.state.get(&name).copied(), before, "a change was missed or repeated");
                match event.kind {
                    EventKind::Added => assert!(before.is_none()),
                    EventKind::Modified | EventKind::Deleted => assert!(before.is_some()),
                }
                match event.kind {
                    EventKind::Deleted => self.state.remove(&name),
                    _ => self.state.insert(name, event.version),
                };
                self.seen.push(event.version);
            }
        }
    }
}

fn list(store: &Store) -> (BTreeMap<String, u64>, Watch) {
    let (objects, version) = store.list("models", None);
    let state = objects.iter().map(|object| (object.key.name.clone(), object.version())).collect();
    (state, store.watch_kind("models", version).unwrap())
}

async fn write(store: &Store, name: u8, value: u32) {
    let key = key(&format!("n{name}"));
    match store.update(key.clone(), manifest(value), false).await {
        Err(Error::NotFound(_)) => match store.create(key, manifest(value), now()).await {
            Ok(_) | Err(Error::Exists(_)) => {}
            Err(error) => panic!("{error}"),
        },
        Ok(_) => {}
        Err(error) => panic!("{error}"),
    }
}

async fn run(store: &Store, steps: &[Step]) -> Reader {
    let mut reader = Reader::new(store);
    for (value, step) in (1_u32..).zip(steps) {
        match step {
            Step::Write { names } => {
                let writes = names.iter().map(|name| write(store, *name, value));
                super::futures_join(writes).await;
            }
            Step::Delete { name } => drop(store.delete(key(&format!("n{name}")), Deletion::at(now())).await),
            Step::Elsewhere => {
                let site = Key::new("sites", "", format!("s{}", store.version()));
                store.create(site, manifest(value), now()).await.unwrap();
            }
            Step::Read => reader.read().await,
            Step::Reconnect => reader.reconnect(),
        }
    }
    reader.read().await;
    reader
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_watch_misses_nothing_and_repeats_nothing_across_reconnects(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let store = store();
        let reader = block_on(run(&store, &steps));
        prop_assert_eq!(reader.relists, 0);
        prop_assert!(reader.seen.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert_eq!(&reader.state, &list(&store).0);
    }

    #[test]
    fn one_who_lists_again_when_history_was_forgotten_ends_with_the_same_state(
        steps in prop::collection::vec(step(), 1..60),
        events in 0..6_usize,
        bytes in 0..4000_usize,
    ) {
        let limits = HistoryLimits { events, bytes, ..HistoryLimits::default() };
        let store = Store::open_with(Ledger::memory().unwrap(), &PLURALS, Options { history: limits, seal: None }).unwrap();
        let reader = block_on(run(&store, &steps));
        prop_assert!(reader.seen.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert_eq!(&reader.state, &list(&store).0);
    }

    #[test]
    fn what_was_acknowledged_is_there_after_reopening_and_versions_go_on(
        before in prop::collection::vec(step(), 1..30),
        after in prop::collection::vec(step(), 1..10),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let store = Store::open(Ledger::open(&path).unwrap(), &PLURALS).unwrap();
        block_on(run(&store, &before));
        let (state, version) = (contents(&store), store.version());
        drop(store);
        let store = Store::open(Ledger::open(&path).unwrap(), &PLURALS).unwrap();
        prop_assert_eq!(contents(&store), state);
        prop_assert_eq!(store.version(), version);
        let reader = block_on(run(&store, &after));
        prop_assert!(reader.seen.iter().all(|seen| *seen > version));
    }
}

fn contents(store: &Store) -> Vec<(Key, serde_json::Value)> {
    let all = PLURALS.iter().flat_map(|plural| store.list(plural, None).0);
    all.map(|object| (object.key.clone(), object.manifest())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_counter_that_many_increment_at_once_counts_every_success() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(Ledger::open(&folder.path().join("store.db")).unwrap(), &PLURALS).unwrap();
    let created = store.create(key("counter"), manifest(0), now()).await.unwrap();
    let mut watch = store.watch_kind("models", created.version()).unwrap();
    let store = Arc::new(store);
    let writers: Vec<_> = (0..16)
        .map(|_| {
            let store = store.clone();
            tokio::task::spawn(async move {
                let mut made = Vec::new();
                for _ in 0..50 {
                    let mut next = store.get(&key("counter")).unwrap().manifest();
                    next["spec"]["value"] = json!(next["spec"]["value"].as_u64().unwrap() + 1);
                    match store.update(key("counter"), next, false).await {
                        Ok(written) => made.push(written.version()),
                        Err(Error::Conflict { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                made
            })
        })
        .collect();
    let mut made = Vec::new();
    for writer in writers {
        made.extend(writer.await.unwrap());
    }
    made.sort_unstable();
    let counted = store.get(&key("counter")).unwrap().manifest()["spec"]["value"].as_u64().unwrap();
    assert_eq!(counted, made.len() as u64);
    let mut seen = Vec::new();
    while seen.len() < made.len() {
        seen.extend(watch.next().await.unwrap().iter().map(|event| event.version));
    }
    assert_eq!(seen, made, "each version is seen once, in order");
}
