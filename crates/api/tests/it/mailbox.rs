//! The boxes at the hub: what comes in parts, what finds no room, and what becomes of it all.

use std::time::Duration;

use avocet_api::Hub;
use controllers::Events;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use types::Digest;

use crate::support::{ADMIN, Answer, PLANT, TestHub, assignment, manifest};

const OCTETS: &str = "application/octet-stream";

fn path(site: &str, id: &str, content: &[u8]) -> String {
    format!("/avocet/v1/mailbox/{site}/{id}?bucket=photos&key=out/{id}&digest={}", Digest::of(content))
}

impl TestHub {
    async fn assign_output(&self) {
        self.post("namespaces/plant/assignments", &assignment("a")).await.expect(201);
    }

    async fn send(&self, site: &str, id: &str, content: &[u8]) -> Answer {
        self.ask("PUT", &path(site, id, content), PLANT, OCTETS, content.to_vec()).await
    }

    /// A part of `content`.
    async fn send_part(&self, who: &str, id: &str, content: &[u8], offset: usize, part: &[u8]) -> Answer {
        let path = format!("{}&offset={offset}&size={}", path("shop", id, content), content.len());
        self.ask("PUT", &path, who, OCTETS, part.to_vec()).await
    }

    async fn waiting(&self, site: &str) -> Vec<Value> {
        let path = format!("/avocet/v1/mailbox/{site}");
        let waiting = self.ask_json("GET", &path, ADMIN, &Value::Null).await.expect(200);
        waiting["deliveries"].as_array().unwrap().clone()
    }

    /// The same hub, in whose boxes is less room, and whose boxes are tended.
    async fn with_room(mut self, bytes: u64) -> Self {
        self.hub = Hub { mailbox: self.hub.mailbox.clone().holding(bytes), ..self.hub };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.url = format!("http://{}", listener.local_addr().unwrap());
        let router = avocet_api::router(self.hub.clone());
        self.tasks.spawn("smaller", async move { axum::serve(listener, router).await.unwrap() });
        self
    }

    fn tend(&self) {
        let (hub, shutdown) = (self.hub.clone(), self.tasks.shutdown());
        let events = Events::new(hub.store.clone());
        let tending = avocet_api::tend_mailbox(hub, events, shutdown);
        self.tasks.spawn("tending", async move { tending.await.unwrap() });
    }

