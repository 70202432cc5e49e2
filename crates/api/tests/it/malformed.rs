//! Promise 6: whatever is sent, the answer is no 500, and the hub goes on.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::support::{ADMIN, PLACEMENTS, PLANT, TestHub, placement, resource};

/// Asks whatever a strategy makes up and lets nothing pass but answers below 500.
fn ask_all<S>(strategy: &S, request: impl Fn(&TestHub, S::Value) -> Request)
where
    S: Strategy,
    S::Value: Clone,
{
    let runtime = Runtime::new().unwrap();
    let hub = runtime.block_on(async {
        let hub = TestHub::start().await;
        hub.post(PLACEMENTS, &placement("p")).await.expect(201);
        hub
    });
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(200) });
    let outcome = runner.run(strategy, |value| {
        let Request { method, path, token, kind, body } = request(&hub, value);
        let answer = runtime.block_on(hub.ask(method, &path, token, kind, body));
        // 504 is what Kubernetes says of a version that was not reached yet.
        prop_assert!(answer.code < 500 || answer.code == 504, "{method} {path}: {answer:?}");
        Ok(())
    });
    outcome.unwrap();
    runtime.block_on(hub.get("sites")).expect(200);
}

struct Request {
    method: &'static str,
    path: String,
    token: &'static str,
    kind: &'static str,
    body: Vec<u8>,
}

fn of(method: &'static str, path: String, kind: &'static str, body: Vec<u8>) -> Request {
    Request { method, path, token: ADMIN, kind, body }
}

const JSON: &str = "application/json";

