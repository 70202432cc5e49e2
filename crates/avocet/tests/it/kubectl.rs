//! The hub's API, as kubectl finds it.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use testkit::{Hub, LIMIT, Ran, Tree, wait_until};

use crate::support::{application, apply, model, placement, serving, tree, write_manifests};

/// kubectl at work on a hub.
pub struct Kubectl<'a> {
    program: PathBuf,
    tree: &'a Tree,
    hub: &'a Hub,
}

/// The kubectls to test with, oldest first: those that `AVOCET_TEST_KUBECTL` names, separated as in a `PATH`, or else
/// the one in the path.
pub fn kubectls() -> Vec<PathBuf> {
    let named = std::env::var_os("AVOCET_TEST_KUBECTL").unwrap_or_else(|| "kubectl".into());
    let works = |program: &PathBuf| {
        let found = Command::new(program).args(["version", "--client"]).output();
        found.is_ok_and(|output| output.status.success())
    };
    let found: Vec<PathBuf> = std::env::split_paths(&named).filter(works).collect();
    if found.is_empty() {
        println!("skipped: there is no kubectl in the path");
    }
    found
}

impl<'a> Kubectl<'a> {
    pub fn new(program: PathBuf, tree: &'a Tree, hub: &'a Hub) -> Self {
        Self { program, tree, hub }
    }

    /// The newest; `None` where there is none.
    pub fn find(tree: &'a Tree, hub: &'a Hub) -> Option<Self> {
        kubectls().pop().map(|program| Self::new(program, tree, hub))
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        // A home of its own: kubectl keeps what it discovered there.
        command.args(arguments).env("KUBECONFIG", self.hub.kubeconfig()).env("HOME", self.tree.folder());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(&mut self.command(arguments))
    }

    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert!(ran.success, "kubectl {arguments:?}:\n{}{}", ran.stdout, ran.stderr);
        assert_eq!(ran.stderr, "", "kubectl {arguments:?} warns");
        ran.stdout
    }
}

