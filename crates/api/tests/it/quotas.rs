//! ResourceQuotas: how many objects a namespace may have.

use serde_json::{Value, json};

use crate::support::{ADMIN, Answer, PLACEMENTS, TestHub, placement};

async fn limit(hub: &TestHub, hard: &Value) -> Answer {
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": hard}});
    hub.ask_json("POST", "/api/v1/namespaces/default/resourcequotas", ADMIN, &quota).await
}

async fn config_map(hub: &TestHub, namespace: &str, name: &str) -> Answer {
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    hub.ask_json("POST", &path, ADMIN, &map).await
}

#[tokio::test]
async fn a_quota_limits_what_it_counts_in_its_namespace() {
    let hub = TestHub::start().await;
    let made = limit(&hub, &json!({"count/placements.avocet.dev": 1, "configmaps": "1", "pods": "0"})).await;
    assert_eq!(made.expect(201)["spec"]["hard"]["count/placements.avocet.dev"], "1");
    hub.post(PLACEMENTS, &placement("a")).await.expect(201);
    let refused = hub.post(PLACEMENTS, &placement("b")).await.expect(403);
    assert_eq!(
        refused["message"],
        "placements.avocet.dev \"b\" is forbidden: exceeded quota: few, requested: count/placements.avocet.dev=1, \
         used: count/placements.avocet.dev=1, limited: count/placements.avocet.dev=1"
    );
    let details = json!({"name": "b", "group": "avocet.dev", "kind": "placements"});
    assert_eq!(refused["details"], details);
    config_map(&hub, "default", "a").await.expect(201);
    config_map(&hub, "default", "b").await.expect(403);
    config_map(&hub, "plant", "b").await.expect(201);
    let apply = "application/apply-patch+yaml";
    let path = format!("/apis/avocet.dev/v1alpha1/{PLACEMENTS}/b?fieldManager=me");
    hub.ask("PATCH", &path, ADMIN, apply, placement("b").to_string().into_bytes()).await.expect(403);
    hub.delete(&format!("{PLACEMENTS}/a")).await.expect(200);
    hub.post(PLACEMENTS, &placement("b")).await.expect(201);
}

#[tokio::test]
async fn those_who_create_at_once_keep_to_a_quota_together() {
    let hub = TestHub::start().await;
    limit(&hub, &json!({"configmaps": "3"})).await.expect(201);
    let names: Vec<String> = (0..20).map(|index| format!("m{index}")).collect();
    let answers = futures::future::join_all(names.iter().map(|name| config_map(&hub, "default", name))).await;
    assert_eq!(answers.iter().filter(|answer| answer.code == 201).count(), 3);
}

#[tokio::test]
async fn a_quota_of_what_can_not_be_counted_is_refused() {
    let hub = TestHub::start().await;
    let refused = limit(&hub, &json!({"placements": "1"})).await.expect(422);
    assert_eq!(
        refused["message"],
        "ResourceQuota \"few\" is invalid: spec.hard[placements]: Invalid value: \"placements\": must be a standard \
         resource for quotas"
    );
    let refused = limit(&hub, &json!({"count/secrets": "many"})).await.expect(400);
    assert!(refused["message"].as_str().unwrap().contains("quantities must match the regular expression"));
    limit(&hub, &json!({"count/secrets": "-1"})).await.expect(422);
}
