//! Promise 6: limits on what a stranger can make the hub do.

use serde_json::{Value, json};

use avocet_api::{LimitOptions, Limits};

use crate::support::{ADMIN, PLACEMENTS, PLANT, TestHub, assignment, placement, resource};

/// A text of so many bytes.
fn config_map(key: &str, bytes: usize) -> Value {
    let data = json!({key: "x".repeat(bytes)});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
}

#[tokio::test]
async fn promise_6_a_manifest_can_only_be_so_large_at_once_or_bit_by_bit() {
    let hub = TestHub::start().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let create = async |map: Value| hub.ask_json("POST", maps, ADMIN, &map).await;
    assert_eq!(create(config_map("a", 4 << 20)).await.code, 413);
    create(config_map("a", 2 << 20)).await.expect(201);
    let path = format!("{maps}/m");
    let more = config_map("b", 2 << 20).to_string().into_bytes();
    let refused = hub.ask("PATCH", &path, ADMIN, "application/merge-patch+json", more).await.expect(413);
    assert!(refused["message"].as_str().unwrap().contains("bytes"), "{refused}");
    let kept = hub.ask_json("GET", &path, ADMIN, &Value::Null).await.expect(200);
    assert_eq!(kept["data"].as_object().unwrap().len(), 1);
}

#[tokio::test]
async fn promise_6_a_patch_that_doubles_itself_is_refused_before_it_grows() {
    let hub = TestHub::start().await;
    hub.post("namespaces/plant/assignments", &assignment("a")).await.expect(201);
    // Of a site, which may patch its own status: 2 to the power of 60 copies of it, in 60 small operations.
    let bomb: Vec<Value> = (0..60)
        .map(|step| json!({"op": "copy", "from": "/status", "path": format!("/status/x{step}")}))
        .collect();
    let path = resource("namespaces/plant/assignments/a/status");
    let body = Value::from(bomb).to_string().into_bytes();
    let refused = hub.ask("PATCH", &path, PLANT, "application/json-patch+json", body).await;
    assert!(matches!(refused.code, 400 | 413 | 422), "{refused:?}");
    // Deeper and deeper, each step into the deepest place that the one before made.
    let mut deepest = "/status".to_owned();
    let mut bomb = vec![json!({"op": "add", "path": "/status/a", "value": {}})];
    for _ in 0..14 {
        deepest = format!("{deepest}{}", deepest.trim_start_matches("/status").to_owned() + "/a");
        bomb.push(json!({"op": "copy", "from": "/status/a", "path": deepest}));
    }
    let body = Value::from(bomb).to_string().into_bytes();
    let refused = hub.ask("PATCH", &path, PLANT, "application/json-patch+json", body).await;
    assert!(matches!(refused.code, 400 | 413 | 422), "{refused:?}");
    let many: Vec<Value> =
        (0..20_000).map(|_| json!({"op": "test", "path": "/kind", "value": "x"})).collect();
    hub.json_patch("namespaces/plant/assignments/a", &Value::from(many)).await.expect(413);
    hub.get("namespaces/plant/assignments/a").await.expect(200);
}

#[tokio::test]
async fn promise_6_json_that_is_nested_without_end_is_refused() {
    let hub = TestHub::start().await;
    hub.post(PLACEMENTS, &placement("p")).await.expect(201);
    let deep = "[".repeat(100_000);
    for (method, path, kind) in [
        ("POST", PLACEMENTS.to_owned(), "application/json"),
        ("PATCH", format!("{PLACEMENTS}/p"), "application/merge-patch+json"),
        ("PATCH", format!("{PLACEMENTS}/p"), "application/json-patch+json"),
        ("PATCH", format!("{PLACEMENTS}/p?fieldManager=x"), "application/apply-patch+yaml"),
        ("DELETE", format!("{PLACEMENTS}/p"), "application/json"),
    ] {
        let body = deep.clone().into_bytes();
        let refused = hub.ask(method, &resource(&path), crate::support::ADMIN, kind, body).await;
        assert_eq!(refused.code, 400, "{method} {kind}: {refused:?}");
    }
}

#[tokio::test]
async fn promise_6_lists_come_in_pages_of_one_moment() {
    let hub = TestHub::start().await;
    for name in ["a", "b", "c"] {
        hub.post(PLACEMENTS, &placement(name)).await.expect(201);
    }
    let first = hub.get(&format!("{PLACEMENTS}?limit=2")).await.expect(200);
    assert_eq!(first["items"].as_array().unwrap().len(), 2);
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    hub.post(PLACEMENTS, &placement("d")).await.expect(201);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = hub.get(&format!("{PLACEMENTS}?limit=2&continue={token}")).await.expect(200);
    assert_eq!(second["items"][0]["metadata"]["name"], "c");
    assert_eq!(second["items"].as_array().unwrap().len(), 1, "what came later is not in it");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    for (token, problem) in [
        ("abc", "invalid character 'i' looking for beginning of value"),
        ("abc-1", "illegal base64 data at input byte 4"),
        ("a!", "illegal base64 data at input byte 1"),
        ("e30", "server does not recognize this encoded version "),
        (
            "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MCwic3RhcnQiOiJhIn0",
            "incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
        ),
    ] {
        let refused = hub.get(&format!("{PLACEMENTS}?limit=2&continue={token}")).await.expect(400);
        let words = "invalid continue token: continue key is not valid: ";
        assert_eq!(refused["message"], format!("{words}{problem}"));
    }
}

/// Asks a hub with other limits than the usual ones: the code, `Retry-After` and the body.
async fn ask_within(limits: &Limits, hub: &TestHub, name: &str) -> (u16, Option<String>, Value) {
    let limited = avocet_api::router(avocet_api::Hub { limits: limits.clone(), ..hub.hub.clone() });
    let request =
        axum::extract::Request::post(resource(PLACEMENTS)).header("authorization", format!("Bearer {ADMIN}"));
    let request = request.body(axum::body::Body::from(placement(name).to_string())).unwrap();
    let response = tower::ServiceExt::oneshot(limited, request).await.unwrap();
    let after = response.headers().get("retry-after").map(|after| after.to_str().unwrap().to_owned());
    let code = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (code, after, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn promise_6_more_objects_than_allowed_are_forbidden_and_asking_too_often_is_to_be_done_later() {
    let hub = TestHub::start().await;
    let few = Limits::new(LimitOptions { objects: 1, ..LimitOptions::default() });
    assert_eq!(ask_within(&few, &hub, "one").await.0, 201);
    let (code, after, refused) = ask_within(&few, &hub, "two").await;
    assert_eq!((code, after), (403, None));
    assert!(
        refused["message"].as_str().unwrap().contains("exceeded quota: namespace default has 1 of at most 1")
    );
    hub.delete(&format!("{PLACEMENTS}/one")).await.expect(200);
    assert_eq!(ask_within(&few, &hub, "two").await.0, 201, "what went makes room");

    let slow = Limits::new(LimitOptions { requests_per_second: 1, ..LimitOptions::default() });
    for name in ["three", "four"] {
        assert_eq!(ask_within(&slow, &hub, name).await.0, 201);
    }
    let (code, after, refused) = ask_within(&slow, &hub, "five").await;
    assert_eq!(
        (code, after.as_deref(), &refused["reason"]),
        (429, Some("1"), &serde_json::json!("TooManyRequests"))
    );
    assert_eq!(refused["details"]["retryAfterSeconds"], 1);
}
