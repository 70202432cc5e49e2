//! Promise 7: who may do what.

use serde_json::{Value, json};
use types::Digest;

use crate::support::{ADMIN, PLANT, TestHub, assignment, placement, resource};

#[tokio::test]
async fn promise_7_nobody_gets_in_without_a_token_that_is_known() {
    let hub = TestHub::start().await;
    for path in
        ["/apis", "/apis/avocet.dev/v1alpha1/sites", "/openapi/v3", "/avocet/v1/mailbox/plant", "/api"]
    {
        for token in ["", "wrong"] {
            let refused = hub.ask_json("GET", path, token, &Value::Null).await.expect(401);
            assert_eq!(refused["reason"], "Unauthorized", "{path}");
        }
    }
    for path in ["/healthz", "/version"] {
        assert_eq!(hub.ask_json("GET", path, "", &Value::Null).await.code, 200);
    }
}

/// Every verb on a path of resources, with the body that would make it work.
async fn try_verbs(hub: &TestHub, list: &str, name: &str, body: &Value) -> Vec<(&'static str, u16)> {
    let one = format!("{list}/{name}");
    let status = format!("{one}/status");
    let mut seen = Vec::new();
    for (verb, method, path) in [
        ("list", "GET", list),
        ("watch", "GET", &format!("{list}?watch=true&timeoutSeconds=0")),
        ("get", "GET", &one),
        ("create", "POST", list),
        ("update", "PUT", &one),
        ("patch", "PATCH", &one),
        ("patch status", "PATCH", &status),
        ("update status", "PUT", &status),
        ("delete", "DELETE", &one),
        ("deletecollection", "DELETE", list),
    ] {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = if method == "GET" { vec![] } else { body.to_string().into_bytes() };
        seen.push((verb, hub.ask(method, &resource(path), PLANT, kind, body).await.code));
    }
    seen
}

