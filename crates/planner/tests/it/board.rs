//! What is decided step by step is what is decided all at once; what is asked for holds; nothing flaps.

use std::collections::BTreeMap;

use avocet_planner::{Board, Crowd, Fleet, PlacementKey, Policy, Selected, Situation, Slot, origins};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};
use types::{PlacementSpec, Site};

const START: Timestamp = Timestamp::UNIX_EPOCH;

/// A placement that decides again and again over a fleet that changes.
struct World {
    fleet: Fleet,
    crowd: Crowd,
    spec: PlacementSpec,
    key: PlacementKey,
    board: Board,
    current: Vec<Selected>,
    now: Timestamp,
    sites: BTreeMap<String, Site>,
}

fn site(name: &str, spec: &Value, labels: &Value, status: &Value) -> Site {
    let mut status = status.clone();
    status["conditions"] = json!([{"type": "Ready", "status": "True", "reason": "Heartbeat",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    serde_json::from_value(json!({"apiVersion": types::API_VERSION, "kind": "Site",
        "metadata": {"name": name, "labels": labels}, "spec": spec, "status": status}))
    .unwrap()
}

impl World {
    fn new(spec: &Value) -> Self {
        let spec: PlacementSpec = serde_json::from_value(spec.clone()).unwrap();
        let mut fleet = Fleet::default();
        let board = Board::new(Policy::compile(&spec, &mut fleet).unwrap());
        fleet.fill(&[], |_| vec![]);
        let key = ("default".to_owned(), "p".to_owned());
        Self {
            fleet,
            crowd: Crowd::default(),
            spec,
            key,
            board,
            current: vec![],
            now: START,
            sites: BTreeMap::new(),
        }
    }

    fn set(&mut self, site: Site) {
        self.fleet.set(&site, &[]);
        self.sites.insert(site.name().to_owned(), site);
    }

    fn remove(&mut self, name: &str) {
        self.fleet.remove(name);
        self.sites.remove(name);
    }

    fn ask(&mut self, fresh: bool) -> Vec<Slot> {
        let origins = origins(&self.spec, None, &mut self.fleet);
        let situation = Situation {
            now: self.now,
            key: &self.key,
            current: &self.current,
            is_settled: true,
            crowd: &self.crowd,
            origins: origins.as_deref(),
            avoided: &[],
            metrics: &[],
        };
        if fresh {
            let mut board = Board::new(Policy::compile(&self.spec, &mut self.fleet).unwrap());
            return board.decide(&mut self.fleet, &situation).to_vec();
        }
        self.board.decide(&mut self.fleet, &situation).to_vec()
    }

    /// Decides, and takes that over. How many sites came that weren't selected before.
    fn step(&mut self) -> usize {
        let selected = self.ask(false);
        if selected.is_empty() {
            return 0;
        }
        let before = std::mem::take(&mut self.current);
        let known = |slot: &Slot| before.iter().find(|selected| selected.slot == *slot).copied();
        let new = |slot| Selected { slot, since: Some(self.now), unmatched_since: None };
        self.current = selected
            .iter()
            .map(|slot| {
                let selected = known(slot).unwrap_or(new(*slot));
                let unmatched =
                    self.board.is_held(*slot).then(|| selected.unmatched_since.unwrap_or(self.now));
                Selected { unmatched_since: unmatched, ..selected }
            })
            .collect();
        self.crowd.set(&self.key, selected.clone(), BTreeMap::new());
        selected.iter().filter(|slot| known(slot).is_none()).count()
    }

    fn names(&mut self) -> Vec<String> {
        let selected = self.ask(false);
        selected.iter().map(|slot| self.fleet.name(*slot).to_owned()).collect()
    }

    fn wait(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }
}

/// Numbers that look random, always the same.
struct Noise(u64);

impl Noise {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

fn specs() -> Vec<Value> {
    vec![
        json!({"numberOfSites": 3}),
        json!({"siteSelector": {"matchLabels": {"zone": "1"}}}),
        json!({"numberOfSites": 2, "near": {"site": "s0", "maxRoundTripMilliseconds": 40}}),
        json!({"numberOfSites": 4, "predicates": [{"celExpressions": ["site.metadata.labels['zone'] != '2'"]}]}),
        json!({"numberOfSites": 4, "requests": {"cpu": "2"}, "prioritizerPolicy": {"configurations": [
            {"scoreCoordinate": {"builtIn": "ResourceAllocatableCPU"}, "weight": 2},
            {"scoreCoordinate": {"builtIn": "Cost"}, "weight": 3}]}}),
        json!({"numberOfSites": 4, "spread": [{"topologyKey": "zone", "maxSkew": 1}]}),
        json!({"numberOfSites": 5, "spread": [{"topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}]}),
        json!({"tolerations": [{"key": "k", "operator": "Exists", "tolerationSeconds": 90}]}),
        json!({"siteSelector": {"matchLabels": {"zone": "1"}}, "migration": {"holdSeconds": 60},
            "tolerations": [{"key": "k", "operator": "Exists", "tolerationSeconds": 40}]}),
    ]
}

/// A change of the world: which site, and what becomes of it.
fn change() -> impl Strategy<Value = (u8, u8, u8, u8, u8)> {
    (0..12_u8, 0..10_u8, 0..4_u8, 0..6_u8, any::<u8>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn deciding_step_by_step_is_deciding_all_at_once(
        which in 0..8_usize, changes in prop::collection::vec(change(), 1..40),
    ) {
        let mut world = World::new(&specs()[which]);
        for (name, what, zone, taint, number) in changes {
            let name = format!("s{name}");
            if what == 0 {
                world.remove(&name);
            } else {
                let taints = match taint {
                    0 => json!([{"key": "k", "effect": "NoSelect", "timeAdded": world.now.to_string()}]),
                    1 => json!([{"key": "j", "effect": "PreferNoSelect"}]),
                    _ => json!([]),
                };
                let links = json!([{"site": format!("s{}", number % 12), "roundTripMilliseconds": number}]);
                let zone = if zone == 3 { json!({}) } else { json!({"zone": format!("{zone}")}) };
                world.set(site(
                    &name,
                    &json!({"tier": "edge", "taints": taints, "costPerHour": number, "unschedulable": what == 1}),
                    &zone,
                    &json!({"links": links, "allocatable": {"cpu": number % 8, "memory": "1Gi"},
                            "capacity": {"cpus": 8, "memoryBytes": 1 << 30}}),
                ));
            }
            if what == 2 {
                let other = ("default".to_owned(), "other".to_owned());
                let slots = Crowd::slots(&mut world.fleet, [&name]);
                world.crowd.set(&other, slots, BTreeMap::from([("cpu".to_owned(), 3.0)]));
            }
            let (stepwise, at_once) = (world.ask(false), world.ask(true));
            prop_assert_eq!(stepwise, at_once);
            if what != 3 {
                world.step();
            }
            world.wait(i64::from(number % 50));
        }
    }

    #[test]
    fn a_hard_spread_is_never_skewed(
        zones in prop::collection::vec(0..5_u8, 1..40), wanted in 1..30_u32, skew in 1..4_u32,
    ) {
        let mut world = World::new(&json!({"numberOfSites": wanted,
            "spread": [{"topologyKey": "zone", "maxSkew": skew}]}));
        for (index, zone) in zones.iter().enumerate() {
            world.set(site(&format!("s{index}"), &json!({"tier": "edge"}), &json!({"zone": format!("z{zone}")}), &json!({})));
        }
        let mut counts: BTreeMap<u8, u32> = zones.iter().map(|zone| (*zone, 0)).collect();
        for name in world.names() {
            *counts.get_mut(&zones[name[1..].parse::<usize>().unwrap()]).unwrap() += 1;
        }
        let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
        prop_assert!(most - least <= skew, "{counts:?}");
        let soft = json!({"numberOfSites": wanted,
            "spread": [{"topologyKey": "zone", "maxSkew": skew, "whenUnsatisfiable": "ScheduleAnyway"}]});
        let mut relaxed = World::new(&soft);
        for site in world.sites.values() {
            relaxed.set(site.clone());
        }
        prop_assert_eq!(relaxed.names().len(), zones.len().min(wanted as usize));
    }
}

/// Moves of a placement in four thousand seconds, over sites whose latencies are noisy and one of which has a label that
/// comes and goes.
fn moves(migration: &Value, prioritizers: &Value, seed: u64) -> usize {
    let mut world = World::new(&json!({"numberOfSites": 1, "near": {"site": "cloud"},
        "siteSelector": {"matchLabels": {"ok": "yes"}}, "migration": migration, "prioritizerPolicy": prioritizers}));
    let mut noise = Noise(seed);
    let mut moves = 0;
    for tick in 0..400 {
        for index in 0..20_u64 {
            let milliseconds = 10.0 + index as f64 / 4.0 + noise.next(60) as f64 / 10.0;
            let ok = if index == 0 && tick % 2 == 1 { "no" } else { "yes" };
            let links = json!({"links": [{"site": "cloud", "roundTripMilliseconds": milliseconds}]});
            world.set(site(&format!("s{index:02}"), &json!({"tier": "edge"}), &json!({"ok": ok}), &links));
        }
        moves += world.step();
        world.wait(10);
    }
    moves
}

#[test]
fn noisy_latencies_and_a_label_that_comes_and_goes_hardly_move_anything() {
    let greedy = json!({"mode": "Exact", "configurations":
        [{"scoreCoordinate": {"builtIn": "Latency"}, "weight": 1}]});
    for seed in 1..4 {
        let nervous = moves(&json!({"minimumGain": 0, "minimumDwellSeconds": 0}), &greedy, seed);
        let calm = moves(&json!({}), &json!({}), seed);
        assert!(nervous > 120, "without hysteresis: {nervous} moves, seed {seed}");
        assert!(calm <= 3, "as it is by default: {calm} moves, seed {seed}");
        // Hysteresis counts in points, whatever the weights: Steady is not needed for it.
        let hysteresis = moves(&json!({"minimumGain": 25, "minimumDwellSeconds": 0}), &greedy, seed);
        assert!(hysteresis <= 5, "with 25 points: {hysteresis} moves, seed {seed}");
    }
}

#[test]
fn a_dwell_bounds_moves_whatever_happens_and_a_cost_makes_them_rarer() {
    let greedy = json!({"mode": "Exact", "configurations":
        [{"scoreCoordinate": {"builtIn": "Latency"}, "weight": 1}]});
    let with = |gain: u32, cost: u32, dwell: u32| {
        let migration = json!({"minimumGain": gain, "cost": cost, "minimumDwellSeconds": dwell});
        moves(&migration, &greedy, 7)
    };
    let free = with(0, 0, 0);
    let dwelling = with(0, 0, 500);
    // The label that goes moves at once; only what is merely better waits.
    assert!(dwelling <= 4_000 / 500 * 2 + 2, "{dwelling} moves");
    assert!(with(2, 4, 0) < with(2, 0, 0) && with(2, 0, 0) < free);
}

#[test]
fn a_site_that_stops_to_match_is_held_where_that_is_asked_for() {
    let labelled = |ok: &str| site("a", &json!({"tier": "edge"}), &json!({"ok": ok}), &json!({}));
    for (hold, drops) in [(0, 50), (400, 2)] {
        let mut world = World::new(&json!({"siteSelector": {"matchLabels": {"ok": "yes"}},
            "migration": {"holdSeconds": hold}}));
        world.set(site("b", &json!({"tier": "edge"}), &json!({"ok": "yes"}), &json!({})));
        let mut dropped = 0;
        for tick in 0..100 {
            world.set(labelled(if tick % 2 == 0 { "yes" } else { "no" }));
            let before = world.current.len();
            world.step();
            dropped += usize::from(world.current.len() < before);
            world.wait(10);
        }
        assert!(dropped <= drops && (hold > 0 || dropped == drops), "{hold}: {dropped}");
    }
}

#[test]
fn a_hold_counts_from_when_a_site_stopped_to_match_however_long_it_was_selected() {
    let labelled = |ok: &str| site("a", &json!({"tier": "edge"}), &json!({"ok": ok}), &json!({}));
    let mut world = World::new(&json!({"siteSelector": {"matchLabels": {"ok": "yes"}},
        "migration": {"holdSeconds": 30}}));
    world.set(site("b", &json!({"tier": "edge"}), &json!({"ok": "yes"}), &json!({})));
    world.set(labelled("yes"));
    world.step();
    world.wait(7 * 24 * 3600);
    // A label that is wrong for a moment is no news, and the next time counts anew.
    for _ in 0..3 {
        world.set(labelled("no"));
        world.step();
        assert!(world.board.is_changed() || world.current.iter().any(|one| one.unmatched_since.is_some()));
        world.wait(29);
        assert_eq!(world.names(), ["a", "b"]);
        world.set(labelled("yes"));
        world.step();
        assert!(world.current.iter().all(|one| one.unmatched_since.is_none()), "{:?}", world.current);
        world.wait(29);
        assert_eq!(world.names(), ["a", "b"]);
    }
    world.set(labelled("no"));
    world.step();
    world.wait(29);
    assert_eq!(world.names(), ["a", "b"]);
    world.wait(1);
    assert_eq!(world.names(), ["b"]);
    // A taint that isn't tolerated holds nothing.
    world.set(labelled("yes"));
    world.step();
    world.set(site(
        "a",
        &json!({"tier": "edge", "taints": [{"key": "k", "effect": "NoSelect"}]}),
        &json!({"ok": "no"}),
        &json!({}),
    ));
    assert_eq!(world.names(), ["b"]);
}

#[test]
fn a_much_better_site_still_wins_once_the_dwell_is_over() {
    let mut world = World::new(&json!({"numberOfSites": 1, "near": {"site": "cloud"}}));
    let at = |name: &str, milliseconds: f64| {
        let links = json!({"links": [{"site": "cloud", "roundTripMilliseconds": milliseconds}]});
        site(name, &json!({"tier": "edge"}), &json!({}), &links)
    };
    world.set(at("far", 50.0));
    assert_eq!((world.step(), world.names()), (1, vec!["far".to_owned()]));
    world.set(at("near", 1.0));
    assert_eq!(world.step(), 0, "it was selected a moment ago");
    world.wait(59);
    assert_eq!(world.step(), 0);
    world.wait(2);
    assert_eq!((world.step(), world.names()), (1, vec!["near".to_owned()]));
}

#[test]
fn a_change_of_one_site_costs_the_work_of_one_site() {
    let mut world = World::new(&json!({"numberOfSites": 5, "siteSelector": {"matchLabels": {"ok": "yes"}}}));
    let labelled = |index: usize, ok: &str| {
        site(&format!("s{index:04}"), &json!({"tier": "edge"}), &json!({"ok": ok}), &json!({}))
    };
    for index in 0..2000 {
        world.set(labelled(index, "yes"));
    }
    world.step();
    assert_eq!(world.board.effort().evaluated, world.fleet.rows());
    world.step();
    world.set(labelled(1500, "no"));
    world.step();
    assert_eq!(world.board.effort().evaluated, 1);
    assert_eq!(world.names(), ["s0000", "s0001", "s0002", "s0003", "s0004"]);
    world.set(labelled(2, "no"));
    assert_eq!(world.names(), ["s0000", "s0001", "s0003", "s0004", "s0005"]);
}

#[test]
fn strangers_in_links_make_no_fleet_that_is_to_be_made_again() {
    let links = |from: usize| -> Vec<Value> {
        (from..from + 3000)
            .map(|stranger| json!({"site": format!("stranger-{stranger}"), "roundTripMilliseconds": 1.0}))
            .collect()
    };
    let telling = |name: &str, from: usize| {
        site(name, &json!({"tier": "edge"}), &json!({}), &json!({"links": links(from)}))
    };
    let mut fleet = Fleet::default();
    for index in 0..10_usize {
        fleet.set(&telling(&format!("s{index}"), index * 3000), &[]);
    }
    assert!(fleet.rows() < 3000, "{} rows: only the first links of a site count", fleet.rows());
    fleet.settle();
    assert!(!fleet.is_bloated(), "a new one would be as large");
    for index in 10..30 {
        fleet.set(&telling("s0", index * 3000), &[]);
    }
    assert!(fleet.is_bloated(), "these strangers are named no more");
}
