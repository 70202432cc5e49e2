//! Answers that clients of the Kubernetes API compare with those of a real one.

use serde_json::{Value, json};

use crate::support::{ADMIN, PLACEMENTS, TestHub, placement, resource};

#[tokio::test]
async fn a_refusal_says_no_more_than_there_is_to_say() {
    let hub = TestHub::start().await;
    let missing = hub.get(&format!("{PLACEMENTS}/nope")).await.expect(404);
    assert_eq!(missing["details"], json!({"name": "nope", "group": "avocet.dev", "kind": "placements"}));
    let missing = hub.ask_json("GET", "/api/v1/namespaces/nope", ADMIN, &Value::Null).await.expect(404);
    assert_eq!(missing["details"], json!({"name": "nope", "kind": "namespaces"}));
    let unknown = hub.ask_json("GET", "/apis/nope/v1/x", ADMIN, &Value::Null).await.expect(404);
    assert_eq!(unknown.get("details"), None);
}

#[tokio::test]
async fn a_dry_run_shows_what_would_be_there() {
    let hub = TestHub::start().await;
    let path = format!("{PLACEMENTS}?dryRun=All");
    let shown = hub.post(&path, &placement("p")).await.expect(201);
    assert!(shown["metadata"]["uid"].is_string() && shown["metadata"]["creationTimestamp"].is_string());
    assert_eq!(
        (shown["metadata"].get("resourceVersion"), &shown["metadata"]["generation"]),
        (None, &json!(1))
    );
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
    let path = "/api/v1/namespaces/default/configmaps";
    let made = hub.ask_json("POST", path, ADMIN, &map).await.expect(201);
    assert_eq!(made["metadata"].get("generation"), None);
}

#[tokio::test]
async fn parameters_of_writes_that_make_no_sense_are_refused() {
    let hub = TestHub::start().await;
    let long = format!("fieldManager={}", "a".repeat(129));
    for (query, words) in [
        (long.as_str(), "fieldManager: Too long: may not be more than 128 bytes"),
        ("fieldManager=a%07", "(at position 1)"),
        ("dryRun=Some", "dryRun: Unsupported value: []string{\"Some\"}: supported values: \"All\""),
        ("fieldValidation=x", "supported values: \"Ignore\", \"Strict\", \"Warn\""),
    ] {
        let refused = hub.post(&format!("{PLACEMENTS}?{query}"), &placement("p")).await.expect(422);
        let message = refused["message"].as_str().unwrap();
        assert!(message.starts_with("CreateOptions.meta.k8s.io \"\" is invalid: "), "{message}");
        assert!(message.contains(words), "{message}");
        assert_eq!(refused["details"]["group"], "meta.k8s.io");
    }
    hub.post(PLACEMENTS, &placement("p")).await.expect(201);
    let one = format!("{PLACEMENTS}/p");
    let forced = hub.merge_patch(&format!("{one}?force=true"), &json!({})).await.expect(422);
    assert!(forced["message"].as_str().unwrap().contains("may not be specified for non-apply patch"));
    let apply = "application/apply-patch+yaml";
    let anonymous = hub.ask("PATCH", &resource(&one), ADMIN, apply, b"{}".to_vec()).await.expect(422);
    assert!(anonymous["message"].as_str().unwrap().contains("fieldManager: Required value"), "{anonymous}");
}

#[tokio::test]
async fn a_patch_that_means_something_else_is_refused() {
    let hub = TestHub::start().await;
    hub.post(PLACEMENTS, &placement("p")).await.expect(201);
    let one = format!("{PLACEMENTS}/p");
    let test = json!([{"op": "test", "path": "/spec/tiers", "value": 1}]);
    let refused = hub.json_patch(&one, &test).await.expect(422);
    assert_eq!(refused["message"], "the server rejected our request due to an error in our request");
    hub.merge_patch(&one, &json!({"metadata": {"namespace": "shop"}})).await.expect(400);
    let refused = hub.merge_patch(&one, &json!({"metadata": {"uid": "x"}})).await.expect(422);
    let words =
        "Placement.avocet.dev \"p\" is invalid: metadata.uid: Invalid value: \"x\": field is immutable";
    assert_eq!(refused["message"], words);
    let mut other = placement("p");
    other["metadata"]["uid"] = json!("x");
    let refused = hub.put(&one, &other).await.expect(409);
    assert!(refused["message"].as_str().unwrap().contains("Precondition failed: UID in precondition: x"));
    for (patch, found) in [(json!([1]), "array"), (json!("x"), "string")] {
        let refused = hub.merge_patch(&one, &patch).await.expect(400);
        let words = format!("cannot unmarshal {found} into Go value of type map[string]interface {{}}");
        assert!(refused["message"].as_str().unwrap().ends_with(&words), "{refused}");
    }
}

#[tokio::test]
async fn nobody_new_holds_what_is_being_deleted() {
    let hub = TestHub::start().await;
    let mut held = placement("p");
    held["metadata"]["finalizers"] = json!(["example.com/a"]);
    hub.post(PLACEMENTS, &held).await.expect(201);
    let one = format!("{PLACEMENTS}/p");
    hub.delete(&one).await.expect(200);
    let more = json!({"metadata": {"finalizers": ["example.com/a", "example.com/b"]}});
    let refused = hub.merge_patch(&one, &more).await.expect(422);
    assert!(
        refused["message"].as_str().unwrap().contains("found new finalizers []string{\"example.com/b\"}")
    );
    hub.merge_patch(&one, &json!({"metadata": {"finalizers": null}})).await.expect(200);
    hub.get(&one).await.expect(404);
}

#[tokio::test]
async fn a_number_of_replicas_is_stated_at_its_own_path() {
    let hub = TestHub::start().await;
    hub.post(PLACEMENTS, &placement("p")).await.expect(201);
    let one = format!("{PLACEMENTS}/p");
    hub.merge_patch(&format!("{one}/scale"), &json!({"spec": {"replicas": 7}})).await.expect(200);
    let shown = hub.get(&one).await.expect(200);
    let entries = shown["metadata"]["managedFields"].as_array().unwrap();
    let scaled: Vec<&Value> = entries.iter().filter(|entry| entry["subresource"] == "scale").collect();
    assert_eq!(scaled.len(), 1);
    assert_eq!(scaled[0]["fieldsV1"], json!({"f:spec": {"f:numberOfSites": {}}}));
}

#[tokio::test]
async fn kinds_of_kubernetes_show_the_fields_that_it_shows() {
    let hub = TestHub::start().await;
    let lease = json!({"metadata": {"name": "l"}, "spec": {"leaseDurationSeconds": 15}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let made = hub.ask_json("POST", leases, ADMIN, &lease).await.expect(201);
    assert_eq!(made.get("status"), None);
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "ConfigMap", "name": "c"}});
    let made = hub.ask_json("POST", "/api/v1/namespaces/default/events", ADMIN, &event).await.expect(201);
    assert_eq!(made.get("eventTime"), Some(&Value::Null));
    let none = hub.ask_json("GET", "/api/v1/namespaces/default/limitranges", ADMIN, &Value::Null).await;
    assert_eq!(none.expect(200)["items"], json!([]));
}
