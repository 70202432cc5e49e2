//! Deletion of namespaces, events in both of their groups, and decisions about certificates.

use serde_json::{Value, json};

use crate::support::{ADMIN, TestHub};

const CORE: &str = "/api/v1/namespaces/default/events";
const NEWER: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

async fn ask(hub: &TestHub, method: &str, path: &str, body: &Value) -> crate::support::Answer {
    hub.ask_json(method, path, ADMIN, body).await
}

#[tokio::test]
async fn namespaces_that_are_needed_can_not_be_deleted() {
    let hub = TestHub::start().await;
    for name in ["default", "plant"] {
        let refused =
            ask(&hub, "DELETE", &format!("/api/v1/namespaces/{name}"), &Value::Null).await.expect(403);
        let expected = format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted");
        assert_eq!(refused["message"], expected);
    }
    hub.create_namespace("mine").await;
    let path = "/api/v1/namespaces/mine";
    let going = ask(&hub, "DELETE", path, &Value::Null).await.expect(200);
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    let again = ask(&hub, "DELETE", path, &Value::Null).await.expect(200);
    assert_eq!(again["metadata"]["deletionTimestamp"], going["metadata"]["deletionTimestamp"]);
}

fn newer_event(name: &str) -> Value {
    json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": name, "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000001Z", "reportingController": "test/me",
        "reportingInstance": "me-1", "action": "Looking", "reason": "Looked", "type": "Normal", "note": "it is fine",
        "regarding": {"kind": "Placement", "namespace": "default", "name": "p"},
    })
}

#[tokio::test]
async fn an_event_is_read_and_written_through_both_of_its_groups() {
    let hub = TestHub::start().await;
    let created = ask(&hub, "POST", NEWER, &newer_event("e")).await.expect(201);
    assert_eq!(
        (&created["note"], &created["apiVersion"]),
        (&json!("it is fine"), &json!("events.k8s.io/v1"))
    );
    assert_eq!(created["regarding"]["name"], "p");

    let kept = ask(&hub, "GET", &format!("{CORE}/e"), &Value::Null).await.expect(200);
    assert_eq!(kept["apiVersion"], "v1");
    assert_eq!((&kept["message"], &kept["reportingComponent"]), (&json!("it is fine"), &json!("test/me")));
    assert_eq!(kept["involvedObject"]["name"], "p");
    assert!(kept.get("note").is_none() && kept.get("regarding").is_none(), "{kept}");

    let patch =
        json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:01:00.000000Z"}, "note": "still"});
    let body = patch.to_string().into_bytes();
    let patched = hub
        .ask("PATCH", &format!("{NEWER}/e"), ADMIN, "application/merge-patch+json", body)
        .await
        .expect(200);
    assert_eq!((&patched["note"], &patched["series"]["count"]), (&json!("still"), &json!(2)));
    let body = json!({"message": "again", "count": 3}).to_string().into_bytes();
    hub.ask("PATCH", &format!("{CORE}/e"), ADMIN, "application/merge-patch+json", body).await.expect(200);
    let shown = ask(&hub, "GET", &format!("{NEWER}/e"), &Value::Null).await.expect(200);
    assert_eq!((&shown["note"], &shown["deprecatedCount"]), (&json!("again"), &json!(3)));
    let mut replaced = shown.clone();
    replaced["note"] = json!("replaced");
    assert_eq!(ask(&hub, "PUT", &format!("{NEWER}/e"), &replaced).await.expect(200)["note"], "replaced");

    for (path, selector, field) in
        [(CORE, "involvedObject.name", "message"), (NEWER, "regarding.name", "note")]
    {
        let list = |name: &str| format!("{path}?fieldSelector={selector}%3D{name}");
        let found = ask(&hub, "GET", &list("p"), &Value::Null).await.expect(200);
        assert_eq!(found["items"][0][field], "replaced", "{found}");
        assert_eq!(found["items"][0]["apiVersion"], found["apiVersion"]);
        assert_eq!(ask(&hub, "GET", &list("q"), &Value::Null).await.expect(200)["items"], json!([]));
        let told = ask(&hub, "GET", &format!("{path}?watch=true&timeoutSeconds=1"), &Value::Null).await;
        let told: Value = serde_json::from_str(told.text.lines().next().unwrap()).unwrap();
        assert_eq!((&told["type"], &told["object"][field]), (&json!("ADDED"), &json!("replaced")));
    }
    let wrong = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "f"}});
    ask(&hub, "POST", NEWER, &wrong).await.expect(400);
    ask(&hub, "DELETE", &format!("{NEWER}/e"), &Value::Null).await.expect(200);
    ask(&hub, "GET", &format!("{CORE}/e"), &Value::Null).await.expect(404);
}

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// A text that begins as requests do, in Base64.
const REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K";

