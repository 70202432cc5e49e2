//! Functions that fail: what is told of it, and how it is put right.

use serde_json::{Value, json};
use testkit::{LIMIT, wait_until};

use crate::support::{
    application, apply, function, invocations_of, list, model, placement, put, serving, start_letters, step,
    tree, wait_for_object, wait_for_state,
};

#[test]
fn promise_3_an_object_that_fails_says_why_and_harms_no_other() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let edge = tree.site(&hub, "edge", &[]);
    start_letters(&tree, &hub);
    for (name, content) in [("a", "good"), ("b", "poison"), ("c", "good, too")] {
        put(&tree, &edge, &format!("letters/in/{name}.txt"), content);
    }
    for name in ["a", "c"] {
        wait_for_object(&tree, &hub, &format!("letters/counts/{name}.txt"));
    }
    let failed = wait_for_state(&edge, "in/b.txt", "Failed");
    assert_eq!(failed["reason"], "ExitedWithError");
    let message = failed["message"].as_str().unwrap();
    assert!(message.starts_with("exited with code 3 after"), "{message}");
    assert!(message.ends_with("its last line was `this letter is poisoned`"), "{message}");
    let id = failed["id"].as_str().unwrap();
    let log = hub.cli(&["logs", &id[..10]]);
    assert_eq!(log.stdout, "this letter is poisoned\n");
    assert!(log.stderr.contains("failed: ExitedWithError"), "{}", log.stderr);
    wait_until("the failure is counted", LIMIT, || {
        let table = hub.cli(&["get", "applications"]).ok();
        let row: Vec<&str> = table.lines().last().unwrap().split_whitespace().take(5).collect();
        if row == ["letters", "2/2", "4", "1", "0"] { Ok(()) } else { Err(table) }
    });

    // Better content under the same key is an event of its own, and what failed stays to be seen.
    put(&tree, &edge, "letters/in/b.txt", "cured");
    assert_eq!(wait_for_object(&tree, &hub, "letters/counts/b.txt"), "5");
    let in_state = |state: &str| -> Vec<Value> {
        invocations_of(&edge, "in/b.txt").into_iter().filter(|one| one["state"] == state).collect()
    };
    let (old, new) = (in_state("Failed"), in_state("Succeeded"));
    assert_eq!((old.len(), new.len()), (1, 1));
    assert_eq!(old[0], failed);

    // To replay the old one would publish the past over the present.
    hub.cli(&["invoke", "--replay", id, "--site", "edge"]).ok();
    wait_until("the replay is refused as superseded", LIMIT, || {
        let now = in_state("Failed");
        if now.iter().any(|one| one["reason"] == "Superseded") { Ok(()) } else { Err(format!("{now:?}")) }
    });
    let good = new[0]["id"].as_str().unwrap();
    let refused = hub.cli(&["invoke", "--replay", good, "--site", "edge"]).refused();
    assert!(refused.contains("only failed ones can be replayed"), "{refused}");
}

/// Fails as long as the model `oracle` is not served beside it.
const ASK: &str = r#"
import json, os, sys, urllib.error, urllib.request
tensor = dict(name="x", shape=[1, 4], datatype="FP32", data=[1, 1, 1, 1])
url = os.environ["AVOCET_INFERENCE_URL"] + "/v2/models/oracle/infer"
try:
    answer = urllib.request.urlopen(url, json.dumps(dict(inputs=[tensor])).encode()).read()
except urllib.error.HTTPError as error:
    sys.exit(f"the oracle is silent: {error.code}")
with open(os.path.join(os.environ["TMP_OUTPUT_DIR"], "answer.json"), "wb") as file:
    file.write(answer)
"#;

#[test]
fn promise_3_a_failed_invocation_is_replayed_once_its_cause_is_gone() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let ask = tree.write("functions/ask.py", ASK);
    let asking = application("asking", &json!([step("ask", "cloud", "questions/in", "questions/out")]));
    apply(&tree, &hub, &[placement("cloud"), function("ask", &ask), asking]);
    hub.wait_until_ready("asking");
    put(&tree, &hub, "questions/in/why.txt", "why?");
    let failed = wait_for_state(&hub, "in/why.txt", "Failed");
    let message = failed["message"].as_str().unwrap();
    assert!(message.contains("the oracle is silent: 404"), "{message}");

    apply(&tree, &hub, &[model("oracle"), application("oracles", &json!([serving("oracle", "cloud")]))]);
    hub.wait_until_ready("oracles");
    hub.cli(&["invoke", "--replay", failed["id"].as_str().unwrap()]).ok();
    let succeeded = wait_for_state(&hub, "in/why.txt", "Succeeded");
    assert_eq!(succeeded["id"], failed["id"]);
    assert_eq!(succeeded.get("reason"), None, "what was wrong is no longer said");
    assert!(wait_for_object(&tree, &hub, "questions/out/answer.json").contains("FP32"));
    assert_eq!(list(&hub, "questions/out/").len(), 1);
}

/// Leaves a file whose name is as its input says.
const NAME: &str = r#"
cd "$TMP_OUTPUT_DIR"
case "$(cat "$INPUT_FILE_PATH")" in
    bytes) touch "$(printf 'a\377b')" ;;
    long) part=$(printf 'x%.0s' $(seq 250)); mkdir -p "$part/$part/$part/$part/$part"; touch "$part/$part/$part/$part/$part/x" ;;
    fine) echo fine > fine.txt ;;
    *) cat "$INPUT_FILE_PATH"; exit 1 ;;
esac
"#;

#[test]
fn promise_6_names_that_can_be_no_keys_and_keys_that_can_be_no_names_fail_once_and_say_so() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let code = tree.write("functions/name.sh", NAME);
    let naming = application("naming", &json!([step("name", "cloud", "names/in", "names/out")]));
    apply(&tree, &hub, &[placement("cloud"), function("name", &code), naming]);
    hub.wait_until_ready("naming");
    let too_long = format!("in/{}", "k".repeat(300));
    for (key, content) in
        [("in/bytes", "bytes"), ("in/long", "long"), (&too_long, ""), ("in/event.json", "fine")]
    {
        put(&tree, &hub, &format!("names/{key}"), content);
    }
    for (key, reason) in [("in/bytes", "OutputName"), ("in/long", "OutputName"), (&too_long, "InputName")] {
        let failed = wait_for_state(&hub, key, "Failed");
        assert_eq!(
            (failed["reason"].as_str(), failed["interruptions"].as_u64()),
            (Some(reason), Some(0)),
            "{failed}"
        );
    }
    // An input that has the name of the event is the input.
    wait_for_state(&hub, "in/event.json", "Succeeded");
    assert_eq!(wait_for_object(&tree, &hub, "names/out/fine.txt"), "fine");
    assert_eq!(list(&hub, "names/out/").len(), 1);
}
