//! Tokens of service accounts at a hub.

use std::time::Duration;

use avocet_api::authentication::{Account, DEFAULT_ISSUER};
use serde_json::{Value, json};
use store::{Deletion, Key};

use crate::support::{TestHub, resource};

const HOUR: Duration = Duration::from_secs(3600);
const ROBOT: &str = "system:serviceaccount:shop:robot";

/// Makes the account `robot`; answers its uid.
async fn create_robot(hub: &TestHub) -> String {
    let key = Key::new("serviceaccounts", "shop", "robot");
    let manifest = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot", "namespace": "shop"}});
    hub.hub.store.create(key, manifest, daemon::now()).await.unwrap().metadata.uid.clone()
}

fn sign(hub: &TestHub, uid: &str, audiences: &[&str]) -> String {
    let account = Account { namespace: "shop", name: "robot", uid };
    let audiences: Vec<String> = audiences.iter().map(|audience| (*audience).to_owned()).collect();
    hub.hub.service_accounts.sign(account, &audiences, HOUR, daemon::now()).unwrap()
}

#[tokio::test]
async fn promise_7_a_service_account_is_known_by_its_token_while_it_is_there() {
    let hub = TestHub::start().await;
    let uid = create_robot(&hub).await;
    let token = sign(&hub, &uid, &[]);
    let told = hub.whoami(&token).await;
    assert_eq!((&told["username"], &told["uid"]), (&json!(ROBOT), &json!(uid)));
    let groups = ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"];
    assert_eq!(told["groups"], json!(groups));
    hub.ask_json("GET", &resource("sites"), &token, &Value::Null).await.expect(403);
    hub.hub
        .store
        .delete(Key::new("serviceaccounts", "shop", "robot"), Deletion::at(daemon::now()))
        .await
        .unwrap();
    let refused = hub.ask_json("GET", &resource("sites"), &token, &Value::Null).await.expect(401);
    assert_eq!(refused["message"], "Unauthorized");
    create_robot(&hub).await;
    hub.ask_json("GET", &resource("sites"), &token, &Value::Null).await.expect(401);
}

#[tokio::test]
async fn promise_7_a_token_for_others_or_of_another_hub_is_refused() {
    let (hub, other) = (TestHub::start().await, TestHub::start().await);
    let uid = create_robot(&hub).await;
    for token in [sign(&hub, &uid, &["bank"]), sign(&other, &uid, &[])] {
        hub.ask_json("GET", &resource("sites"), &token, &Value::Null).await.expect(401);
    }
    let both = sign(&hub, &uid, &["bank", DEFAULT_ISSUER]);
    assert_eq!(hub.whoami(&both).await["username"], ROBOT);
}

#[tokio::test]
async fn everybody_may_read_the_key_that_tokens_are_checked_with() {
    let hub = TestHub::start().await;
    let told = hub.ask_json("GET", "/.well-known/openid-configuration", "", &Value::Null).await.expect(200);
    assert_eq!(told["issuer"], DEFAULT_ISSUER);
    let url = told["jwks_uri"].as_str().unwrap();
    let path = url.strip_prefix(&hub.url.replace("http", "https")).unwrap();
    let keys = hub.ask_json("GET", path, "", &Value::Null).await.expect(200);
    assert_eq!(keys["keys"][0]["alg"], "ES256");
    assert_eq!(keys["keys"][0]["d"], Value::Null, "the private part");
}
