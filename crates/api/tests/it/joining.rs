//! How machines become sites, and what becomes of those that are not any more.

use daemon::tls;
use futures::StreamExt;
use serde_json::{Value, json};

use crate::support::{ADMIN, Answer, PLANT, TestHub, assignment, resource};

const JOIN: &str = "/avocet/v1/join";
const RENEW: &str = "/avocet/v1/renew";

fn request(key: &str, site: &str) -> String {
    tls::request(key, &format!("site:{site}"), "avocet:sites").unwrap()
}

impl TestHub {
    async fn invite(&self, more: &Value) -> String {
        let mut asked = json!({"site": "mill", "ttlSeconds": 60});
        json_merge(&mut asked, more);
        let made = self.ask_json("POST", "/avocet/v1/join-tokens", ADMIN, &asked).await.expect(200);
        made["token"].as_str().unwrap().to_owned()
    }

    async fn join(&self, token: &str, request: &str) -> Answer {
        let asked = json!({"token": token, "request": request, "tier": "edge", "labels": {"line": "1"}});
        self.ask_json("POST", JOIN, "", &asked).await
    }

    async fn renew(&self, site: &str, request: &str) -> Answer {
        self.ask_json("POST", RENEW, "", &json!({"site": site, "request": request})).await
    }
}

#[tokio::test]
async fn promise_7_one_key_joins_with_a_token_and_gets_certificates_from_then_on() {
    let hub = TestHub::start().await;
    let token = hub.invite(&json!({"tier": "device", "labels": {"line": "2", "hall": "b"}})).await;
    let (mine, thiefs) = (tls::new_key().unwrap(), tls::new_key().unwrap());
    hub.renew("mill", &request(&mine, "mill")).await.expect(401);
    hub.join(&token, &request(&mine, "shop")).await.expect(400);
    hub.join(&token, "nonsense").await.expect(400);
    let joined = hub.join(&token, &request(&mine, "mill")).await.expect(200);
    assert_eq!((&joined["site"], &joined["parent"]), (&json!("mill"), &json!("cloud")));
    hub.join(&token, &request(&mine, "mill")).await.expect(200);
    hub.join(&token, &request(&thiefs, "mill")).await.expect(401);
    let site = hub.get("sites/mill").await.expect(200);
    assert_eq!(site["spec"]["tier"], "device", "who made the token decides");
    assert_eq!(site["metadata"]["labels"], json!({"line": "2", "hall": "b"}));
    for text in [joined, hub.renew("mill", &request(&mine, "mill")).await.expect(200)] {
        let text = text["certificate"].as_str().unwrap();
        let certificate = tls::ClientCertificate::of_pem(text).unwrap();
        assert_eq!(certificate.common_name, "site:mill");
        assert_eq!(certificate.organizations, ["avocet:sites"]);
        assert_eq!(certificate.key, tls::requested_key(&request(&mine, "mill")).unwrap());
    }
    hub.renew("mill", &request(&thiefs, "mill")).await.expect(401);
    hub.renew("shop", &request(&mine, "mill")).await.expect(400);
    hub.delete("sites/mill").await.expect(200);
    hub.renew("mill", &request(&mine, "mill")).await.expect(401);
}

#[tokio::test]
async fn promise_7_a_person_who_must_approve_can_also_refuse() {
    let hub = TestHub::start().await;
    for (decision, code) in [("Approved", 200), ("Denied", 403)] {
        let token = hub.invite(&json!({"manual": true})).await;
        let mine = request(&tls::new_key().unwrap(), "mill");
        let waits = hub.join(&token, &mine).await.expect(202);
        assert!(waits.get("certificate").is_none());
        hub.renew("mill", &mine).await.expect(401);
        let name = waits["waitsFor"].as_str().unwrap();
        let path = format!("/apis/certificates.k8s.io/v1/certificatesigningrequests/{name}");
        let mut asked = hub.ask_json("GET", &path, ADMIN, &Value::Null).await.expect(200);
        asked["status"] = json!({"conditions": [{"type": decision, "status": "True", "reason": "R", "message": "so it is"}]});
        hub.ask_json("PUT", &format!("{path}/approval"), PLANT, &asked).await.expect(403);
        assert_eq!(hub.join(&token, &mine).await.code, 202);
        hub.ask_json("PUT", &format!("{path}/approval"), ADMIN, &asked).await.expect(200);
        assert_eq!(hub.join(&token, &mine).await.code, code, "{decision}");
        hub.ask_json("DELETE", &resource("sites/mill"), ADMIN, &Value::Null).await;
    }
}

