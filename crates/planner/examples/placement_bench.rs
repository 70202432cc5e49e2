//! How long a decision takes and what it allocates, over fleets of growing size.
//!
//!     cargo run --release -p avocet-planner --example placement_bench [SITES...]
//!
//! `full` decides with a new board over an index that is there; `one change` takes over one changed site and decides
//! again. Both are what the hub runs. Times are medians; allocations are those of one decision; decisions in a second are
//! those of one thread. Where there is an aim for so many sites, it stands beside what was measured.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use avocet_planner::{Board, Crowd, Fleet, PlacementKey, Policy, Selected, Situation, origins};
use jiff::Timestamp;
use serde_json::{Value, json};
use types::{PlacementSpec, Site};

const REGIONS: usize = 64;

/// What is aimed at, in milliseconds: over so many sites, for a full decision, and for that after one change.
const AIM: (usize, f64, f64) = (100_000, 25.0, 1.0);

/// Numbers that look random, always the same.
struct Noise(u64);

impl Noise {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

fn site(index: usize, noise: &mut Noise) -> Result<Site, serde_json::Error> {
    let region = noise.next(REGIONS as u64);
    let taints = match noise.next(10) {
        0 => json!([{"key": "maintenance", "effect": "NoSelect", "timeAdded": "2026-01-01T00:00:00Z"}]),
        _ => json!([]),
    };
    // A tree: sites hang at their region, regions at the root.
    let parent = if index < REGIONS { "root".to_owned() } else { format!("site-{:07}", region) };
    serde_json::from_value(json!({
        "apiVersion": types::API_VERSION, "kind": "Site",
        "metadata": {"name": format!("site-{index:07}"), "labels": {
            "region": format!("r{region}"), "env": if index.is_multiple_of(3) { "prod" } else { "dev" }, "zone": format!("z{}", noise.next(500)),
        }},
        "spec": {"tier": "edge", "taints": taints, "costPerHour": noise.next(100)},
        "status": {
            "conditions": [{"type": "Ready", "status": "True", "reason": "HeartbeatsArrive",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            "capacity": {"cpus": 8, "memoryBytes": 16_u64 << 30},
            "allocatable": {"cpu": format!("{}m", 1000 + noise.next(7000)), "memory": "8Gi"},
            "claims": [{"name": "arch", "value": if index.is_multiple_of(2) { "x86" } else { "arm" }}],
            "links": [{"site": parent, "roundTripMilliseconds": 1 + noise.next(80), "megabitsPerSecond": 1 + noise.next(1000)}],
        },
    }))
}

fn policies() -> Vec<(&'static str, Value)> {
    let predicates = json!([{"labelSelector": {"matchLabels": {"env": "prod"}},
        "claimSelector": {"matchExpressions": [{"key": "arch", "operator": "In", "values": ["x86"]}]}}]);
    let resources = json!({"configurations": [
        {"scoreCoordinate": {"builtIn": "ResourceAllocatableCPU"}, "weight": 2},
        {"scoreCoordinate": {"builtIn": "Cost"}, "weight": 1}]});
    vec![
        ("10 by label and claim", json!({"numberOfSites": 10, "predicates": predicates})),
        (
            "10 by room and cost",
            json!({"numberOfSites": 10, "requests": {"cpu": "2"}, "prioritizerPolicy": resources}),
        ),
        (
            "10 near the root",
            json!({"numberOfSites": 10, "near": {"site": "root", "maxRoundTripMilliseconds": 100}}),
        ),
        (
            "all but tainted",
            json!({"siteSelector": {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}}),
        ),
        ("100 over 64 regions", json!({"numberOfSites": 100, "spread": [{"topologyKey": "region"}]})),
    ]
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

fn measure(sites: usize) -> Result<(), Box<dyn std::error::Error>> {
    let mut noise = Noise(1);
    let mut fleet = Fleet::default();
    let policies: Vec<(&str, PlacementSpec)> = policies()
        .into_iter()
        .map(|(name, spec)| Ok((name, serde_json::from_value(spec)?)))
        .collect::<Result<_, serde_json::Error>>()?;
    // Known before the sites come, so that their columns are filled as they come.
    for (_, spec) in &policies {
        Policy::compile(spec, &mut fleet)?;
    }
    fleet.fill(&[], |_| vec![]);
    let mut indexing = Duration::ZERO;
    let mut samples = Vec::new();
    for index in 0..sites {
        let site = site(index, &mut noise)?;
        let begin = Instant::now();
        fleet.set(&site, &[]);
        indexing += begin.elapsed();
        if index % (sites / 64).max(1) == 0 {
            samples.push(site);
        }
    }
    println!("{sites} sites: indexed in {:.1} ms", indexing.as_secs_f64() * 1e3);
    for (name, spec) in &policies {
        let (full, change) = decide(name, spec, &mut fleet, &samples)?;
        let (of, aim_full, aim_change) = AIM;
        if sites == of {
            let word = |time: f64, aim: f64| if time <= aim { "met" } else { "MISSED" };
            println!(
                "  {:<24} aim  {aim_full:>9.3} ms, {}; one change {aim_change:>8.4} ms, {}",
                "",
                word(full, aim_full),
                word(change, aim_change),
            );
        }
    }
    Ok(())
}

/// Medians of a full decision and of one after a change, in milliseconds.
fn decide(
    name: &str,
    spec: &PlacementSpec,
    fleet: &mut Fleet,
    samples: &[Site],
) -> Result<(f64, f64), Box<dyn std::error::Error>> {
    let mut crowd = Crowd::default();
    let other: PlacementKey = ("default".into(), "other".into());
    let slots = Crowd::slots(fleet, samples.iter().map(Site::name));
    crowd.set(&other, slots, BTreeMap::from([("cpu".to_owned(), 0.5)]));
    let key: PlacementKey = ("default".into(), "bench".into());
    let origins = origins(spec, None, fleet);
    let now = Timestamp::from_second(1_800_000_000)?;
    let mut times = Vec::new();
    let mut full = allocation_counter::AllocationInfo::default();
    let mut board = None;
    for _ in 0..7 {
        // A link that changed makes distances unknown: a full decision works them out.
        fleet.forget_distances();
        let policy = Policy::compile(spec, fleet)?;
        let mut new = Board::new(policy);
        let begin = Instant::now();
        full = allocation_counter::measure(|| {
            new.decide(
                fleet,
                &Situation {
                    now,
                    key: &key,
                    current: &[],
                    is_settled: true,
                    crowd: &crowd,
                    origins: origins.as_deref(),
                    avoided: &[],
                    metrics: &[],
                },
            );
        });
        times.push(begin.elapsed());
        board = Some(new);
    }
    let Some(mut board) = board else { return Ok((0.0, 0.0)) };
    let current: Vec<Selected> = board
        .selected()
        .iter()
        .map(|slot| Selected { slot: *slot, since: None, unmatched_since: None })
        .collect();
    crowd.set(&key, current.iter().map(|selected| selected.slot).collect(), BTreeMap::new());
    let settled = |board: &mut Board, fleet: &mut Fleet| {
        board.decide(
            fleet,
            &Situation {
                now,
                key: &key,
                current: &current,
                is_settled: true,
                crowd: &crowd,
                origins: origins.as_deref(),
                avoided: &[],
                metrics: &[],
            },
        );
    };
    settled(&mut board, fleet);
    let mut changes = Vec::new();
    let mut one = allocation_counter::AllocationInfo::default();
    for (turn, sample) in samples.iter().cycle().take(200).enumerate() {
        let mut changed = sample.clone();
        changed.metadata.labels.insert("env".into(), if turn % 2 == 0 { "dev" } else { "prod" }.into());
        if let Some(link) = changed.status.links.first_mut() {
            link.round_trip_milliseconds += (turn % 7) as f64;
        }
        let begin = Instant::now();
        one = allocation_counter::measure(|| {
            fleet.set(&changed, &[]);
            settled(&mut board, fleet);
        });
        changes.push(begin.elapsed());
    }
    let worst = changes.iter().max().map_or(0.0, |time| time.as_secs_f64() * 1e3);
    let (time_full, time_change) = (median(times), median(changes));
    println!(
        "  {name:<24} full {time_full:>9.3} ms ({:>8.0} decisions/s), {:>6} allocations, {:>9.2} MB; one change {time_change:>8.4} ms \
         ({:>8.0} decisions/s, worst {worst:>8.4} ms), {:>4} allocations; {} selected",
        1e3 / time_full,
        full.count_total,
        full.bytes_total as f64 / 1e6,
        1e3 / time_change,
        one.count_total,
        board.selected().len(),
    );
    Ok((time_full, time_change))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let given: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if given.is_empty() { vec![1_000, 10_000, 100_000, 1_000_000] } else { given };
    sizes.into_iter().try_for_each(measure)
}
