//! Decisions in parts.

mod times;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use store::{Deletion, Key, Store};
use types::{Kind, Placement, PlacementDecision, PlacementDecisionSpec, PlacementSpec, SiteSpec};

use super::{Decision, Planning, explain, reconcile, simulate, tell_changes};
use crate::snapshot::Reader;
use crate::testing::{self, at};
use crate::{Events, Measurements};

/// A hub that looks when it is told to.
struct Hub {
    store: Store,
    events: Events,
    reader: Reader,
    planning: Planning,
    now: i64,
}

impl Hub {
    fn new() -> Self {
        Self::on(testing::store())
    }

    fn on(store: Store) -> Self {
        let (reader, planning) = (Reader::default(), Planning::default());
        Self { events: Events::new(store.clone()), store, reader, planning, now: 0 }
    }

    async fn apply(&mut self, kind: &str, name: &str, spec: Value) {
        testing::apply(&self.store, kind, name, spec, at(self.now)).await;
    }

    async fn sites(&mut self, numbers: std::ops::Range<usize>, tier: &str) {
        let ready = json!({"type": "Ready", "status": "True", "reason": "Heard", "message": "",
            "lastTransitionTime": at(0), "observedGeneration": 1});
        for number in numbers {
            self.apply("site", &name(number), json!({"tier": tier})).await;
            let key = Key::new(SiteSpec::PLURAL, "", name(number));
            let told = json!({"metadata": {}, "status": {"conditions": [ready]}});
            self.store.update(key, told, true).await.unwrap();
        }
    }

    /// Looks until there is nothing to write; answers how many writes there were.
    async fn settle(&mut self) -> usize {
        for count in 0..10 {
            self.now += 1;
            let (snapshot, _) = self.reader.read(&self.store);
            let measured = Measurements::default();
            let writes = reconcile(&mut self.planning, snapshot, &measured, at(self.now));
            if writes.is_empty() {
                return count;
            }
            for write in writes {
                write.apply(&self.store, &self.events, at(self.now)).await.unwrap();
            }
        }
        panic!("placements never rest");
    }

    fn parts(&self) -> Vec<PlacementDecision> {
        let (objects, _) = self.store.list(PlacementDecisionSpec::PLURAL, None);
        objects.iter().map(|object| object.parse().unwrap()).collect()
    }

    /// The names of parts and how many sites each has.
    fn sizes(&self) -> Vec<(String, usize)> {
        self.parts().iter().map(|part| (part.name().to_owned(), part.status.decisions.len())).collect()
    }

    /// All selected sites, each once.
    fn selected(&self) -> BTreeSet<String> {
        let parts = self.parts();
        let all: Vec<String> =
            parts.iter().flat_map(|part| &part.status.decisions).map(|chosen| chosen.site.clone()).collect();
        let each: BTreeSet<String> = all.iter().cloned().collect();
        assert_eq!(each.len(), all.len(), "no site is selected twice");
        each
    }

    fn placement(&self, name: &str) -> Placement {
        self.store.get(&Key::new(PlacementSpec::PLURAL, "default", name)).unwrap().parse().unwrap()
    }
}

fn name(number: usize) -> String {
    format!("s{number:04}")
}

fn names(numbers: std::ops::Range<usize>) -> BTreeSet<String> {
    numbers.map(name).collect()
}

fn sized(parts: &[(&str, usize)]) -> Vec<(String, usize)> {
    parts.iter().map(|(name, size)| ((*name).to_owned(), *size)).collect()
}

fn label<'a>(part: &'a PlacementDecision, key: &str) -> &'a str {
    &part.metadata.labels[key]
}

#[tokio::test]
async fn no_object_names_more_than_a_hundred_sites() {
    let mut hub = Hub::new();
    hub.sites(0..250, "edge").await;
    hub.apply("placement", "p", json!({"tiers": ["edge"]})).await;
    hub.settle().await;
    let wanted = [("p-decision-1", 100), ("p-decision-2", 100), ("p-decision-3", 50)];
    assert_eq!(hub.sizes(), sized(&wanted));
    assert_eq!(hub.selected(), names(0..250));
    for part in hub.parts() {
        assert_eq!(label(&part, "avocet.dev/placement"), "p");
        assert_eq!(label(&part, "avocet.dev/decision-group-index"), "0");
        assert_eq!(label(&part, "avocet.dev/decision-group-name"), "");
        assert_eq!(part.metadata.owner_references[0].name, "p");
        assert_eq!(part.status.observed_generation, 1);
    }
    let status = hub.placement("p").status;
    assert_eq!(status.number_of_selected_sites, 250);
    assert_eq!(status.decision_groups.len(), 1);
    assert_eq!(status.decision_groups[0].sites, 250);
    assert_eq!(status.decision_groups[0].decisions, wanted.map(|(name, _)| name));
    assert_eq!(hub.settle().await, 0, "nothing moves where nothing changes");
}

