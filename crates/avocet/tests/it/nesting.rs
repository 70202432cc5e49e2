//! Hubs that are sites of other hubs: a tree of three and more.

use serde_json::{Value, json};
use testkit::{Hub, LIMIT, Site, Tree, wait_until};

use crate::support::{
    application, apply, function, http, list, model, placement, put, serving, step, tree, wait_for_object,
    wait_until_model_answers,
};

/// What sites tell of themselves.
const FACTS: [&str; 6] = ["capacity", "claims", "engines", "runtimes", "endpoints", "architecture"];

fn site(hub: &Hub, name: &str) -> Option<Value> {
    let seen = hub.cli(&["get", "site", name, "-o", "json"]);
    seen.success.then(|| serde_json::from_str(&seen.stdout).unwrap())
}

fn state(site: &Value, kind: &str) -> Value {
    let conditions = site["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default()
}

/// Waits until a hub says that a site is ready, or says of it this instead.
#[track_caller]
pub fn wait_until_site(hub: &Hub, name: &str, status: &str, reason: &str) -> Value {
    wait_until(&format!("{} says {reason} of {name}", hub.name), LIMIT, || {
        let seen = site(hub, name).ok_or("there is no such site")?;
        let ready = state(&seen, "Ready");
        let is_so = ready["status"] == status && ready["reason"] == reason;
        if is_so { Ok(seen) } else { Err(ready.to_string()) }
    })
}

#[track_caller]
fn wait_until_gone(hub: &Hub, name: &str) {
    wait_until(&format!("{} knows {name} no more", hub.name), LIMIT, || match site(hub, name) {
        None => Ok(()),
        Some(seen) => Err(seen.to_string()),
    });
}

/// Sites with a label.
pub fn labelled(name: &str, key: &str, value: &str) -> Value {
    let spec = json!({"predicates": [{"labelSelector": {"matchLabels": {key: value}}}]});
    json!({"apiVersion": "avocet.dev/v1alpha1", "kind": "Placement", "metadata": {"name": name}, "spec": spec})
}

/// A hub `cloud`, a hub `plant` below it, and a site `line` below that, known to both.
fn three(tree: &Tree, further: &[&str]) -> (Hub, Hub, Site) {
    let top = tree.hub("cloud");
    let middle = tree.hub_below(&top, "plant", &[]);
    let leaf = tree.site(&middle, "line", further);
    wait_until_site(&top, "line", "True", "HeardByParent");
    (top, middle, leaf)
}

#[test]
fn sites_of_a_hub_below_are_sites_of_the_hub_above_with_what_they_report() {
    let tree = tree();
    let (top, middle, mut leaf) = three(&tree, &["--label", "line=3", "--claim", "plc=s7"]);
    let seen = site(&top, "line").unwrap();
    assert_eq!(seen["spec"]["parent"], "plant");
    assert_eq!(seen["metadata"]["labels"]["line"], "3");
    assert_eq!(seen["metadata"]["labels"]["avocet.dev/via"], "plant");
    wait_until("what they report is known above, too", LIMIT, || {
        for (name, fact) in ["line", "plant"].into_iter().flat_map(|name| FACTS.map(|fact| (name, fact))) {
            let told = |hub: &Hub| site(hub, name).unwrap()["status"][fact].clone();
            let (here, above) = (told(&middle), told(&top));
            if here != above || here["cpus"] == 0 {
                return Err(format!("{fact} of {name}: {here} and {above}"));
            }
        }
        Ok(())
    });
    wait_until("the way up is measured on both parts", LIMIT, || {
        let links = |name: &str| site(&top, name).unwrap()["status"]["links"].clone();
        let (first, second) = (links("line"), links("plant"));
        let is_measured = first[0]["site"] == "plant" && second[0]["site"] == "cloud";
        if is_measured { Ok(()) } else { Err(format!("{first} {second}")) }
    });
    let drawn = top.cli(&["sites", "tree"]).ok();
    assert!(
        drawn.contains("\ncloud ") && drawn.contains("\n└─ plant ") && drawn.contains("\n   └─ line "),
        "{drawn}"
    );

    // A label that the site gets at its own hub moves up; one that it gets above stays there.
    top.cli(&["apply", "-f", &relabelled(&tree, &top, "line", "above", "yes")]).ok();
    middle.cli(&["apply", "-f", &relabelled(&tree, &middle, "line", "line", "4")]).ok();
    wait_until("the label moved up", LIMIT, || {
        let labels = site(&top, "line").unwrap()["metadata"]["labels"].clone();
        if labels["line"] == "4" && labels["above"] == "yes" { Ok(()) } else { Err(labels.to_string()) }
    });

    // Silence is told upward, level by level, and so is its end.
    leaf.kill_9();
    let silent = wait_until_site(&top, "line", "Unknown", "Silent");
    assert!(state(&silent, "Ready")["message"].as_str().unwrap().contains("no heartbeat"), "{silent}");
    leaf.restart();
    wait_until_site(&top, "line", "True", "HeardByParent");
    let mut middle = middle;
    middle.kill_9();
    wait_until_site(&top, "plant", "Unknown", "Silent");
    wait_until_site(&top, "line", "Unknown", "ParentSilent");
    middle.restart();
    wait_until_site(&top, "line", "True", "HeardByParent");
    // The hub above forgets nothing over its own restart, either.
    let mut top = top;
    top.kill_9();
    top.restart();
    wait_until_site(&top, "line", "True", "HeardByParent");

    leaf.kill_9();
    middle.cli(&["delete", "site/line"]).ok();
    wait_until_gone(&top, "line");
    assert!(site(&top, "plant").is_some());
}

/// A file with a site as it is, and one label of it as it is to be.
fn relabelled(tree: &Tree, hub: &Hub, name: &str, key: &str, value: &str) -> String {
    let spec = site(hub, name).unwrap()["spec"].clone();
    let metadata = json!({"name": name, "labels": {key: value}});
    let site =
        json!({"apiVersion": "avocet.dev/v1alpha1", "kind": "Site", "metadata": metadata, "spec": spec});
    tree.write("site.yaml", site.to_string()).display().to_string()
}

#[test]
fn a_site_below_whose_name_another_has_is_refused_and_says_so_and_the_other_stays_as_it_is() {
    let tree = tree();
    let top = tree.hub("cloud");
    let _shop = tree.site(&top, "shop", &["--label", "whose=clouds"]);
    let middle = tree.hub_below(&top, "plant", &[]);
    // Its folder is called otherwise; its name is what the token says.
    let mut other =
        tree.site_with_token(&middle, "other", &middle.join_token("shop"), &["--label", "whose=plants"]);
    other.process.start_until("site shop is up");
    let refused = wait_until("the site at the plant says that it is refused", LIMIT, || {
        let seen = site(&middle, "shop").unwrap();
        let uplinked = state(&seen, "Uplinked");
        if uplinked["status"] == "False" { Ok(uplinked) } else { Err(seen.to_string()) }
    });
    assert_eq!(refused["reason"], "NameTaken", "{refused}");
    let seen = site(&top, "shop").unwrap();
    assert_eq!(
        (&seen["spec"]["parent"], &seen["metadata"]["labels"]["whose"]),
        (&json!("cloud"), &json!("clouds"))
    );
    // It works for its own hub as ever.
    apply(
        &tree,
        &middle,
        &[
            labelled("shops", "whose", "plants"),
            model("affine"),
            application("models", &json!([serving("affine", "shops")])),
        ],
    );
    middle.wait_until_ready("models");
    middle.cli(&["delete", "site/shop"]).ok();
    let stays = site(&top, "shop").unwrap();
    assert_eq!(stays["metadata"]["uid"], seen["metadata"]["uid"]);
}

#[test]
fn a_hub_is_a_site_of_another_under_its_own_name_alone() {
    let tree = tree();
    let top = tree.hub("cloud");
    let url = top.url();
    let start = |further: &[&str]| {
        let mut arguments =
            vec!["up", "--site", "plant", "--listen", "127.0.0.1:0", "--listen-registry", "127.0.0.1:0"];
        arguments.extend(["--join", &url]);
        arguments.extend(further);
        top.cli(&arguments).refused()
    };
    let said = start(&["--data", tree.folder().join("one").to_str().unwrap()]);
    assert!(said.contains("avocet join-token create --site plant"), "{said}");
    let token = top.join_token("elsewhere");
    let said = start(&["--data", tree.folder().join("two").to_str().unwrap(), "--token", &token]);
    assert!(said.contains("it has one name in the whole tree"), "{said}");
}

#[test]
fn a_placement_at_the_top_finds_a_leaf_by_its_label_and_the_leaf_goes_on_without_those_above() {
    let tree = tree();
    let (mut top, mut middle, mut leaf) = three(&tree, &["--label", "line=3"]);
    let models = application("models", &json!([serving("affine", "lines")]));
    apply(&tree, &top, &[labelled("lines", "line", "3"), model("affine"), models]);
    top.wait_until_ready("models");
    wait_until_model_answers(&leaf, "affine");
    // Who administers the hub at the top may look at the leaf; who asks it is sent on to that hub.
    let file = tree.write("note", "from the top");
    top.cli(&["cp", file.to_str().unwrap(), "line:notes/one"]).ok();
    assert_eq!(list(&leaf, "notes").len(), 1);
    // What it serves came through the hub between, which has it now, too.
    let blobs = |hub: &Hub| {
        let found = walkdir(&hub.process.data().join("hub/artifacts"));
        found.into_iter().filter(|name| name.len() == 64).collect::<std::collections::BTreeSet<_>>()
    };
    assert!(!blobs(&top).is_empty());
    assert_eq!(blobs(&top), blobs(&middle));

    // Neither hub is needed for what runs, not even over a restart of the site.
    top.kill_9();
    middle.kill_9();
    leaf.kill_9();
    leaf.restart();
    wait_until_model_answers(&leaf, "affine");

    // What changes while the middle is away arrives afterwards; the site goes on meanwhile.
    top.restart();
    top.cli(&["delete", "application/models"]).ok();
    let others =
        application("others", &json!([{"name": "second", "placement": "lines", "models": ["second"]}]));
    apply(&tree, &top, &[model("second"), others]);
    wait_until_model_answers(&leaf, "affine");
    middle.restart();
    top.wait_until_ready("others");
    wait_until_model_answers(&leaf, "second");
    wait_until("what was taken away meanwhile is gone", LIMIT, || {
        let seen = middle.cli(&["get", "assignments", "-n", "line", "-o", "name"]).ok();
        if seen == "assignment/second.others.default\n" { Ok(()) } else { Err(seen) }
    });

    // The middle alone is enough for its own sites, and both coexist.
    top.kill_9();
    let new = tree.write("new", "what no hub has");
    middle.cli(&["push", new.to_str().unwrap()]).ok();
    let own = application("own", &json!([{"name": "third", "placement": "lines", "models": ["third"]}]));
    apply(&tree, &middle, &[labelled("lines", "line", "3"), model("third"), own]);
    middle.wait_until_ready("own");
    wait_until_model_answers(&leaf, "third");
    wait_until_model_answers(&leaf, "second");
    top.restart();
    top.wait_until_ready("others");
    wait_until_model_answers(&leaf, "third");
}

fn walkdir(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let names = entries.flat_map(|entry| match entry.file_type().unwrap().is_dir() {
        true => walkdir(&entry.path()),
        false => vec![entry.file_name().to_string_lossy().into_owned()],
    });
    names.collect()
}

#[test]
fn outputs_travel_through_the_tree_up_and_down_once() {
    let tree = tree();
    let (top, mut middle, leaf) = three(&tree, &["--tier", "line"]);
    let copy = tree.write("functions/copy.sh", r#"cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/""#);
    let manifests = [
        placement("line"),
        placement("cloud"),
        function("up", &copy),
        function("down", &copy),
        function("end", &copy),
        application(
            "letters",
            &json!([
                step("up", "line", "letters/in", "letters/above"),
                step("down", "cloud", "letters/above", "letters/below"),
                step("end", "line", "letters/below", "letters/done"),
            ]),
        ),
    ];
    apply(&tree, &top, &manifests);
    top.wait_until_ready("letters");
    put(&tree, &leaf, "letters/in/one", "first");
    assert_eq!(wait_for_object(&tree, &leaf, "letters/done/one"), "first");
    // Nothing is lost on the way, and nothing is done twice, if the hub between ends at any time.
    put(&tree, &leaf, "letters/in/two", "second");
    middle.kill_9();
    put(&tree, &leaf, "letters/in/three", "third");
    middle.restart();
    assert_eq!(wait_for_object(&tree, &leaf, "letters/done/two"), "second");
    assert_eq!(wait_for_object(&tree, &leaf, "letters/done/three"), "third");
    for (site, count) in [(&leaf, 6), (&*top, 3)] {
        assert_eq!(site.invocations().len(), count, "{}", site.name);
    }
    assert_eq!(list(&leaf, "letters/done").len(), 3);
    wait_until("the hub above counts what was done", LIMIT, || {
        let seen = top.cli(&["get", "assignment", "up.letters.default", "-n", "line", "-o", "json"]).json();
        let counts = seen["status"]["invocations"].clone();
        if counts["succeeded"] == 3 { Ok(()) } else { Err(counts.to_string()) }
    });
}

#[test]
fn a_tree_of_four_levels_is_one_for_who_stands_at_its_top() {
    let tree = tree();
    let top = tree.hub("cloud");
    let middle = tree.hub_below(&top, "plant", &[]);
    let mut hall = tree.hub_below(&middle, "hall", &["--label", "hall=2"]);
    let leaf = tree.site(&hall, "line", &["--label", "line=3"]);
    wait_until_site(&top, "line", "True", "HeardByParent");
    assert_eq!(site(&top, "line").unwrap()["spec"]["parent"], "hall");
    assert_eq!(site(&top, "hall").unwrap()["spec"]["parent"], "plant");
    assert_eq!(site(&top, "line").unwrap()["metadata"]["labels"]["avocet.dev/via"], "plant");
    assert_eq!(site(&middle, "line").unwrap()["metadata"]["labels"]["avocet.dev/via"], "hall");
    let drawn = top.cli(&["sites", "tree", "plant"]).ok();
    assert!(
        drawn.contains("\nplant ") && drawn.contains("\n└─ hall ") && drawn.contains("\n   └─ line "),
        "{drawn}"
    );

    let copy = tree.write("functions/copy.sh", r#"cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/""#);
    let manifests = [
        labelled("lines", "line", "3"),
        labelled("halls", "hall", "2"),
        placement("cloud"),
        model("affine"),
        function("up", &copy),
        function("down", &copy),
        application(
            "all",
            &json!([
                serving("affine", "lines"),
                step("up", "lines", "letters/in", "letters/above"),
                step("down", "cloud", "letters/above", "letters/below"),
            ]),
        ),
        function("end", &copy),
        application("halls", &json!([step("end", "halls", "letters/below", "letters/done")])),
    ];
    apply(&tree, &top, &manifests);
    top.wait_until_ready("all");
    top.wait_until_ready("halls");
    wait_until_model_answers(&leaf, "affine");
    put(&tree, &leaf, "letters/in/one", "first");
    assert_eq!(wait_for_object(&tree, &top, "letters/above/one"), "first");

    // One that is away hides what is below it, and all of it comes back.
    hall.kill_9();
    wait_until_site(&top, "hall", "Unknown", "Silent");
    wait_until_site(&top, "line", "Unknown", "Silent");
    wait_until_site(&top, "plant", "True", "HeartbeatsArrive");
    hall.restart();
    wait_until_site(&top, "line", "True", "HeardByParent");

    // Taking a hub away takes what is below it away, at every level above; the sites themselves go on.
    hall.kill_9();
    middle.cli(&["delete", "site/hall"]).ok();
    for name in ["hall", "line"] {
        wait_until_gone(&middle, name);
        wait_until_gone(&top, name);
    }
    wait_until_model_answers(&leaf, "affine");
}

#[test]
fn of_two_hubs_that_assign_a_model_of_one_name_the_one_that_the_site_joined_has_its_way() {
    let tree = tree();
    let (top, middle, leaf) = three(&tree, &["--label", "line=3"]);
    let serving = |name: &str| {
        application(name, &json!([{"name": "serve", "placement": "lines", "models": ["affine"]}]))
    };
    apply(&tree, &middle, &[labelled("lines", "line", "3"), model("affine"), serving("ours")]);
    middle.wait_until_ready("ours");
    let mut other = model("affine");
    other["spec"]["versions"][0]["name"] = json!("7");
    apply(&tree, &top, &[labelled("lines", "line", "3"), other, serving("theirs"), serving("ours")]);
    for name in ["ours", "theirs"] {
        wait_until("the hub above is told why its assignment is not followed", LIMIT, || {
            let name = format!("serve.{name}.default");
            let seen = top.cli(&["get", "assignment", &name, "-n", "line", "-o", "json"]);
            let seen: Value = serde_json::from_str(&seen.stdout).map_err(|error| error.to_string())?;
            let available = state(&seen, "Available");
            if available["reason"] == "NameTaken" { Ok(()) } else { Err(seen["status"].to_string()) }
        });
    }
    let versions = |leaf: &Site| {
        let url = format!("{}/v2/models/affine", leaf.access("inference"));
        let (_, body) = http("GET", &url, "", &Value::Null).unwrap();
        serde_json::from_str::<Value>(&body).unwrap()["versions"].clone()
    };
    assert_eq!(versions(&leaf), json!(["1"]));
    // Once the name is free, the hub above has its way, too.
    middle.cli(&["delete", "application/ours"]).ok();
    middle.cli(&["delete", "model/affine"]).ok();
    top.wait_until_ready("theirs");
    assert_eq!(versions(&leaf), json!(["7"]));
}
