//! Work that a busy site offers, as the hub passes it on.

use std::time::Duration;

use avocet_api::authentication::User;
use serde_json::{Value, json};
use types::{AssignedFunction, AssignmentSpec, Digest};

use crate::support::{ADMIN, Answer, PLANT, TestHub, manifest};

const SHOP: &str = "the token of the site shop, long enough";

/// What the site plant is to run, and others may.
fn assignment(offload: &Value) -> Value {
    let artifact = json!({"digest": Digest::of(b"code"), "size": 4});
    let mut spec = json!({
        "applicationNamespace": "default", "application": "a", "applicationUid": "1", "component": "c",
        "function": {"name": "f", "spec": {"runtime": "shell", "handler": "f.sh", "artifact": artifact}},
    });
    if !offload.is_null() {
        spec["offload"] = offload.clone();
    }
    manifest("Assignment", "c.a.default", spec)
}

fn fingerprint() -> Digest {
    let spec: AssignmentSpec = serde_json::from_value(assignment(&Value::Null)["spec"].clone()).unwrap();
    let function: AssignedFunction = spec.function.unwrap();
    function.fingerprint()
}

fn question(function: Digest, bytes: u64) -> Value {
    let request = json!({"inputBytes": bytes, "outputBytes": 1, "memoryBytes": 1});
    json!({"assignment": "c.a.default", "function": function, "request": request})
}

