//! A hub that is lost and made again from a backup.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use testkit::{Hub, LIMIT, Ran, wait_until};

use crate::identities::copy_folder;
use crate::joining::wait_until_it_says;
use crate::kubectl::Kubectl;
use crate::nesting::wait_until_site;
use crate::support::{
    application, apply, function, http, model, placement, serving, tree, wait_until_model_answers,
};

fn avocet(arguments: &[&str]) -> Ran {
    Ran::of(Command::new(env!("CARGO_BIN_EXE_avocet")).args(arguments))
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_hub_goes_on_from_a_backup_that_was_made_while_it_ran_and_old_watches_are_too_old() {
    let tree = tree();
    let mut hub = tree.hub("cloud");
    let code = tree.write("functions/copy.sh", "true\n");
    apply(&tree, &hub, &[placement("cloud"), function("copy", &code)]);
    let data = hub.process.data();
    let file = tree.folder().join("hub.tar");
    let made = avocet(&["backup", shown(&file), "--data", shown(&data), "-o", "json"]).json();
    assert!(made["files"].as_u64().unwrap() >= 6, "{made}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    // Lost after the backup; a client saw its version.
    apply(&tree, &hub, &[placement("later")]);
    let later = hub.cli(&["get", "placement", "later", "-o", "json"]).json();
    let seen: u64 = later["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();

    let restore = ["restore", shown(&file), "--data", shown(&data)];
    let refused = avocet(&restore).refused();
    assert!(refused.contains("a hub runs in"), "{refused}");
    hub.kill_9();
    let refused = avocet(&restore).refused();
    assert!(refused.contains("--force"), "{refused}");
    let restored = avocet(&[&restore[..], &["--force", "-o", "json"]].concat()).json();
    let version: u64 = restored["resourceVersion"].as_str().unwrap().parse().unwrap();
    assert!(version > seen);
    let aside = Path::new(restored["replaced"].as_str().unwrap()).join("hub/hub.db");
    assert!(aside.is_file(), "what was there is kept");

    hub.restart();
    assert!(hub.cli(&["get", "placement", "cloud"]).success, "the same kubeconfig is good");
    hub.cli(&["get", "placement", "later"]).refused();
    let artifacts = data.join("hub/artifacts/blobs");
    assert_eq!(std::fs::read_dir(artifacts).unwrap().count(), 1);
    let watch = format!("/apis/avocet.dev/v1alpha1/placements?watch=true&resourceVersion={seen}");
    if let Some(kubectl) = Kubectl::find(&tree, &hub) {
        let told = kubectl.run(&["get", "--raw", &watch]).ok();
        assert!(told.contains("\"code\":410") && told.contains("too old resource version"), "{told}");
    }
    // The same backup again: versions that were given meanwhile are not given again.
    hub.kill_9();
    let again = avocet(&[&restore[..], &["--force", "-o", "json"]].concat()).json();
    assert!(again["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > version);
}

#[test]
fn promise_1_a_site_obeys_no_hub_that_went_back_until_its_operator_restores_it() {
    let tree = tree();
    let mut hub = tree.hub("cloud");
    let edge = tree.site(&hub, "edge", &[]);
    let assign = |hub: &Hub, name: &str| {
        let serves = application(name, &json!([serving(name, "edge")]));
        apply(&tree, hub, &[placement("edge"), model(name), serves]);
    };
    assign(&hub, "first");
    wait_until_model_answers(&edge, "first");
    // As a machine is copied by those who don't know better: all but the process.
    hub.kill_9();
    let (data, copy) = (hub.process.data(), tree.folder().join("copy"));
    copy_folder(&data, &copy);
    hub.restart();
    assign(&hub, "second");
    wait_until_model_answers(&edge, "second");
    hub.kill_9();
    std::fs::remove_dir_all(&data).unwrap();
    copy_folder(&copy, &data);
    hub.restart();
    wait_until_it_says(&edge, "it is not obeyed");
    wait_until_it_says(&edge, "use `avocet restore`");
    wait_until_model_answers(&edge, "second");

    let file = tree.folder().join("hub.tar");
    avocet(&["backup", shown(&file), "--data", shown(&data)]).ok();
    hub.kill_9();
    avocet(&["restore", shown(&file), "--data", shown(&data), "--force"]).ok();
    hub.restart();
    wait_until("the site follows its hub again", LIMIT, || {
        let url = format!("{}/v2/models/second", edge.access("inference"));
        match http("GET", &url, "", &Value::Null)? {
            (404, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    wait_until_model_answers(&edge, "first");
}

#[test]
fn a_damaged_or_broken_off_backup_changes_nothing() {
    let tree = tree();
    let mut hub = tree.hub("cloud");
    let data = hub.process.data();
    let file = tree.folder().join("hub.tar");
    avocet(&["backup", shown(&file), "--data", shown(&data)]).ok();
    hub.kill_9();
    let good = std::fs::read(&file).unwrap();
    let key = good.windows(11).position(|window| window == b"PRIVATE KEY").unwrap();
    let mut flipped = good.clone();
    flipped[key + 40] ^= 1;
    let new = tree.folder().join("new");
    for (bad, why) in [(&flipped[..], "damaged"), (&good[..good.len() / 2], ""), (b"no tar".as_slice(), "")] {
        std::fs::write(&file, bad).unwrap();
        let refused = avocet(&["restore", shown(&file), "--data", shown(&new)]).refused();
        assert!(refused.contains("nothing was changed") && refused.contains(why), "{refused}");
        assert!(
            !new.join("hub").exists() && !new.join("kubeconfig").exists() && !new.join("restoring").exists()
        );
    }
}

#[test]
fn artifacts_can_be_left_out() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let code = tree.write("functions/copy.sh", "true\n");
    apply(&tree, &hub, &[function("copy", &code)]);
    let file = tree.folder().join("hub.tar");
    let data = hub.process.data();
    avocet(&["backup", shown(&file), "--data", shown(&data), "--without-artifacts"]).ok();
    let new = tree.folder().join("new");
    let said = avocet(&["restore", shown(&file), "--data", shown(&new)]).ok();
    assert!(said.contains("push them again"), "{said}");
    assert!(!new.join("hub/artifacts").exists());
    assert!(new.join("kubeconfig").is_file());
}

#[test]
fn a_hub_below_another_is_the_same_site_again_after_its_disk_was_lost() {
    let tree = tree();
    let top = tree.hub("cloud");
    let mut plant = tree.hub_below(&top, "plant", &[]);
    let _line = tree.site(&plant, "line", &[]);
    let before = wait_until_site(&top, "line", "True", "HeardByParent");
    let (data, file) = (plant.process.data(), tree.folder().join("hub.tar"));
    avocet(&["backup", shown(&file), "--data", shown(&data)]).ok();
    plant.kill_9();
    wait_until_site(&top, "line", "Unknown", "ParentSilent");
    std::fs::remove_dir_all(&data).unwrap();
    let told = avocet(&["restore", shown(&file), "--data", shown(&data), "-o", "json"]).json();
    assert_eq!(told["replaced"], serde_json::Value::Null);
    for secret in ["uplink/credential.pem", "uplink/membership.json", "uplink/uplink.db"] {
        let mode = std::fs::metadata(data.join(secret)).unwrap().permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600, "{secret}");
    }
    plant.restart();
    let after = wait_until_site(&top, "line", "True", "HeardByParent");
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"], "it was never gone above");
    plant.kill_9();
    let again = avocet(&["restore", shown(&file), "--data", shown(&data), "--force", "-o", "json"]).json();
    let aside = Path::new(again["replaced"].as_str().unwrap());
    assert!(aside.join("uplink/credential.pem").is_file() && aside.join("hub/hub.db").is_file());
    plant.restart();
    wait_until_site(&top, "line", "True", "HeardByParent");
}
