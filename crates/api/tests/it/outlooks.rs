//! Explanations and simulations of placements: who may ask, and within which limits. What they say: the tests of the binary.

use serde_json::{Value, json};

use crate::support::{ADMIN, PLACEMENTS, PLANT, TestHub, manifest, placement, resource};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn simulation(manifests: Value) -> Value {
    json!({"apiVersion": "avocet.dev/v1alpha1", "kind": "PlacementSimulation", "spec": {"manifests": manifests}})
}

impl TestHub {
    async fn simulate(&self, token: &str, namespace: &str, manifests: Value) -> crate::support::Answer {
        let path = resource(&format!("namespaces/{namespace}/placementsimulations"));
        self.ask_json("POST", &path, token, &simulation(manifests)).await
    }
}

#[tokio::test]
async fn an_explanation_tells_of_all_sites_or_of_some() {
    let hub = TestHub::start().await;
    hub.post(PLACEMENTS, &placement("p")).await.expect(201);
    let of = |query: &str| format!("{PLACEMENTS}/p/explanation{query}");
    let all = hub.get(&of("")).await.expect(200);
    assert_eq!(all["kind"], "PlacementExplanation");
    assert_eq!(all["metadata"], json!({"name": "p", "namespace": "default"}));
    let sites = |answer: &Value| -> Vec<String> {
        let sites = answer["status"]["sites"].as_array().unwrap();
        sites.iter().map(|site| site["site"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(sites(&all), ["plant", "shop"]);
    assert_eq!(all["status"]["leftOut"], Value::Null);
    let one = hub.get(&of("?limit=1")).await.expect(200);
    assert_eq!((sites(&one), &one["status"]["leftOut"]), (vec!["plant".to_owned()], &json!(1)));
    assert_eq!(sites(&hub.get(&of("?site=shop")).await.expect(200)), ["shop"]);
    let none = hub.get(&of("?site=nix")).await.expect(404);
    assert_eq!(none["message"], "sites.avocet.dev \"nix\" not found");
    hub.get(&of("?limit=x")).await.expect(400);
    hub.get(&format!("{PLACEMENTS}/nix/explanation")).await.expect(404);
    hub.get("sites/plant/explanation").await.expect(404);
    hub.put(&of(""), &placement("p")).await.expect(405);
    hub.merge_patch(&of(""), &json!({"spec": {"tiers": []}})).await.expect(405);
    let kept = hub.get(&format!("{PLACEMENTS}/p")).await.expect(200);
    assert_eq!(kept["spec"]["tiers"], json!(["edge"]));
}

#[tokio::test]
async fn a_spec_that_cannot_be_followed_is_explained() {
    let hub = TestHub::start().await;
    let wrong = json!([{"celExpressions": ["site."]}]);
    hub.post(PLACEMENTS, &manifest("Placement", "p", json!({"predicates": wrong}))).await.expect(201);
    let told = hub.get(&format!("{PLACEMENTS}/p/explanation")).await.expect(200);
    let told = &told["status"];
    assert!(told["misconfigured"].as_str().is_some_and(|wrong| wrong.contains("site.")), "{told}");
    assert_eq!(told["sites"], json!([]));
}

#[tokio::test]
async fn who_may_explain_or_simulate_follows_from_roles() {
    let hub = TestHub::start().await;
    for namespace in ["team", "others"] {
        hub.create_namespace(namespace).await;
        hub.post(&format!("namespaces/{namespace}/placements"), &placement("p")).await.expect(201);
    }
    let path = |namespace: &str| resource(&format!("namespaces/{namespace}/placements/p/explanation"));
    let refused = hub.ask_json("GET", &path("team"), PLANT, &Value::Null).await.expect(403);
    assert!(refused["message"].as_str().unwrap().contains("cannot get resource \"placements/explanation\""));
    let group = "rbac.authorization.k8s.io";
    let bind = |role: &str| {
        json!({"apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": {"name": role},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "apiGroup": group, "name": "site:plant"}]})
    };
    let bindings = format!("{RBAC}/namespaces/team/rolebindings");
    // Roles that are added together here, as controllers would do it.
    let take = |role: &str| format!("avocet:aggregate-to-{role}");
    hub.ask_json("POST", &bindings, ADMIN, &bind(&take("view"))).await.expect(201);
    hub.ask_json("GET", &path("team"), PLANT, &Value::Null).await.expect(200);
    hub.ask_json("GET", &path("others"), PLANT, &Value::Null).await.expect(403);
    hub.simulate(PLANT, "team", json!([placement("q")])).await.expect(403);
    hub.ask_json("POST", &bindings, ADMIN, &bind(&take("edit"))).await.expect(201);
    let seen = hub.simulate(PLANT, "team", json!([placement("q")])).await.expect(201);
    let names = |told: &Value| -> Vec<String> {
        let all = told["status"]["placements"].as_array().unwrap();
        all.iter().map(|one| format!("{}/{}", one["namespace"], one["placement"]).replace('"', "")).collect()
    };
    assert_eq!(
        names(&seen),
        ["team/p", "team/q"],
        "of other namespaces only those may know who may look there"
    );
    let mut elsewhere = placement("q");
    elsewhere["metadata"]["namespace"] = json!("others");
    let refused = hub.simulate(PLANT, "team", json!([elsewhere])).await.expect(403);
    assert!(refused["message"].as_str().unwrap().contains("in the namespace \"others\""), "{refused}");
    let seen = hub
        .simulate(ADMIN, "team", json!([elsewhere, manifest("Site", "new", json!({"tier": "edge"}))]))
        .await;
    let seen = seen.expect(201);
    assert_eq!(names(&seen), ["others/p", "others/q", "team/p"]);
    let added: Vec<&Value> =
        seen["status"]["placements"].as_array().unwrap().iter().map(|one| &one["after"]).collect();
    assert_eq!(added, [&json!(["new"]); 3], "a site that is simulated counts as if it had joined");
    hub.get("sites/new").await.expect(404);
}

#[tokio::test]
async fn simulations_are_found_and_refused_with_reasons() {
    let hub = TestHub::start().await;
    let listed = hub.ask_json("GET", "/apis/avocet.dev/v1alpha1", ADMIN, &Value::Null).await;
    let resources = listed.expect(200)["resources"].clone();
    let named =
        |name: &str| resources.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap().clone();
    assert_eq!(named("placementsimulations")["verbs"], json!(["create"]));
    assert_eq!(named("placementsimulations")["namespaced"], true);
    assert_eq!(named("placements/explanation")["kind"], "PlacementExplanation");
    hub.get("namespaces/default/placementsimulations").await.expect(405);
    let function = manifest("Function", "f", json!({}));
    let cases = [
        (json!([]), "spec.manifests: Required value"),
        (json!(null), "spec.manifests: Required value"),
        (json!([function]), "spec.manifests[0]: function/f: only manifests of Placement, Site"),
        (json!([1]), "spec.manifests[0]: "),
        (
            json!([placement("a"), manifest("Placement", "b", json!({"numberOfSites": -1}))]),
            "spec.manifests[1]: placement/b: ",
        ),
        (json!(vec![0; 20_001]), "Too many: 20001: must have at most 20000 items"),
    ];
    for (manifests, words) in cases {
        let refused = hub.simulate(ADMIN, "default", manifests).await.expect(422);
        let message = refused["message"].as_str().unwrap();
        assert!(
            message.starts_with("PlacementSimulation.avocet.dev \"\" is invalid: ")
                && message.contains(words),
            "{message}"
        );
    }
    let path = resource("namespaces/default/placementsimulations");
    hub.ask("POST", &path, ADMIN, "application/json", b"{".to_vec()).await.expect(400);
    hub.ask("POST", &path, ADMIN, "application/yaml", b"a: 1".to_vec()).await.expect(415);
    let refused =
        hub.ask("POST", &path, ADMIN, "application/json", vec![b' '; (16 << 20) + 1]).await.expect(413);
    assert!(refused["message"].as_str().unwrap().contains("simulate fewer manifests"), "{refused}");
}