    /// Looks again and again until something is so.
    async fn until(&self, what: &str, is_so: impl AsyncFn(&Self) -> bool) {
        for _ in 0..2000 {
            if is_so(self).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("never so: {what}");
    }
}

#[tokio::test]
async fn what_comes_in_parts_goes_on_where_it_broke_off() {
    let hub = TestHub::start().await;
    hub.assign_output().await;
    let content = b"a picture in parts";
    let beginning = |received: usize| json!({"received": received});
    assert_eq!(hub.send_part(PLANT, "p1", content, 0, b"").await.expect(202), beginning(0));
    assert_eq!(hub.send_part(PLANT, "p1", content, 0, b"a pic").await.expect(202), beginning(5));
    assert_eq!(hub.send_part(PLANT, "p1", content, 0, b"").await.expect(202), beginning(5), "asked anew");
    assert_eq!(hub.send_part(PLANT, "p1", content, 9, b"in parts").await.expect(202), beginning(5));
    assert_eq!(hub.send_part(ADMIN, "p1", content, 0, b"").await.expect(202), beginning(0), "another's");
    assert_eq!(hub.send_part(PLANT, "p1", content, 5, b"ture in parts").await.expect(202), beginning(18));
    assert_eq!(hub.waiting("shop").await.len(), 0, "it was not looked through yet");
    hub.send_part(PLANT, "p1", content, 18, b"").await.expect(204);
    let waiting = hub.waiting("shop").await;
    assert_eq!((&waiting[0]["id"], &waiting[0]["size"]), (&json!("p1"), &json!(18)));
    assert_eq!(waiting[0]["digest"], json!(Digest::of(content)));
    hub.send_part(PLANT, "p1", content, 0, b"").await.expect(204);

    let taken = hub.http.get(format!("{}/avocet/v1/mailbox/shop/p1", hub.url)).bearer_auth(ADMIN);
    let rest = taken.try_clone().unwrap().header("range", "bytes=10-").send().await.unwrap();
    assert_eq!(rest.status(), 206);
    assert_eq!(rest.headers()["content-range"], "bytes 10-17/18");
    assert_eq!(rest.text().await.unwrap(), "in parts");
    let beyond = taken.header("range", "bytes=18-").send().await.unwrap();
    assert_eq!(beyond.status(), 400);

    hub.ask_json("DELETE", "/avocet/v1/mailbox/shop/p1", ADMIN, &Value::Null).await.expect(204);
    hub.send_part(PLANT, "p1", content, 0, b"").await.expect(204);
    assert_eq!(hub.waiting("shop").await.len(), 0, "it was delivered before");
}

#[tokio::test]
async fn what_turns_out_to_be_something_else_has_to_come_anew() {
    let hub = TestHub::start().await;
    hub.assign_output().await;
    let content = b"right";
    hub.send_part(PLANT, "p1", content, 0, b"wrong").await.expect(202);
    let refused = hub.send_part(PLANT, "p1", content, 5, b"").await.expect(400);
    assert!(refused["message"].as_str().unwrap().contains("announced"), "{refused}");
    let told = hub.send_part(PLANT, "p1", content, 0, b"").await.expect(202);
    assert_eq!(told, json!({"received": 0}));
    hub.send_part(PLANT, "p1", content, 0, b"longer than it").await.expect(400);
    hub.send_part(PLANT, "p1", content, 0, b"right").await.expect(202);
    hub.send_part(PLANT, "p1", content, 5, b"").await.expect(204);
    let huge = format!("{}&offset=0&size={}", path("shop", "p2", content), 6_u64 << 30);
    hub.ask("PUT", &huge, PLANT, OCTETS, vec![]).await.expect(413);
}

#[tokio::test]
async fn a_full_box_takes_no_more_and_says_so_until_some_was_fetched() {
    let hub = TestHub::start().await.with_room(20_000).await;
    hub.assign_output().await;
    hub.tend();
    hub.send("shop", "p1", &[1; 9000]).await.expect(204);
    let refused = hub.send("shop", "p2", &[2; 9000]).await.expect(507);
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("`shop`") && message.contains("--max-mailbox-bytes"), "{message}");
    hub.send("shop", "p3", &[3; 30_000]).await.expect(413);
    hub.send("shop", "p1", &[1; 9000]).await.expect(204);
    assert_eq!(hub.send_part(PLANT, "p2", &[2; 9000], 0, b"").await.code, 507);
    hub.send("plant", "p4", &[4; 9000]).await.expect(204);
    let metrics = hub.ask_json("GET", "/metrics", ADMIN, &Value::Null).await.text;
    for line in ["avocet_mailbox_bytes{site=\"shop\"} 9000", "avocet_mailbox_deliveries{site=\"plant\"} 1"] {
        assert!(metrics.contains(line), "{metrics}");
    }
    hub.ask_json("DELETE", "/avocet/v1/mailbox/shop/p1", ADMIN, &Value::Null).await.expect(204);
    hub.send("shop", "p2", &[2; 9000]).await.expect(204);
    let metrics = hub.ask_json("GET", "/metrics", ADMIN, &Value::Null).await.text;
    assert!(metrics.contains("avocet_mailbox_deliveries{site=\"shop\"} 1"), "{metrics}");
}