#[tokio::test]
async fn there_is_a_decision_where_no_site_is_selected() {
    let mut hub = Hub::new();
    hub.apply("placement", "p", json!({"tiers": ["edge"]})).await;
    hub.settle().await;
    assert_eq!(hub.sizes(), sized(&[("p-decision-1", 0)]));
    hub.sites(0..100, "edge").await;
    hub.settle().await;
    assert_eq!(hub.sizes(), sized(&[("p-decision-1", 100)]));
}

#[tokio::test]
async fn parts_go_when_fewer_sites_are_selected_and_come_back_with_them() {
    let mut hub = Hub::new();
    hub.sites(0..250, "edge").await;
    hub.apply("placement", "p", json!({"tiers": ["edge"]})).await;
    hub.settle().await;
    let since = hub.parts()[0].status.decisions[0].since;
    hub.now = 1000;
    hub.sites(120..250, "cloud").await;
    hub.settle().await;
    assert_eq!(hub.sizes(), sized(&[("p-decision-1", 100), ("p-decision-2", 20)]));
    assert_eq!(hub.selected(), names(0..120));
    hub.sites(120..201, "edge").await;
    hub.settle().await;
    assert_eq!(hub.selected(), names(0..201));
    assert_eq!(hub.sizes()[2], ("p-decision-3".to_owned(), 1));
    let parts = hub.parts();
    let of = |site: usize| {
        parts.iter().flat_map(|part| &part.status.decisions).find(|one| one.site == name(site)).unwrap().since
    };
    assert_eq!(of(119), since, "who stayed is there since it was");
    assert!(of(120) > since, "who was away begins anew");
}

#[tokio::test]
async fn sites_of_two_groups_share_no_object() {
    let mut hub = Hub::new();
    hub.sites(0..270, "edge").await;
    let canaries = json!({"name": "canary", "labelSelector": {"matchLabels": {"canary": "yes"}}});
    for number in 0..130 {
        let key = Key::new(SiteSpec::PLURAL, "", name(number));
        let mut site = hub.store.get(&key).unwrap().manifest();
        site["metadata"]["labels"] = json!({"canary": "yes"});
        hub.store.update(key, site, false).await.unwrap();
    }
    let groups = json!({"sitesPerGroup": 120, "groups": [canaries]});
    hub.apply("placement", "p", json!({"decisionGroups": groups})).await;
    hub.settle().await;
    let parts = hub.parts();
    let seen: Vec<(&str, &str, &str, usize)> = parts
        .iter()
        .map(|part| {
            let (index, group) = (
                label(part, "avocet.dev/decision-group-index"),
                label(part, "avocet.dev/decision-group-name"),
            );
            (part.name(), index, group, part.status.decisions.len())
        })
        .collect();
    let wanted = [
        ("p-decision-1", "0", "canary", 100),
        ("p-decision-2", "0", "canary", 20),
        ("p-decision-3", "1", "canary", 10),
        ("p-decision-4", "2", "", 100),
        ("p-decision-5", "2", "", 20),
        ("p-decision-6", "3", "", 20),
    ];
    assert_eq!(seen, wanted);
    for part in &parts {
        let index: u32 = label(part, "avocet.dev/decision-group-index").parse().unwrap();
        assert!(part.status.decisions.iter().all(|chosen| chosen.group == index));
    }
    let groups = hub.placement("p").status.decision_groups;
    assert_eq!(groups.iter().map(|group| group.sites).collect::<Vec<_>>(), [120, 10, 120, 20]);
    assert_eq!(groups[2].decisions, ["p-decision-4", "p-decision-5"]);

    hub.apply("placement", "p", json!({})).await;
    hub.settle().await;
    assert_eq!(hub.sizes(), sized(&[("p-decision-1", 100), ("p-decision-2", 100), ("p-decision-3", 70)]));
    assert_eq!(label(&hub.parts()[2], "avocet.dev/decision-group-name"), "");
    assert_eq!(hub.selected(), names(0..270));
}

