//! The command line: what each command prints, and how it helps when it can't.

use serde_json::{Value, json};
use testkit::{Hub, LIMIT, Tree, wait_until};

use crate::support::{
    application, apply, function, invocations_of, model, placement, put, serving, step, tree,
    wait_for_object, wait_for_state,
};

/// A hub whose own site runs the application `echo`: a function and a model.
fn start_echo(tree: &Tree) -> Hub {
    let hub = tree.hub("cloud");
    let code = r#"echo "echoing $(basename "$INPUT_FILE_PATH")"; cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR""#;
    let file = tree.write("functions/echo.sh", code);
    let components = json!([step("echo", "cloud", "words/in", "words/out"), serving("affine", "cloud")]);
    let echo = application("echo", &components);
    apply(tree, &hub, &[placement("cloud"), function("echo", &file), model("affine"), echo]);
    hub.wait_until_ready("echo");
    hub
}

#[test]
fn resources_are_shown_as_asked() {
    let tree = tree();
    let hub = start_echo(&tree);
    let shown = |arguments: &[&str]| hub.cli(arguments).ok();

    let table = shown(&["get", "app"]);
    let heading: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(heading, ["NAME", "READY", "SUCCEEDED", "FAILED", "PENDING", "MESSAGE", "AGE"]);
    assert!(table.lines().nth(1).unwrap().starts_with("echo   2/2"), "{table}");
    assert!(!shown(&["get", "sites"]).contains("INFERENCE"));
    assert!(shown(&["get", "sites", "-o", "wide"]).contains(&hub.access("inference")));
    assert_eq!(shown(&["get", "application/echo", "-o", "name"]), "application/echo\n");
    assert_eq!(shown(&["get", "fn", "-o", "name"]), "function/echo\n");
    assert_eq!(shown(&["get", "models", "-A", "-o", "name"]), "model/affine\n");
    let json: Value = serde_json::from_str(&shown(&["get", "placement", "cloud", "-o", "json"])).unwrap();
    assert_eq!(json["spec"]["tiers"], json!(["cloud"]));
    let yaml = shown(&["get", "placement", "cloud", "-o", "yaml"]);
    assert!(yaml.contains("kind: Placement") && yaml.contains("numberOfSelectedSites: 1"), "{yaml}");
    let none = hub.cli(&["get", "sites", "-l", "tier=moon"]);
    assert!(none.success && none.stdout.is_empty() && none.stderr.contains("there are no sites"));
    let none = hub.cli(&["-n", "elsewhere", "get", "applications"]);
    assert!(none.success && none.stderr.contains("there are no applications"));

    let described = shown(&["describe", "application/echo"]);
    for words in ["Name:        echo", "AllComponentsRun", "Assignments:", "SUCCEEDED/FAILED/PENDING"] {
        assert!(described.contains(words), "{described}");
    }
    let described = hub.cli(&["describe", "application/echo", "-o", "json"]).json();
    assert_eq!(described["object"]["metadata"]["name"], "echo");
    assert_eq!(described["assignments"].as_array().unwrap().len(), 2, "{described}");
    let tree_of_sites = hub.cli(&["site", "tree", "-o", "json"]).json();
    assert_eq!(tree_of_sites["items"][0]["name"], "cloud");
    assert_eq!(tree_of_sites["items"][0]["children"], json!([]));
    assert_eq!(shown(&["site", "tree", "-o", "name"]), "site/cloud\n");
    assert!(hub.cli(&["certificate", "list", "-o", "json"]).json()["items"].is_array());
    let explained = shown(&["explain", "placement/cloud"]);
    assert!(explained.lines().nth(1).unwrap().starts_with("cloud   yes"), "{explained}");
    assert_eq!(shown(&["explain", "placement/cloud", "-o", "name"]), "cloud\n");
    let explained = hub.cli(&["explain", "placement/cloud", "-o", "json"]).json();
    assert_eq!(explained["sites"][0]["selected"], json!(true));
    assert!(shown(&["engines"]).contains("rten"));
    assert_eq!(shown(&["version"]), format!("avocet {}\n", env!("CARGO_PKG_VERSION")));
    assert!(shown(&["completion", "bash"]).contains("_avocet()"));

    let again = |path: &str| shown(&["push", path]);
    let file = tree.write("pushed.bin", "content").display().to_string();
    assert!(
        again(&file).starts_with("sha256:ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73 7")
    );
    assert_eq!(again(&file), again(&file), "pushing twice is no mistake");

    assert_eq!(hub.cli(&["push", &file, "-o", "json"]).json()["size"], 7);

    assert_eq!(shown(&["delete", "application/echo"]), "application/echo deleted\n");
    let deleted = hub.cli(&["delete", "function/echo", "-o", "json"]).json();
    let of_default = json!({"object": "function/echo", "namespace": "default", "result": "deleted"});
    assert_eq!(deleted, json!({"items": [of_default]}));
    assert_eq!(shown(&["get", "applications", "-o", "name"]), "");
}

