//! A site whose disk gets full.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use testkit::{Hub, LIMIT, Ran, wait_until};

use crate::support::{invocations_of, put, start_letters, tree, wait_for_object, wait_for_state};

/// A small disk of its own; taken away when dropped.
struct Disk(PathBuf);

impl Disk {
    /// None where that isn't allowed.
    fn mount(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(at);
        let is_there = mount.output().is_ok_and(|done| done.status.success());
        if !is_there {
            eprintln!("skipped: a file system can't be mounted here");
        }
        is_there.then(|| Self(at.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// How many bytes are free on the disk of a folder.
fn free(folder: &Path) -> usize {
    let told = Ran::of(Command::new("df").args(["-B1", "--output=avail"]).arg(folder)).ok();
    told.lines().last().unwrap().trim().parse().unwrap()
}

#[track_caller]
fn wait_for_pressure(hub: &Hub, status: &str, words: &str) {
    wait_until(&format!("StoragePressure is {status}"), LIMIT, || {
        let site = hub.cli(&["get", "site", "edge", "-o", "json"]).json();
        let conditions = site["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found =
            conditions.into_iter().find(|one| one["type"] == "StoragePressure").unwrap_or(Value::Null);
        let says = found["message"].as_str().is_some_and(|message| message.contains(words));
        if found["status"] == status && says { Ok(()) } else { Err(found.to_string()) }
    });
}

#[test]
fn promise_1_functions_wait_before_the_disk_is_full_and_go_on_by_themselves() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let mut edge = tree.site_with_token(&hub, "edge", &hub.join_token("edge"), &[]);
    let Some(_disk) = Disk::mount(&edge.process.data(), "96m") else { return };
    edge.restart();
    start_letters(&tree, &hub);
    put(&tree, &edge, "letters/in/first.txt", "first");
    assert_eq!(wait_for_object(&tree, &hub, "letters/counts/first.txt"), "5");
    let log = edge.data().join("logs");
    let logs = || {
        std::fs::read_dir(&log)
            .unwrap()
            .filter(|entry| {
                entry.as_ref().is_ok_and(|entry| entry.path().extension().is_some_and(|end| end == "log"))
            })
            .count()
    };
    assert_eq!(logs(), 1);

    // All but 4 MiB of it; 16 are to be free.
    let filler = edge.process.data().join("filler");
    let size = free(&edge.process.data()) - (4 << 20);
    std::fs::write(&filler, vec![1; size]).unwrap();
    wait_for_pressure(&hub, "True", "functions wait");
    assert_eq!(logs(), 0, "the logs went first");
    put(&tree, &edge, "letters/in/second.txt", "second");
    wait_for_state(&edge, "in/second.txt", "Pending");

    std::fs::remove_file(&filler).unwrap();
    assert_eq!(wait_for_object(&tree, &hub, "letters/counts/second.txt"), "6");
    wait_for_pressure(&hub, "False", "");
    assert_eq!(invocations_of(&edge, "in/second.txt").len(), 1);
}