#[tokio::test]
async fn who_looks_while_a_decision_changes_finds_all_of_it() {
    let mut hub = Hub::new();
    hub.sites(0..250, "edge").await;
    hub.sites(250..470, "cloud").await;
    hub.apply("placement", "p", json!({"tiers": ["edge"]})).await;
    hub.settle().await;
    let (store, (end, ended)) = (hub.store.clone(), std::sync::mpsc::channel::<()>());
    let looking = std::thread::spawn(move || {
        let mut reader = Reader::default();
        let mut seen = BTreeSet::new();
        while ended.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
            let (snapshot, _) = reader.read(&store);
            seen.insert(Decision::of(snapshot, "default", "p").names().len());
        }
        seen
    });
    for round in 0..20 {
        let tier = if round % 2 == 0 { "cloud" } else { "edge" };
        hub.apply("placement", "p", json!({"tiers": [tier]})).await;
        hub.settle().await;
    }
    drop(end);
    let seen = looking.join().unwrap();
    assert!(seen.is_subset(&[220, 250].into()), "{seen:?}");
}

#[tokio::test]
async fn a_hub_that_starts_anew_goes_on_with_all_parts() {
    let mut hub = Hub::new();
    hub.sites(0..250, "edge").await;
    hub.apply("placement", "p", json!({"tiers": ["edge"]})).await;
    hub.settle().await;
    let before = hub.parts();
    let mut next = Hub::on(hub.store.clone());
    assert_eq!(next.settle().await, 0);
    // What is selected stays, though nothing can be decided any more.
    next.apply("placement", "p", json!({"tiers": ["edge"], "predicates": [{"celExpressions": ["site."]}]}))
        .await;
    next.settle().await;
    assert_eq!(next.parts(), before);
    let (snapshot, _) = next.reader.read(&next.store);
    let looks = simulate(snapshot, &Measurements::default(), at(next.now), || false).unwrap();
    assert_eq!(looks[0].decided.len(), 250);
    assert!(looks[0].is_kept());
    assert!(simulate(snapshot, &Measurements::default(), at(next.now), || true).is_none(), "no time is left");
}

#[tokio::test]
async fn what_would_change_is_told_within_a_limit() {
    let mut hub = Hub::new();
    hub.sites(0..30, "edge").await;
    hub.apply("placement", "p", json!({"tiers": ["edge"], "numberOfSites": 10})).await;
    hub.settle().await;
    hub.apply("placement", "p", json!({"tiers": ["edge"]})).await;
    let (snapshot, _) = hub.reader.read(&hub.store);
    let looks = || simulate(snapshot, &Measurements::default(), at(hub.now), || false).unwrap();
    let told = tell_changes(looks(), 1000);
    let counts = |told: &[types::PlacementChange]| {
        let one = &told[0];
        (one.before.len(), one.after.len(), one.added.len(), one.left_out)
    };
    assert_eq!(counts(&told), (10, 30, 20, 0));
    assert!(told[0].added.iter().all(|site| site.reason == "matches"), "{:?}", told[0].added);
    assert_eq!(counts(&tell_changes(looks(), 25)), (0, 0, 20, 40));
    assert_eq!(counts(&tell_changes(looks(), 5)), (0, 0, 5, 15 + 40));
    // One placement alone is explained as it is decided.
    let alone = explain(snapshot, ("default", "p"), &Measurements::default(), at(hub.now)).unwrap();
    assert_eq!(alone.now, looks()[0].now);
    assert_eq!(alone.outcome, looks()[0].outcome);
    assert!(explain(snapshot, ("default", "q"), &Measurements::default(), at(hub.now)).is_none());
}

#[tokio::test]
async fn a_group_that_cannot_be_followed_keeps_the_last_decision() {
    let mut hub = Hub::new();
    hub.sites(0..120, "edge").await;
    hub.apply("placement", "p", json!({"tiers": ["edge"]})).await;
    hub.settle().await;
    let before = hub.parts();
    let wrong = json!({"name": "a", "labelSelector": {"matchExpressions": [{"key": "k", "operator": "In", "values": []}]}});
    hub.apply("placement", "p", json!({"tiers": ["cloud"], "decisionGroups": {"groups": [wrong]}})).await;
    hub.settle().await;
    assert_eq!(hub.parts(), before);
    let told =
        types::condition(&hub.placement("p").status.conditions, "Misconfigured").unwrap().message.clone();
    assert!(told.starts_with("DecisionGroups: group `a`: ") && told.contains("s0000, s0001"), "{told}");
}

