//! Tokens that admins make for users.

use serde_json::{Value, json};

use crate::support::{ADMIN, PLANT, TestHub, resource};

const TOKENS: &str = "/avocet/v1/tokens";

async fn ask(hub: &TestHub, method: &str, path: &str, token: &str, body: Value) -> crate::support::Answer {
    hub.ask_json(method, path, token, &body).await
}

#[tokio::test]
async fn promise_7_a_made_token_is_its_users_until_it_is_revoked() {
    let hub = TestHub::start().await;
    let asked = json!({"user": "anna", "groups": ["operators"], "ttlSeconds": 3600});
    let made = ask(&hub, "POST", TOKENS, ADMIN, asked).await.expect(201);
    let token = made["token"].as_str().unwrap();
    let told = hub.whoami(token).await;
    assert_eq!(told, json!({"username": "anna", "groups": ["operators", "system:authenticated"]}));
    let listed = ask(&hub, "GET", TOKENS, ADMIN, Value::Null).await;
    assert!(!listed.text.contains(token), "nobody is told a token twice");
    let listed = listed.expect(200);
    let annas: Vec<&Value> = listed["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|info| info["user"]["username"] == "anna")
        .collect();
    assert_eq!(annas, [&made["info"]]);
    let path = format!("{TOKENS}/{}", made["info"]["id"].as_str().unwrap());
    assert_eq!(ask(&hub, "DELETE", &path, ADMIN, Value::Null).await.code, 204);
    ask(&hub, "GET", &resource("sites"), token, Value::Null).await.expect(401);
    ask(&hub, "DELETE", &path, ADMIN, Value::Null).await.expect(404);
}

#[tokio::test]
async fn promise_7_only_admins_make_list_and_revoke_tokens() {
    let hub = TestHub::start().await;
    let asked = json!({"user": "anna", "ttlSeconds": 60});
    let made = ask(&hub, "POST", TOKENS, ADMIN, asked.clone()).await.expect(201);
    let path = format!("{TOKENS}/{}", made["info"]["id"].as_str().unwrap());
    for token in [PLANT, made["token"].as_str().unwrap()] {
        ask(&hub, "POST", TOKENS, token, asked.clone()).await.expect(403);
        ask(&hub, "GET", TOKENS, token, Value::Null).await.expect(403);
        ask(&hub, "DELETE", &path, token, Value::Null).await.expect(403);
    }
    for wrong in [
        json!({"user": "", "ttlSeconds": 60}),
        json!({"user": "anna", "ttlSeconds": 0}),
        json!({"user": "anna", "ttlSeconds": u64::MAX}),
        json!({"user": "anna", "groups": ["a\nb"], "ttlSeconds": 60}),
        json!({"user": "anna", "groups": vec!["a"; 101], "ttlSeconds": 60}),
    ] {
        ask(&hub, "POST", TOKENS, ADMIN, wrong).await.expect(400);
    }
}