fn request(name: &str) -> Value {
    json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
        "spec": {"request": REQUEST, "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]},
    })
}

fn decided(request: &Value, decisions: &[&str]) -> Value {
    let condition =
        |kind: &&str| json!({"type": kind, "status": "True", "reason": "Test", "message": "by hand"});
    let mut decided = request.clone();
    decided["status"]["conditions"] = decisions.iter().map(condition).collect();
    decided
}

#[tokio::test]
async fn requests_for_certificates_are_checked() {
    let hub = TestHub::start().await;
    for (field, value, expected) in [
        ("request", json!("bm90aGluZw=="), "spec.request"),
        ("signerName", json!("nobody"), "example.com/signer-name"),
        ("usages", json!([]), "usages is required"),
        ("expirationSeconds", json!(599), "may not specify a duration less than 600 seconds"),
    ] {
        let mut bad = request("r");
        bad["spec"][field] = value;
        let refused = ask(&hub, "POST", REQUESTS, &bad).await.expect(422);
        assert!(refused["message"].as_str().unwrap().contains(expected), "{refused}");
    }
}

#[tokio::test]
async fn a_decision_is_taken_at_its_own_address_and_once() {
    let hub = TestHub::start().await;
    let created = ask(&hub, "POST", REQUESTS, &request("r")).await.expect(201);
    let (approval, status) = (format!("{REQUESTS}/r/approval"), format!("{REQUESTS}/r/status"));
    let refused = ask(&hub, "PUT", &status, &decided(&created, &["Approved"])).await.expect(422);
    assert!(
        refused["message"].as_str().unwrap().contains("updates may not add a condition of type \"Approved\"")
    );
    let refused = ask(&hub, "PUT", &approval, &decided(&created, &["Approved", "Denied"])).await.expect(422);
    assert!(refused["message"].as_str().unwrap().contains("mutually exclusive"));

    let mut greedy = decided(&created, &["Approved"]);
    greedy["status"]["certificate"] = json!("bm90aGluZw==");
    greedy["spec"]["username"] = json!("somebody else");
    let approved = ask(&hub, "PUT", &approval, &greedy).await.expect(200);
    assert_eq!(approved["status"]["conditions"][0]["type"], "Approved");
    assert!(approved["status"]["conditions"][0]["lastTransitionTime"].is_string());
    assert!(approved["status"].get("certificate").is_none(), "a decision is no certificate");
    assert_eq!(approved["spec"]["username"], "admin");

    let refused = ask(&hub, "PUT", &approval, &decided(&approved, &[])).await.expect(422);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("updates may not remove a condition of type \"Approved\"")
    );
    let mut issued = approved.clone();
    issued["status"]["certificate"] = json!("aXNzdWVk");
    let issued = ask(&hub, "PUT", &status, &issued).await.expect(200);
    assert_eq!(issued["status"]["certificate"], "aXNzdWVk");
    let mut another = issued.clone();
    another["status"]["certificate"] = json!("YW5vdGhlcg==");
    ask(&hub, "PUT", &status, &another).await.expect(422);
}
