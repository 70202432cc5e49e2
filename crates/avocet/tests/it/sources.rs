//! Sources: a real Git repository, the real hub, the real kubectl.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use testkit::{Hub, LIMIT, Site, Tree, wait_until};

use crate::kubectl::Kubectl;
use crate::support::{
    application, apply, http, model, ours, serving, tree, wait_until_model_answers, write_manifests,
};

/// A work tree and the bare repository that it pushes to.
pub struct Repository {
    work: PathBuf,
    pub bare: PathBuf,
}

impl Repository {
    pub fn new(tree: &Tree) -> Self {
        let repository = Self { work: tree.folder().join("work"), bare: tree.folder().join("deploy.git") };
        std::fs::create_dir_all(&repository.work).unwrap();
        repository.git(&["init", "--quiet", "--bare", "-b", "main", repository.bare.to_str().unwrap()]);
        repository.git(&["init", "--quiet", "-b", "main", "."]);
        repository
    }

    #[track_caller]
    fn git(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=Anna", "-c", "user.email=anna@example.com"]).args(arguments);
        command.current_dir(&self.work).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        testkit::Ran::of(&mut command).ok().trim().to_owned()
    }

    pub fn url(&self) -> String {
        format!("file://{}", self.bare.display())
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.work.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn remove(&self, path: &str) {
        std::fs::remove_file(self.work.join(path)).unwrap();
    }

    /// Commits and pushes all that is written; answers the revision.
    #[track_caller]
    pub fn push(&self) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", "change"]);
        self.git(&["push", "--quiet", &self.url(), "HEAD:main"]);
        format!("main@sha1:{}", self.git(&["rev-parse", "HEAD"]))
    }
}

pub fn hub(tree: &Tree) -> Hub {
    tree.hub_with("cloud", &["--source-protocol", "file"])
}

/// The Source `deploy`, whose account may edit what is in its namespace.
pub fn source(repository: &Repository, further: &Value) -> [Value; 2] {
    let mut source = json!({
        "apiVersion": "avocet.dev/v1alpha1", "kind": "Source", "metadata": {"name": "deploy"},
        "spec": {"git": {"url": repository.url(), "path": "deploy"}, "interval": "1h"},
    });
    for (field, value) in further.as_object().unwrap() {
        source["spec"][field] = value.clone();
    }
    let rights = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "deploys"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}],
    });
    [source, rights]
}

#[track_caller]
pub fn status(hub: &Hub) -> Value {
    hub.cli(&["source", "show", "deploy", "-o", "json"]).json()["status"].clone()
}

pub fn ready(status: &Value) -> Value {
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|one| one["type"] == "Ready").unwrap_or_default()
}

#[track_caller]
pub fn wait_until_applied(hub: &Hub, revision: &str) -> Value {
    wait_until(&format!("{revision} is applied"), LIMIT, || {
        let status = status(hub);
        let is_there = status["lastAppliedRevision"] == revision && ready(&status)["status"] == "True";
        if is_there { Ok(status) } else { Err(status.to_string()) }
    })
}

#[track_caller]
fn exists(hub: &Hub, what: &str) -> bool {
    hub.cli(&["get", what, "-o", "name"]).success
}

pub fn config_map(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  key: '{value}'\n")
}

const PLACEMENT: &str = "apiVersion: avocet.dev/v1alpha1
kind: Placement
metadata:
  name: line
spec:
  tiers: [edge]
  siteSelector: {matchLabels: {line: a}}
";

/// What a site answers who looks for the model there.
fn asked(site: &Site) -> u16 {
    let url = format!("{}/v2/models/affine", site.access("inference"));
    http("GET", &url, "", &Value::Null).unwrap().0
}