#[tokio::test]
async fn a_site_whose_box_is_full_has_a_condition_that_says_so() {
    let hub = TestHub::start().await.with_room(20_000).await;
    hub.assign_output().await;
    hub.send("shop", "p1", &[1; 9000]).await.expect(204);
    hub.send("shop", "p2", &[2; 9000]).await.expect(507);
    hub.tend();
    hub.until("the site shop says that its box is full", async |hub| {
        let shop = hub.get("sites/shop").await.expect(200);
        let conditions = shop["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let full = conditions.iter().find(|known| known["type"] == "MailboxFull");
        full.is_some_and(|known| known["status"] == "True" && known["reason"] == "NoRoom")
    })
    .await;
    let plant = hub.get("sites/plant").await.expect(200);
    assert!(!plant.to_string().contains("MailboxFull"), "{plant}");
}

#[tokio::test]
async fn what_a_site_made_before_it_was_assigned_otherwise_is_taken_all_the_same() {
    let hub = TestHub::start().await;
    hub.send("shop", "p1", b"made before").await.expect(403);
    hub.tend();
    // The hub sees what is assigned a moment after it was.
    hub.until("the hub remembers what the site plant was to write", async |hub| {
        hub.assign_output().await;
        hub.delete("namespaces/plant/assignments/a").await.expect(200);
        hub.send("shop", "p1", b"made before").await.code == 204
    })
    .await;
    let elsewhere = format!("/avocet/v1/mailbox/shop/p2?bucket=photos&key=in/1&digest={}", Digest::of(b"x"));
    hub.ask("PUT", &elsewhere, PLANT, OCTETS, b"x".to_vec()).await.expect(403);
    assert_eq!(hub.waiting("shop").await.len(), 1);
    hub.send("nowhere", "p3", b"to nobody").await.expect(404);

    // Another site that gets the name may not.
    hub.delete("sites/plant").await.expect(200);
    hub.post("sites", &manifest("Site", "plant", json!({"tier": "edge"}))).await.expect(201);
    hub.until("what the old site was to write is forgotten", async |hub| {
        hub.send("shop", "p4", b"made by another").await.code == 403
    })
    .await;
}

#[tokio::test]
async fn a_hub_below_delivers_what_a_site_below_it_made_before_it_went() {
    let hub = TestHub::start().await;
    hub.tend();
    let told = async |told: Value| {
        hub.ask_json("POST", "/avocet/v1/sites/plant/children", PLANT, &told).await.expect(200)
    };
    let line = json!({"name": "line", "labels": {}, "spec": {"tier": "line", "parent": "plant"}});
    hub.until("the hub remembers what the site line was to write", async |hub| {
        told(json!({"children": [line]})).await;
        hub.post("namespaces/line/assignments", &assignment("a")).await.expect(201);
        hub.delete("namespaces/line/assignments/a").await.expect(200);
        told(json!({"gone": ["line"]})).await;
        hub.send("shop", "p1", b"made on the line").await.code == 204
    })
    .await;
    let waiting = hub.waiting("shop").await;
    assert_eq!(waiting[0]["key"], "out/p1");
}

#[tokio::test]
async fn what_waits_for_a_site_below_a_hub_goes_with_that_site() {
    let hub = TestHub::start().await;
    let told = async |told: Value| {
        hub.ask_json("POST", "/avocet/v1/sites/plant/children", PLANT, &told).await.expect(200)
    };
    let line = json!({"name": "line", "labels": {}, "spec": {"tier": "line", "parent": "plant"}});
    told(json!({"children": [line]})).await;
    hub.assign_output().await;
    hub.send("line", "p1", b"to the line").await.expect(204);
    hub.send("plant", "p2", b"to the plant").await.expect(204);
    assert_eq!(hub.waiting("plant").await.len(), 2, "by way of it");
    told(json!({"gone": ["line"]})).await;
    hub.tend();
    hub.until("what was for the site line is gone", async |hub| hub.waiting("plant").await.len() == 1).await;
    assert_eq!(hub.waiting("plant").await[0]["id"], "p2");
}

#[tokio::test]
async fn a_box_goes_with_its_site_and_that_is_said() {
    let hub = TestHub::start().await;
    hub.assign_output().await;
    hub.send("shop", "p1", b"one").await.expect(204);
    hub.send("plant", "p2", b"two").await.expect(204);
    hub.tend();
    hub.delete("sites/shop").await.expect(200);
    hub.until("an event tells what was dropped", async |hub| {
        let events =
            hub.ask_json("GET", "/api/v1/namespaces/default/events", ADMIN, &Value::Null).await.expect(200);
        let events = events["items"].as_array().unwrap().clone();
        events.iter().any(|event| {
            event["reason"] == "DeliveriesDropped"
                && event["involvedObject"]["name"] == "shop"
                && event["message"].as_str().unwrap().starts_with("1 deliveries of 3 bytes")
        })
    })
    .await;
    hub.post("sites", &manifest("Site", "shop", json!({"tier": "edge"}))).await.expect(201);
    assert_eq!(hub.waiting("shop").await.len(), 0);
    assert_eq!(hub.waiting("plant").await.len(), 1);
}
