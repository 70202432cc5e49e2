//! Manifests with mistakes.

use serde_json::{Value, json};

use crate::support::{function, placement, tree, write_manifests};

#[test]
fn promise_6_a_mistake_in_one_manifest_is_named_and_nothing_of_them_is_applied() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let code = tree.write("f.sh", "true");
    let with = |pointer: &str, value: Value| {
        let mut manifest = function("f", &code);
        *manifest.pointer_mut(pointer).unwrap() = value;
        manifest
    };
    let mut bad_time = function("f", &code);
    bad_time["spec"]["timeoutSeconds"] = json!(0);
    let mut misspelt = function("f", &code);
    misspelt["spec"]["timeout"] = json!(5);
    let cases: [(Value, &[&str]); 6] = [
        (bad_time, &["function/f", "spec.timeoutSeconds", "0", "greater than or equal to 1"]),
        (misspelt, &["function/f", "unknown field", "spec.timeout"]),
        (with("/spec/runtime", json!("cobol")), &["function/f", "spec.runtime", "cobol", "python"]),
        (with("/metadata/name", json!("F!")), &["metadata.name", "F!"]),
        (with("/spec/artifact/path", json!("missing.sh")), &["missing.sh", "does not exist"]),
        (with("/kind", json!("Fonction")), &["Fonction", "is not known", "Function"]),
    ];
    for (manifest, words) in cases {
        let file = write_manifests(&tree, "mixed.yaml", &[placement("edge"), manifest.clone()]);
        let refused = hub.cli(&["apply", "-f", &file]).refused();
        for word in words {
            assert!(refused.contains(word), "`{word}` is not in: {refused}");
        }
        let found = hub.cli(&["get", "placements", "-o", "json"]).json();
        assert_eq!(found["items"], json!([]), "the good one beside it was not applied");
    }
    let text = tree.write("broken.yaml", "kind: [").display().to_string();
    assert!(hub.cli(&["apply", "-f", &text]).refused().contains("broken.yaml is no YAML"));
    let empty = tree.write("empty.yaml", "---\n").display().to_string();
    assert!(hub.cli(&["apply", "-f", &empty]).refused().contains("no manifest"));
    // With the mistakes gone it is applied, and a dry run before that changes nothing.
    let file = write_manifests(&tree, "good.yaml", &[placement("edge"), function("f", &code)]);
    assert!(hub.cli(&["apply", "--dry-run", "-f", &file]).ok().contains("placement/edge is valid"));
    assert!(!hub.cli(&["get", "placement", "edge"]).success);
    assert_eq!(hub.cli(&["apply", "-f", &file]).ok(), "placement/edge created\nfunction/f created\n");
    assert_eq!(hub.cli(&["apply", "-f", &file]).ok(), "placement/edge unchanged\nfunction/f unchanged\n");
    let applied = hub.cli(&["apply", "-f", &file, "-o", "json"]).json();
    assert_eq!(applied["items"][0]["object"], "placement/edge");
    assert_eq!(applied["items"][1]["result"], "unchanged");
}
