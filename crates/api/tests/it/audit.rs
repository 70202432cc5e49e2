//! What is written down of requests, and what never is.

use serde_json::{Value, json};

use crate::support::{ADMIN, PLACEMENTS, PLANT, TestHub, placement, resource};

fn about<'a>(events: &'a [Value], uri: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["requestURI"] == uri).collect()
}

#[tokio::test]
async fn changes_and_refusals_are_written_down_as_kubernetes_events_and_reads_are_not() {
    let hub = TestHub::start().await;
    hub.post(PLACEMENTS, &placement("p")).await.expect(201);
    hub.get(PLACEMENTS).await.expect(200);
    let refused = resource("namespaces/shop/assignments?watch=true");
    hub.ask_json("GET", &refused, PLANT, &Value::Null).await.expect(403);
    hub.ask_json("GET", "/apis", "an unknown token", &Value::Null).await.expect(401);
    hub.ask_json("POST", "/avocet/v1/sites/plant/heartbeat", PLANT, &Value::Null).await.expect(200);
    let events = hub.audited().await;

    let created = about(&events, &resource(PLACEMENTS));
    assert_eq!(created.len(), 1, "listing is not written down: {created:?}");
    let event = created[0];
    assert_eq!((&event["kind"], &event["apiVersion"]), (&json!("Event"), &json!("audit.k8s.io/v1")));
    assert_eq!((&event["level"], &event["stage"]), (&json!("Metadata"), &json!("ResponseComplete")));
    assert_eq!((&event["verb"], &event["responseStatus"]["code"]), (&json!("create"), &json!(201)));
    assert_eq!(event["user"]["username"], "admin");
    let object = json!({
        "resource": "placements", "namespace": "default", "apiGroup": "avocet.dev", "apiVersion": "v1alpha1",
    });
    assert_eq!(event["objectRef"], object);
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "allow");
    for field in ["requestReceivedTimestamp", "stageTimestamp"] {
        let time = event[field].as_str().unwrap();
        assert!(time.len() == 27 && time.parse::<jiff::Timestamp>().is_ok(), "{time}");
    }
    assert!(event["requestReceivedTimestamp"].as_str() <= event["stageTimestamp"].as_str());

    let watched = about(&events, &refused)[0];
    assert_eq!((&watched["verb"], &watched["stage"]), (&json!("watch"), &json!("ResponseStarted")));
    assert_eq!(watched["user"]["username"], "site:plant");
    assert_eq!(watched["annotations"]["authorization.k8s.io/decision"], "forbid");
    let unknown = about(&events, "/apis")[0];
    assert_eq!((&unknown["user"], &unknown["responseStatus"]["code"]), (&json!({}), &json!(401)));
    assert_eq!(about(&events, "/avocet/v1/sites/plant/heartbeat"), [] as [&Value; 0]);
    let mut ids: Vec<&str> = events.iter().map(|event| event["auditID"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), events.len(), "each has an id of its own");
}

#[tokio::test]
async fn neither_tokens_nor_what_is_kept_in_secrets_are_written_down() {
    let hub = TestHub::start().await;
    let asked = json!({"site": "mill", "ttlSeconds": 60});
    let made = hub.ask_json("POST", "/avocet/v1/join-tokens", ADMIN, &asked).await.expect(200);
    let (token, secret) = (made["token"].as_str().unwrap(), "s".repeat(40));
    let join = json!({"token": token, "secret": secret, "tier": "edge", "labels": {}});
    hub.ask_json("POST", "/avocet/v1/join", "", &join).await.expect(200);
    let path = "/api/v1/namespaces/default/secrets";
    let kept = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "k"}, "stringData": {"a": "hush-hush"}});
    hub.ask_json("POST", path, ADMIN, &kept).await.expect(201);
    let events = hub.audited().await;
    for uri in ["/avocet/v1/join-tokens", "/avocet/v1/join", path] {
        assert_eq!(about(&events, uri).len(), 1, "{uri}");
    }
    assert_eq!(about(&events, "/avocet/v1/join")[0]["user"]["username"], "system:anonymous");
    let text = json!(events).to_string();
    for hidden in [token, &secret, ADMIN, PLANT, "hush-hush", "aHVzaC1odXNo"] {
        assert!(!text.contains(hidden), "{hidden} is in the audit log");
    }
}

#[tokio::test]
async fn every_answer_names_its_audit_event() {
    let hub = TestHub::start().await;
    let client = avocet_api::client::http(None).unwrap();
    for (path, code) in [("/healthz", 200), ("/apis", 401), ("/nowhere", 404)] {
        let answer = client.get(format!("{}{path}", hub.url)).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), code);
        assert_eq!(answer.headers()["audit-id"].to_str().unwrap().len(), 36, "{path}");
    }
}

#[tokio::test]
async fn who_hangs_up_before_the_answer_is_written_down_too() {
    let hub = TestHub::start().await;
    let uri = resource(PLACEMENTS);
    let body =
        axum::body::Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let request = axum::extract::Request::post(&uri).header("authorization", format!("Bearer {ADMIN}"));
    let answer = tower::ServiceExt::oneshot(avocet_api::router(hub.hub.clone()), request.body(body).unwrap());
    // The body never ends; the client loses patience, and the request is dropped as a closed connection drops it.
    assert!(tokio::time::timeout(std::time::Duration::from_millis(200), answer).await.is_err());
    let events = hub.audited().await;
    let event = about(&events, &uri)[0];
    assert_eq!((&event["responseStatus"]["code"], &event["verb"]), (&json!(499), &json!("create")));
    assert_eq!(event["user"]["username"], "admin");
}