async fn hub(offload: &Value) -> TestHub {
    let hub = TestHub::start().await;
    hub.hub.tokens.grant(SHOP, User::site_agent("shop")).await.unwrap();
    hub.post("namespaces/plant/assignments", &assignment(offload)).await.expect(201);
    let ready = json!({"type": "Ready", "status": "True", "reason": "Heartbeat", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    hub.merge_patch("sites/shop/status", &json!({"status": {"conditions": [ready]}})).await.expect(200);
    hub
}

const QUESTIONS: &str = "/avocet/v1/offload/plant/questions";

/// What the shop's agent, which offloads, finds in its box.
async fn listen(hub: &TestHub) -> Answer {
    let path = format!("{}/avocet/v1/mailbox/shop?wait=20", hub.url);
    let request = hub.http.get(path).bearer_auth(SHOP).header(avocet_api::LISTENS, "1");
    let response = request.send().await.unwrap();
    Answer { code: response.status().as_u16(), text: response.text().await.unwrap() }
}

fn task(function: Digest, digest: Digest) -> String {
    format!(
        "/avocet/v1/offload/plant/tasks/shop/t-1?assignment=c.a.default&function={function}&question=q&invocation=i\
         &bucket=photos&key=in/1&etag=e&digest={digest}"
    )
}

#[tokio::test]
async fn a_question_is_answered_and_the_work_travels_there_and_back() {
    let hub = hub(&json!({"maxInputBytes": "1Ki"})).await;
    let shop = async {
        let seen = listen(&hub).await.expect(200);
        let ask = seen["notes"][0].clone();
        assert_eq!((&ask["note"], &ask["from"]), (&json!("ask"), &json!("plant")));
        assert_eq!(ask["spec"]["function"]["name"], "f", "the hub says what it is about");
        let path = format!("/avocet/v1/offload/shop/answers/{}", ask["id"].as_str().unwrap());
        let offer = json!({"offer": {"finishSeconds": 1.5, "confidence": 0.5}});
        hub.ask_json("POST", &path, SHOP, &offer).await.expect(204);
        ask["id"].clone()
    };
    let plant = async {
        while !hub.hub.relay.hears("shop") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        hub.ask_json("POST", QUESTIONS, PLANT, &question(fingerprint(), 3)).await.expect(200)
    };
    let (id, answers) = tokio::join!(shop, plant);
    assert_eq!(answers["id"], id);
    assert_eq!(answers["answers"], json!({"shop": {"offer": {"finishSeconds": 1.5, "confidence": 0.5}}}));

    let handed =
        hub.ask("PUT", &task(fingerprint(), Digest::of(b"one")), PLANT, "a/b", b"one".to_vec()).await;
    handed.expect(204);
    let seen = listen(&hub).await.expect(200);
    let delivery = &seen["deliveries"][0];
    assert_eq!((&delivery["kind"], &delivery["id"]), (&json!("task"), &json!("t-1")));
    assert_eq!((&delivery["bucket"], &delivery["key"]), (&json!("photos"), &json!("in/1")));
    assert_eq!((&delivery["about"]["from"], &delivery["about"]["question"]), (&json!("plant"), &json!("q")));

    let ticket = delivery["about"]["ticket"].as_str().unwrap();
    let result = |attempt: &str, ticket: &str| {
        let digest = Digest::of(b"done");
        format!("/avocet/v1/offload/shop/results/plant/{attempt}?ticket={ticket}&digest={digest}")
    };
    for (attempt, ticket) in [("t-2", ticket), ("t-1", "forged"), ("t-1", "")] {
        let refused = hub.ask("PUT", &result(attempt, ticket), SHOP, "a/b", b"done".to_vec()).await;
        assert_eq!(refused.code, 403, "{attempt} {ticket}");
    }
    hub.ask("PUT", &result("t-1", ticket), SHOP, "a/b", b"done".to_vec()).await.expect(204);
    let seen = hub.ask_json("GET", "/avocet/v1/mailbox/plant", PLANT, &Value::Null).await.expect(200);
    assert_eq!(seen["deliveries"][0]["kind"], "result");
    assert_eq!(seen["deliveries"][0]["about"], json!({"from": "shop"}));
}

#[tokio::test]
async fn promise_7_a_site_offers_only_what_it_was_assigned_and_may_give_away() {
    let hub = hub(&json!({"maxInputBytes": "1Ki"})).await;
    let ask = async |path: &str, body: &Value| hub.ask_json("POST", path, PLANT, body).await.code;
    assert_eq!(ask(QUESTIONS, &question(fingerprint(), 1024)).await, 200);
    assert_eq!(ask(QUESTIONS, &question(fingerprint(), 1025)).await, 413);
    assert_eq!(ask(QUESTIONS, &question(Digest::of(b"another version"), 1)).await, 409);
    assert_eq!(ask(QUESTIONS, &json!({"assignment": "x"})).await, 400);
    let mut unknown = question(fingerprint(), 1);
    unknown["assignment"] = json!("unknown");
    assert_eq!(ask(QUESTIONS, &unknown).await, 404);
    assert_eq!(ask("/avocet/v1/offload/shop/questions", &question(fingerprint(), 1)).await, 403);
    let forged = json!({"note": "ask", "id": "q", "from": "shop", "assignment": "x", "architecture": "",
        "spec": assignment(&Value::Null)["spec"], "request": question(fingerprint(), 1)["request"]});
    assert_eq!(
        ask("/avocet/v1/offload/plant/notes/shop", &forged).await,
        400,
        "questions go to all, from the hub"
    );
    let put = async |function, content: &'static [u8]| {
        let path = task(function, Digest::of(content));
        hub.ask("PUT", &path, PLANT, "a/b", content.to_vec()).await.code
    };
    assert_eq!(put(Digest::of(b"another version"), b"x").await, 409);
    assert_eq!(put(fingerprint(), &[0; 1025]).await, 413);
    hub.merge_patch("sites/shop", &json!({"spec": {"unschedulable": true}})).await.expect(200);
    assert_eq!(put(fingerprint(), b"x").await, 403, "it is cordoned");
    hub.merge_patch("namespaces/plant/assignments/c.a.default", &json!({"spec": {"offload": null}}))
        .await
        .expect(200);
    assert_eq!(ask(QUESTIONS, &question(fingerprint(), 1)).await, 403, "off unless it is said");
}

#[tokio::test]
async fn a_note_names_the_site_that_sent_it_whatever_it_says() {
    let hub = hub(&json!({})).await;
    let shop = listen(&hub);
    let plant = async {
        while !hub.hub.relay.hears("shop") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let note = json!({"note": "cancel", "from": "evil", "attempt": "t-1"});
        hub.ask_json("POST", "/avocet/v1/offload/plant/notes/shop", PLANT, &note).await.expect(204);
    };
    let (seen, ()) = tokio::join!(shop, plant);
    assert_eq!(seen.expect(200)["notes"], json!([{"note": "cancel", "from": "plant", "attempt": "t-1"}]));
    let asked =
        hub.ask_json("POST", "/avocet/v1/offload/plant/notes/shop", ADMIN, &json!({"note": "new"})).await;
    assert_eq!(asked.code, 400);
}
