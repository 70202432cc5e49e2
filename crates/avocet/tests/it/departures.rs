//! Components that leave a site and come back, and applications that are made anew: each input runs once.

use serde_json::{Value, json};
use testkit::{Hub, LIMIT, Site, Tree, wait_until};

use crate::nesting::labelled;
use crate::support::{application, apply, function, list, put, step, tree, wait_for_object};

/// No disk has so much free: functions wait.
const PAUSED: (&str, &str) = ("AVOCET_KEEP_FREE", "100000Ti");
const UNPAUSED: (&str, &str) = ("AVOCET_KEEP_FREE", "0");

fn restart(edge: &mut Site, (key, value): (&str, &str)) {
    edge.process.set(key, value);
    edge.restart();
}

/// A hub, a site whose functions wait, and one more of the same area, which is never empty so; the application `letters`
/// copies what lands in `letters/in`.
fn waiting(tree: &Tree) -> (Hub, Site, Site) {
    let hub = tree.hub("cloud");
    let other = tree.site(&hub, "other", &["--label", "area=north"]);
    let mut edge = tree.site_with_token(&hub, "edge", &hub.join_token("edge"), &["--label", "area=north"]);
    restart(&mut edge, PAUSED);
    let copy = tree.write("functions/copy.sh", r#"cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/""#);
    apply(tree, &hub, &[labelled("north", "area", "north"), function("copy", &copy), letters()]);
    hub.wait_until_ready("letters");
    (hub, edge, other)
}

fn letters() -> Value {
    application("letters", &json!([step("copy", "north", "letters/in", "letters/out")]))
}

fn move_to(tree: &Tree, hub: &Hub, area: &str) {
    let mut site = hub.cli(&["get", "site", "edge", "-o", "json"]).json();
    let metadata = json!({"name": "edge", "labels": {"area": area}});
    site =
        json!({"apiVersion": site["apiVersion"], "kind": "Site", "metadata": metadata, "spec": site["spec"]});
    apply(tree, hub, &[site]);
}

/// How many invocations are in a state, for a reason.
fn count(edge: &Site, state: &str, reason: &str) -> usize {
    let all = edge.invocations();
    let is_it = |one: &&Value| one["state"] == state && one["reason"].as_str().unwrap_or_default() == reason;
    all.iter().filter(is_it).count()
}

#[track_caller]
fn wait_for(edge: &Site, expected: usize, state: &str, reason: &str) {
    wait_until(&format!("{expected} invocations are {state}"), LIMIT, || {
        if count(edge, state, reason) == expected { Ok(()) } else { Err(format!("{:?}", edge.invocations())) }
    });
}

#[test]
fn promise_3_what_a_component_missed_and_what_waited_when_it_left_runs_once_when_it_is_back() {
    let tree = tree();
    let (hub, mut edge, _other) = waiting(&tree);
    for name in ["one", "two", "three"] {
        put(&tree, &edge, &format!("letters/in/{name}"), name);
    }
    wait_for(&edge, 3, "Pending", "");
    move_to(&tree, &hub, "south");
    wait_for(&edge, 3, "Failed", "Unassigned");
    let id = edge.invocations()[0]["id"].as_str().unwrap().to_owned();
    let refused = edge.cli(&["invoke", "--replay", &id]).refused();
    assert!(refused.contains("is not at site `edge` any more"), "{refused}");
    put(&tree, &edge, "letters/in/four", "four");
    edge.kill_9();
    restart(&mut edge, UNPAUSED);
    put(&tree, &edge, "letters/in/five", "five");
    move_to(&tree, &hub, "north");
    for name in ["one", "two", "three", "four", "five"] {
        assert_eq!(wait_for_object(&tree, &edge, &format!("letters/out/{name}")), name);
    }
    wait_for(&edge, 5, "Succeeded", "");
    // And once more, with nothing left to do.
    move_to(&tree, &hub, "south");
    wait_until("the component is gone", LIMIT, || {
        let there = hub.cli(&["get", "assignments", "-n", "edge", "-o", "name"]).ok();
        if there.is_empty() { Ok(()) } else { Err(there) }
    });
    move_to(&tree, &hub, "north");
    put(&tree, &edge, "letters/in/six", "six");
    assert_eq!(wait_for_object(&tree, &edge, "letters/out/six"), "six");
    wait_for(&edge, 6, "Succeeded", "");
    assert_eq!((edge.invocations().len(), list(&edge, "letters/out").len()), (6, 6));
}

#[test]
fn promise_3_an_application_that_is_made_anew_runs_each_input_once_and_nothing_of_the_one_before() {
    let tree = tree();
    let (hub, mut edge, _other) = waiting(&tree);
    for name in ["one", "two"] {
        put(&tree, &edge, &format!("letters/in/{name}"), name);
    }
    wait_for(&edge, 2, "Pending", "");
    edge.kill_9();
    hub.cli(&["delete", "application/letters"]).ok();
    apply(&tree, &hub, &[letters()]);
    // It hears of both before anything runs.
    restart(&mut edge, PAUSED);
    wait_for(&edge, 4, "Pending", "");
    edge.kill_9();
    restart(&mut edge, UNPAUSED);
    wait_for(&edge, 2, "Succeeded", "");
    wait_for(&edge, 2, "Failed", "Unassigned");
    assert_eq!((edge.invocations().len(), list(&edge, "letters/out").len()), (4, 2));
    wait_until("the new application is told of its own alone", LIMIT, || {
        let told = hub.cli(&["get", "application", "letters", "-o", "json"]).json();
        let counts = &told["status"]["invocations"];
        if counts["succeeded"] == 2 && counts["failed"] == 0 { Ok(()) } else { Err(told.to_string()) }
    });
}
