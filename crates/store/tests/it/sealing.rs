//! Secrets are sealed on the disk, and readable again only with the key and in their own place.

use std::path::Path;

use avocet_store::{Error, Key, Ledger, Options, Seal, Store};
use serde_json::{Value, json};

use super::now;

const PLURALS: [&str; 2] = ["secrets", "configmaps"];
const SECRET: &str = "aHVudGVyMg-is-what-nobody-may-read";

fn open(folder: &Path, key: &str) -> Result<Store, Error> {
    let seal = Seal::open(&folder.join(key), &["secrets"]).unwrap();
    let options = Options { seal: Some(seal), ..Options::default() };
    Store::open_with(Ledger::open(&folder.join("hub.db")).unwrap(), &PLURALS, options)
}

fn object(kind: &str) -> Value {
    json!({"apiVersion": "v1", "kind": kind, "metadata": {}, "data": {"password": SECRET}})
}

/// How many files of a folder have a text in them.
fn files_with(folder: &Path, text: &str) -> usize {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    files.filter(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes())).count()
}

#[tokio::test]
async fn promise_7_secrets_are_unreadable_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), "key").unwrap();
    let key = Key::new("secrets", "default", "a");
    store.create(key.clone(), object("Secret"), now()).await.unwrap();
    assert_eq!(files_with(folder.path(), SECRET), 0);
    // The same search finds what is not sealed.
    store.create(Key::new("configmaps", "default", "a"), object("ConfigMap"), now()).await.unwrap();
    assert!(files_with(folder.path(), SECRET) > 0);
    let version = store.get(&key).unwrap().version();
    drop(store);
    let again = open(folder.path(), "key").unwrap().get(&key).unwrap();
    assert_eq!((again.manifest()["data"]["password"].as_str(), again.version()), (Some(SECRET), version));
}

#[tokio::test]
async fn a_secret_is_not_read_with_another_key_or_in_another_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hub.db");
    let store = open(folder.path(), "key").unwrap();
    store.create(Key::new("secrets", "default", "a"), object("Secret"), now()).await.unwrap();
    drop(store);
    assert!(matches!(open(folder.path(), "other"), Err(Error::Sealed { .. })));
    assert!(matches!(Store::open(Ledger::open(&path).unwrap(), &PLURALS), Err(Error::Sealed { .. })));
    let ledger = Ledger::open(&path).unwrap();
    let moved = ledger.write(|tables| {
        let stored: Value = tables.get("resources", "secrets/default/a")?.unwrap();
        tables.put("resources", "secrets/mine/a", &stored)
    });
    moved.await.unwrap();
    drop(ledger);
    assert!(matches!(open(folder.path(), "key"), Err(Error::Sealed { .. })));
}

#[tokio::test]
async fn a_secret_that_was_stored_before_there_was_a_key_is_sealed_at_its_next_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hub.db");
    let key = Key::new("secrets", "default", "a");
    let plain = Store::open(Ledger::open(&path).unwrap(), &PLURALS).unwrap();
    plain.create(key.clone(), object("Secret"), now()).await.unwrap();
    drop(plain);
    let store = open(folder.path(), "key").unwrap();
    let mut changed = store.get(&key).unwrap().manifest();
    changed["data"]["more"] = json!("eA==");
    store.update(key, changed, false).await.unwrap();
    let ledger = Ledger::open(&path).unwrap();
    let stored: Value = ledger.read(|tables| tables.get("resources", "secrets/default/a")).unwrap().unwrap();
    assert!(stored["sealed"].is_string() && !stored.to_string().contains(SECRET), "{stored}");
}