#[tokio::test]
async fn promise_7_a_site_changes_its_own_key_and_revokes_nobody() {
    let hub = TestHub::start().await;
    let mine = request(&tls::new_key().unwrap(), "plant");
    let asked = json!({"site": "plant", "request": mine});
    hub.ask_json("POST", "/avocet/v1/sites/shop/certificate", PLANT, &asked).await.expect(403);
    hub.ask_json("POST", "/avocet/v1/sites/plant/certificate", ADMIN, &asked).await.expect(403);
    hub.ask_json("POST", "/avocet/v1/sites/plant/revoke", PLANT, &Value::Null).await.expect(403);
    hub.ask_json("GET", "/avocet/v1/join-tokens", PLANT, &Value::Null).await.expect(403);
    hub.ask_json("POST", "/avocet/v1/sites/plant/certificate", PLANT, &asked).await.expect(200);
    let own = resource("namespaces/plant/assignments");
    hub.ask_json("GET", &own, PLANT, &Value::Null).await.expect(401);
    hub.renew("plant", &mine).await.expect(200);
    hub.ask_json("POST", "/avocet/v1/sites/plant/revoke", ADMIN, &Value::Null).await.expect(200);
    let refused = hub.renew("plant", &mine).await.expect(401);
    assert!(refused["message"].as_str().unwrap().contains("were revoked"), "{refused}");
    hub.ask_json("POST", "/avocet/v1/sites/nowhere/revoke", ADMIN, &Value::Null).await.expect(404);
}

#[tokio::test]
async fn promise_7_a_join_token_that_was_used_lets_nobody_in_after_a_revocation_a_deletion_or_another_key() {
    let hub = TestHub::start().await;
    let mine = request(&tls::new_key().unwrap(), "mill");
    let revoke = async || {
        hub.ask_json("POST", "/avocet/v1/sites/mill/revoke", ADMIN, &Value::Null).await.expect(200);
    };
    let token = hub.invite(&json!({})).await;
    hub.join(&token, &mine).await.expect(200);
    hub.join(&token, &mine).await.expect(200);
    revoke().await;
    hub.join(&token, &mine).await.expect(401);
    hub.renew("mill", &mine).await.expect(401);

    let token = hub.invite(&json!({})).await;
    hub.join(&token, &mine).await.expect(200);
    let next = hub.invite(&json!({})).await;
    let other = request(&tls::new_key().unwrap(), "mill");
    hub.join(&next, &other).await.expect(200);
    hub.join(&token, &mine).await.expect(401);
    hub.renew("mill", &other).await.expect(200);

    hub.delete("sites/mill").await.expect(200);
    hub.join(&next, &other).await.expect(401);
    hub.get("sites/mill").await.expect(404);
}

#[tokio::test]
async fn promise_7_a_machine_that_waits_for_a_person_is_out_when_its_site_is_revoked() {
    let hub = TestHub::start().await;
    let mine = request(&tls::new_key().unwrap(), "mill");
    hub.join(&hub.invite(&json!({})).await, &mine).await.expect(200);
    let token = hub.invite(&json!({"manual": true})).await;
    let next = request(&tls::new_key().unwrap(), "mill");
    for _ in 0..2 {
        hub.join(&token, &next).await.expect(202);
    }
    hub.ask_json("POST", "/avocet/v1/sites/mill/revoke", ADMIN, &Value::Null).await.expect(200);
    hub.join(&token, &next).await.expect(401);
    let token = hub.invite(&json!({"manual": true})).await;
    for _ in 0..2 {
        hub.join(&token, &next).await.expect(202);
    }
}

#[tokio::test]
async fn promise_7_a_secret_is_of_no_use_once_its_site_was_revoked() {
    let hub = TestHub::start().await;
    let token = hub.invite(&json!({})).await;
    let joining = json!({"token": token, "secret": "s".repeat(40), "tier": "edge", "labels": {}});
    for _ in 0..2 {
        hub.ask_json("POST", JOIN, "", &joining).await.expect(200);
    }
    hub.ask_json("POST", "/avocet/v1/sites/mill/revoke", ADMIN, &Value::Null).await.expect(200);
    hub.ask_json("POST", JOIN, "", &joining).await.expect(401);
    assert_eq!(hub.hub.identities.revoked(), ["mill"]);
}