/// As it must be in a URL.
fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn any_json() -> impl Strategy<Value = Value> {
    let words = prop::sample::select(vec![
        "metadata",
        "name",
        "spec",
        "status",
        "labels",
        "p",
        "tiers",
        "op",
        "path",
        "from",
        "/spec",
        "/metadata/name",
        "copy",
        "add",
        "remove",
        "",
        "/",
        "-",
        "finalizers",
        "numberOfSites",
        "apiVersion",
        "kind",
        "resourceVersion",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        words.clone().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        let key = words.clone().prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

#[test]
fn promise_6_paths() {
    let part = prop_oneof![
        prop::sample::select(vec![
            "namespaces",
            "placements",
            "default",
            "p",
            "status",
            "sites",
            "",
            "..",
            "*"
        ])
        .prop_map(str::to_owned),
        ".{0,6}".prop_map(|text| escaped(&text)),
        prop::collection::vec(any::<u8>(), 0..4)
            .prop_map(|bytes| bytes.iter().map(|byte| format!("%{byte:02X}")).collect()),
    ];
    let method = prop::sample::select(vec!["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]);
    ask_all(&(method, prop::collection::vec(part, 0..6)), |_, (method, parts)| {
        of(method, resource(&parts.join("/")), JSON, placement("p").to_string().into_bytes())
    });
}

#[test]
fn promise_6_queries() {
    let name = prop::sample::select(vec![
        "labelSelector",
        "fieldSelector",
        "limit",
        "continue",
        "watch",
        "resourceVersion",
        "dryRun",
        "allowWatchBookmarks",
        "sendInitialEvents",
        "fieldManager",
    ]);
    let value = prop_oneof![
        ".{0,12}",
        "[a-z!=() ,in]{0,16}",
        "metadata\\.name[=!]{0,3}[a-z]{0,3}",
        "[0-9]{0,25}-?[0-9]{0,25}",
        Just("true".to_owned()),
    ];
    ask_all(&prop::collection::vec((name, value), 1..4), |_, pairs| {
        let query: Vec<String> =
            pairs.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        of("GET", resource(&format!("{PLACEMENTS}?timeoutSeconds=0&{}", query.join("&"))), JSON, vec![])
    });
}

#[test]
fn promise_6_bodies() {
    let method = prop::sample::select(vec![
        ("POST", PLACEMENTS, JSON),
        ("PUT", "namespaces/default/placements/p", JSON),
        ("PUT", "namespaces/default/placements/p/status", JSON),
        ("PATCH", "namespaces/default/placements/p", "application/merge-patch+json"),
        ("PATCH", "namespaces/default/placements/p/status", "application/merge-patch+json"),
        ("PATCH", "namespaces/default/placements/p", "application/json-patch+json"),
        ("PATCH", "namespaces/default/placements/p?fieldManager=x", "application/apply-patch+yaml"),
        (
            "PATCH",
            "namespaces/default/placements/new?fieldManager=x&force=true",
            "application/apply-patch+yaml",
        ),
        ("DELETE", "namespaces/default/placements/none", JSON),
    ]);
    let body = prop_oneof![
        any_json().prop_map(|value| value.to_string().into_bytes()),
        // What it should be, with one part of it made up.
        (prop::sample::select(vec!["/metadata", "/spec", "/metadata/name", "/kind", ""]), any_json())
            .prop_map(|(place, value)| {
                let mut manifest = placement("p");
                *manifest.pointer_mut(place).unwrap() = value;
                manifest.to_string().into_bytes()
            }),
        prop::collection::vec(any::<u8>(), 0..64),
    ];
    ask_all(&(method, body), |_, ((method, path, kind), body)| of(method, resource(path), kind, body));
}

#[test]
fn promise_6_json_patches() {
    let op = prop::sample::select(vec!["add", "remove", "replace", "move", "copy", "test"]);
    let pointer = || {
        prop::sample::select(vec![
            "",
            "/",
            "/spec",
            "/spec/tiers",
            "/spec/tiers/0",
            "/spec/tiers/-",
            "/spec/tiers/99999999999999999999",
            "/metadata",
            "/metadata/name",
            "/metadata/labels/a",
            "/status",
            "/status/conditions/-",
            "/~2",
            "spec",
        ])
    };
    let operation = (op, pointer(), pointer(), any_json())
        .prop_map(|(op, from, path, value)| json!({"op": op, "from": from, "path": path, "value": value}));
    ask_all(&prop::collection::vec(operation, 0..5), |_, operations| {
        let body = Value::from(operations).to_string().into_bytes();
        of("PATCH", resource(&format!("{PLACEMENTS}/p")), "application/json-patch+json", body)
    });
}

#[test]
fn promise_6_what_sites_ask() {
    let endpoint = prop::sample::select(vec![
        ("POST", "/avocet/v1/join", ""),
        ("POST", "/avocet/v1/renew", ""),
        ("POST", "/avocet/v1/sites/plant/certificate", PLANT),
        ("POST", "/avocet/v1/join-tokens", ADMIN),
        ("POST", "/avocet/v1/sites/plant/heartbeat", PLANT),
        ("POST", "/apis/authentication.k8s.io/v1/tokenreviews", PLANT),
        ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", PLANT),
        ("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", PLANT),
        ("POST", "/avocet/v1/offload/plant/questions", PLANT),
        ("POST", "/avocet/v1/offload/plant/answers/", PLANT),
        ("POST", "/avocet/v1/offload/plant/notes/", PLANT),
        ("PUT", "/avocet/v1/offload/plant/tasks/shop/", PLANT),
        ("PUT", "/avocet/v1/offload/plant/results/shop/", PLANT),
        ("PUT", "/avocet/v1/blobs/", ADMIN),
        ("GET", "/avocet/v1/blobs/", PLANT),
        ("PUT", "/avocet/v1/mailbox/shop/", ADMIN),
        ("GET", "/avocet/v1/mailbox/", ADMIN),
        ("DELETE", "/avocet/v1/mailbox/shop/", ADMIN),
    ]);
    let tail = prop_oneof![
        Just(String::new()),
        ".{0,8}".prop_map(|text| escaped(&text)),
        "sha256:[0-9a-f]{60,64}",
        "d1\\?bucket=[a-z]{0,4}&key=.{0,1}&digest=sha256:[0-9a-f]{64}"
            .prop_map(|text| text.replace(' ', "+")),
    ];
    ask_all(&(endpoint, tail, any_json()), |_, ((method, path, token), tail, body)| {
        let tail = if path.ends_with('/') { tail } else { String::new() };
        // The key may be anything that a URL can hold.
        let tail: String =
            tail.chars().filter(|c| c.is_ascii() && !c.is_ascii_control() && *c != '#').collect();
        Request {
            method,
            path: format!("{path}{tail}"),
            token,
            kind: JSON,
            body: body.to_string().into_bytes(),
        }
    });
}
