//! Create, read, update, delete.

use serde_json::{Value, json};

use crate::support::{ADMIN, PLACEMENTS, TestHub, assignment, placement, resource};

#[tokio::test]
async fn only_who_read_the_newest_version_may_replace_it() {
    let hub = TestHub::start().await;
    let created = hub.post(PLACEMENTS, &placement("p")).await.expect(201);
    assert_eq!(created["metadata"]["generation"], 1);
    let path = &format!("{PLACEMENTS}/p");
    let mut newer = created.clone();
    newer["spec"]["tiers"] = json!(["cloud"]);
    let newer = hub.put(path, &newer).await.expect(200);
    assert_eq!(newer["metadata"]["generation"], 2);

    let refused = hub.put(path, &created).await.expect(409);
    assert_eq!(refused["reason"], "Conflict");
    let again = hub.post(PLACEMENTS, &placement("p")).await.expect(409);
    assert_eq!(again["reason"], "AlreadyExists");
    assert_eq!(hub.get(path).await.expect(200)["spec"]["tiers"], json!(["cloud"]));
    let same = hub.put(path, &newer).await.expect(200);
    assert_eq!(same["metadata"]["resourceVersion"], newer["metadata"]["resourceVersion"], "nothing changed");
}

#[tokio::test]
async fn patches_change_what_they_name_and_nothing_else() {
    let hub = TestHub::start().await;
    hub.post(PLACEMENTS, &placement("p")).await.expect(201);
    let path = &format!("{PLACEMENTS}/p");
    let patch = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"numberOfSites": 3}});
    hub.merge_patch(path, &patch).await.expect(200);
    let patched = hub.merge_patch(path, &json!({"metadata": {"labels": {"a": null}}})).await.expect(200);
    assert_eq!(patched["metadata"]["labels"], json!({"b": "2"}));
    assert_eq!(patched["spec"], json!({"siteSelector": {}, "tiers": ["edge"], "numberOfSites": 3}));

    let operations = json!([
        {"op": "test", "path": "/spec/numberOfSites", "value": 3},
        {"op": "replace", "path": "/spec/numberOfSites", "value": 4},
        {"op": "add", "path": "/spec/tiers/-", "value": "device"},
    ]);
    let patched = hub.json_patch(path, &operations).await.expect(200);
    assert_eq!(patched["spec"]["tiers"], json!(["edge", "device"]));
    // The first operation is no longer true, so none of them is done.
    hub.json_patch(path, &operations).await.expect(422);
    assert_eq!(hub.get(path).await.expect(200)["spec"]["tiers"], json!(["edge", "device"]));

    let stale = json!({"metadata": {"resourceVersion": "1"}, "spec": {"numberOfSites": 5}});
    hub.merge_patch(path, &stale).await.expect(409);
    let renamed = hub.merge_patch(path, &json!({"metadata": {"name": "q"}})).await.expect(400);
    assert!(renamed["message"].as_str().unwrap().contains("does not match the name on the URL"));
    let url = resource(path);
    let strategic = hub.ask("PATCH", &url, ADMIN, "application/strategic-merge-patch+json", b"{}".to_vec());
    assert_eq!(strategic.await.expect(415)["reason"], "UnsupportedMediaType");
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let hub = TestHub::start().await;
    let mut stated = placement("p");
    stated["status"] = json!({"numberOfSelectedSites": 9});
    let created = hub.post(PLACEMENTS, &stated).await.expect(201);
    assert_eq!(created["status"]["numberOfSelectedSites"], 0, "a new object has no status of its maker's");

    let both = json!({"spec": {"numberOfSites": 2}, "status": {"numberOfSelectedSites": 5}});
    let path = format!("{PLACEMENTS}/p");
    let written = hub.merge_patch(&format!("{path}/status"), &both).await.expect(200);
    assert_eq!(written["status"]["numberOfSelectedSites"], 5);
    assert_eq!(written["spec"].get("numberOfSites"), None);
    assert_eq!(written["metadata"]["generation"], 1);
    let written = hub.merge_patch(&path, &both).await.expect(200);
    assert_eq!(written["spec"]["numberOfSites"], 2);
    let other = json!({"status": {"numberOfSelectedSites": 7}});
    let written = hub.merge_patch(&path, &other).await.expect(200);
    assert_eq!(written["status"]["numberOfSelectedSites"], 5);
}

