//! What is told of a site's clock and identity, and that nothing depends on the clock.

use std::time::Duration;

use avocet_controllers::Beat;
use serde_json::json;

use crate::{ASSIGNMENT, Hub, message};

fn beat(instance: &str, previous: &str, skew: f64) -> Beat {
    Beat { instance: instance.to_owned(), previous: previous.to_owned(), skew: Some(skew) }
}

fn status(object: &store::Object, kind: &str) -> serde_json::Value {
    let conditions = object.manifest()["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().find(|entry| entry["type"] == kind).map_or(json!(null), |found| found["status"].clone())
}

#[tokio::test]
async fn promise_1_a_clock_that_is_an_hour_off_is_told_and_changes_nothing() {
    for (skew, words) in [(3600.0, "3600 s ahead of"), (-3600.0, "3600 s behind")] {
        let hub = Hub::start(Duration::from_secs(60));
        hub.site("plant", "edge").await;
        hub.heartbeats.take("plant", beat("a", "", skew)).unwrap();
        hub.application().await;
        hub.until("assignments", "plant", ASSIGNMENT, |_| true).await;
        hub.until("sites", "", "plant", |site| {
            message(site, "ClockSynced").contains(words)
                && status(site, "ClockSynced") == "False"
                && status(site, "Ready") == "True"
        })
        .await;
        // Small changes are no news, a right clock is.
        hub.heartbeats.take("plant", beat("a", "", skew * 1.1)).unwrap();
        hub.heartbeats.take("plant", beat("a", "", 0.2)).unwrap();
        hub.until("sites", "", "plant", |site| status(site, "ClockSynced") == "True").await;
        assert_eq!(hub.assigned("plant"), 1);
    }
}

#[tokio::test]
async fn a_second_machine_of_one_identity_is_told_of_until_it_is_gone() {
    let hub = Hub::start(Duration::from_secs(1));
    hub.site("plant", "edge").await;
    hub.heartbeats.take("plant", beat("first", "", 0.0)).unwrap();
    hub.heartbeats.take("plant", beat("copy", "long ago", 0.0)).unwrap_err();
    hub.until("sites", "", "plant", |site| status(site, "DuplicateIdentity") == "True").await;
    hub.until("sites", "", "plant", |site| status(site, "DuplicateIdentity") == "False").await;
}

#[tokio::test]
async fn a_revoked_site_is_told_of_and_keeps_its_assignments() {
    let hub = Hub::start(Duration::from_secs(60));
    hub.site("plant", "edge").await;
    hub.application().await;
    hub.until("assignments", "plant", ASSIGNMENT, |_| true).await;
    hub.heartbeats.revoked("plant", true);
    hub.until("sites", "", "plant", |site| message(site, "Ready").contains("were revoked")).await;
    hub.heartbeats.revoked("plant", false);
    hub.until("sites", "", "plant", |site| status(site, "Ready") == "True").await;
    assert_eq!(hub.assigned("plant"), 1);
}
