//! A session with every kubectl that is there, old and new: the same commands, the same outcome.

use serde_json::{Value, json};
use testkit::{Hub, LIMIT, Tree, wait_until};

use crate::kubectl::{Kubectl, kubectls};
use crate::support::{placement, tree, write_manifests};

const EDGE: &str = "placement.avocet.dev/edge";

fn with_each(session: impl Fn(&Kubectl<'_>, &Tree)) {
    for program in kubectls() {
        println!("with {}", program.display());
        let tree = tree();
        let hub: Hub = tree.hub("cloud");
        session(&Kubectl::new(program, &tree, &hub), &tree);
    }
}

fn json(kubectl: &Kubectl<'_>, arguments: &[&str]) -> Value {
    serde_json::from_str(&kubectl.ok(&[arguments, &["-o", "json"]].concat())).unwrap()
}

#[test]
fn every_kubectl_finds_the_definitions_of_our_kinds() {
    with_each(|kubectl, tree| {
        let definitions = kubectl.ok(&["get", "crds", "-o", "name"]);
        assert!(
            definitions.contains("customresourcedefinition.apiextensions.k8s.io/placements.avocet.dev\n")
        );
        kubectl.ok(&["wait", "--for=condition=Established", "crd/placements.avocet.dev", "--timeout=5s"]);
        let printed = types::custom_resource_definition(types::kind_named("placement").unwrap());
        let file = write_manifests(tree, "crd.yaml", std::slice::from_ref(&printed));
        kubectl.run(&["apply", "-f", &file]).ok();
        let again = kubectl.ok(&["apply", "-f", &file]);
        assert_eq!(again, "customresourcedefinition.apiextensions.k8s.io/placements.avocet.dev unchanged\n");
        let mut other = printed;
        other["spec"]["scope"] = json!("Cluster");
        let file = write_manifests(tree, "other.yaml", &[other]);
        let refused = kubectl.run(&["apply", "-f", &file]).refused();
        assert!(refused.contains("(Forbidden)"), "{refused}");
        let nothing = kubectl.run(&["get", "all"]);
        assert!(nothing.success && nothing.stderr.contains("No resources found in default namespace."));
    });
}

#[test]
fn every_kubectl_meets_a_quota() {
    with_each(|kubectl, tree| {
        kubectl.ok(&["create", "quota", "few", "--hard=count/placements.avocet.dev=1"]);
        let file = write_manifests(tree, "two.yaml", &[placement("edge"), placement("cloud")]);
        let refused = kubectl.run(&["create", "-f", &file]).refused();
        let words = "placements.avocet.dev \"cloud\" is forbidden: exceeded quota: few, requested: \
                     count/placements.avocet.dev=1, used: count/placements.avocet.dev=1, limited: \
                     count/placements.avocet.dev=1";
        assert!(refused.contains(words), "{refused}");
        wait_until("the quota tells what is used", LIMIT, || {
            let seen = json(kubectl, &["get", "quota", "few"]);
            let used = &seen["status"]["used"]["count/placements.avocet.dev"];
            if *used == "1" { Ok(()) } else { Err(seen.to_string()) }
        });
    });
}

#[test]
fn every_kubectl_creates_what_it_sends_as_protobuf() {
    with_each(|kubectl, tree| {
        assert_eq!(kubectl.ok(&["create", "namespace", "demo"]), "namespace/demo created\n");
        let create = |arguments: &[&str]| kubectl.ok(&[&["create", "-n", "demo"], arguments].concat());
        create(&["configmap", "settings", "--from-literal=level=high", "--from-literal=empty="]);
        create(&["secret", "generic", "keys", "--from-literal=password=hunter2"]);
        create(&["serviceaccount", "worker"]);
        create(&["role", "reader", "--verb=get,list", "--resource=configmaps,placements.avocet.dev"]);
        create(&["rolebinding", "readers", "--role=reader", "--serviceaccount=demo:worker", "--user=ann"]);
        create(&["clusterrole", "health", "--verb=get", "--non-resource-url=/healthz"]);
        create(&["clusterrolebinding", "health", "--clusterrole=health", "--group=probes"]);

        let find = |kind: &str, name: &str| json(kubectl, &["get", kind, name, "-n", "demo"]);
        let settings = find("configmap", "settings");
        assert_eq!(settings["data"], json!({"level": "high", "empty": ""}));
        for field in ["binaryData", "immutable"] {
            assert_eq!(settings.get(field), None, "{field} was not stated");
        }
        let secret = find("secret", "keys");
        assert_eq!(
            (&secret["type"], &secret["data"]),
            (&json!("Opaque"), &json!({"password": "aHVudGVyMg=="}))
        );
        let rules = json!([
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]},
            {"apiGroups": ["avocet.dev"], "resources": ["placements"], "verbs": ["get", "list"]},
        ]);
        assert_eq!(find("role", "reader")["rules"], rules);
        let binding = find("rolebinding", "readers");
        assert_eq!(binding["roleRef"]["name"], "reader");
        let subjects = json!([
            {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"},
            {"kind": "ServiceAccount", "name": "worker", "namespace": "demo"},
        ]);
        assert_eq!(binding["subjects"], subjects);
        assert_eq!(find("clusterrole", "health")["rules"][0]["nonResourceURLs"], json!(["/healthz"]));

        let again = kubectl.run(&["create", "namespace", "demo"]).refused();
        assert!(
            again.contains("(AlreadyExists)") && again.contains("namespaces \"demo\" already exists"),
            "{again}"
        );
        let nowhere = kubectl.run(&["create", "configmap", "a", "-n", "nowhere"]).refused();
        assert!(nowhere.contains("namespaces \"nowhere\" not found"), "{nowhere}");

        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "reader", "namespace": "demo"},
            "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}],
        });
        let file = write_manifests(tree, "role.yaml", &[role]);
        kubectl.run(&["auth", "reconcile", "-f", &file]).ok();
        assert_eq!(find("role", "reader")["rules"].as_array().unwrap().len(), 3);

        let request = json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"name": "ann"},
            "spec": {"request": REQUEST, "signerName": "example.com/signer", "usages": ["client auth"]},
        });
        kubectl.ok(&["create", "-f", &write_manifests(tree, "request.yaml", &[request])]);
        kubectl.ok(&["certificate", "approve", "ann"]);
        let approved = find("csr", "ann");
        assert_eq!(approved["status"]["conditions"][0]["type"], "Approved");
        assert_eq!(approved["spec"]["request"], REQUEST);
    });
}

