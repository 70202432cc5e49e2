//! Processes that are killed while others need them.

use serde_json::{Value, json};
use testkit::{Hub, LIMIT, wait_until};

use crate::support::{
    application, apply, function, invocations_of, list, model, placement, put, serving, start_letters, step,
    tree, wait_for_object, wait_for_state, wait_until_model_answers,
};

/// Leaves half an output, then waits until the model `gate` answers on its site before it writes the rest.
const BEHIND_A_GATE: &str = r#"
import os, time, urllib.error, urllib.request
source = open(os.environ["INPUT_FILE_PATH"]).read()
name = os.path.basename(os.environ["INPUT_FILE_PATH"])
target = open(os.path.join(os.environ["TMP_OUTPUT_DIR"], name), "w")
target.write(source[:3])
target.flush()
while True:
    try:
        urllib.request.urlopen(os.environ["AVOCET_INFERENCE_URL"] + "/v2/models/gate/ready")
        break
    except urllib.error.URLError:
        time.sleep(0.05)
target.write(source[3:])
"#;

#[test]
fn promise_3_kill_9_of_a_site_in_the_middle_of_an_object() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let mut edge = tree.site(&hub, "edge", &[]);
    let file = tree.write("functions/copy.py", BEHIND_A_GATE);
    let copying = application("copying", &json!([step("copy", "edge", "things/in", "things/out")]));
    apply(&tree, &hub, &[placement("edge"), function("copy", &file), copying]);
    hub.wait_until_ready("copying");

    put(&tree, &edge, "things/in/one.txt", "whole");
    let half = || {
        let works = std::fs::read_dir(edge.data().join("work")).unwrap();
        works
            .map(|work| work.unwrap().path().join("out/one.txt"))
            .find(|file| std::fs::read(file).is_ok_and(|content| content == b"who"))
    };
    wait_until("half of the output is there", LIMIT, || half().ok_or_else(|| edge.process.output()));
    let running = wait_for_state(&edge, "in/one.txt", "Running");
    edge.kill_9();
    edge.restart();

    apply(&tree, &hub, &[model("gate"), application("gates", &json!([serving("gate", "edge")]))]);
    assert_eq!(wait_for_object(&tree, &edge, "things/out/one.txt"), "whole");
    let succeeded = wait_for_state(&edge, "in/one.txt", "Succeeded");
    assert_eq!(succeeded["id"], running["id"]);
    assert_eq!(succeeded["interruptions"], 1);
    let published = list(&edge, "things/out/");
    assert_eq!(published.len(), 1);

    // Nothing is left to do: another start changes nothing.
    edge.kill_9();
    edge.restart();
    put(&tree, &edge, "things/in/two.txt", "later");
    wait_for_state(&edge, "in/two.txt", "Succeeded");
    assert_eq!(wait_for_state(&edge, "in/one.txt", "Succeeded"), succeeded);
    assert_eq!(invocations_of(&edge, "in/one.txt").len(), 1);
    assert_eq!(list(&edge, "things/out/")[0], published[0]);
}

/// How many outputs wait at the edge, as the hub was told.
fn undelivered(hub: &Hub) -> Value {
    hub.cli(&["get", "application", "letters", "-o", "json"]).json()["status"]["invocations"].clone()
}

#[test]
fn promises_1_2_and_3_kill_9_of_the_hub_while_a_site_works() {
    let tree = tree();
    let mut hub = tree.hub("cloud");
    let mut edge = tree.site(&hub, "edge", &[]);
    start_letters(&tree, &hub);
    apply(&tree, &hub, &[model("affine"), application("models", &json!([serving("affine", "edge")]))]);
    hub.wait_until_ready("models");
    put(&tree, &edge, "letters/in/before.txt", "before");
    wait_for_object(&tree, &hub, "letters/counts/before.txt");
    let before = list(&hub, "letters/counts/");

    hub.kill_9();
    for name in ["one", "two"] {
        put(&tree, &edge, &format!("letters/in/{name}.txt"), name);
        wait_for_state(&edge, &format!("in/{name}.txt"), "Succeeded");
    }
    wait_until_model_answers(&edge, "affine");
    // The edge reboots, and the hub is still away: it serves and works at once.
    edge.kill_9();
    edge.restart();
    wait_until_model_answers(&edge, "affine");
    put(&tree, &edge, "letters/in/three.txt", "three");
    wait_for_state(&edge, "in/three.txt", "Succeeded");
    let waiting = || std::fs::read_dir(edge.data().join("outbox")).unwrap().count();
    assert_eq!(waiting(), 3, "undelivered outputs are kept");

    hub.restart();
    for (name, count) in [("one", "3"), ("two", "3"), ("three", "5")] {
        assert_eq!(wait_for_object(&tree, &hub, &format!("letters/counts/{name}.txt")), count);
    }
    wait_until("nothing is undelivered and everything is counted once", LIMIT, || {
        let counts = undelivered(&hub);
        let expected = json!({"pending": 0, "succeeded": 8, "failed": 0, "undelivered": 0});
        if counts == expected { Ok(()) } else { Err(counts.to_string()) }
    });
    assert_eq!(waiting(), 0);
    for name in ["before", "one", "two", "three"] {
        assert_eq!(invocations_of(&hub, &format!("loud/{name}.txt")).len(), 1, "{name}");
        assert_eq!(invocations_of(&edge, &format!("in/{name}.txt")).len(), 1, "{name}");
    }
    let after = list(&hub, "letters/counts/");
    assert_eq!(after.len(), 4);
    assert!(after.contains(&before[0]), "what was there before the crash was not touched");
}
