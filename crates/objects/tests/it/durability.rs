//! Promise 2: what was acknowledged survives `kill -9`, and nothing is half there.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use avocet_objects::{Limits, Objects, PutOptions};

use super::{open, with_idempotency_key};

fn content(number: u64) -> String {
    format!("object {number} ").repeat(5000)
}

/// Not a test by itself: the process that `promise_2_…` kills. It tells each write that was acknowledged, and keeps
/// replacing one object.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writer_process() {
    let Ok(folder) = std::env::var("AVOCET_OBJECTS_WRITER") else { return };
    let objects = open(Path::new(&folder), Limits::default());
    objects.ensure_bucket("data").await.unwrap();
    let started = objects.latest_sequence();
    for number in started.. {
        let options = with_idempotency_key(&format!("event-{number}"));
        let (key, bytes) = (format!("k/{number:09}"), content(number));
        let new = objects.put_bytes("data", &key, bytes, options);
        let same = objects.put_bytes("data", "same", content(number), PutOptions::default());
        let (new, same) = tokio::join!(new, same);
        new.unwrap();
        same.unwrap();
        println!("acknowledged {number}");
    }
}

async fn check(objects: &Objects, acknowledged: &[u64]) {
    for number in acknowledged {
        let (info, bytes) = objects.read_bytes("data", &format!("k/{number:09}"), 1 << 20).await.unwrap();
        assert_eq!(bytes, content(*number), "{number} was acknowledged");
        assert_eq!(info.digest, types::Digest::of(&bytes));
        // The sender asks again because the acknowledgement was lost on its way.
        let options = with_idempotency_key(&format!("event-{number}"));
        assert_eq!(objects.put_bytes("data", "elsewhere", "again", options).await.unwrap(), info);
    }
    let (info, bytes) = objects.read_bytes("data", "same", 1 << 20).await.unwrap();
    assert_eq!(info.digest, types::Digest::of(&bytes));
    let changes = objects.changes(0, usize::MAX).await.unwrap();
    let sequences: Vec<u64> = changes.iter().map(|change| change.sequence).collect();
    assert_eq!(sequences, (1..=objects.latest_sequence()).collect::<Vec<_>>());
}

#[tokio::test]
async fn promise_2_an_acknowledged_object_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for kill_after in [10, 13, 17, 19] {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "durability::writer_process", "--nocapture"])
            .env("AVOCET_OBJECTS_WRITER", folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut seen = 0;
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            if let Some((_, number)) = line.split_once("acknowledged ") {
                acknowledged.push(number.parse().unwrap());
                seen += 1;
            }
            if seen == kill_after {
                writer.kill().unwrap();
            }
        }
        writer.wait().unwrap();
        assert!(seen >= kill_after);
        let objects = open(folder.path(), Limits::default());
        check(&objects, &acknowledged).await;
        let all = objects.list("data", avocet_objects::List::default()).await.unwrap().objects.len();
        assert_eq!(
            std::fs::read_dir(folder.path().join("blobs")).unwrap().count(),
            all,
            "only garbage was left"
        );
    }
}
