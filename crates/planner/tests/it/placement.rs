use avocet_planner::{Outcome, place};
use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::{Value, json};
use types::{PlacementSpec, Site};

use super::{silent, site};

fn decide(spec: Value, sites: &[Site], current: &[&str]) -> Outcome {
    let spec: PlacementSpec = serde_json::from_value(spec).unwrap();
    let current: Vec<String> = current.iter().map(|name| (*name).to_owned()).collect();
    place(&spec, sites, &current).unwrap()
}

fn check(spec: Value, sites: &[Site], current: &[&str], expected: &Expect) {
    let lines: Vec<String> = decide(spec, sites, current)
        .verdicts
        .iter()
        .map(|verdict| {
            format!("{} {}: {}\n", if verdict.selected { "+" } else { "-" }, verdict.site, verdict.reason)
        })
        .collect();
    expected.assert_eq(&lines.concat());
}

#[test]
fn promise_5_every_site_gets_a_reason_and_a_remedy() {
    let mut tainted = site("d", "edge", &[]);
    tainted.spec.taints = vec![types::Taint {
        key: "gpu".into(),
        value: "only".into(),
        effect: types::TaintEffect::NoSelect,
        time_added: None,
    }];
    let mut cordoned = site("e", "edge", &[]);
    cordoned.spec.unschedulable = true;
    let sites = [
        site("a", "edge", &[]),
        site("b", "edge", &[]),
        site("c", "cloud", &[]),
        tainted,
        cordoned,
        silent(site("f", "edge", &[])),
    ];
    check(
        json!({"tiers": ["edge"], "numberOfSites": 1}),
        &sites,
        &[],
        &expect![[r#"
            + a: matches
            - b: matches, but comes 2 in order and only 1 are wanted; raise spec.numberOfSites to select it too
            - c: has tier `cloud`, and spec.tiers asks for edge
            - d: has taint `gpu=only:NoSelect`; add a matching entry to spec.tolerations to select it
            - e: is cordoned; set its spec.unschedulable to false to select it
            - f: is not ready: no heartbeat for 40 s
        "#]],
    );
}

#[test]
fn promise_1_a_silent_or_cordoned_site_keeps_what_it_has() {
    let mut cordoned = site("b", "edge", &[]);
    cordoned.spec.unschedulable = true;
    let sites = [silent(site("a", "edge", &[])), cordoned, site("c", "edge", &[])];
    assert_eq!(decide(json!({"numberOfSites": 2}), &sites, &["a", "b"]).selected, ["a", "b"]);
}

#[test]
fn near_prefers_the_shortest_way_over_the_tree_and_refuses_what_is_too_far() {
    let sites = [
        site("cloud", "cloud", &[]),
        site("north", "edge", &[("cloud", 30.0)]),
        site("south", "edge", &[("cloud", 8.0)]),
        site("lost", "edge", &[]),
    ];
    check(
        json!({"tiers": ["edge"], "near": {"site": "cloud", "maxRoundTripMilliseconds": 20}}),
        &sites,
        &[],
        &expect![[r#"
            + south: matches, 8.0 ms from `cloud`
            - cloud: has tier `cloud`, and spec.tiers asks for edge
            - lost: has no measured connection to `cloud`
            - north: is 30.0 ms from `cloud`, and spec.near.maxRoundTripMilliseconds allows 20.0
        "#]],
    );
    let far = decide(json!({"near": {"site": "north"}, "tiers": ["edge"]}), &sites, &[]);
    assert_eq!(far.selected, ["north", "south", "lost"]);
}

#[test]
fn a_slightly_better_latency_moves_nothing_and_a_much_better_one_does() {
    let near = json!({"tiers": ["edge"], "numberOfSites": 1, "near": {"site": "cloud"}});
    let slight = [site("a", "edge", &[("cloud", 10.0)]), site("b", "edge", &[("cloud", 9.0)])];
    assert_eq!(decide(near.clone(), &slight, &["a"]).selected, ["a"]);
    let much = [site("a", "edge", &[("cloud", 10.0)]), site("b", "edge", &[("cloud", 2.0)])];
    assert_eq!(decide(near, &much, &["a"]).selected, ["b"]);
}

proptest! {
    #[test]
    fn placing_again_with_its_own_answer_changes_nothing(
        rtts in prop::collection::vec(0.0..100.0_f64, 1..12), wanted in 1..6_u32, near in any::<bool>(),
    ) {
        let sites: Vec<Site> = rtts.iter().enumerate()
            .map(|(index, rtt)| site(&format!("s{index}"), "edge", &[("cloud", *rtt)])).collect();
        let mut spec = json!({"numberOfSites": wanted});
        if near {
            spec["near"] = json!({"site": "cloud"});
        }
        let first = decide(spec.clone(), &sites, &[]);
        let names: Vec<&str> = first.selected.iter().map(String::as_str).collect();
        prop_assert!(first.selected.len() <= wanted as usize);
        prop_assert_eq!(first.verdicts.len(), sites.len());
        let mut second = decide(spec, &sites, &names).selected;
        let mut expected = first.selected;
        second.sort();
        expected.sort();
        prop_assert_eq!(second, expected);
    }
}
