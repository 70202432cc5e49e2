//! The registries of a hub and a site, as podman and skopeo and people who serve models meet them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use testkit::{LIMIT, Ran, Tree, wait_until};
use types::Digest;

use crate::support::{
    application, apply, model, ours, placement, registry, serving, token, tree, write_manifests,
};

pub fn is_there(program: &str) -> bool {
    let ask = if program == "openssl" { "version" } else { "--version" };
    let found = Command::new(program).arg(ask).output().is_ok_and(|ran| ran.status.success());
    if !found {
        println!("skipped: there is no {program} in the path");
    }
    found
}

/// An image in a folder, as skopeo reads it; answers its manifest.
pub fn image(tree: &Tree) -> (PathBuf, Value) {
    let layer = b"a layer";
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(layer)]},
    })
    .to_string();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::of(config.as_bytes()), "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": Digest::of(layer), "size": layer.len(),
        }],
    });
    tree.write(&format!("image/{}", Digest::of(layer).hex()), layer);
    tree.write(&format!("image/{}", Digest::of(config.as_bytes()).hex()), config);
    tree.write("image/version", "Directory Transport Version: 1.1\n");
    let file = tree.write("image/manifest.json", manifest.to_string());
    (file.parent().unwrap().to_owned(), manifest)
}

pub fn skopeo(arguments: &[&str]) -> Ran {
    Ran::of(Command::new("skopeo").args(["--insecure-policy"]).args(arguments))
}

fn pull(from: &str, password: &str, to: &Path) -> Ran {
    let (from, to) = (format!("docker://{from}"), format!("dir:{}", to.display()));
    skopeo(&["copy", "--src-tls-verify=false", "--src-creds", &format!("me:{password}"), &from, &to])
}

pub fn manifest_in(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).unwrap()).unwrap()
}

#[test]
fn an_image_survives_kill_9_and_is_pulled_from_a_site_whose_hub_is_gone() {
    if !is_there("skopeo") {
        return;
    }
    let tree = tree();
    let mut hub = tree.hub("cloud");
    let site = tree.site(&hub, "edge", &[]);
    let (folder, manifest) = image(&tree);
    let creds = format!("me:{}", token(&hub));
    let (from, to) =
        (format!("dir:{}", folder.display()), format!("docker://{}/team/app:v1", registry(&hub)));
    // Without the flag, skopeo compresses layers on their way.
    skopeo(&["copy", "--preserve-digests", "--dest-tls-verify=false", "--dest-creds", &creds, &from, &to])
        .ok();
    hub.kill_9();
    hub.restart();
    let pulled = tree.folder().join("pulled");
    let at_hub = format!("{}/team/app:v1", registry(&hub));
    pull(&at_hub, &token(&hub), &pulled).ok();
    assert_eq!(manifest_in(&pulled), manifest);
    assert!(!pull(&at_hub, "0123456789", &pulled).success);

    let at_site = format!("{}/team/app:v1", site.access("registry"));
    pull(&at_site, &site.access("token"), &tree.folder().join("cached")).ok();
    hub.kill_9();
    let again = tree.folder().join("again");
    pull(&at_site, &site.access("token"), &again).ok();
    assert_eq!(manifest_in(&again), manifest);
    assert!(!pull(&at_site, "0123456789", &again).success);
    hub.restart();
}

#[test]
fn podman_pushes_and_pulls() {
    if !is_there("podman") {
        return;
    }
    let tree = tree();
    let hub = tree.hub("cloud");
    let folder = tree.folder().join("podman");
    let root = |part: &str| folder.join(part).display().to_string();
    let (storage, running, settings) = (root("storage"), root("run"), root("containers.conf"));
    tree.write(
        "podman/containers.conf",
        "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=512:512\"]\n",
    );
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", &settings);
        command.args(["--root", &storage, "--runroot", &running, "--storage-driver", "vfs"]).args(arguments);
        Ran::of(&mut command)
    };
    tree.write("build/hello", "hello");
    tree.write("build/Containerfile", "FROM scratch\nCOPY hello /hello\n");
    let name = format!("{}/team/hello:v1", registry(&hub));
    let build = tree.folder().join("build").display().to_string();
    podman(&["build", "--quiet", "--tag", &name, &build]).ok();
    let creds = format!("me:{}", token(&hub));
    podman(&["push", "--quiet", "--tls-verify=false", "--creds", &creds, &name]).ok();
    podman(&["rmi", "--all", "--force"]).ok();
    podman(&["pull", "--quiet", "--tls-verify=false", "--creds", &creds, &name]).ok();
    let shown = podman(&["image", "inspect", &name]).json();
    assert_eq!(shown[0]["RepoTags"], json!([name]));
    assert!(!podman(&["pull", "--tls-verify=false", "--creds", "me:0123456789", &name]).success);
}

