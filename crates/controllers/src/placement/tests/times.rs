//! How long selected sites stay, over starts of the hub and what its clock shows then.

use serde_json::json;
use store::{Key, Store};
use types::{Kind, SiteDecision, SiteSpec};

use super::{Hub, name, names};
use crate::testing::at;

async fn label(store: &Store, number: usize, ok: &str) {
    let key = Key::new(SiteSpec::PLURAL, "", name(number));
    let mut site = store.get(&key).unwrap().manifest();
    site["metadata"]["labels"] = json!({"ok": ok});
    store.update(key, site, false).await.unwrap();
}

impl Hub {
    fn decided(&self, number: usize) -> SiteDecision {
        let parts = self.parts();
        let mut all = parts.into_iter().flat_map(|part| part.status.decisions);
        all.find(|chosen| chosen.site == name(number)).unwrap()
    }
}

/// Two sites, of which the first doesn't match any more since the tenth second.
async fn holding(seconds: u32) -> Hub {
    let mut hub = Hub::new();
    hub.sites(0..2, "edge").await;
    label(&hub.store, 0, "yes").await;
    label(&hub.store, 1, "yes").await;
    let spec = json!({"siteSelector": {"matchLabels": {"ok": "yes"}}, "migration": {"holdSeconds": seconds}});
    hub.apply("placement", "p", spec).await;
    hub.settle().await;
    hub.now = 9;
    label(&hub.store, 0, "no").await;
    hub.settle().await;
    hub
}

#[tokio::test]
async fn a_hold_is_in_the_decision_and_outlives_the_hub() {
    let hub = holding(60).await;
    let held = hub.decided(0);
    assert_eq!((held.since, held.unmatched_since), (Some(at(1)), Some(at(10))));
    assert!(held.reason.starts_with("does not match any more, and stays for the 60 s of"), "{}", held.reason);
    assert_eq!(hub.decided(1).unmatched_since, None);
    // Each second another process of the hub.
    for now in [20, 40, 68] {
        let mut next = Hub::on(hub.store.clone());
        next.now = now;
        assert_eq!(next.settle().await, 0, "there is nothing to write at {now}");
    }
    let mut next = Hub::on(hub.store.clone());
    next.now = 69;
    next.settle().await;
    assert_eq!(next.selected(), names(1..2));
}

#[tokio::test]
async fn a_site_that_matches_again_is_held_no_more() {
    let mut hub = holding(60).await;
    label(&hub.store, 0, "yes").await;
    hub.settle().await;
    let back = hub.decided(0);
    assert_eq!((back.since, back.unmatched_since), (Some(at(1)), None));
    assert_eq!(back.reason, "matches; was selected before");
    hub.now = 1000;
    assert_eq!(hub.settle().await, 0);
    // Without a hold it goes at once.
    let hub = holding(0).await;
    assert_eq!(hub.selected(), names(1..2));
}

#[tokio::test]
async fn what_a_hub_noted_whose_clock_was_ahead_counts_from_the_start_of_the_next() {
    let hub = holding(60).await;
    let mut next = Hub::on(hub.store.clone());
    next.now = -3600;
    next.settle().await;
    let held = next.decided(0);
    assert_eq!((held.since, held.unmatched_since), (Some(at(-3599)), Some(at(-3599))));
    next.now = -3599 + 58;
    assert_eq!(next.settle().await, 0);
    next.settle().await;
    assert_eq!(next.selected(), names(1..2), "it waits for a minute, not for an hour");
}
