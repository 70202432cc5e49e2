//! What placements decide and would decide, as the hub tells those who may not look at what it decides from.

use std::io::{Read, Write};
use std::net::TcpListener;

use serde_json::{Value, json};
use testkit::{Hub, LIMIT, Tree, wait_until};

use crate::kubectl::{Kubectl, kubectls};
use crate::support::{apply, http, token, tree, write_manifests};

/// Somebody who knows how loud it is at sites; answers the same to all questions.
fn loudness() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
                let body = json!({"now": {"cloud": 0.75, "edge": 0.25}, "later": {"cloud": 0.1, "edge": 1}})
                    .to_string();
                let head =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes());
            }
        }
    });
    origin
}

fn quiet(name: &str, origin: &str, when: &str) -> Value {
    let metric = json!({"name": "loud", "min": 0, "max": 1, "weight": -1,
        "provider": {"http": {"url": format!("{origin}/"), "pointer": format!("/{when}")}}});
    json!({"apiVersion": "avocet.dev/v1alpha1", "kind": "Placement", "metadata": {"name": name},
        "spec": {"numberOfSites": 1, "metrics": [metric]}})
}

/// A kubeconfig of a service account with a role in the namespace `default` and no other rights.
fn let_in(hub: &Hub, tree: &Tree, name: &str, role: &str) -> String {
    let api = format!("http://127.0.0.1:{}", hub.port());
    let ask = |path: &str, body: Value| {
        let (code, answer) = http("POST", &format!("{api}{path}"), &token(hub), &body).unwrap();
        assert_eq!(code, 201, "{answer}");
        serde_json::from_str::<Value>(&answer).unwrap()
    };
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    ask(accounts, json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}));
    let group = "rbac.authorization.k8s.io";
    let binding = json!({"apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": name}]});
    ask(&format!("/apis/{group}/v1/namespaces/default/rolebindings"), binding);
    let signed = ask(&format!("{accounts}/{name}/token"), json!({"spec": {}}));
    let kubeconfig = std::fs::read_to_string(hub.kubeconfig()).unwrap();
    let own = kubeconfig.replace(&token(hub), signed["status"]["token"].as_str().unwrap());
    tree.write(&format!("{name}.kubeconfig"), own).display().to_string()
}

