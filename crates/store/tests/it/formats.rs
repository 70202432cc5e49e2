//! Databases of older formats stay readable.

use std::path::{Path, PathBuf};

use avocet_store::{Deletion, FORMAT, Key, Ledger, Store, backup};

use super::{manifest, now};

const PLURALS: [&str; 7] =
    ["applications", "assignments", "functions", "models", "placementdecisions", "placements", "sites"];

fn copy_of_sample(name: &str, folder: &Path) -> PathBuf {
    let sample = Path::new("tests/data").join(name);
    let path = folder.join("hub.db");
    std::fs::write(&path, std::fs::read(sample).unwrap()).unwrap();
    path
}

#[tokio::test]
async fn all_that_a_database_of_format_1_holds_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = copy_of_sample("format-1.db", folder.path());
    let ledger = Ledger::open(&path).unwrap();
    let store = Store::open(ledger.clone(), &PLURALS).unwrap();
    let names = |plural: &'static str| -> Vec<String> {
        store.list(plural, None).0.iter().map(|object| object.key.to_string()).collect()
    };
    assert_eq!(names("applications"), ["applications/default/letters"]);
    assert_eq!(names("assignments"), ["assignments/cloud/copy.letters.default"]);
    assert_eq!(names("functions"), ["functions/default/copy"]);
    assert_eq!(names("placements"), ["placements/default/everywhere", "placements/default/held"]);
    assert_eq!(
        names("placementdecisions"),
        ["placementdecisions/default/everywhere", "placementdecisions/default/held"]
    );
    assert_eq!(names("sites"), ["sites/cloud"]);
    let held = store.get(&Key::new("placements", "default", "held")).unwrap();
    assert!(held.metadata.deletion_timestamp.is_some());
    assert_eq!(held.metadata.finalizers, ["avocet.dev/test"]);
    assert_eq!(held.manifest()["metadata"]["managedFields"].as_array().unwrap().len(), 1);
    let function = store.get(&Key::new("functions", "default", "copy")).unwrap();
    assert_eq!(function.metadata.annotations["note"], "grüße, 你好");
    let tokens: Vec<(String, serde_json::Value)> =
        ledger.read(|tables| tables.range("tokens", "", "", 10)).unwrap();
    assert_eq!(tokens.len(), 2);
    // The highest version belonged to what was deleted.
    let created = store.create(Key::new("models", "default", "new"), manifest(1), now()).await.unwrap();
    assert!(created.version() > 29, "{}", created.version());
}

#[test]
fn an_older_database_is_kept_as_it_was_until_the_next_migration() {
    let folder = tempfile::tempdir().unwrap();
    let path = copy_of_sample("format-1.db", folder.path());
    Ledger::open(&path).unwrap();
    assert_eq!(FORMAT, 1, "a new format needs a sample of the one before");
    let old = folder.path().join("hub.db.before-migration");
    let store = Store::open(Ledger::open(&old).unwrap(), &PLURALS).unwrap();
    assert_eq!(store.list("placements", None).0.len(), 2);
}

#[test]
fn a_damaged_database_is_refused_with_the_way_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = copy_of_sample("format-1.db", folder.path());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096..8192].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    let refused = Ledger::open(&path).err().unwrap().to_string();
    assert!(refused.contains("avocet restore"), "{refused}");
}

#[tokio::test]
async fn versions_go_on_after_the_highest_was_deleted_and_after_being_raised() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hub.db");
    let key = Key::new("models", "default", "a");
    let store = Store::open(Ledger::open(&path).unwrap(), &PLURALS).unwrap();
    store.create(key.clone(), manifest(1), now()).await.unwrap();
    let deleted = store.delete(key.clone(), Deletion::at(now())).await.unwrap().version();
    drop(store);

    assert_eq!(Store::open(Ledger::open(&path).unwrap(), &PLURALS).unwrap().version(), deleted);
    let copy = folder.path().join("copy.db");
    backup::copy_database(&path, &copy, |_, _| {}).unwrap();
    assert_eq!(backup::prepare_restored(&copy, 1000).unwrap(), 1000);
    assert_eq!(backup::prepare_restored(&copy, 10).unwrap(), 1000);
    let store = Store::open(Ledger::open(&copy).unwrap(), &PLURALS).unwrap();
    assert!(store.watch(deleted).is_err(), "what was seen before is too old");
    let created = store.create(key, manifest(1), now()).await.unwrap();
    assert!(created.version() > 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_of_one_moment_while_writes_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hub.db");
    let ledger = Ledger::open(&path).unwrap();
    let put_both = |value: u32| {
        ledger.write(move |tables| {
            tables.put("t", "left", &value)?;
            tables.put("t", "right", &value)
        })
    };
    put_both(0).await.unwrap();
    for copy in 0..20 {
        let to = folder.path().join(format!("copy-{copy}.db"));
        let (from, target) = (ledger.clone(), to.clone());
        let copying = tokio::task::spawn_blocking(move || from.backup(&target));
        let mut value = 1;
        while !copying.is_finished() {
            put_both(value).await.unwrap();
            value += 1;
        }
        copying.await.unwrap().unwrap();
        backup::check_database(&to).unwrap();
        let copied = Ledger::open(&to).unwrap();
        let read = |key| copied.read(|tables| tables.get::<u32>("t", key)).unwrap().unwrap();
        assert_eq!(read("left"), read("right"));
    }
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_str().unwrap().ends_with(".part")), "{left:?}");
}
