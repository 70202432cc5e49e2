//! Promise 2: an acknowledged write survives `kill -9`.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use avocet_store::{Change, Key, Ledger, Store};

use super::{manifest, now};

/// Not a test by itself: the process that `promise_2_…` kills. It tells each write that was acknowledged.
#[tokio::test]
async fn writer_process() {
    let Ok(path) = std::env::var("AVOCET_STORE_WRITER") else { return };
    let store = Store::open(Ledger::open(path.as_ref()).unwrap(), &["models"]).unwrap();
    for number in 0.. {
        let both = ["n", "twin"].map(|name| Change::Create {
            key: Key::new("models", "default", format!("{name}{number}")),
            manifest: manifest(number),
            now: now(),
        });
        store.change_all(both.into()).await.unwrap();
        println!("acknowledged n{number}");
    }
}

#[test]
fn promise_2_an_acknowledged_write_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let path = folder.path().join(format!("store-{round}.db"));
        acknowledged.clear();
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "durability::writer_process", "--nocapture"])
            .env("AVOCET_STORE_WRITER", &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            if let Some((_, name)) = line.split_once("acknowledged ") {
                acknowledged.push(name.to_owned());
            }
            if acknowledged.len() == 40 {
                writer.kill().unwrap();
            }
        }
        writer.wait().unwrap();
        let store = Store::open(Ledger::open(&path).unwrap(), &["models"]).unwrap();
        assert!(acknowledged.len() >= 40);
        for name in &acknowledged {
            assert!(store.get(&Key::new("models", "default", name)).is_some(), "{name} was acknowledged");
        }
        let (stored, _) = store.list("models", None);
        let (twins, ones): (Vec<&str>, Vec<&str>) =
            stored.iter().map(|object| object.key.name.as_str()).partition(|name| name.starts_with("twin"));
        let of_twins: Vec<String> = twins.iter().map(|name| name.replace("twin", "n")).collect();
        assert_eq!(of_twins, ones, "what was written together is there together");
    }
}
