//! The hub's authority is replaced by another one while sites are in, away, and gone for too long.

use serde_json::{Value, json};
use testkit::{Hub, LIMIT, wait_until};

use crate::nesting::wait_until_site;
use crate::support::tree;

fn authority(hub: &Hub) -> Value {
    hub.cli(&["authority", "show", "-o", "json"]).json()
}

/// Waits until these sites have come over and those have not.
#[track_caller]
fn wait_until_moved(hub: &Hub, moved: &[&str], waiting: &[&str]) -> Value {
    wait_until(&format!("{moved:?} came over"), LIMIT, || {
        let told = authority(hub);
        let is_so = told["moved"] == json!(moved) && told["waiting"] == json!(waiting);
        if is_so { Ok(told) } else { Err(told.to_string()) }
    })
}

/// Waits until each place that tells of the authority tells as many certificates.
#[track_caller]
fn wait_until_told(hub: &Hub, certificates: usize) {
    wait_until(&format!("{certificates} certificates are told"), LIMIT, || {
        let map = hub.cli(&["get", "configmap/kube-root-ca.crt", "-o", "json"]).json();
        let text = map["data"]["ca.crt"].as_str().unwrap_or_default().to_owned();
        let is_known = text == authority(hub)["bundle"];
        let found = text.matches("BEGIN CERTIFICATE").count();
        if found == certificates && is_known { Ok(()) } else { Err(text) }
    });
}

#[test]
fn sites_come_over_to_a_new_authority_by_themselves_and_who_comes_too_late_is_told_to_join_again() {
    let tree = tree();
    let mut hub = tree.hub("cloud");
    let mut plant = tree.site(&hub, "plant", &[]);
    let mut away = tree.site(&hub, "away", &[]);
    let mut late = tree.site(&hub, "late", &[]);
    let first = authority(&hub);
    assert_eq!((&first["next"], first["moved"].as_array().unwrap().len()), (&Value::Null, 0));
    assert!(hub.cli(&["authority", "retire"]).refused().contains("avocet authority rotate"));
    away.kill_9();
    late.kill_9();

    hub.cli(&["authority", "rotate"]).ok();
    assert!(hub.cli(&["authority", "rotate"]).refused().contains("being replaced already"));
    let both = wait_until_moved(&hub, &["cloud", "plant"], &["away", "late"]);
    assert_eq!(both["current"], first["current"]);
    wait_until_told(&hub, 2);
    let shown = hub.cli(&["authority", "show"]).ok();
    assert!(shown.contains("2 of 4 sites came over") && shown.contains("waiting for away"), "{shown}");
    let refused = hub.cli(&["authority", "retire"]).refused();
    assert!(refused.contains("2 (away, late)") && refused.contains("--force"), "{refused}");

    // A hub that ends in the middle goes on where it was, and who was away comes back.
    hub.kill_9();
    hub.restart();
    wait_until_site(&hub, "plant", "True", "HeartbeatsArrive");
    away.restart();
    wait_until_moved(&hub, &["away", "cloud", "plant"], &["late"]);
    let joined = tree.site(&hub, "new", &[]);
    wait_until_moved(&hub, &["away", "cloud", "new", "plant"], &["late"]);

    let before = plant.process.output();
    hub.cli(&["authority", "retire", "--force"]).ok();
    let told = authority(&hub);
    assert_eq!((&told["current"], &told["next"]), (&both["next"], &Value::Null));
    wait_until_told(&hub, 1);
    for site in [&plant, &away, &joined] {
        wait_until_site(&hub, &site.name, "True", "HeartbeatsArrive");
        wait_until(&format!("{} trusts the new one alone", site.name), LIMIT, || {
            let membership = std::fs::read_to_string(site.data().join("membership.json")).unwrap();
            let membership: Value = serde_json::from_str(&membership).unwrap();
            let known = membership["authority"].clone();
            if known == told["bundle"] { Ok(()) } else { Err(known.to_string()) }
        });
    }
    let said = plant.process.output().replace(&before, "");
    assert!(!said.contains("task failed"), "its connection was never lost: {said}");
    plant.kill_9();
    plant.restart();
    wait_until_site(&hub, "plant", "True", "HeartbeatsArrive");

    // Nobody knows the hub by what it was: that is said, with what to do.
    late.restart();
    wait_until("the late one says why it is alone", LIMIT, || {
        let said = late.process.output();
        let is_said = said.contains("an authority that is not trusted here")
            && said.contains("avocet join-token create --site");
        if is_said { Ok(()) } else { Err(said) }
    });
    late.kill_9();
    let mut late = tree.site_with_token(&hub, "late", &hub.join_token("late"), &[]);
    late.restart();
    wait_until_site(&hub, "late", "True", "HeartbeatsArrive");
}

#[test]
fn a_kubeconfig_from_before_is_refused_with_what_to_do() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let old = tree.write("old", std::fs::read(hub.kubeconfig()).unwrap()).display().to_string();
    let with_old = || hub.cli(&["--kubeconfig", &old, "get", "sites"]);
    hub.cli(&["authority", "rotate"]).ok();
    with_old().ok();
    wait_until("its own site came over", LIMIT, || {
        let retired = hub.cli(&["authority", "retire"]);
        if retired.success { Ok(()) } else { Err(retired.stderr) }
    });
    // New connections are shown the new one's certificate at once.
    let refused = wait_until("the old one is gone", LIMIT, || {
        let ran = with_old();
        if ran.success { Err(ran.stdout) } else { Ok(ran.stderr) }
    });
    assert!(refused.contains("Take its kubeconfig anew"), "{refused}");
    hub.cli(&["get", "sites"]).ok();
}
