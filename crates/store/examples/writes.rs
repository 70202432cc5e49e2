//! Durable writes per second through a `Store`, at several numbers of concurrent writers: one line of JSON each.
//!
//! `writes FOLDER SECONDS WRITERS...`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a measurement stops at the first thing that is not as it should be"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use avocet_store::{Key, Ledger, Store};
use serde_json::json;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [folder, seconds, writers @ ..] = words.as_slice() else {
        panic!("writes FOLDER SECONDS WRITERS...")
    };
    let time = Duration::from_secs(seconds.parse().expect("seconds"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for count in writers {
        let count: usize = count.parse().expect("a number of writers");
        let path = Path::new(folder).join(format!("{count}.db"));
        let store = Store::open(Ledger::open(&path).unwrap(), &["models"]).unwrap();
        let (rate, mut latencies) = runtime.block_on(measure(&store, count, time));
        latencies.sort_unstable();
        let at = |share: usize| latencies.get(latencies.len() * share / 100).map_or(0, Duration::as_micros);
        println!(
            "{}",
            json!({"writers": count, "writesPerSecond": rate.round(), "p50Micros": at(50), "p99Micros": at(99)})
        );
    }
}

/// Each writer changes an object of its own, again and again; answers writes per second and how long each took.
async fn measure(store: &Store, writers: usize, time: Duration) -> (f64, Vec<Duration>) {
    let started = Instant::now();
    let tasks: Vec<_> =
        (0..writers).map(|writer| tokio::spawn(write(store.clone(), writer, started + time))).collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.unwrap());
    }
    let count = u32::try_from(latencies.len()).unwrap();
    (f64::from(count) / started.elapsed().as_secs_f64(), latencies)
}

async fn write(store: Store, writer: usize, until: Instant) -> Vec<Duration> {
    let now = types::Time(jiff::Timestamp::now());
    let key = Key::new("models", "default", format!("m{writer}"));
    let payload = "x".repeat(700);
    let manifest = json!({
        "apiVersion": "avocet.dev/v1alpha1", "kind": "Model",
        "metadata": {"annotations": {"payload": payload}}, "spec": {"round": 0}, "status": {},
    });
    let mut current = store.create(key.clone(), manifest, now).await.unwrap();
    let mut latencies = Vec::new();
    while Instant::now() < until {
        let mut next = current.manifest();
        next["spec"]["round"] = json!(latencies.len());
        let began = Instant::now();
        current = store.update(key.clone(), next, false).await.unwrap();
        latencies.push(began.elapsed());
    }
    latencies
}
