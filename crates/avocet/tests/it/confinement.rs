//! What a function can't do on its site.

use serde_json::{Value, json};
use testkit::{Ran, Tree};

use crate::support::{application, apply, function, placement, tree};

/// Tries what it is told to by its environment, and writes down what came of it.
const TRY: &str = r#"
import json, os, socket, urllib.parse

def attempt(action):
    try:
        action()
        return "possible"
    except OSError as error:
        return type(error).__name__

def connect(port):
    socket.create_connection(("127.0.0.1", int(port)), timeout=5).close()

found = {
    "reads its input": attempt(lambda: open(os.environ["INPUT_FILE_PATH"]).read()),
    "calls models": attempt(lambda: connect(urllib.parse.urlparse(os.environ["AVOCET_INFERENCE_URL"]).port)),
    "calls S3": attempt(lambda: connect(os.environ["S3_PORT"])),
    "calls the hub": attempt(lambda: connect(os.environ["HUB_PORT"])),
    "reads the site's keys": attempt(lambda: open(os.environ["DATA"] + "/access.json").read()),
    "reads the site's membership": attempt(lambda: open(os.environ["DATA"] + "/membership.json").read()),
    "lists the site's objects": attempt(lambda: os.listdir(os.environ["DATA"] + "/objects")),
    "lists other invocations": attempt(lambda: os.listdir(os.environ["DATA"] + "/work")),
    "writes its own code": attempt(lambda: open(__file__, "a")),
    "environment": sorted(os.environ),
}
json.dump(found, open(os.environ["TMP_OUTPUT_DIR"] + "/found.json", "w"))
"#;

#[test]
fn promise_8_a_function_reaches_its_input_and_the_models_and_nothing_else_of_the_site() {
    let tree: Tree = tree();
    let hub = tree.hub("cloud");
    let mut edge = tree.site_with_token(&hub, "edge", &hub.join_token("edge"), &[]);
    edge.process.set("SECRET_OF_THE_AGENT", "hunter2");
    edge.restart();
    let file = tree.write("functions/try.py", TRY);
    let mut trying = function("try", &file);
    let s3_port = edge.access("objects").rsplit(':').next().unwrap().to_owned();
    trying["spec"]["environment"] =
        json!({"S3_PORT": s3_port, "HUB_PORT": hub.port().to_string(), "DATA": edge.data()});
    let component = json!({"name": "try", "placement": "edge", "function": "try"});
    apply(&tree, &hub, &[placement("edge"), trying, application("trying", &json!([component]))]);
    hub.wait_until_ready("trying");

    let input = tree.write("input.txt", "x").display().to_string();
    let output = tree.folder().join("outputs");
    let Ran { success, stdout, stderr } =
        hub.cli(&["invoke", "try", "--site", "edge", "--file", &input, "--output", output.to_str().unwrap()]);
    if !success && stderr.contains("this kernel can't confine functions") {
        println!("skipped: {stderr}");
        return;
    }
    assert!(success, "{stdout}{stderr}");
    let found: Value = serde_json::from_slice(&std::fs::read(output.join("found.json")).unwrap()).unwrap();
    for allowed in ["reads its input", "calls models"] {
        assert_eq!(found[allowed], "possible", "{allowed}: {found}");
    }
    for refused in [
        "calls S3",
        "calls the hub",
        "reads the site's keys",
        "reads the site's membership",
        "lists the site's objects",
        "lists other invocations",
        "writes its own code",
    ] {
        assert_eq!(found[refused], "PermissionError", "{refused}: {found}");
    }
    let environment = found["environment"].as_array().unwrap();
    for leaked in ["SECRET_OF_THE_AGENT", "AVOCET_JOIN_TOKEN", "AVOCET_DATA"] {
        assert!(!environment.contains(&json!(leaked)), "{found}");
    }
}