fn allowed(seen: &[(&'static str, u16)]) -> Vec<&'static str> {
    seen.iter().filter(|(_, code)| *code != 403).map(|(verb, _)| *verb).collect()
}

#[tokio::test]
async fn promise_7_a_sites_token_is_good_for_its_own_assignments_and_site_alone() {
    let hub = TestHub::start().await;
    for site in ["plant", "shop"] {
        hub.post(&format!("namespaces/{site}/assignments"), &assignment("a")).await.expect(201);
    }
    let own = hub.get("namespaces/plant/assignments/a").await.expect(200);
    let seen = try_verbs(&hub, "namespaces/plant/assignments", "a", &own).await;
    assert_eq!(allowed(&seen), ["list", "watch", "get", "patch status", "update status"], "{seen:?}");
    let others = hub.get("namespaces/shop/assignments/a").await.expect(200);
    assert_eq!(allowed(&try_verbs(&hub, "namespaces/shop/assignments", "a", &others).await), [] as [&str; 0]);
    let own = hub.get("sites/plant").await.expect(200);
    let seen = try_verbs(&hub, "sites", "plant", &own).await;
    assert_eq!(allowed(&seen), ["get", "patch status", "update status"], "{seen:?}");
    let other = hub.get("sites/shop").await.expect(200);
    assert_eq!(allowed(&try_verbs(&hub, "sites", "shop", &other).await), [] as [&str; 0]);
    for plural in ["applications", "functions", "models", "placements", "placementdecisions"] {
        for namespace in ["default", "plant"] {
            let list = format!("namespaces/{namespace}/{plural}");
            // What its applications are made of it may read where it is at home.
            let is_own = namespace == "plant" && matches!(plural, "functions" | "models");
            let expected: &[&str] = if is_own { &["list", "watch", "get"] } else { &[] };
            assert_eq!(allowed(&try_verbs(&hub, &list, "x", &placement("x")).await), expected, "{list}");
        }
    }
    // Everywhere at once is nobody's own.
    let seen = hub.ask_json("GET", &resource("assignments"), PLANT, &Value::Null).await;
    seen.expect(403);
}

#[tokio::test]
async fn promise_7_reporting_changes_the_status_and_nothing_else() {
    let hub = TestHub::start().await;
    hub.post("namespaces/plant/assignments", &assignment("a")).await.expect(201);
    let path = resource("namespaces/plant/assignments/a/status");
    let sneaky = json!({
        "metadata": {"labels": {"x": "y"}, "finalizers": ["a/b"]},
        "spec": {"application": "another"}, "status": {"invocations": {"succeeded": 7}},
    });
    let body = sneaky.to_string().into_bytes();
    hub.ask("PATCH", &path, PLANT, "application/merge-patch+json", body).await.expect(200);
    let seen = hub.get("namespaces/plant/assignments/a").await.expect(200);
    assert_eq!(seen["status"]["invocations"]["succeeded"], 7);
    assert_eq!(seen["spec"]["application"], "a");
    assert_eq!((seen["metadata"].get("labels"), seen["metadata"].get("finalizers")), (None, None));
}

#[tokio::test]
async fn promise_7_a_site_acts_for_itself_at_the_mailbox_and_makes_no_tokens() {
    let hub = TestHub::start().await;
    hub.post("namespaces/plant/assignments", &assignment("a")).await.expect(201);
    let digest = Digest::of(b"x");
    let send = |site: &str, key: &str| {
        format!("/avocet/v1/mailbox/{site}/d1?bucket=photos&key={key}&digest={digest}")
    };
    let put = async |path: &str| hub.ask("PUT", path, PLANT, "text/plain", b"x".to_vec()).await.code;
    assert_eq!(put(&send("shop", "out/a")).await, 204, "what its assignment makes");
    assert_eq!(put(&send("shop", "secret/a")).await, 403, "what no assignment of it makes");
    assert_eq!(put(&send("nowhere", "out/a")).await, 404);
    for (method, path, code) in [
        ("GET", "/avocet/v1/mailbox/plant", 200),
        ("GET", "/avocet/v1/mailbox/shop", 403),
        ("GET", "/avocet/v1/mailbox/shop/d1", 403),
        ("DELETE", "/avocet/v1/mailbox/shop/d1", 403),
        ("POST", "/avocet/v1/sites/plant/heartbeat", 200),
        ("POST", "/avocet/v1/sites/shop/heartbeat", 403),
    ] {
        assert_eq!(hub.ask_json(method, path, PLANT, &Value::Null).await.code, code, "{method} {path}");
    }
    let asked = json!({"site": "evil", "ttlSeconds": 60});
    assert_eq!(hub.ask_json("POST", "/avocet/v1/join-tokens", PLANT, &asked).await.code, 403);
    let blob = format!("/avocet/v1/blobs/{digest}");
    assert_eq!(hub.ask("PUT", &blob, PLANT, "application/octet-stream", b"x".to_vec()).await.code, 403);
    hub.ask("PUT", &blob, ADMIN, "application/octet-stream", b"x".to_vec()).await.expect(200);
    assert_eq!(hub.ask_json("GET", &blob, PLANT, &Value::Null).await.text, "x");
}

#[tokio::test]
async fn promise_7_a_deleted_site_is_out() {
    let hub = TestHub::start().await;
    let own = resource("namespaces/plant/assignments");
    hub.ask_json("GET", &own, PLANT, &Value::Null).await.expect(200);
    hub.delete("sites/plant").await.expect(200);
    let refused = hub.ask_json("GET", &own, PLANT, &Value::Null).await.expect(401);
    assert!(refused["message"].as_str().unwrap().contains("join again"));
}

#[tokio::test]
async fn promise_7_a_join_token_lets_one_agent_in_as_the_site_it_names() {
    let hub = TestHub::start().await;
    let asked = json!({"site": "mill", "ttlSeconds": 60});
    let made = hub.ask_json("POST", "/avocet/v1/join-tokens", ADMIN, &asked).await.expect(200);
    let join = async |secret: &str, tier: &str| {
        let request = json!({"token": made["token"], "secret": secret, "tier": tier, "labels": {"a": "b"}});
        hub.ask_json("POST", "/avocet/v1/join", "", &request).await
    };
    let (mine, thiefs) = ("m".repeat(40), "t".repeat(40));
    join("short", "edge").await.expect(400);
    // A mistake in what is asked for does not use the token up.
    join(&mine, "no tier").await.expect(422);
    let joined = join(&mine, "edge").await.expect(200);
    assert_eq!(joined, json!({"site": "mill", "hub": "hub-1", "parent": "cloud"}));
    join(&mine, "edge").await.expect(200);
    join(&thiefs, "edge").await.expect(401);
    assert_eq!(hub.get("sites/mill").await.expect(200)["metadata"]["labels"], json!({"a": "b"}));
    let own = resource("namespaces/mill/assignments");
    hub.ask_json("GET", &own, &mine, &Value::Null).await.expect(200);
    hub.ask_json("GET", &own, &thiefs, &Value::Null).await.expect(401);
    for wrong in [json!({"site": "A B", "ttlSeconds": 60}), json!({"site": "x", "ttlSeconds": 0})] {
        hub.ask_json("POST", "/avocet/v1/join-tokens", ADMIN, &wrong).await.expect(400);
    }
}