#[tokio::test]
async fn lists_hold_what_selectors_select() {
    let hub = TestHub::start().await;
    for (name, tier) in [("a", "gold"), ("b", "silver"), ("c", "gold")] {
        let mut labelled = placement(name);
        labelled["metadata"]["labels"] = json!({"tier": tier, "name": name});
        hub.post(PLACEMENTS, &labelled).await.expect(201);
    }
    hub.create_namespace("other").await;
    hub.post("namespaces/other/placements", &placement("a")).await.expect(201);
    let names = async |query: &str| -> Vec<String> {
        let list = hub.get(&format!("{PLACEMENTS}?{query}")).await.expect(200);
        let items = list["items"].as_array().unwrap();
        items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("").await, ["a", "b", "c"]);
    assert_eq!(names("labelSelector=tier%3Dgold").await, ["a", "c"]);
    assert_eq!(names("labelSelector=tier+in+(gold,silver),name!%3Da").await, ["b", "c"]);
    assert_eq!(names("labelSelector=!tier").await, [] as [&str; 0]);
    assert_eq!(names("fieldSelector=metadata.name%3Db").await, ["b"]);
    assert_eq!(names("fieldSelector=metadata.name!%3Db,metadata.namespace%3Ddefault").await, ["a", "c"]);
    let everywhere = hub.get("placements?fieldSelector=metadata.name%3Da").await.expect(200);
    assert_eq!(everywhere["items"].as_array().unwrap().len(), 2);
    for query in ["fieldSelector=spec.tier%3Dx", "fieldSelector=nonsense", "labelSelector=a+in+b", "limit=x"]
    {
        let refused = hub.get(&format!("{PLACEMENTS}?{query}")).await.expect(400);
        assert_eq!(refused["reason"], "BadRequest", "{query}");
    }
}

#[tokio::test]
async fn finalizers_hold_a_deleted_object_until_they_are_gone() {
    let hub = TestHub::start().await;
    let mut held = placement("p");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    hub.post(PLACEMENTS, &held).await.expect(201);
    let path = &format!("{PLACEMENTS}/p");
    let going = hub.delete(path).await.expect(200);
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    hub.get(path).await.expect(200);
    hub.merge_patch(path, &json!({"metadata": {"finalizers": []}})).await.expect(200);
    hub.get(path).await.expect(404);
}

#[tokio::test]
async fn a_deletion_can_be_for_one_very_object_alone() {
    let hub = TestHub::start().await;
    let created = hub.post(PLACEMENTS, &placement("p")).await.expect(201);
    let path = format!("{PLACEMENTS}/p");
    let with = async |preconditions: Value| {
        let body = json!({"preconditions": preconditions});
        hub.ask_json("DELETE", &resource(&path), ADMIN, &body).await
    };
    with(json!({"uid": "another"})).await.expect(409);
    with(json!({"resourceVersion": "1"})).await.expect(409);
    with(json!({"uid": created["metadata"]["uid"]})).await.expect(200);
    hub.delete(&path).await.expect(404);
}

#[tokio::test]
async fn a_dry_run_checks_and_writes_nothing() {
    let hub = TestHub::start().await;
    let (list, one) = (format!("{PLACEMENTS}?dryRun=All"), format!("{PLACEMENTS}/p?dryRun=All"));
    hub.post(&list, &placement("p")).await.expect(201);
    hub.get(&format!("{PLACEMENTS}/p")).await.expect(404);
    hub.post(PLACEMENTS, &placement("p")).await.expect(201);
    hub.post(&list, &placement("p")).await.expect(409);
    let patched = hub.merge_patch(&one, &json!({"spec": {"numberOfSites": 2}})).await.expect(200);
    assert_eq!(patched["spec"]["numberOfSites"], 2);
    hub.merge_patch(&one, &json!({"spec": {"numberOfSites": 0}})).await.expect(422);
    hub.delete(&one).await.expect(200);
    assert_eq!(hub.get(&format!("{PLACEMENTS}/p")).await.expect(200)["spec"].get("numberOfSites"), None);
}

#[tokio::test]
async fn promise_6_every_mistake_is_named_with_field_value_and_remedy() {
    let hub = TestHub::start().await;
    let mut wrong = placement("Not A Name");
    wrong["spec"]["numberOfSites"] = json!(0);
    let refused = hub.post(PLACEMENTS, &wrong).await.expect(422);
    assert_eq!(refused["reason"], "Invalid");
    assert_eq!(refused["details"]["kind"], "Placement");
    let fields: Vec<&str> = refused["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cause| cause["field"].as_str().unwrap())
        .collect();
    assert_eq!(fields, ["metadata.name", "spec.numberOfSites"]);
    assert!(refused["message"].as_str().unwrap().contains("should be greater than or equal to 1"));
    // Into another namespace than the path's, or into one that is no name.
    let mut elsewhere = placement("p");
    elsewhere["metadata"]["namespace"] = json!("elsewhere");
    hub.post(PLACEMENTS, &elsewhere).await.expect(400);
    let refused = hub.post("namespaces/Not%20A%20Name/placements", &placement("p")).await;
    assert!(refused.code == 404 && refused.text.contains("Not A Name"), "{refused:?}");
    assert_eq!(hub.get("placements").await.expect(200)["items"], json!([]));
}

#[tokio::test]
async fn tables_are_what_kubectl_gets() {
    let hub = TestHub::start().await;
    hub.post("namespaces/plant/assignments", &assignment("x")).await.expect(201);
    let client = avocet_api::client::http(None).unwrap();
    let url = format!("{}{}", hub.url, resource("assignments"));
    let request = client.get(url).bearer_auth(ADMIN);
    let answer = request.header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json");
    let table: Value = serde_json::from_str(&answer.send().await.unwrap().text().await.unwrap()).unwrap();
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["rows"][0]["cells"][0], "x");
    assert_eq!(
        table["rows"][0]["cells"].as_array().unwrap().len(),
        table["columnDefinitions"].as_array().unwrap().len()
    );
    assert_eq!(table["rows"][0]["object"]["metadata"]["namespace"], "plant");
}