#[test]
fn kubectl_reads_and_writes_resources() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let Some(kubectl) = Kubectl::find(&tree, &hub) else { return };

    // The application comes by way of our own command, since it names files; the rest is kubectl's.
    apply(&tree, &hub, &[model("affine")]);
    let models = application("models", &json!([serving("affine", "cloud")]));
    let file = write_manifests(&tree, "kubectl.yaml", &[placement("cloud"), models]);
    let applied = kubectl.ok(&["apply", "-f", &file]);
    assert_eq!(applied, "placement.avocet.dev/cloud created\napplication.avocet.dev/models created\n");
    kubectl.ok(&["wait", "--for=condition=Ready", "application/models", "--timeout=60s"]);
    let applied = kubectl.ok(&["apply", "-f", &file]);
    assert_eq!(applied, "placement.avocet.dev/cloud unchanged\napplication.avocet.dev/models unchanged\n");

    let table = kubectl.ok(&["get", "applications"]);
    let heading: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(heading, ["NAME", "READY", "SUCCEEDED", "FAILED", "PENDING", "MESSAGE", "AGE"]);
    assert!(kubectl.ok(&["get", "sites", "-o", "wide"]).contains("http://127.0.0.1:"));
    assert_eq!(
        kubectl.ok(&["get", "app,model", "-o", "name"]),
        "application.avocet.dev/models\nmodel.avocet.dev/affine\n"
    );
    let jsonpath = "jsonpath={.status.decisions[0].site}";
    assert_eq!(kubectl.ok(&["get", "placementdecision", "cloud-decision-1", "-o", jsonpath]), "cloud");
    assert_eq!(kubectl.ok(&["get", "asg", "-A", "-o", "jsonpath={.items[*].metadata.namespace}"]), "cloud");
    assert!(kubectl.ok(&["describe", "application", "models"]).contains("AllComponentsRun"));

    kubectl.ok(&["label", "application/models", "team=vision"]);
    kubectl.ok(&["annotate", "application/models", "note=hello"]);
    kubectl.ok(&["patch", "site", "cloud", "--type", "merge", "-p", r#"{"spec":{"unschedulable":true}}"#]);
    kubectl.ok(&[
        "patch",
        "site",
        "cloud",
        "--type",
        "json",
        "-p",
        r#"[{"op":"remove","path":"/spec/unschedulable"}]"#,
    ]);
    assert_eq!(
        kubectl.ok(&["get", "app", "-l", "team=vision", "-o", "name"]),
        "application.avocet.dev/models\n"
    );
    assert_eq!(kubectl.ok(&["get", "app", "-l", "team!=vision", "-o", "name"]), "");
    let seen: Value = serde_json::from_str(&kubectl.ok(&["get", "app", "models", "-o", "json"])).unwrap();
    assert_eq!(seen["metadata"]["annotations"]["note"], "hello");
    kubectl.ok(&["label", "application/models", "team-"]);

    let resources = kubectl.ok(&["api-resources", "--api-group=avocet.dev", "-o", "name"]);
    let mut names: Vec<&str> = resources.lines().collect();
    names.sort_unstable();
    let plurals = [
        "applicationrevisions",
        "applications",
        "assignments",
        "functions",
        "models",
        "placementdecisions",
        "placements",
        "placementscores",
        "placementsimulations",
        "sites",
        "sources",
    ];
    assert_eq!(names, plurals.map(|plural| format!("{plural}.avocet.dev")));
    let explained = kubectl.ok(&["explain", "application.spec.components"]);
    assert!(explained.contains("placement") && explained.contains("-required-"), "{explained}");
    assert!(kubectl.ok(&["auth", "whoami"]).contains("admin"));

    // It waits until the object is gone.
    kubectl.ok(&["delete", "-f", &file, "--timeout=60s"]);
    let gone = kubectl.run(&["get", "application", "models"]).refused();
    assert!(
        gone.contains("(NotFound)") && gone.contains("applications.avocet.dev \"models\" not found"),
        "{gone}"
    );
    wait_until("the assignment is gone", LIMIT, || {
        let left = kubectl.run(&["get", "asg", "-A", "-o", "name"]);
        if left.stdout.is_empty() { Ok(()) } else { Err(left.stdout) }
    });
}

#[test]
fn promise_6_kubectl_shows_which_field_is_wrong() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let Some(kubectl) = Kubectl::find(&tree, &hub) else { return };
    let mut bad = placement("cloud");
    bad["spec"]["numberOfSites"] = json!(0);
    let file = write_manifests(&tree, "bad.yaml", &[bad]);
    for validate in ["--validate=false", "--validate=true"] {
        let refused = kubectl.run(&["apply", validate, "-f", &file]).refused();
        for words in [
            "The Placement \"cloud\" is invalid",
            "spec.numberOfSites: Invalid value: 0",
            "spec.numberOfSites in body should be greater than or equal to 1",
        ] {
            assert!(refused.contains(words), "{refused}");
        }
    }
    let mut misspelt = placement("cloud");
    misspelt["spec"]["tier"] = json!("cloud");
    let file = write_manifests(&tree, "misspelt.yaml", &[misspelt]);
    let refused = kubectl.run(&["apply", "-f", &file]).refused();
    assert!(refused.contains("tier"), "{refused}");
    let missing = application("a", &json!([{"name": "x"}]));
    let file = write_manifests(&tree, "missing.yaml", &[missing]);
    let refused = kubectl.run(&["create", "-f", &file]).refused();
    assert!(refused.contains("placement"), "{refused}");
    assert_eq!(kubectl.ok(&["get", "placements,applications", "-o", "name"]), "");
}

#[test]
fn kubectl_watches() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let Some(kubectl) = Kubectl::find(&tree, &hub) else { return };
    apply(&tree, &hub, &[placement("cloud")]);
    let output = tree.folder().join("watched");
    let file = std::fs::File::create(&output).unwrap();
    let mut watch = kubectl
        .command(&["get", "placements", "-w", "-o", "name"])
        .stdout(file)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let told = |name: &str| {
        wait_until(&format!("{name} is told of"), LIMIT, || {
            let told = std::fs::read_to_string(&output).unwrap();
            if told.contains(name) { Ok(()) } else { Err(told) }
        });
    };
    let seen = std::panic::catch_unwind(|| {
        told("placement.avocet.dev/cloud");
        apply(&tree, &hub, &[placement("later")]);
        told("placement.avocet.dev/later");
    });
    watch.kill().unwrap();
    watch.wait().unwrap();
    seen.unwrap();
}