#[test]
fn a_commit_that_moves_a_label_moves_the_workload() {
    let tree = tree();
    let hub = hub(&tree);
    let north = tree.site(&hub, "north", &["--label", "line=a"]);
    let south = tree.site(&hub, "south", &["--label", "line=b"]);
    let repository = Repository::new(&tree);
    repository.write("deploy/placement.yaml", PLACEMENT);
    let first = repository.push();
    apply(&tree, &hub, &source(&repository, &json!({})));
    wait_until_applied(&hub, &first);
    apply(&tree, &hub, &[model("affine"), application("models", &json!([serving("affine", "line")]))]);
    let sites = |site: &str| {
        wait_until(&format!("the placement is at {site}"), LIMIT, || {
            let seen = hub.cli(&["get", "placementdecision", "line-decision-1", "-o", "json"]);
            let decided = serde_json::from_str::<Value>(&seen.stdout).unwrap_or_default();
            let found = &decided["status"]["decisions"];
            if found[0]["site"] == site && found[1].is_null() {
                Ok(())
            } else {
                Err(seen.stdout + &seen.stderr)
            }
        });
    };
    sites(&north.name);
    wait_until_model_answers(&north, "affine");
    assert_eq!(asked(&south), 404);
    repository.write("deploy/placement.yaml", &PLACEMENT.replace("line: a", "line: b"));
    let second = repository.push();
    let told = hub.cli(&["source", "reconcile", "deploy"]).ok();
    assert!(told.contains(&second) && told.contains("1 object is as the repository says"), "{told}");
    sites(&south.name);
    wait_until_model_answers(&south, "affine");
    wait_until("the model is gone from north", LIMIT, || {
        let code = asked(&north);
        if code == 404 { Ok(()) } else { Err(code.to_string()) }
    });
    let assigned = |site: &str| hub.cli(&["-n", site, "get", "assignments", "-o", "name"]).ok();
    assert_eq!((assigned("north").trim(), assigned("south").lines().count()), ("", 1));
    let inventory = status(&hub)["inventory"].clone();
    assert_eq!(inventory[0]["name"], "line");
    assert_eq!(inventory[0]["revision"], second.as_str());
}

#[test]
fn what_leaves_the_repository_is_deleted_if_the_source_made_it() {
    let tree = tree();
    let hub = hub(&tree);
    let repository = Repository::new(&tree);
    let before = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "before"}, "data": {"own": "1"}});
    apply(&tree, &hub, &[before]);
    for name in ["stays", "goes", "kept", "before"] {
        repository.write(&format!("deploy/{name}.yaml"), &config_map(name, "1"));
    }
    repository.write(
        "deploy/kept.yaml",
        &config_map("kept", "1")
            .replace("name: kept", "name: kept\n  annotations: {avocet.dev/prune: disabled}"),
    );
    let first = repository.push();
    apply(&tree, &hub, &source(&repository, &json!({})));
    let seen = wait_until_applied(&hub, &first);
    assert_eq!(seen["objects"], 4);
    for name in ["goes", "kept", "before"] {
        repository.remove(&format!("deploy/{name}.yaml"));
    }
    repository.push();
    hub.cli(&["source", "reconcile", "deploy"]).ok();
    assert!(!exists(&hub, "configmap/goes"));
    assert!(exists(&hub, "configmap/kept"), "an annotation keeps it");
    assert!(exists(&hub, "configmap/before"), "it was there before the Source");
    assert_eq!(status(&hub)["objects"], 1);

    // A folder without manifests is more likely a mistake than a wish.
    repository.remove("deploy/stays.yaml");
    repository.write("deploy/README.md", "nothing here");
    repository.push();
    let refused = hub.cli(&["source", "reconcile", "deploy"]).refused();
    assert!(refused.contains("NoManifests"), "{refused}");
    assert!(exists(&hub, "configmap/stays"));

    hub.cli(&["delete", "source/deploy"]).ok();
    wait_until("what it made went with it", LIMIT, || {
        if exists(&hub, "configmap/stays") || exists(&hub, "source/deploy") {
            Err("not yet".into())
        } else {
            Ok(())
        }
    });
    assert!(exists(&hub, "configmap/kept") && exists(&hub, "configmap/before"));
}

