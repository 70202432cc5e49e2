//! What a placement can ask for beside labels.

use std::collections::BTreeMap;

use avocet_planner::{Fleet, Outcome, PlacementKey, Question, answer};
use jiff::Timestamp;
use serde_json::{Value, json};
use types::{PlacementScore, PlacementSpec, Site};

fn site(name: &str, spec: Value, status: Value) -> Site {
    let mut site: Site = serde_json::from_value(json!({"apiVersion": types::API_VERSION, "kind": "Site",
        "metadata": {"name": name, "labels": {"zone": &name[..1]}}, "spec": {"tier": "edge"}, "status": status}))
    .unwrap();
    let mut full = json!({"tier": "edge"});
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    site.spec = serde_json::from_value(full).unwrap();
    site.status.conditions = serde_json::from_value(json!([{"type": "Ready", "status": "True",
        "reason": "Heartbeat", "lastTransitionTime": "2026-01-01T00:00:00Z"}]))
    .unwrap();
    site
}

fn plain(name: &str) -> Site {
    site(name, json!({}), json!({}))
}

fn spec(spec: Value) -> PlacementSpec {
    serde_json::from_value(spec).unwrap()
}

fn ask(question: &Question) -> Outcome {
    answer(question, Fleet::default()).unwrap()
}

fn selected(wanted: Value, sites: &[Site]) -> Vec<String> {
    ask(&Question::new(&spec(wanted), sites, Timestamp::UNIX_EPOCH)).selected
}

fn reason(outcome: &Outcome, site: &str) -> String {
    outcome.verdicts.iter().find(|verdict| verdict.site == site).unwrap().reason.clone()
}

fn key(name: &str) -> PlacementKey {
    ("default".to_owned(), name.to_owned())
}

#[test]
fn what_others_request_is_not_free() {
    let room = |name: &str, cpus: u32| site(name, json!({}), json!({"allocatable": {"cpu": cpus}}));
    let sites = [room("a", 4), room("b", 2), plain("c")];
    let wanted = spec(json!({"requests": {"cpu": "1500m"}}));
    let others =
        [(key("other"), vec!["a".to_owned(), "b".to_owned()], BTreeMap::from([("cpu".to_owned(), 1.0)]))];
    let question = Question { others: &others, ..Question::new(&wanted, &sites, Timestamp::UNIX_EPOCH) };
    let outcome = ask(&question);
    assert_eq!(outcome.selected, ["a"]);
    assert_eq!(
        reason(&outcome, "b"),
        "has 1 cpu left beside what other placements request, and spec.requests asks for 1.5"
    );
    assert!(reason(&outcome, "c").contains("does not report how much cpu"));
}

#[test]
fn amounts_add_up_exactly_and_leave_nothing_behind() {
    let sites = [site("a", json!({}), json!({"allocatable": {"cpu": "300m"}}))];
    let wanted = spec(json!({"requests": {"cpu": "100m"}}));
    let other = |name: &str, amount: f64| {
        (key(name), vec!["a".to_owned()], BTreeMap::from([("cpu".to_owned(), amount)]))
    };
    for (others, fits) in [
        (vec![other("x", 0.1), other("y", 0.1)], true),
        (vec![other("x", 0.2)], true),
        (vec![other("x", 0.201)], false),
    ] {
        let question = Question { others: &others, ..Question::new(&wanted, &sites, Timestamp::UNIX_EPOCH) };
        assert_eq!(ask(&question).selected.len(), usize::from(fits), "{others:?}");
    }
}

#[test]
fn packing_fills_sites_that_are_used_already_and_balance_spreads() {
    let room = |name: &str| site(name, json!({}), json!({"allocatable": {"cpu": 8}}));
    let sites = [room("a"), room("b")];
    let others = [(key("other"), vec!["b".to_owned()], BTreeMap::from([("cpu".to_owned(), 4.0)]))];
    for (score, expected) in [("Packing", "b"), ("Balance", "a")] {
        let wanted =
            spec(json!({"numberOfSites": 1, "requests": {"cpu": 1}, "prioritizerPolicy": {"mode": "Exact",
            "configurations": [{"scoreCoordinate": {"builtIn": score}, "weight": 1}]}}));
        let question = Question { others: &others, ..Question::new(&wanted, &sites, Timestamp::UNIX_EPOCH) };
        assert_eq!(ask(&question).selected, [expected], "{score}");
    }
}

#[test]
fn two_that_keep_away_from_each_other_part_once_and_the_first_by_name_stays() {
    let sites = [plain("a1"), plain("a2"), plain("b1")];
    let wanted = |other: &str, topology: &str| {
        spec(json!({"numberOfSites": 1, "prioritizerPolicy": {"mode": "Exact"},
            "antiAffinity": [{"placement": other, "topologyKey": topology}]}))
    };
    let decide = |own: &str, other: &str, topology: &str| {
        let wanted = wanted(other, topology);
        let others = [(key(other), vec!["a1".to_owned()], BTreeMap::new())];
        let current = [("a1".to_owned(), None)];
        ask(&Question {
            key: key(own),
            current: &current,
            others: &others,
            avoided: &[vec![key(other)]],
            ..Question::new(&wanted, &sites, Timestamp::UNIX_EPOCH)
        })
        .selected
    };
    assert_eq!(decide("first", "second", ""), ["a1"]);
    assert_eq!(decide("second", "first", ""), ["a2"]);
    assert_eq!(decide("second", "first", "zone"), ["b1"]);
}