/// A PKCS#10 request in PEM, in Base64.
const REQUEST: &str = include_str!("../data/request.base64");

#[test]
fn every_kubectl_applies_edits_and_deletes() {
    with_each(|kubectl, tree| {
        let mut edge = placement("edge");
        let file = write_manifests(tree, "edge.yaml", std::slice::from_ref(&edge));
        let diff = kubectl.run(&["diff", "-f", &file]);
        assert!(!diff.success && diff.stdout.contains("+kind: Placement"), "{}{}", diff.stdout, diff.stderr);
        assert_eq!(
            kubectl.ok(&["apply", "--dry-run=server", "-f", &file]),
            format!("{EDGE} created (server dry run)\n")
        );
        assert_eq!(kubectl.ok(&["apply", "-f", &file]), format!("{EDGE} created\n"));
        assert_eq!(kubectl.ok(&["apply", "-f", &file]), format!("{EDGE} unchanged\n"));
        assert_eq!(kubectl.ok(&["diff", "-f", &file]), "");
        edge["spec"]["tiers"] = json!(["edge", "device"]);
        let file = write_manifests(tree, "edge.yaml", std::slice::from_ref(&edge));
        let diff = kubectl.run(&["diff", "-f", &file]);
        assert!(!diff.success && diff.stdout.contains("+  - device"), "{}{}", diff.stdout, diff.stderr);
        assert_eq!(kubectl.ok(&["apply", "-f", &file]), format!("{EDGE} configured\n"));

        let mut edit = kubectl.command(&["edit", "placement", "edge"]);
        edit.env("KUBE_EDITOR", "sed -i s/device/cloud/");
        assert_eq!(testkit::Ran::of(&mut edit).ok(), format!("{EDGE} edited\n"));
        assert_eq!(json(kubectl, &["get", EDGE])["spec"]["tiers"], json!(["edge", "cloud"]));

        kubectl.ok(&["label", EDGE, "team=vision"]);
        kubectl.ok(&["annotate", EDGE, "note=hello"]);
        let overwritten = kubectl.run(&["label", EDGE, "team=sound"]).refused();
        assert!(overwritten.contains("already has a value"), "{overwritten}");
        kubectl.ok(&["label", "--overwrite", EDGE, "team=sound"]);
        assert_eq!(
            kubectl.ok(&["get", "placements", "-l", "team in (sound)", "-o", "name"]),
            format!("{EDGE}\n")
        );
        kubectl.ok(&["patch", EDGE, "--type=merge", "-p", r#"{"spec":{"numberOfSites":1}}"#]);
        let operations = r#"[{"op":"test","path":"/spec/numberOfSites","value":1},{"op":"replace","path":"/spec/numberOfSites","value":2}]"#;
        kubectl.ok(&["patch", EDGE, "--type=json", "-p", operations]);
        let strategic = kubectl.run(&["patch", EDGE, "-p", r#"{"spec":{"numberOfSites":3}}"#]).refused();
        let words = "the body of the request was in an unknown format - accepted media types include: \
                     application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
        assert!(strategic.contains(words), "{strategic}");
        kubectl.ok(&["scale", EDGE, "--replicas=4"]);
        assert_eq!(kubectl.ok(&["get", EDGE, "-o", "jsonpath={.spec.numberOfSites}"]), "4");
        let stale = kubectl.run(&["scale", EDGE, "--current-replicas=2", "--replicas=5"]).refused();
        assert!(stale.contains("Expected replicas to be 2, was 4"), "{stale}");

        kubectl.ok(&[
            "patch",
            EDGE,
            "--type=merge",
            "-p",
            r#"{"metadata":{"finalizers":["example.com/hold"]}}"#,
        ]);
        kubectl.ok(&["delete", EDGE, "--wait=false"]);
        assert!(json(kubectl, &["get", EDGE])["metadata"]["deletionTimestamp"].is_string());
        kubectl.ok(&[
            "patch",
            EDGE,
            "--type=json",
            "-p",
            r#"[{"op":"remove","path":"/metadata/finalizers"}]"#,
        ]);
        let gone = kubectl.run(&["get", EDGE]).refused();
        assert!(gone.contains("placements.avocet.dev \"edge\" not found"), "{gone}");
        kubectl.ok(&["create", "configmap", "settings", "--from-literal=level=high"]);
        kubectl.ok(&["apply", "-f", &file]);
        kubectl.ok(&["delete", EDGE, "--cascade=background", "--timeout=60s"]);
        kubectl.ok(&["patch", "configmap", "settings", "-p", r#"{"data":{"level":"low"}}"#]);
        assert_eq!(kubectl.ok(&["get", "cm", "settings", "-o", "jsonpath={.data.level}"]), "low");
        kubectl.ok(&["delete", "configmap", "settings", "--timeout=60s"]);
    });
}

#[test]
fn every_kubectl_applies_on_the_server_and_sees_conflicts() {
    with_each(|kubectl, tree| {
        let mut edge = placement("edge");
        edge["spec"]["numberOfSites"] = json!(1);
        let file = write_manifests(tree, "edge.yaml", std::slice::from_ref(&edge));
        let apply = |manager: &str, file: &str, further: &[&str]| {
            let manager = format!("--field-manager={manager}");
            kubectl.run(&[&["apply", "--server-side", &manager, "-f", file], further].concat())
        };
        assert_eq!(apply("one", &file, &[]).ok(), format!("{EDGE} serverside-applied\n"));
        edge["spec"]["numberOfSites"] = json!(2);
        let file = write_manifests(tree, "edge.yaml", &[edge]);
        let conflict = apply("two", &file, &[]).refused();
        assert!(conflict.contains("Apply failed with 1 conflict: conflict with \"one\""), "{conflict}");
        assert!(conflict.contains(".spec.numberOfSites"), "{conflict}");
        apply("two", &file, &["--force-conflicts"]).ok();
        assert_eq!(kubectl.ok(&["get", EDGE, "-o", "jsonpath={.spec.numberOfSites}"]), "2");
        let settings = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "default"},
            "data": {"level": "high"},
        });
        let file = write_manifests(tree, "settings.yaml", &[settings]);
        assert_eq!(apply("one", &file, &[]).ok(), "configmap/settings serverside-applied\n");
    });
}

/// kubectl hands over to the server what it applied by itself before, in two steps of its own.
#[test]
fn every_kubectl_goes_over_from_its_own_apply_to_the_servers() {
    with_each(|kubectl, tree| {
        let mut edge = placement("edge");
        edge["spec"]["numberOfSites"] = json!(1);
        let file = write_manifests(tree, "edge.yaml", std::slice::from_ref(&edge));
        kubectl.ok(&["apply", "-f", &file]);
        edge["spec"]["numberOfSites"] = json!(2);
        let file = write_manifests(tree, "edge.yaml", &[edge]);
        let gone_over = kubectl.run(&["apply", "--server-side", "--force-conflicts", "-f", &file]);
        assert!(!gone_over.stderr.contains("failed"), "{}", gone_over.stderr);
        assert_eq!(gone_over.ok(), format!("{EDGE} serverside-applied\n"));
        let left = kubectl.ok(&["get", EDGE, "-o", "jsonpath={.spec.numberOfSites} {.spec.tiers}"]);
        assert_eq!(left, "2 [\"edge\"]");
        let again = kubectl.run(&["apply", "--server-side", "-f", &file]);
        assert!(!again.stderr.contains("Warning"), "{}", again.stderr);
        again.ok();
    });
}

#[test]
fn every_kubectl_shows_explains_and_checks() {
    with_each(|kubectl, tree| {
        let file = write_manifests(tree, "edge.yaml", &[placement("edge")]);
        kubectl.ok(&["apply", "-f", &file]);
        kubectl.ok(&["wait", "--for=condition=Ready", "site/cloud", "--timeout=60s"]);
        assert!(kubectl.ok(&["get", "sites"]).starts_with("NAME"));
        assert!(kubectl.ok(&["get", "sites", "-o", "wide"]).contains("http://127.0.0.1:"));
        assert!(kubectl.ok(&["get", EDGE, "-o", "yaml"]).contains("kind: Placement"));
        assert_eq!(kubectl.ok(&["get", EDGE, "-o", "jsonpath={.spec.tiers[*]}"]), "edge");
        let columns = "custom-columns=N:.metadata.name,T:.spec.tiers";
        assert_eq!(kubectl.ok(&["get", "placements", "--no-headers", "-o", columns]), "edge   [edge]\n");
        assert!(kubectl.ok(&["get", "namespaces,serviceaccounts"]).contains("namespace/default"));
        assert!(kubectl.ok(&["describe", EDGE]).contains("Tiers:"));

        let explained = kubectl.ok(&["explain", "placement.spec.numberOfSites"]);
        assert!(explained.contains("integer"), "{explained}");
        let explained = kubectl.ok(&["explain", "placement.metadata.labels"]);
        assert!(explained.contains("Key-value pairs to select by."), "{explained}");
        let explained = kubectl.ok(&["explain", "secrets", "--recursive"]);
        assert!(explained.contains("stringData") && explained.contains("ownerReferences"), "{explained}");

        let resources = kubectl.ok(&["api-resources", "--no-headers"]);
        for words in ["placements", "configmaps", "rolebindings", "avocet.dev/v1alpha1"] {
            assert!(resources.contains(words), "{resources}");
        }
        assert!(kubectl.ok(&["api-versions"]).contains("coordination.k8s.io/v1\n"));
        assert_eq!(kubectl.ok(&["auth", "can-i", "create", "placements.avocet.dev"]), "yes\n");
        assert!(kubectl.ok(&["auth", "can-i", "--list"]).contains("Resources"));

        let mut misspelt = placement("other");
        misspelt["spec"]["tier"] = json!("cloud");
        let file = write_manifests(tree, "misspelt.yaml", &[misspelt]);
        let refused = kubectl.run(&["apply", "-f", &file]).refused();
        assert!(refused.contains("unknown field") && refused.contains("tier"), "{refused}");
        let mut wrong = placement("other");
        wrong["spec"]["numberOfSites"] = json!("many");
        let file = write_manifests(tree, "wrong.yaml", &[wrong]);
        let refused = kubectl.run(&["create", "-f", &file]).refused();
        assert!(refused.contains("numberOfSites"), "{refused}");
        wait_until("only what is right was made", LIMIT, || {
            match kubectl.ok(&["get", "placements", "-o", "name"]) {
                found if found == format!("{EDGE}\n") => Ok(()),
                found => Err(found),
            }
        });
    });
}