#[test]
fn placements_are_explained_and_simulated_by_the_hub_for_who_may_not_read_sites() {
    let tree = tree();
    let origin = loudness();
    let hub = tree.hub_with("cloud", &["--metrics-origin", &origin]);
    let _edge = tree.site(&hub, "edge", &[]);
    apply(&tree, &hub, &[quiet("quiet", &origin, "now")]);
    let explained = wait_until("the edge is selected", LIMIT, || {
        let explained = hub.cli(&["explain", "placement/quiet", "-o", "json"]).json();
        if explained["decided"] == json!(["edge"]) { Ok(explained) } else { Err(explained.to_string()) }
    });
    assert_eq!(explained["placement"], "quiet");
    let loud = |site: &Value| {
        let terms = site["scores"].as_array().unwrap();
        terms.iter().find(|term| term["name"] == "Metrics").unwrap()["score"].clone()
    };
    // From what only the hub was told: 0.25 and 0.75, the less the better.
    let sites = explained["sites"].as_array().unwrap();
    assert_eq!((&sites[0]["site"], loud(&sites[0])), (&json!("edge"), json!(50)), "{explained}");
    assert_eq!((&sites[1]["site"], loud(&sites[1])), (&json!("cloud"), json!(-50)), "{explained}");
    let alone = hub.cli(&["explain", "placement/quiet", "--site", "cloud"]).ok();
    assert!(alone.contains("cloud   no") && !alone.contains("edge   yes"), "{alone}");

    let viewer = let_in(&hub, &tree, "viewer", "view");
    let editor = let_in(&hub, &tree, "editor", "edit");
    let refused = hub.cli(&["--kubeconfig", &viewer, "get", "sites"]).refused();
    assert!(refused.contains("cannot list resource \"sites\""), "{refused}");
    let seen = hub.cli(&["--kubeconfig", &viewer, "explain", "placement/quiet", "-o", "json"]).json();
    assert_eq!(seen["sites"], explained["sites"]);
    let table = hub.cli(&["--kubeconfig", &viewer, "explain", "placement/quiet", "-o", "wide"]).ok();
    assert!(table.contains("Metrics 50×3"), "{table}");

    // Nobody asked for this metric before: the hub asks for it once.
    let file = write_manifests(
        &tree,
        "later.yaml",
        &[quiet("quiet", &origin, "later"), quiet("new", &origin, "now")],
    );
    let refused = hub.cli(&["--kubeconfig", &viewer, "placement", "simulate", "-f", &file]).refused();
    assert!(refused.contains("cannot create resource \"placementsimulations\""), "{refused}");
    let simulate = ["placement", "simulate", "-f", &file, "-o"];
    let told = hub.cli(&[&["--kubeconfig", &editor][..], &simulate, &["json"]].concat()).json();
    let of = |name: &str| {
        let all = told["placements"].as_array().unwrap();
        all.iter().find(|one| one["placement"] == name).unwrap().clone()
    };
    assert_eq!(of("quiet")["moves"], json!([{"from": "edge", "to": "cloud"}]), "{told}");
    assert_eq!((&of("new")["before"], &of("new")["after"]), (&json!([]), &json!(["edge"])));
    let table = hub.cli(&[&simulate[..], &["table"]].concat()).ok();
    assert!(
        table.contains("default/quiet   remove   edge") && table.contains("2 added, 1 removed over 2"),
        "{table}"
    );
    assert_eq!(hub.cli(&[&simulate[..], &["name"]].concat()).ok(), "default/new\ndefault/quiet\n");
    let now = hub.cli(&["get", "placements", "-o", "name"]).ok();
    assert_eq!(now, "placement/quiet\n", "nothing was applied");
}

#[test]
fn every_kubectl_asks_for_explanations_and_simulations() {
    for program in kubectls() {
        println!("with {}", program.display());
        let tree = tree();
        let hub: Hub = tree.hub("cloud");
        let kubectl = Kubectl::new(program, &tree, &hub);
        let manifest = |name: &str, spec: Value| json!({"apiVersion": "avocet.dev/v1alpha1", "kind": "Placement", "metadata": {"name": name}, "spec": spec});
        apply(&tree, &hub, &[manifest("all", json!({}))]);
        let explanation = "/apis/avocet.dev/v1alpha1/namespaces/default/placements/all/explanation";
        let explained: Value = serde_json::from_str(&kubectl.ok(&["get", "--raw", explanation])).unwrap();
        assert_eq!(explained["kind"], "PlacementExplanation");
        assert_eq!(explained["status"]["sites"][0]["site"], "cloud");
        let simulation = json!({"apiVersion": "avocet.dev/v1alpha1", "kind": "PlacementSimulation",
            "spec": {"manifests": [manifest("none", json!({"tiers": ["edge"]})), manifest("new", json!({}))]}});
        let file = write_manifests(&tree, "simulation.yaml", &[simulation]);
        let told: Value = serde_json::from_str(&kubectl.ok(&["create", "-f", &file, "-o", "json"])).unwrap();
        let after: Vec<(&Value, &Value)> = told["status"]["placements"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| (&one["placement"], &one["after"]))
            .collect();
        let cloud = json!(["cloud"]);
        let expected = [(&json!("all"), &cloud), (&json!("new"), &cloud), (&json!("none"), &json!([]))];
        assert_eq!(after, expected, "{told}");
        assert!(kubectl.ok(&["api-resources"]).contains("placementsimulations"));
        assert_eq!(kubectl.ok(&["auth", "can-i", "get", "placements/explanation"]), "yes\n");
    }
}