#[test]
fn near_may_be_a_location_or_a_component_and_bandwidth_counts() {
    let linked = |name: &str, links: Value| site(name, json!({}), json!({"links": links}));
    let sites = [
        site("hall", json!({"location": "line-7"}), json!({})),
        linked("next", json!([{"location": "line-7", "roundTripMilliseconds": 3, "megabitsPerSecond": 10}])),
        linked("far", json!([{"site": "next", "roundTripMilliseconds": 30, "megabitsPerSecond": 100}])),
    ];
    let near = json!({"location": "line-7", "maxRoundTripMilliseconds": 10});
    assert_eq!(selected(json!({"near": near}), &sites), ["hall", "next"]);
    let wide = json!({"location": "line-7", "minMegabitsPerSecond": 50});
    let outcome = ask(&Question::new(&spec(json!({"near": wide})), &sites, Timestamp::UNIX_EPOCH));
    assert_eq!(outcome.selected, ["hall"]);
    assert!(
        reason(&outcome, "far").contains("has 10.0 Mbit/s to location `line-7`"),
        "the narrowest link counts"
    );
    let component =
        spec(json!({"numberOfSites": 1, "near": {"component": {"application": "app", "name": "camera"}}}));
    let at = ["far".to_owned()];
    let question =
        Question { component_sites: Some(&at), ..Question::new(&component, &sites, Timestamp::UNIX_EPOCH) };
    assert_eq!(ask(&question).selected, ["far"]);
}

#[test]
fn cheap_and_thrifty_sites_are_preferred_and_pinned_ones_come_first() {
    let priced = |name: &str, cost: f64, watts: f64| {
        site(name, json!({"costPerHour": cost, "energyWatts": watts}), json!({}))
    };
    let sites = [priced("a", 5.0, 10.0), priced("b", 1.0, 90.0), priced("c", 3.0, 50.0)];
    let by = |score: &str| {
        json!({"numberOfSites": 1, "prioritizerPolicy": {"configurations":
            [{"scoreCoordinate": {"builtIn": score}, "weight": 3}]}})
    };
    assert_eq!(selected(by("Cost"), &sites), ["b"]);
    assert_eq!(selected(by("Energy"), &sites), ["a"]);
    assert_eq!(selected(json!({"pinnedSites": ["c"]}), &sites), ["c"]);
    let mut two = by("Cost");
    two["pinnedSites"] = json!(["c"]);
    two["numberOfSites"] = json!(2);
    assert_eq!(selected(two, &sites), ["c", "b"]);
}

#[test]
fn metrics_order_and_constrain_and_a_missing_value_moves_nothing_away() {
    let sites = [plain("a"), plain("b"), plain("c")];
    let metrics = json!([{"name": "load", "min": 0, "max": 1, "weight": -1, "provider": {"claim": "load"}}]);
    let wanted = spec(json!({"metrics": metrics, "constraints": {"metrics": ["load gte 0"]}}));
    let values = [BTreeMap::from([("a".to_owned(), 0.9), ("b".to_owned(), 0.1)])];
    // A weight less than 0 makes the weighted value less than 0: the constraint fails of all but 0.
    let question = Question { metrics: &values, ..Question::new(&wanted, &sites, Timestamp::UNIX_EPOCH) };
    assert_eq!(ask(&question).selected, Vec::<String>::new());
    let free = spec(json!({"metrics": metrics}));
    let current = [("c".to_owned(), None)];
    let question = Question {
        metrics: &values,
        current: &current,
        ..Question::new(&free, &sites, Timestamp::UNIX_EPOCH)
    };
    let outcome = ask(&question);
    assert_eq!(outcome.selected, ["b", "c", "a"]);
    let nobody = Question { metrics: &values, ..Question::new(&free, &sites, Timestamp::UNIX_EPOCH) };
    assert_eq!(reason(&ask(&nobody), "c"), "has no value of metric `load` that is in range");
}

#[test]
fn told_scores_count_until_they_expire_and_expressions_see_them() {
    let sites = [plain("a"), plain("b")];
    let told = |site: &str, value: i32| -> PlacementScore {
        serde_json::from_value(json!({"apiVersion": types::API_VERSION, "kind": "PlacementScore",
            "metadata": {"name": "audit", "namespace": site},
            "spec": {"scores": [{"name": "trust", "value": value}], "validUntil": "2026-01-01T00:00:00Z"}}))
        .unwrap()
    };
    let told = [told("a", 10), told("b", 90)];
    let wanted =
        spec(json!({"numberOfSites": 1, "prioritizerPolicy": {"configurations": [{"scoreCoordinate":
        {"type": "AddOn", "addOn": {"resourceName": "audit", "scoreName": "trust"}}, "weight": 1}]}}));
    let at = |time: &str| {
        let now = time.parse().unwrap();
        ask(&Question { told: &told, ..Question::new(&wanted, &sites, now) })
    };
    assert_eq!(at("2025-12-31T23:59:59Z").selected, ["b"]);
    let later = at("2026-01-01T00:00:01Z");
    assert_eq!(
        (later.selected, later.warnings),
        (vec!["a".to_owned()], vec!["AddOnPlacementScores a/audit b/audit expired".to_owned()])
    );
    let trusted = spec(json!({"predicates": [{"celExpressions":
        ["site.scores('audit').exists(s, s.name == 'trust' && s.value > 50)"]}]}));
    let question = Question { told: &told, ..Question::new(&trusted, &sites, Timestamp::UNIX_EPOCH) };
    assert_eq!(ask(&question).selected, ["b"]);
}
