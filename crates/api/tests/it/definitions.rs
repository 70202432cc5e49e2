//! The definitions of our kinds, as clients find them that know CustomResourceDefinitions.

use serde_json::{Value, json};

use crate::support::{ADMIN, TestHub};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

fn printed() -> Value {
    types::custom_resource_definition(types::kind_named("placement").unwrap())
}

async fn ask(hub: &TestHub, method: &str, path: &str, body: &Value) -> crate::support::Answer {
    hub.ask_json(method, &format!("{DEFINITIONS}{path}"), ADMIN, body).await
}

#[tokio::test]
async fn our_kinds_are_defined_and_established() {
    let hub = TestHub::start().await;
    let all = ask(&hub, "GET", "", &Value::Null).await.expect(200);
    let names: Vec<&str> = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["metadata"]["name"].as_str().unwrap())
        .collect();
    let ours: Vec<String> =
        types::kinds().filter(|info| info.is_ours()).map(types::KindInfo::qualified).collect();
    assert_eq!(names.len(), ours.len());
    assert!(ours.iter().all(|name| names.contains(&name.as_str())), "{names:?}");
    let one = ask(&hub, "GET", "/placements.avocet.dev", &Value::Null).await.expect(200);
    let conditions = one["status"]["conditions"].as_array().unwrap();
    let told: Vec<(&str, &str)> =
        conditions.iter().map(|c| (c["type"].as_str().unwrap(), c["status"].as_str().unwrap())).collect();
    assert_eq!(told, [("NamesAccepted", "True"), ("Established", "True")]);
    assert_eq!(one["status"]["acceptedNames"], one["spec"]["names"]);
    assert_eq!(one["spec"], printed()["spec"]);
}

#[tokio::test]
async fn what_is_printed_can_be_applied_and_nothing_else() {
    let hub = TestHub::start().await;
    let path = "/placements.avocet.dev";
    let mut same = printed();
    same["metadata"]["annotations"] = json!({"applied": "true"});
    same["spec"]["versions"][0]["additionalPrinterColumns"][0]["priority"] = json!(0);
    let apply = format!("{DEFINITIONS}{path}?fieldManager=me&force=true");
    let body = same.to_string().into_bytes();
    let applied = hub.ask("PATCH", &apply, ADMIN, "application/apply-patch+yaml", body).await.expect(200);
    assert_eq!(applied["metadata"]["annotations"]["applied"], "true");
    assert_eq!(applied["metadata"]["generation"], 1);
    assert_eq!(applied["status"]["storedVersions"], json!(["v1alpha1"]));

    let mut other = printed();
    other["spec"]["scope"] = json!("Cluster");
    let body = other.to_string().into_bytes();
    let refused = hub.ask("PATCH", &apply, ADMIN, "application/apply-patch+yaml", body).await.expect(403);
    assert_eq!(refused["reason"], "Forbidden");
    assert!(refused["message"].as_str().unwrap().starts_with(
        "customresourcedefinitions.apiextensions.k8s.io \"placements.avocet.dev\" is forbidden: "
    ));
    ask(&hub, "DELETE", path, &Value::Null).await.expect(403);
    ask(&hub, "DELETE", "", &Value::Null).await.expect(403);
    assert_eq!(ask(&hub, "POST", "", &printed()).await.expect(409)["reason"], "AlreadyExists");
    let mut new = printed();
    new["metadata"]["name"] = json!("others.example.com");
    ask(&hub, "POST", "", &new).await.expect(403);
    let status = json!({"status": {"conditions": null}});
    let kind = "application/merge-patch+json";
    let path = format!("{DEFINITIONS}{path}/status");
    let kept = hub.ask("PATCH", &path, ADMIN, kind, status.to_string().into_bytes()).await.expect(200);
    assert_eq!(kept["status"]["conditions"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn another_version_of_the_program_brings_its_own_definitions() {
    let hub = TestHub::start().await;
    let store = hub.hub.store.clone();
    let key = |name: &str| store::Key::new("customresourcedefinitions", "", name);
    let mut older = store.get(&key("placements.avocet.dev")).unwrap().manifest();
    older["spec"]["names"]["shortNames"] = json!(["old"]);
    store.update(key("placements.avocet.dev"), older, false).await.unwrap();
    let mut gone = printed();
    gone["metadata"]["name"] = json!("gone.avocet.dev");
    store.create(key("gone.avocet.dev"), gone, daemon::now()).await.unwrap();
    avocet_api::bootstrap(&store, daemon::now()).await.unwrap();
    let found = store.get(&key("placements.avocet.dev")).unwrap().manifest();
    assert_eq!(found["spec"], printed()["spec"]);
    assert_eq!(found["metadata"]["generation"], 3);
    assert!(store.get(&key("gone.avocet.dev")).is_none());
}
