//! Starts, rest, new versions under load, and memory after models are gone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::Bench;
use super::peer::{Peer, Request};
use super::requests::{Load, Loads};
use crate::bench::samples::{median, milliseconds, quantile};
use crate::demo::aligned;
use crate::http::Connection;
use crate::process::Step;

const RELOADS: usize = 50;
const CLIENTS: usize = 16;
/// Models that are loaded and unloaded, 586 KB each as a file.
const MANY: usize = 40;

pub fn measure(bench: &Bench<'_>, loads: &Loads) -> anyhow::Result<String> {
    let mut rows = vec![["MODELS COME AND GO", "", ""].map(str::to_owned)];
    let iris = &loads.iris;
    let file = bench.folder.join("iris.onnx");
    std::fs::copy(&iris.file, &file)?;
    let mut cold = Vec::new();
    let mut resting = (0.0, 0.0);
    for round in 0..bench.options.rounds.max(1) {
        let (peer, _) = bench.avocet(&[&file.display().to_string()], &iris.json(&iris.path))?;
        cold.push(milliseconds(peer.cold));
        if round == 0 {
            std::thread::sleep(Duration::from_secs(3));
            resting = (peer.proportional_bytes()? / 1e6, peer.resident_bytes()? / 1e6);
        }
    }
    rows.push(row("start to first answer, one small model", format!("{:.0} ms", median(&cold)), "median"));
    let (proportional, resident) = resting;
    rows.push(row(
        "rest, one small model",
        format!("{proportional:.1} MB PSS"),
        &format!("{resident:.1} MB RSS"),
    ));
    rows.push(reloads(bench, iris)?);
    rows.push(unload(bench, &loads.ocr)?);
    Ok(aligned(&rows))
}

fn row(what: &str, value: String, note: &str) -> [String; 3] {
    [what.to_owned(), value, note.to_owned()]
}

/// A model's file changes and is loaded anew while clients ask for it.
fn reloads(bench: &Bench<'_>, load: &Load) -> anyhow::Result<[String; 3]> {
    let folder = bench.folder.join("reloaded");
    let version = folder.join(&load.name).join("1");
    std::fs::create_dir_all(&version)?;
    let file = version.join("model.onnx");
    let one = std::fs::read(&load.file)?;
    // The same with a field `doc_string`, so that each load finds another model.
    let other = [&one[..], b"\x32\x01x"].concat();
    std::fs::write(&file, &one)?;
    let arguments = [&folder.display().to_string(), "--model-control", "explicit", "--load-model", "*"];
    let (peer, _) = bench.avocet(&arguments, &load.json(&load.path))?;
    let step = Step::begin(&format!("{RELOADS} reloads under load"));
    let (done, failed) = (AtomicBool::new(false), AtomicU64::new(0));
    let taken = std::thread::scope(|scope| -> anyhow::Result<Vec<f64>> {
        let ask = || asked(&peer, load, &done, &failed);
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(ask)).collect();
        let reloaded = (0..RELOADS).try_for_each(|index| {
            std::fs::write(&file, if index % 2 == 0 { &other } else { &one })?;
            control(&peer, &load.name, "load")
        });
        done.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for client in clients {
            all.extend(client.join().map_err(|_| anyhow::anyhow!("a client of the benchmark panicked"))??);
        }
        reloaded.map(|()| all)
    })?;
    step.done("");
    let failed = failed.into_inner();
    let note = format!("p99 {:.1} ms, longest {:.1} ms", quantile(&taken, 0.99), quantile(&taken, 1.0));
    let what = format!("{RELOADS} reloads under {CLIENTS} clients");
    Ok(row(&what, format!("{failed} of {} requests failed", taken.len()), &note))
}

/// Milliseconds of each request until it is enough.
fn asked(peer: &Peer, load: &Load, done: &AtomicBool, failed: &AtomicU64) -> anyhow::Result<Vec<f64>> {
    let mut connection = Connection::open(&peer.url)?;
    let Request { path, headers, body } = load.json(&load.path);
    let mut taken = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let began = Instant::now();
        if connection.send("POST", path, headers, body)?.0 != 200 {
            failed.fetch_add(1, Ordering::Relaxed);
        }
        taken.push(milliseconds(began.elapsed()));
    }
    Ok(taken)
}

/// Resident memory before models are loaded and after they are unloaded.
fn unload(bench: &Bench<'_>, load: &Load) -> anyhow::Result<[String; 3]> {
    let folder = bench.folder.join("many");
    let name = |index: usize| format!("many{index}");
    for index in 0..MANY {
        let version = folder.join(name(index)).join("1");
        std::fs::create_dir_all(&version)?;
        std::fs::copy(&load.file, version.join("model.onnx"))?;
    }
    // The first rounds bring in what stays for good: the engine's library, buffers, threads.
    let first = name(0);
    let first_path = format!("/v2/models/{first}/infer");
    let arguments = [&folder.display().to_string(), "--model-control", "explicit", "--load-model", &first];
    let (peer, _) = bench.avocet(&arguments, &load.json(&first_path))?;
    let step = Step::begin(&format!("{MANY} models loaded and unloaded"));
    let before = peer.resident_bytes()?;
    let mut most = before;
    for index in 1..MANY {
        control(&peer, &name(index), "load")?;
        let path = format!("/v2/models/{}/infer", name(index));
        send(&peer, &path, &load.body)?;
        most = most.max(peer.resident_bytes()?);
    }
    for index in 1..MANY {
        control(&peer, &name(index), "unload")?;
    }
    std::thread::sleep(Duration::from_secs(3));
    let after = peer.resident_bytes()?;
    step.done("");
    let note = format!(
        "{:.1} MB with all of them, {:.1} before, {:.1} after",
        most / 1e6,
        before / 1e6,
        after / 1e6
    );
    let what = format!("RSS after {} models came and went", MANY - 1);
    Ok(row(&what, format!("{:+.1} %", (after / before - 1.0) * 100.0), &note))
}

fn control(peer: &Peer, model: &str, what: &str) -> anyhow::Result<()> {
    send(peer, &format!("/v2/repository/models/{model}/{what}"), b"{}")
        .with_context(|| format!("can't {what} {model}"))
}

fn send(peer: &Peer, path: &str, body: &[u8]) -> anyhow::Result<()> {
    let json = "Content-Type: application/json\r\n";
    let (status, answer) = Connection::open(&peer.url)?.send("POST", path, json, body)?;
    ensure!(status == 200, "{path}: {status} {}", String::from_utf8_lossy(&answer));
    Ok(())
}
