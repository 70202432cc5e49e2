//! Changes that reach sites one after the other, and go back when they are bad.

use serde_json::{Value, json};
use testkit::{Hub, LIMIT, Site, Tree, wait_until};

use crate::support::{
    apply, function, invocations_of, placement, put, tree, wait_for_content, wait_for_object,
};

/// A step at the edge sites, one of them at a time.
fn application(rollout: &Value) -> Value {
    let component = json!({"name": "mark", "placement": "edge", "function": "mark",
        "inputs": [{"path": "marks/in"}], "outputs": [{"path": "marks/out"}]});
    json!({"apiVersion": "avocet.dev/v1alpha1", "kind": "Application", "metadata": {"name": "marks"},
        "spec": {"components": [component], "rollout": rollout}})
}

fn one_at_a_time() -> Value {
    json!({"type": "Progressive", "maxConcurrency": 1, "progressDeadline": "2m"})
}

/// A function that writes its version.
fn version(tree: &Tree, name: &str) -> Value {
    let code = format!("echo {name} > \"$TMP_OUTPUT_DIR/$(basename \"$INPUT_FILE_PATH\")\"");
    function("mark", &tree.write(&format!("{name}/mark.sh"), code))
}

/// A version that no site can run: its bundle is none.
fn bad_version(tree: &Tree, hub: &Hub) -> Value {
    let file = tree.write("bad.bundle", "this is no archive");
    let digest = hub.cli(&["push", &file.display().to_string()]).ok();
    let digest = digest.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap().to_owned();
    json!({"apiVersion": "avocet.dev/v1alpha1", "kind": "Function", "metadata": {"name": "mark"},
        "spec": {"runtime": "shell", "handler": "mark.sh", "artifact": {"digest": digest, "size": 18}}})
}

fn status(hub: &Hub) -> Value {
    hub.cli(&["rollout", "status", "marks", "-o", "json"]).json()
}

#[track_caller]
fn wait_for_reason(hub: &Hub, reason: &str) -> Value {
    wait_until(&format!("the rollout is {reason}"), LIMIT, || {
        let status = status(hub);
        if status["progressing"]["reason"] == reason { Ok(status) } else { Err(status.to_string()) }
    })
}

#[track_caller]
fn mark(tree: &Tree, site: &Site, name: &str) -> String {
    put(tree, site, &format!("marks/in/{name}"), "mark me");
    wait_for_object(tree, site, &format!("marks/out/{name}"))
}

fn assignment(hub: &Hub, site: &str) -> Value {
    hub.cli(&["-n", site, "get", "assignment", "mark.marks.default", "-o", "json"]).json()
}

#[test]
fn promise_4_a_bad_version_is_gone_back_from_while_the_first_site_goes_on_and_the_other_is_never_touched() {
    let tree = tree();
    let mut hub = tree.hub("cloud");
    let first = tree.site(&hub, "edge-1", &[]);
    let other = tree.site(&hub, "edge-2", &[]);
    apply(&tree, &hub, &[placement("edge"), version(&tree, "one"), application(&one_at_a_time())]);
    wait_for_reason(&hub, "Complete");
    assert_eq!((mark(&tree, &first, "a").as_str(), mark(&tree, &other, "a").as_str()), ("one", "one"));
    let before = assignment(&hub, "edge-2");

    apply(&tree, &hub, &[bad_version(&tree, &hub)]);
    let status = wait_for_reason(&hub, "RolledBack");
    assert_eq!(status["number"], 1, "{status}");
    assert_eq!(status["rejected"]["reason"], "FailureBudgetExceeded", "{status}");
    assert_eq!(status["rejected"]["message"], "1 site failed, and 0 may: edge-1", "{status}");
    let after = assignment(&hub, "edge-2");
    assert_eq!(after["metadata"]["generation"], before["metadata"]["generation"]);
    assert_eq!(after["spec"], before["spec"]);
    assert_eq!(assignment(&hub, "edge-1")["metadata"]["generation"], 3, "there and back");
    assert_eq!(mark(&tree, &first, "b"), "one");
    let watched = hub.cli(&["rollout", "status", "marks", "--watch"]).refused();
    assert!(watched.contains("revision 2 was gone back from: 1 site failed"), "{watched}");
    let history = hub.cli(&["rollout", "history", "marks"]).ok();
    assert!(history.contains("FailureBudgetExceeded"), "{history}");

    // It stays gone back from when the hub starts anew.
    hub.kill_9();
    hub.restart();
    apply(&tree, &hub, &[version(&tree, "two")]);
    hub.cli(&["rollout", "status", "marks", "--watch", "--timeout", "60"]).ok();
    wait_until("both run the second version", LIMIT, || {
        let status = self::status(&hub);
        let done = status["number"] == 3 && status["sites"]["done"] == 2;
        if done { Ok(()) } else { Err(status.to_string()) }
    });
    assert_eq!((mark(&tree, &first, "c").as_str(), mark(&tree, &other, "c").as_str()), ("two", "two"));

    hub.cli(&["rollout", "undo", "marks"]).ok();
    wait_until("the first version is back", LIMIT, || {
        let status = self::status(&hub);
        let done = status["number"] == 1 && status["sites"]["done"] == 2;
        if done { Ok(()) } else { Err(status.to_string()) }
    });
    put(&tree, &other, "marks/in/d", "mark me");
    wait_for_content(&tree, &other, "marks/out/d", |content| content == "one");
    assert_eq!(invocations_of(&other, "in/d").len(), 1);
}

#[test]
fn promise_4_a_site_that_is_away_is_left_out_and_follows_when_it_is_back_and_its_own_word_counts() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let mut first = tree.site(&hub, "edge-1", &[]);
    let second = tree.site(&hub, "edge-2", &[]);
    apply(&tree, &hub, &[placement("edge"), version(&tree, "one"), application(&one_at_a_time())]);
    wait_for_reason(&hub, "Complete");
    let frozen = tree.site(&hub, "edge-3", &["--rollout-opt-out"]);
    assert!(frozen.process.data().exists());

    first.kill_9();
    wait_until("the site is silent", LIMIT, || {
        let site = hub.cli(&["get", "site", "edge-1", "-o", "json"]).json();
        let told = site["status"]["conditions"][0]["status"].clone();
        if told == "Unknown" { Ok(()) } else { Err(site["status"].to_string()) }
    });
    apply(&tree, &hub, &[version(&tree, "two")]);
    wait_until("the others run it", LIMIT, || {
        let status = status(&hub);
        let sites = &status["sites"];
        let is_so = status["complete"] == true
            && (&sites["done"], &sites["offline"], &sites["held"]) == (&json!(1), &json!(1), &json!(1));
        if is_so && status["number"] == 2 { Ok(()) } else { Err(status.to_string()) }
    });
    assert_eq!(mark(&tree, &second, "a"), "two");

    // It wakes up with what it had, and gets what is new.
    first.restart();
    wait_until("the one that was away follows", LIMIT, || {
        let status = status(&hub);
        if status["sites"]["done"] == 2 { Ok(()) } else { Err(status.to_string()) }
    });
    assert_eq!(mark(&tree, &first, "a"), "two");
    let there = hub.cli(&["-n", "edge-3", "get", "assignments", "-o", "json"]).json();
    assert_eq!(there["items"], json!([]), "the site's own operator has the last word");
}
