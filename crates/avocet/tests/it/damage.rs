//! Disks that lie.

use std::path::{Path, PathBuf};

use serde_json::json;
use testkit::{LIMIT, wait_until};

use crate::support::{
    application, apply, model, put, serving, start_letters, tree, wait_for_object, wait_until_model_answers,
};

/// The file of an artifact in a store's folder.
fn blob(store: &Path, digest: &str) -> PathBuf {
    let hex = digest.trim_start_matches("sha256:");
    let mut open = vec![store.join("blobs")];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                open.push(entry);
            } else if entry.to_str().unwrap().replace('/', "").ends_with(hex) {
                return entry;
            }
        }
    }
    panic!("{digest} is not in {}", store.display());
}

fn flip_a_byte(file: &Path) {
    let mut content = std::fs::read(file).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 0x20;
    // Over the old content, as a disk would do it; the file may be write-protected.
    std::fs::remove_file(file).unwrap();
    std::fs::write(file, content).unwrap();
}

#[test]
fn a_model_with_a_flipped_byte_is_never_served_and_heals_at_the_hub_and_at_the_site() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let mut edge = tree.site(&hub, "edge", &[]);
    start_letters(&tree, &hub);
    let manifest = model("affine");
    let path = manifest["spec"]["versions"][0]["artifact"]["path"].as_str().unwrap();
    let pushed = hub.cli(&["push", path]).ok();
    let digest = pushed.split_whitespace().next().unwrap();

    // At the hub, before any site has it: the component is not ready and says which artifact; others run on.
    let at_hub = blob(&hub.process.data().join("hub/artifacts"), digest);
    flip_a_byte(&at_hub);
    apply(&tree, &hub, &[manifest, application("models", &json!([serving("affine", "edge")]))]);
    wait_until("the application names the damaged artifact", LIMIT, || {
        let seen = hub.cli(&["get", "application", "models", "-o", "json"]).json();
        let message = seen["status"]["conditions"][0]["message"].as_str().unwrap_or_default().to_owned();
        if message.contains(digest) { Ok(()) } else { Err(message) }
    });
    put(&tree, &edge, "letters/in/one.txt", "unharmed");
    assert_eq!(wait_for_object(&tree, &hub, "letters/counts/one.txt"), "8");
    flip_a_byte(&at_hub);
    hub.wait_until_ready("models");
    wait_until_model_answers(&edge, "affine");

    // On the site's own disk while nobody looks: put aside at the next start, and fetched again.
    edge.kill_9();
    let store = edge.data().join("artifacts");
    flip_a_byte(&blob(&store, digest));
    edge.restart();
    wait_until_model_answers(&edge, "affine");
    assert_eq!(std::fs::read_dir(store.join("quarantine")).unwrap().count(), 1);
    assert!(edge.process.output().contains("damaged"), "{}", edge.process.output());
}
