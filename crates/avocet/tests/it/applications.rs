//! Applications over sites that come, go and are chosen by policies.

use std::path::Path;

use serde_json::{Value, json};
use testkit::{LIMIT, wait_until};

use crate::support::{
    apply, invocations_of, list, placement, put, start_letters, tree, wait_for_content, wait_for_object,
    wait_for_state,
};

/// Whether any file below a folder holds these bytes.
fn is_anywhere_below(folder: &Path, needle: &str) -> bool {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let holds = |path: &Path| {
        // A file may go while we look; then it holds nothing.
        let content = std::fs::read(path).unwrap_or_default();
        content.windows(needle.len()).any(|window| window == needle.as_bytes())
    };
    entries.into_iter().any(
        |path| {
            if path.is_dir() { is_anywhere_below(&path, needle) } else { holds(&path) }
        },
    )
}

#[test]
fn what_is_put_at_one_site_ends_as_a_result_at_the_other_and_the_original_stays() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let edge = tree.site(&hub, "edge", &[]);
    start_letters(&tree, &hub);

    put(&tree, &edge, "letters/in/one.txt", "a secret of the edge\n");
    assert_eq!(wait_for_object(&tree, &hub, "letters/counts/one.txt"), "21");

    assert!(is_anywhere_below(&hub.process.data(), "A SECRET OF THE EDGE"), "what was made of it did travel");
    assert!(is_anywhere_below(&edge.process.data(), "a secret of the edge"));
    assert!(!is_anywhere_below(&hub.process.data(), "a secret of the edge"));

    // Once all is reported, the application's own status tells it.
    wait_until("both invocations are counted", LIMIT, || {
        let seen = hub.cli(&["get", "application", "letters", "-o", "json"]).json();
        let counts = &seen["status"]["invocations"];
        let expected = json!({"pending": 0, "succeeded": 2, "failed": 0, "undelivered": 0});
        if *counts == expected { Ok(()) } else { Err(counts.to_string()) }
    });
}

#[test]
fn promise_3_the_same_content_put_twice_is_processed_once_and_new_content_anew() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let edge = tree.site(&hub, "edge", &[]);
    start_letters(&tree, &hub);

    put(&tree, &edge, "letters/in/a.txt", "same");
    wait_for_object(&tree, &hub, "letters/counts/a.txt");
    let first = list(&hub, "letters/counts/");
    put(&tree, &edge, "letters/in/a.txt", "same");
    // Events are taken in order: once a later one is through, the one before has been seen.
    put(&tree, &edge, "letters/in/later.txt", "later");
    wait_for_object(&tree, &hub, "letters/counts/later.txt");
    for site in [&*hub, &edge] {
        assert_eq!(
            invocations_of(site, if site.name == "edge" { "in/a.txt" } else { "loud/a.txt" }).len(),
            1
        );
        assert_eq!(site.invocations().len(), 2);
    }
    assert_eq!(list(&hub, "letters/counts/")[0], first[0], "the result was not touched");

    put(&tree, &edge, "letters/in/a.txt", "something else");
    wait_for_content(&tree, &hub, "letters/counts/a.txt", |count| count == "14");
    assert_eq!(invocations_of(&edge, "in/a.txt").len(), 2);
    assert_eq!(list(&hub, "letters/counts/").len(), 2, "the result was replaced, not added");
}

#[test]
fn promise_1_a_site_that_never_comes_back_stops_nothing_else() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let alive = tree.site(&hub, "alive", &[]);
    let mut lost = tree.site(&hub, "lost", &[]);
    start_letters(&tree, &hub);
    lost.kill_9();

    wait_until("the lost site counts as silent", LIMIT, || {
        let seen = hub.cli(&["get", "sites", "lost", "-o", "json"]).json();
        let ready = &seen["status"]["conditions"][0];
        if ready["status"] == "Unknown" { Ok(()) } else { Err(ready.to_string()) }
    });
    put(&tree, &alive, "letters/in/one.txt", "still here");
    assert_eq!(wait_for_object(&tree, &hub, "letters/counts/one.txt"), "10");
    let ready = hub.cli(&["get", "application", "letters", "-o", "json"]).json();
    assert_eq!(ready["status"]["ready"], "2/2", "what ran there is taken to run on");

    hub.cli(&["delete", "application/letters"]).ok();
    assert!(hub.cli(&["get", "application", "letters"]).refused().contains("not found"));
    wait_until("all assignments are gone", LIMIT, || {
        let left = hub.cli(&["get", "assignments", "-A", "-o", "json"]).json();
        if left["items"] == json!([]) { Ok(()) } else { Err(left.to_string()) }
    });
    // The living site has let go of it: nothing happens to what is put now.
    wait_until("the site has heard of it", LIMIT, || {
        let said = alive.process.output();
        if said.contains("no longer assigned") { Ok(()) } else { Err(said) }
    });
    put(&tree, &alive, "letters/in/two.txt", "nobody reads this");
    assert_eq!(invocations_of(&alive, "in/two.txt"), [] as [Value; 0]);
}

#[test]
fn promise_1_a_policy_that_selects_nothing_keeps_what_runs() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let edge = tree.site(&hub, "edge", &[]);
    start_letters(&tree, &hub);

    let mut policy = placement("edge");
    policy["spec"]["tiers"] = json!(["moon"]);
    apply(&tree, &hub, &[policy]);
    wait_until("the policy says that it selects nothing", LIMIT, || {
        let seen = hub.cli(&["get", "placement", "edge", "-o", "json"]).json();
        let condition = seen["status"]["conditions"][0].clone();
        if condition["reason"] == "LastDecisionKept" { Ok(()) } else { Err(condition.to_string()) }
    });
    let explained = hub.cli(&["explain", "placement/edge"]).ok();
    assert!(explained.contains("the last good decision is kept: edge"), "{explained}");

    put(&tree, &edge, "letters/in/one.txt", "works on");
    wait_for_state(&edge, "in/one.txt", "Succeeded");
    assert_eq!(wait_for_object(&tree, &hub, "letters/counts/one.txt"), "8");
}