#[tokio::test]
async fn a_decision_in_one_object_is_brought_into_parts_and_moves_nothing() {
    let mut hub = Hub::new();
    hub.sites(0..150, "edge").await;
    hub.apply("placement", "p", json!({"tiers": ["edge"], "numberOfSites": 130})).await;
    let sites: Vec<Value> = (20..150)
        .map(|number| json!({"site": name(number), "reason": "it was", "since": at(-5000)}))
        .collect();
    let manifest = json!({"apiVersion": types::API_VERSION, "kind": "PlacementDecision",
        "metadata": {"name": "p", "namespace": "default", "labels": {"avocet.dev/placement": "p"}},
        "spec": {"placement": "p"}, "status": {"decisions": sites, "observedGeneration": 1,
            "groups": [{"index": 0, "name": "", "sites": 130}]}});
    let key = Key::new(PlacementDecisionSpec::PLURAL, "default", "p");
    hub.store.create(key, manifest, at(0)).await.unwrap();
    hub.settle().await;
    assert_eq!(hub.sizes(), sized(&[("p-decision-1", 100), ("p-decision-2", 30)]));
    assert_eq!(hub.selected(), names(20..150));
    let parts = hub.parts();
    let mut all = parts.iter().flat_map(|part| &part.status.decisions);
    assert!(all.all(|chosen| chosen.since == Some(at(-5000)) && chosen.reason == "it was"));
}

#[tokio::test]
async fn a_name_that_another_decision_has_is_left_to_it() {
    let mut hub = Hub::new();
    hub.sites(0..1, "edge").await;
    for name in ["a", "a-decision-1"] {
        hub.apply("placement", name, json!({"tiers": ["edge"]})).await;
    }
    let manifest = json!({"apiVersion": types::API_VERSION, "kind": "PlacementDecision",
        "metadata": {"name": "a-decision-1", "namespace": "default"}, "spec": {"placement": "a-decision-1"}});
    let key = Key::new(PlacementDecisionSpec::PLURAL, "default", "a-decision-1");
    hub.store.create(key, manifest, at(0)).await.unwrap();
    hub.settle().await;
    let answered: BTreeSet<String> = hub.parts().into_iter().map(|part| part.spec.placement).collect();
    assert_eq!(answered, ["a".to_owned(), "a-decision-1".to_owned()].into());
    assert_eq!(hub.parts().len(), 2);
    assert!(hub.parts().iter().all(|part| part.status.decisions.len() == 1));
}

#[tokio::test]
async fn a_part_that_somebody_deleted_comes_back_with_its_sites() {
    let mut hub = Hub::new();
    hub.sites(0..250, "edge").await;
    hub.apply("placement", "p", json!({"tiers": ["edge"]})).await;
    hub.settle().await;
    let key = Key::new(PlacementDecisionSpec::PLURAL, "default", "p-decision-2");
    hub.store.delete(key, Deletion::at(at(0))).await.unwrap();
    hub.settle().await;
    assert_eq!(hub.selected(), names(0..250));
    assert_eq!(hub.sizes()[2], ("p-decision-3".to_owned(), 50));
}

#[tokio::test]
async fn names_of_parts_are_names_however_long_that_of_the_placement_is() {
    let mut hub = Hub::new();
    let (one, other) = (format!("{}-1", "p".repeat(251)), format!("{}-2", "p".repeat(251)));
    for name in [&one, &other] {
        hub.apply("placement", name, json!({})).await;
    }
    hub.settle().await;
    let parts = hub.parts();
    assert_eq!(parts.len(), 2);
    for part in &parts {
        assert_eq!(types::names::subdomain_problems(part.name()), [""; 0], "{}", part.name());
        assert!(!part.metadata.labels.contains_key("avocet.dev/placement"), "it would be too long");
    }
    for name in [&one, &other] {
        hub.store
            .delete(Key::new(PlacementSpec::PLURAL, "default", name), Deletion::at(at(0)))
            .await
            .unwrap();
    }
    hub.settle().await;
    assert_eq!(hub.parts(), []);
}