#[tokio::test]
async fn promise_7_what_a_revoked_site_was_watching_ends() {
    let hub = TestHub::start().await;
    hub.post("namespaces/plant/assignments", &assignment("a")).await.expect(201);
    let url = format!("{}{}?watch=true", hub.url, resource("namespaces/plant/assignments"));
    let response = hub.http.get(url).bearer_auth(PLANT).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let mut changes = response.bytes_stream();
    changes.next().await.unwrap().unwrap();
    let wait = format!("{}/avocet/v1/mailbox/plant?wait=60", hub.url);
    let waiting = hub.http.get(&wait).bearer_auth(PLANT).send().await.unwrap();
    assert_eq!(waiting.status(), 200);
    hub.ask_json("POST", "/avocet/v1/sites/plant/revoke", ADMIN, &Value::Null).await.expect(200);
    while changes.next().await.is_some() {}
    assert_eq!(waiting.text().await.unwrap(), "", "it is told nothing any more");
    let again = hub.http.get(&wait).bearer_auth(PLANT).send().await.unwrap();
    assert_eq!(again.status(), 401);
}

#[tokio::test]
async fn of_two_machines_that_are_one_site_one_is_obeyed() {
    let hub = TestHub::start().await;
    let path = "/avocet/v1/sites/plant/heartbeat";
    let beat = async |instance: &str, previous: &str| {
        let told = json!({"instance": instance, "previous": previous, "now": daemon::now()});
        hub.ask_json("POST", path, PLANT, &told).await.code
    };
    assert_eq!(beat("first", "").await, 200);
    assert_eq!(beat("restarted", "first").await, 200);
    assert_eq!(beat("copy", "first").await, 409);
    let list = async |instance: &str| {
        let url = format!("{}{}", hub.url, resource("namespaces/plant/assignments"));
        let request = hub.http.get(url).bearer_auth(PLANT).header("avocet-instance", instance);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(list("copy").await, 409);
    assert_eq!(list("restarted").await, 200);
    // Agents of older versions tell nothing.
    assert_eq!(hub.ask_json("POST", path, PLANT, &Value::Null).await.code, 200);
    assert_eq!(beat(&"x".repeat(100), "").await, 400);
}

#[tokio::test]
async fn promise_1_whatever_a_site_takes_the_time_for_it_is_heard() {
    let hub = TestHub::start().await;
    for time in ["1970-01-01T00:00:00Z", "2999-01-01T00:00:00Z"] {
        let told = json!({"instance": "a", "now": time});
        let answer = hub.ask_json("POST", "/avocet/v1/sites/plant/heartbeat", PLANT, &told).await.expect(200);
        assert_eq!(answer["hub"], "hub-1");
        assert_eq!(answer["renew"], false, "a bearer token has no end");
    }
}

#[tokio::test]
async fn join_tokens_are_listed_without_being_shown_and_taken_away() {
    let hub = TestHub::start().await;
    let token = hub.invite(&json!({"manual": true, "labels": {"a": "b"}})).await;
    let listed = hub.ask_json("GET", "/avocet/v1/join-tokens", ADMIN, &Value::Null).await;
    assert!(!listed.text.contains(&token));
    let listed = listed.expect(200);
    let one = &listed["joinTokens"][0];
    assert_eq!((&one["site"], &one["manual"], &one["used"]), (&json!("mill"), &json!(true), &json!(false)));
    let path = format!("/avocet/v1/join-tokens/{}", one["id"].as_str().unwrap());
    assert_eq!(hub.ask_json("DELETE", &path, ADMIN, &Value::Null).await.code, 204);
    let mine = request(&tls::new_key().unwrap(), "mill");
    hub.join(&token, &mine).await.expect(401);
    assert_eq!(hub.ask_json("DELETE", &path, ADMIN, &Value::Null).await.code, 404);
    for bad in [json!({"labels": {"-": "x"}}), json!({"tier": "no tier"})] {
        let mut asked = json!({"site": "mill", "ttlSeconds": 60});
        json_merge(&mut asked, &bad);
        hub.ask_json("POST", "/avocet/v1/join-tokens", ADMIN, &asked).await.expect(422);
    }
}

fn json_merge(target: &mut Value, more: &Value) {
    for (field, value) in more.as_object().unwrap() {
        target[field] = value.clone();
    }
}