#[test]
fn a_bad_commit_leaves_the_last_good_state_and_names_file_and_line() {
    let tree = tree();
    let hub = hub(&tree);
    let repository = Repository::new(&tree);
    repository.write("deploy/a.yaml", &config_map("a", "1"));
    let first = repository.push();
    apply(&tree, &hub, &source(&repository, &json!({})));
    wait_until_applied(&hub, &first);
    repository.write("deploy/a.yaml", &config_map("a", "2"));
    for (text, reason, place) in [
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b\n", "BuildFailed", "deploy/b.yaml line"),
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: b}\n",
            "BuildFailed",
            "deploy/b.yaml line 1",
        ),
        (
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\ndata: {key: 1}\n",
            "DryRunFailed",
            "deploy/b.yaml line 2",
        ),
        (
            "apiVersion: avocet.dev/v1alpha1\nkind: Placement\nmetadata: {name: b}\nspec: {numberOfSites: 0}\n",
            "DryRunFailed",
            "deploy/b.yaml line 1",
        ),
        (
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: b}\nrules: []\n",
            "DryRunFailed",
            "deploy/b.yaml line 1",
        ),
    ] {
        repository.write("deploy/b.yaml", text);
        let revision = repository.push();
        let refused = hub.cli(&["source", "reconcile", "deploy"]).refused();
        assert!(refused.contains(reason) && refused.contains(place), "{refused}");
        let status = status(&hub);
        assert_eq!(status["lastAppliedRevision"], first.as_str());
        assert_eq!(status["lastAttemptedRevision"], revision.as_str());
        let seen = hub.cli(&["get", "configmap/a", "-o", "json"]).json();
        assert_eq!(seen["data"]["key"], "1", "nothing of a bad commit is applied");
    }
    repository.remove("deploy/b.yaml");
    repository.push();
    hub.cli(&["source", "reconcile", "deploy"]).ok();
    assert_eq!(hub.cli(&["get", "configmap/a", "-o", "json"]).json()["data"]["key"], "2");
}

#[test]
fn a_source_has_the_rights_of_its_account_and_no_others() {
    let tree = tree();
    let hub = hub(&tree);
    let repository = Repository::new(&tree);
    repository.write("deploy/a.yaml", &config_map("a", "1"));
    let revision = repository.push();
    let [source, rights] = source(&repository, &json!({}));
    apply(&tree, &hub, &[source]);
    let refused = wait_until("it is refused", LIMIT, || {
        let ready = ready(&status(&hub));
        if ready["status"] == "False" { Ok(ready["message"].to_string()) } else { Err(ready.to_string()) }
    });
    for words in
        ["system:serviceaccount:default:default", "configmaps", "deploy/a.yaml line 1", "create rolebinding"]
    {
        assert!(refused.contains(words), "{refused}");
    }
    assert!(!exists(&hub, "configmap/a"));
    apply(&tree, &hub, &[rights]);
    hub.cli(&["source", "reconcile", "deploy"]).ok();
    wait_until_applied(&hub, &revision);

    // Nothing in another namespace.
    repository
        .write("deploy/b.yaml", &config_map("b", "1").replace("name: b", "name: b\n  namespace: cloud"));
    repository.push();
    let refused = hub.cli(&["source", "reconcile", "deploy"]).refused();
    assert!(
        refused.contains("in the namespace \\\"cloud\\\"") || refused.contains("in the namespace \"cloud\""),
        "{refused}"
    );
}

