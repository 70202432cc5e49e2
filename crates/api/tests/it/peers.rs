//! From whom sites are sent to fetch artifacts, and what they may ask.

use serde_json::{Value, json};
use types::Digest;

use crate::support::{ADMIN, Answer, PLANT, TestHub, assignment, manifest, resource};

const SECRET: &str = "0123456789abcdef";

async fn offer(hub: &TestHub, site: &str, has: &[Digest]) -> Answer {
    let offer = json!({"address": "10.0.0.7:5010", "certificate": "PEM", "secret": SECRET, "has": has});
    hub.ask_json("PUT", &format!("/avocet/v1/sites/{site}/peers"), ADMIN, &offer).await
}

async fn ask(hub: &TestHub, site: &str, token: &str, digest: &Digest, without: &[&str]) -> Answer {
    let path = format!("/avocet/v1/sites/{site}/peers/questions");
    hub.ask_json("POST", &path, token, &json!({"digest": digest, "without": without})).await
}

/// Assigns an artifact to the site `plant`.
async fn assign(hub: &TestHub, digest: &Digest) {
    let mut assignment = assignment("app");
    assignment["spec"]["function"] = json!({"name": "f", "spec": {
        "runtime": "shell", "handler": "run.sh", "artifact": {"digest": digest, "size": 5},
    }});
    hub.ask_json("POST", &resource("namespaces/plant/assignments"), ADMIN, &assignment).await.expect(201);
}

#[tokio::test]
async fn a_site_is_sent_to_a_neighbour_with_a_ticket_for_what_it_was_assigned() {
    let hub = TestHub::start().await;
    let digest = Digest::of(b"model");
    offer(&hub, "shop", &[digest]).await.expect(204);
    let refused = ask(&hub, "plant", PLANT, &digest, &[]).await.expect(403);
    assert!(refused["message"].as_str().unwrap().contains("is not assigned to site `plant`"), "{refused}");
    assign(&hub, &digest).await;
    let found = ask(&hub, "plant", PLANT, &digest, &[]).await.expect(200);
    let ticket = avocet_api::peer_ticket(SECRET, &digest).unwrap();
    let expected = json!({
        "from": {"site": "shop", "address": "10.0.0.7:5010", "certificate": "PEM", "ticket": ticket},
    });
    assert_eq!(found, expected);
    assert_eq!(ask(&hub, "plant", PLANT, &digest, &["shop"]).await.expect(200), json!({"from": null}));
    offer(&hub, "shop", &[]).await.expect(204);
    assert_eq!(ask(&hub, "plant", PLANT, &digest, &[]).await.expect(200), json!({"from": null}));
}

#[tokio::test]
async fn sites_of_another_location_are_no_neighbours() {
    let hub = TestHub::start().await;
    let digest = Digest::of(b"model");
    assign(&hub, &digest).await;
    hub.merge_patch("sites/shop", &json!({"spec": {"location": "hamburg"}})).await.expect(200);
    offer(&hub, "shop", &[digest]).await.expect(204);
    assert_eq!(ask(&hub, "plant", PLANT, &digest, &[]).await.expect(200), json!({"from": null}));
    hub.merge_patch("sites/plant", &json!({"spec": {"location": "hamburg"}})).await.expect(200);
    assert_eq!(ask(&hub, "plant", PLANT, &digest, &[]).await.expect(200)["from"]["site"], "shop");
}

#[tokio::test]
async fn a_site_speaks_for_itself_alone_and_says_little() {
    let hub = TestHub::start().await;
    let digest = Digest::of(b"model");
    ask(&hub, "shop", PLANT, &digest, &[]).await.expect(403);
    let put = |site: &str, offer: Value| {
        let path = format!("/avocet/v1/sites/{site}/peers");
        let hub = &hub;
        async move { hub.ask_json("PUT", &path, PLANT, &offer).await }
    };
    let good = json!({"address": "10.0.0.7:1", "certificate": "PEM", "secret": SECRET, "has": []});
    put("plant", good.clone()).await.expect(204);
    put("shop", good.clone()).await.expect(403);
    let many: Vec<Digest> =
        (0..=avocet_api::MOST_ARTIFACTS).map(|number| Digest::of(number.to_string().as_bytes())).collect();
    for (field, bad) in [
        ("certificate", json!("x".repeat(5000))),
        ("secret", json!("short")),
        ("secret", json!("x".repeat(200))),
        ("has", json!(many)),
        ("address", json!("0.0.0.0:1")),
    ] {
        let mut offer = good.clone();
        offer[field] = bad;
        put("plant", offer).await.expect(400);
    }
    let manifest = manifest("Site", "gone", json!({"tier": "edge"}));
    hub.post("sites", &manifest).await.expect(201);
    hub.delete("sites/gone").await.expect(200);
    offer(&hub, "gone", &[]).await.expect(404);
}