#[test]
fn objects_and_invocations_are_at_hand() {
    let tree = tree();
    let hub = start_echo(&tree);
    let shown = |arguments: &[&str]| hub.cli(arguments).ok();
    let (one, two) = (tree.write("up/one.txt", "1"), tree.write("up/two.txt", "22"));
    let (one, two) = (one.to_str().unwrap(), two.to_str().unwrap());

    let copied = shown(&["cp", one, two, "cloud:words/in/"]);
    assert!(copied.contains(&format!("{two} -> cloud:words/in/two.txt")), "{copied}");
    for name in ["one", "two"] {
        wait_for_object(&tree, &hub, &format!("words/out/{name}.txt"));
        wait_for_state(&hub, &format!("in/{name}.txt"), "Succeeded");
    }
    let listed = shown(&["ls", "cloud:words/out/"]);
    assert_eq!(
        listed.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(),
        ["KEY", "BYTES", "MODIFIED"]
    );
    assert_eq!(shown(&["ls", "cloud:words/out/", "-o", "name"]), "out/one.txt\nout/two.txt\n");
    let target = tree.folder().join("down");
    shown(&["cp", "cloud:words/out/", target.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(target.join("two.txt")).unwrap(), "22");
    let alone = tree.folder().join("alone.txt");
    shown(&["cp", "cloud:words/out/one.txt", alone.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(alone).unwrap(), "1");
    shown(&["cp", one, "cloud:fresh/renamed.txt"]);
    assert_eq!(shown(&["ls", "cloud:fresh", "-o", "name"]), "renamed.txt\n");

    let table = shown(&["get", "invocations", "--site", "cloud"]);
    assert!(table.contains("words/in/one.txt   Succeeded"), "{table}");
    let id = invocations_of(&hub, "in/one.txt")[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(shown(&["logs", &id[..8]]), "echoing one.txt\n");
    assert_eq!(shown(&["logs", "function/echo", "--site", "cloud"]), "echoing two.txt\n");
    let outputs = tree.folder().join("outputs");
    let printed = shown(&["invoke", "echo", "--file", two, "--output", outputs.to_str().unwrap()]);
    assert_eq!(printed, "echoing two.txt\n");
    assert_eq!(std::fs::read_to_string(outputs.join("two.txt")).unwrap(), "22");
    assert_eq!(hub.invocations().len(), 2, "what is asked for by hand is no event");
}

#[test]
fn what_goes_wrong_is_said_with_a_way_out() {
    let tree = tree();
    let hub = tree.hub("cloud");
    put(&tree, &hub, "words/one.txt", "1");
    let cases: [(&[&str], &str); 14] = [
        (&["get", "dogs"], "`dogs` is not known here; there are sites, placements"),
        (&["get", "application", "nix"], "applications.avocet.dev \"nix\" not found"),
        (&["get", "sites", "-l", "a b=c"], "found 'b', expected: in, notin"),
        (&["describe", "echo"], "`echo` is not KIND/NAME"),
        (&["explain", "site/cloud"], "explain placement/NAME"),
        (&["delete", "application/nix"], "not found"),
        (&["cp", "cloud:words/none.txt", "x"], "can't copy cloud:words/none.txt"),
        (&["cp", "cloud:nowhere/none.txt", "x"], "bucket"),
        (&["cp", "moon:words/none.txt", "x"], "sites.avocet.dev \"moon\" not found"),
        (&["cp", "a.txt", "b.txt"], "write SITE:BUCKET/KEY"),
        (&["ls", "words"], "is not SITE:BUCKET/PREFIX"),
        (&["logs", "abc"], "there is no invocation `abc`"),
        (&["invoke", "nix", "--file", "Cargo.toml"], "can't read Cargo.toml"),
        (&["join-token", "--site", "A B"], "is not a name"),
    ];
    for (arguments, words) in cases {
        let refused = hub.cli(arguments).refused();
        assert!(refused.starts_with("error: ") && refused.contains(words), "{arguments:?}: {refused}");
        assert!(!refused.contains("panicked"), "{refused}");
    }
    let refused = hub.cli(&["--kubeconfig", "/nowhere", "get", "sites"]).refused();
    assert!(refused.contains("can't read /nowhere; run `avocet up`"), "{refused}");
    let refused = hub.cli(&["aply"]).refused();
    assert!(refused.contains("apply"), "a similar word is offered: {refused}");
}

#[test]
fn a_watch_tells_what_changes() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let output = tree.folder().join("watched");
    let file = std::fs::File::create(&output).unwrap();
    let mut watch = std::process::Command::new(env!("CARGO_BIN_EXE_avocet"))
        .args(["get", "placements", "--watch"])
        .env("AVOCET_KUBECONFIG", hub.kubeconfig())
        .stdout(file)
        .spawn()
        .unwrap();
    apply(&tree, &hub, &[placement("cloud")]);
    let read = || std::fs::read_to_string(&output).unwrap();
    let seen = std::panic::catch_unwind(|| {
        wait_until("the watch has told of it", LIMIT, || {
            let told = read();
            if told.contains("cloud   True") { Ok(told) } else { Err(told) }
        })
    });
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert!(seen.unwrap().starts_with("NAME"));
}