#[test]
fn what_others_change_is_seen_and_put_right_or_left() {
    let tree = tree();
    let hub = hub(&tree);
    let Some(kubectl) = Kubectl::find(&tree, &hub) else { return };
    let repository = Repository::new(&tree);
    repository.write("deploy/a.yaml", &config_map("a", "1"));
    repository.write("deploy/b.yaml", &config_map("b", "1"));
    let revision = repository.push();
    apply(&tree, &hub, &source(&repository, &json!({"drift": "Warn", "interval": "5s"})));
    wait_until_applied(&hub, &revision);
    kubectl.ok(&["patch", "configmap", "a", "--type", "merge", "-p", r#"{"data":{"key":"2"}}"#]);
    kubectl.ok(&["delete", "configmap", "b"]);
    let drift = wait_until("the drift is told", LIMIT, || {
        let drift = status(&hub)["drift"].clone();
        if drift[1].is_null() { Err(drift.to_string()) } else { Ok(drift) }
    });
    assert_eq!(drift[0]["object"], "ConfigMap default/a");
    assert_eq!(drift[0]["fields"], json!([".data.key"]));
    assert_eq!(drift[1]["fields"], Value::Null, "it is gone as a whole");
    assert_eq!(kubectl.ok(&["get", "configmap", "a", "-o", "jsonpath={.data.key}"]), "2");
    assert!(!exists(&hub, "configmap/b"));

    kubectl.ok(&["patch", "source", "deploy", "--type", "merge", "-p", r#"{"spec":{"drift":"Correct"}}"#]);
    wait_until("all is put right", LIMIT, || {
        let seen = kubectl.run(&["get", "configmap", "a", "b", "-o", "jsonpath={.items[*].data.key}"]);
        if seen.stdout == "1 1" { Ok(()) } else { Err(seen.stdout + &seen.stderr) }
    });
    // Somebody's own fields are their own.
    kubectl.ok(&["label", "configmap", "a", "mine=yes"]);
    hub.cli(&["source", "reconcile", "deploy"]).ok();
    assert_eq!(kubectl.ok(&["get", "configmap", "a", "-o", "jsonpath={.metadata.labels.mine}"]), "yes");
}

#[test]
fn fields_of_others_are_taken_over_only_by_force() {
    let tree = tree();
    let hub = hub(&tree);
    let Some(kubectl) = Kubectl::find(&tree, &hub) else { return };
    let repository = Repository::new(&tree);
    let theirs = tree.write("theirs.yaml", config_map("a", "theirs"));
    kubectl.ok(&["apply", "--server-side", "-f", theirs.to_str().unwrap()]);
    repository.write("deploy/a.yaml", &config_map("a", "ours"));
    let revision = repository.push();
    apply(&tree, &hub, &source(&repository, &json!({})));
    let refused = wait_until("the conflict is told", LIMIT, || {
        let ready = ready(&status(&hub));
        if ready["status"] == "False" { Ok(ready["message"].to_string()) } else { Err(ready.to_string()) }
    });
    assert!(refused.contains("conflict") && refused.contains(".data.key"), "{refused}");
    kubectl.ok(&["patch", "source", "deploy", "--type", "merge", "-p", r#"{"spec":{"force":true}}"#]);
    let seen = wait_until_applied(&hub, &revision);
    assert_eq!(seen["inventory"][0]["adopted"], true);
    assert_eq!(kubectl.ok(&["get", "configmap", "a", "-o", "jsonpath={.data.key}"]), "ours");
}

#[test]
fn two_sources_don_t_fight_for_one_object() {
    let tree = tree();
    let hub = hub(&tree);
    let repository = Repository::new(&tree);
    repository.write("deploy/a.yaml", &config_map("a", "1"));
    let revision = repository.push();
    let [source, rights] = source(&repository, &json!({"deletionPolicy": "Leave"}));
    apply(&tree, &hub, &[source.clone(), rights]);
    wait_until_applied(&hub, &revision);
    let mut second = source;
    second["metadata"]["name"] = json!("second");
    second["spec"]["force"] = json!(true);
    apply(&tree, &hub, &[second]);
    let refused = hub.cli(&["source", "reconcile", "second"]).refused();
    assert!(refused.contains("belongs to the Source default/deploy"), "{refused}");
    hub.cli(&["delete", "source/deploy"]).ok();
    wait_until("the first is gone", LIMIT, || {
        if exists(&hub, "source/deploy") { Err("not yet".into()) } else { Ok(()) }
    });
    assert!(exists(&hub, "configmap/a"), "its policy is to leave all");
    hub.cli(&["source", "reconcile", "second"]).ok();
}

#[test]
fn a_webhook_has_the_repository_looked_at_at_once() {
    let tree = tree();
    let hub = hub(&tree);
    let repository = Repository::new(&tree);
    repository.write("deploy/a.yaml", &config_map("a", "1"));
    let first = repository.push();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hook"}, "stringData": {"token": "correct horse"},
    });
    let [source, rights] = source(&repository, &json!({"webhook": {"secretRef": {"name": "hook"}}}));
    apply(&tree, &hub, &[secret, source, rights]);
    wait_until_applied(&hub, &first);
    repository.write("deploy/a.yaml", &config_map("a", "2"));
    let second = repository.push();
    let url = |name: &str| format!("{}/avocet/v1/namespaces/default/sources/{name}/webhook", hub.url());
    let ring = |name: &str, header: &str| {
        let mut curl = Command::new("curl");
        curl.args([
            "-sk",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-X",
            "POST",
            "-d",
            "{\"ref\":\"refs/heads/main\"}",
        ]);
        testkit::Ran::of(curl.args(["-H", header]).arg(url(name))).ok()
    };
    assert_eq!(ring("deploy", "X-Gitlab-Token: wrong horse"), "401");
    assert_eq!(ring("other", "X-Gitlab-Token: correct horse"), "401");
    assert_eq!(ring("deploy", "X-Hub-Signature-256: sha256=00"), "401");
    assert_eq!(status(&hub)["lastAppliedRevision"], first.as_str());
    assert_eq!(ring("deploy", "X-Gitlab-Token: correct horse"), "202");
    wait_until_applied(&hub, &second);
}

#[test]
fn kubectl_sees_sources_and_what_an_overlay_made() {
    let tree = tree();
    let hub = hub(&tree);
    let Some(kubectl) = Kubectl::find(&tree, &hub) else { return };
    let repository = Repository::new(&tree);
    repository.write("deploy/base/kustomization.yaml", "resources: [a.yaml]\n");
    repository.write("deploy/base/a.yaml", &config_map("a", "1"));
    repository.write(
        "deploy/north/kustomization.yaml",
        "resources: [../base, namespace.yaml]\nnamespace: north\nnamePrefix: n-\nlabels:\n- pairs: {plant: north}\n",
    );
    repository
        .write("deploy/north/namespace.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: north}\n");
    let revision = repository.push();
    let git = json!({"url": repository.url(), "path": "deploy/north"});
    let [mut source, mut rights] = source(&repository, &json!({"git": git, "serviceAccountName": "robot"}));
    source["spec"]["git"]["ref"] = json!({"branch": "main"});
    rights["kind"] = json!("ClusterRoleBinding");
    rights["roleRef"]["name"] = json!("cluster-admin");
    rights["subjects"][0]["name"] = json!("robot");
    let robot = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    let file = write_manifests(&tree, "source.yaml", &[robot, rights, source]);
    kubectl.ok(&["apply", "-f", &file]);
    kubectl.ok(&["wait", "--for=condition=Ready", "source/deploy", "--timeout=60s"]);
    let table = kubectl.ok(&["get", "sources"]);
    let heading: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(heading, ["NAME", "READY", "REVISION", "STATUS", "AGE"]);
    assert!(table.contains(&revision) && table.contains("2 objects are as the repository says"), "{table}");
    let found = kubectl.ok(&["-n", "north", "get", "configmap", "-l", "plant=north", "-o", "name"]);
    assert_eq!(found, "configmap/n-a\n");
    let manager = kubectl.ok(&[
        "-n",
        "north",
        "get",
        "configmap",
        "n-a",
        "--show-managed-fields",
        "-o",
        "jsonpath={.metadata.managedFields[0].manager}",
    ]);
    assert_eq!(manager, "avocet-source");
    let shown = hub.cli(&["source", "show", "deploy"]).ok();
    assert!(shown.contains("n-a") && shown.contains(&revision), "{shown}");
    let built = hub.cli(&["source", "build", repository.work.join("deploy/north").to_str().unwrap()]).ok();
    assert!(built.contains("name: n-a") && built.contains("plant: north"), "{built}");
    kubectl.ok(&["delete", "source", "deploy", "--timeout=60s"]);
    assert!(!kubectl.run(&["-n", "north", "get", "configmap", "n-a"]).success);
}

#[test]
fn a_suspended_source_is_left_alone() {
    let tree = tree();
    let hub = hub(&tree);
    let repository = Repository::new(&tree);
    repository.write("deploy/placement.yaml", PLACEMENT);
    let first = repository.push();
    apply(&tree, &hub, &source(&repository, &json!({})));
    wait_until_applied(&hub, &first);
    hub.cli(&["source", "suspend", "deploy"]).ok();
    repository.write("deploy/b.yaml", &config_map("b", "1"));
    let second = repository.push();
    let refused = hub.cli(&["source", "reconcile", "deploy"]).refused();
    assert!(refused.contains("is suspended"), "{refused}");
    assert!(!exists(&hub, "configmap/b"));
    hub.cli(&["source", "resume", "deploy"]).ok();
    wait_until_applied(&hub, &second);
}

#[test]
fn a_site_fetches_what_only_it_reaches() {
    let tree = tree();
    // The hub itself may read no files.
    let hub = tree.hub("cloud");
    let repository = Repository::new(&tree);
    repository.write("deploy/a.yaml", &config_map("a", "1"));
    let first = repository.push();
    apply(&tree, &hub, &source(&repository, &json!({"site": "plant"})));
    let refused = hub.cli(&["source", "reconcile", "deploy"]).refused();
    assert!(refused.contains("SiteNotFound"), "{refused}");
    let mut plant = tree.site(&hub, "plant", &["--fetch-protocol", "file"]);
    wait_until_applied(&hub, &first);
    repository.write("deploy/b.yaml", "a: [1\n");
    repository.push();
    let refused = hub.cli(&["source", "reconcile", "deploy"]).refused();
    assert!(refused.contains("site plant: deploy/b.yaml line"), "{refused}");
    repository.write("deploy/b.yaml", &config_map("b", "1"));
    let second = repository.push();
    hub.cli(&["source", "reconcile", "deploy"]).ok();
    wait_until_applied(&hub, &second);
    plant.kill_9();
    wait_until("the silence is told, and takes nothing away", LIMIT, || {
        let _ = hub.cli(&["source", "reconcile", "deploy"]);
        let ready = ready(&status(&hub));
        if ready["reason"] == "SiteSilent" && exists(&hub, "configmap/b") {
            Ok(())
        } else {
            Err(ready.to_string())
        }
    });
}

#[test]
fn the_example_is_what_it_says() {
    let tree = tree();
    let hub = hub(&tree);
    let examples = ours("../../examples/gitops");
    let repository = Repository::new(&tree);
    for file in ["base/kustomization.yaml", "base/placement.yaml", "overlays/north/kustomization.yaml"] {
        repository.write(
            &format!("examples/gitops/{file}"),
            &std::fs::read_to_string(examples.join(file)).unwrap(),
        );
    }
    let revision = repository.push();
    let manifests = std::fs::read_to_string(examples.join("source.yaml")).unwrap();
    let manifests = manifests.replace("https://git.example.com/team/deploy.git", &repository.url());
    let file = tree.write("source.yaml", manifests);
    hub.cli(&["apply", "-f", file.to_str().unwrap()]).ok();
    wait_until_applied(&hub, &revision);
    let placed = hub.cli(&["get", "placement/cameras", "-o", "json"]).json();
    assert_eq!(placed["spec"]["siteSelector"]["matchLabels"]["plant"], "north");
    assert_eq!(placed["metadata"]["labels"]["plant"], "north");
}