/// Needs a Python with oras, named by `AVOCET_TEST_PYTHON`.
#[test]
fn oras_pushes_and_pulls_and_models_packed_by_others_are_served() {
    let Ok(python) = std::env::var("AVOCET_TEST_PYTHON") else {
        println!("skipped: AVOCET_TEST_PYTHON names no Python with oras");
        return;
    };
    let tree = tree();
    let hub = tree.hub("cloud");
    let file = model_file();
    let mut session = Command::new(python);
    session.arg(ours("tests/clients/oras_session.py")).args([&registry(&hub), &token(&hub), &file]);
    Ran::of(&mut session).ok();
    let digest = Digest::of(&std::fs::read(&file).unwrap()).to_string();
    let mut model = model("affine");
    let packings = ["gzip", "tar", "docs", "car"];
    model["spec"]["versions"] = packings
        .map(|tag| json!({"name": tag, "artifact": {"path": format!("oci://models/packed:{tag}")}}))
        .into();
    apply(&tree, &hub, &[model]);
    let stored = hub.cli(&["get", "model", "affine", "-o", "json"]).json();
    for (version, packing) in stored["spec"]["versions"].as_array().unwrap().iter().zip(packings) {
        assert_eq!(version["artifact"]["digest"], digest, "{packing}");
    }
}

/// The file that [`model`] serves.
pub fn model_file() -> String {
    model("affine")["spec"]["versions"][0]["artifact"]["path"].as_str().unwrap().to_owned()
}

#[test]
fn a_model_is_served_from_the_registry_and_not_collected() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let file = model_file();
    let digest = Digest::of(&std::fs::read(&file).unwrap()).to_string();
    let pushed = hub.cli(&["model", "push", &file, "models/affine:v1"]).ok();
    assert!(pushed.starts_with("models/affine@sha256:"), "{pushed}");
    hub.cli(&["model", "push", &file, "models/affine:car", "--modelcar"]).ok();
    let mut model = model("affine");
    model["spec"]["versions"] = json!([
        {"name": "1", "artifact": {"path": "oci://models/affine:v1"}},
        {"name": "2", "artifact": {"path": "oci://models/affine:car"}},
    ]);
    apply(
        &tree,
        &hub,
        &[placement("cloud"), model, application("app", &json!([serving("affine", "cloud")]))],
    );
    hub.wait_until_ready("app");
    let stored = hub.cli(&["get", "model", "affine", "-o", "json"]).json();
    for version in stored["spec"]["versions"].as_array().unwrap() {
        assert_eq!(version["artifact"]["digest"], digest, "both hold the very file");
        let source = version["artifact"]["source"].as_str().unwrap();
        assert!(source.starts_with("oci://models/affine@sha256:"), "{source}");
    }
    let junk = tree.write("junk", "nobody needs this");
    hub.cli(&["push", &junk.display().to_string()]).ok();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let gone = hub.cli(&["artifact", "gc", "--minimum-age", "1s", "--dry-run", "-o", "json"]).json();
    assert_eq!(gone["blobs"], 1);
    assert_eq!(hub.cli(&["artifact", "gc", "--minimum-age", "1s", "-o", "json"]).json(), gone);
    let site = tree.site(&hub, "late", &["--tier", "cloud"]);
    let file_there = site.data().join("artifacts/blobs").join(&digest["sha256:".len()..]);
    wait_until("a site that joins later has the model", LIMIT, || {
        if file_there.is_file() { Ok(()) } else { Err(format!("{} is not there", file_there.display())) }
    });
    let nowhere = hub.cli(&["model", "push", &file, "Not A Place"]).refused();
    assert!(nowhere.contains("is not a place in a registry"), "{nowhere}");
}

#[test]
fn a_site_that_demands_signatures_starts_nothing_without_one_and_says_so() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let data = ours("../artifacts/tests/data");
    let [key, trusted] = ["signer.pem", "signer.pub.pem"].map(|file| data.join(file).display().to_string());
    let _site = tree.site(&hub, "strict", &["--require-signatures", &trusted]);
    let manifests =
        [placement("edge"), model("affine"), application("app", &json!([serving("affine", "edge")]))];
    apply(&tree, &hub, &manifests);
    let refused = wait_until("the site refuses the model", LIMIT, || {
        let shown = hub.cli(&["-n", "strict", "get", "assignments", "-o", "json"]).json().to_string();
        if shown.contains("ArtifactUnsigned") { Ok(shown) } else { Err(shown) }
    });
    assert!(refused.contains("has no valid signature by a trusted key"), "{refused}");
    let file = write_manifests(&tree, "signed.yaml", &manifests);
    hub.cli(&["apply", "-f", &file, "--sign-key", &key]).ok();
    hub.wait_until_ready("app");

    let signature = hub.cli(&["artifact", "sign", "--key", &key, &model_file()]).ok();
    let verify = |what: &str| hub.cli(&["artifact", "verify", "--key", &trusted, what, signature.trim()]);
    verify(&model_file()).ok();
    assert!(verify(&Digest::of(b"another").to_string()).refused().contains("no valid signature"));
}
