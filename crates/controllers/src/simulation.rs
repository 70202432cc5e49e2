//! A tree of sites in which things go wrong, with the hub's real controllers, a clock of ours and faults from a seed.
//!
//! The same seed makes the same history. A failure prints it; `AVOCET_SIMULATION_SEED` begins there, and
//! `AVOCET_SIMULATION_RUNS`, `_SITES` and `_SECONDS` make it longer. What is judged: [`promises`]. What goes wrong:
//! [`faults`].

mod branches;
mod chance;
mod clocks;
mod faults;
mod hub;
mod promises;
mod site;
mod tree;

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use tree::Tree;

/// How long it takes until everything is well again, at most; in seconds.
const REST: usize = 600;
/// How many sites take part in every run of the tests, for how long things go wrong there, and how many in a second.
const MANY: usize = 1000;
const MUCH_SECONDS: usize = 20;
const MUCH: usize = 10;
/// How much of a journal is shown.
const SHOWN: usize = 60;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().unwrap())
}

/// Simulates one tree for so many seconds with faults, and then until it is at rest. What happened.
async fn simulate(seed: u64, sites: usize, seconds: usize) -> Vec<String> {
    let mut tree = Tree::new(seed, sites).await;
    watched(seed, sites, &mut tree, async |tree| live(tree, seconds).await).await;
    tree.journal
}

/// Lets a tree live, and shows what happened last if a promise is broken.
async fn watched(seed: u64, sites: usize, tree: &mut Tree, live: impl AsyncFnOnce(&mut Tree)) {
    let ended = AssertUnwindSafe(live(tree)).catch_unwind().await;
    if let Err(panic) = ended {
        let last = tree.journal.len().saturating_sub(SHOWN);
        eprintln!("{}", tree.journal[last..].join("\n"));
        eprintln!("seed {seed}, {sites} sites, second {}: AVOCET_SIMULATION_SEED={seed}", tree.now);
        std::panic::resume_unwind(panic);
    }
}

async fn live(tree: &mut Tree, seconds: usize) {
    faults::begin(tree).await;
    until_complete(tree).await;
    for _ in 0..seconds {
        faults::act(tree).await;
        tree.step().await;
    }
    come_to_rest(tree).await;
}

/// Few seconds in which much goes wrong, and many sites change at once.
async fn live_with_many(tree: &mut Tree) {
    tree.promises.concurrency = tree.sites.len() / 3;
    faults::begin(tree).await;
    until_complete(tree).await;
    for _ in 0..MUCH_SECONDS {
        for _ in 0..MUCH {
            faults::act(tree).await;
        }
        tree.step().await;
    }
    come_to_rest(tree).await;
}

/// An hour in which nobody hears anybody and people change more than one thing, and then all are back in one second.
async fn live_through_an_hour_cut_off(tree: &mut Tree) {
    const HOUR: i64 = 3600;
    faults::begin(tree).await;
    until_complete(tree).await;
    let (back, before) = (tree.now + HOUR, tree.running());
    faults::cut_all(tree, back);
    while tree.now < back {
        faults::pile_up(tree).await;
        tree.step().await;
        assert_eq!(tree.running(), before, "absence stops nothing");
    }
    // All of them are behind by the same versions at once: promises say how many may be told at once.
    come_to_rest(tree).await;
}

async fn come_to_rest(tree: &mut Tree) {
    faults::end(tree).await;
    tree.step().await;
    until_complete(tree).await;
    // What is known by then may still be told twice.
    for _ in 0..100 {
        tree.step().await;
    }
    promises::at_rest(tree);
    let is_quiet = tree.journal.len();
    for _ in 0..50 {
        tree.step().await;
    }
    assert_eq!(tree.journal[is_quiet..], [""; 0], "where nothing changes, nothing moves");
}

/// Lets time pass until all rollouts are through, or should be.
async fn until_complete(tree: &mut Tree) {
    let longest = REST + 20 * tree.sites.len() / tree.promises.concurrency;
    for _ in 0..longest {
        tree.step().await;
        if tree.is_complete() {
            return;
        }
    }
}

#[tokio::test]
async fn promises_are_kept_whatever_goes_wrong() {
    let seed = number("AVOCET_SIMULATION_SEED", 1);
    let sites = usize::try_from(number("AVOCET_SIMULATION_SITES", 60)).unwrap();
    let seconds = usize::try_from(number("AVOCET_SIMULATION_SECONDS", 400)).unwrap();
    for seed in seed..seed + number("AVOCET_SIMULATION_RUNS", 2) {
        simulate(seed, sites, seconds).await;
    }
}

#[tokio::test]
async fn the_same_seed_makes_the_same_history() {
    assert_eq!(simulate(7, 20, 60).await, simulate(7, 20, 60).await);
}

#[tokio::test]
async fn promises_are_kept_by_a_herd_that_comes_back_after_an_hour() {
    let seed = number("AVOCET_SIMULATION_SEED", 1);
    let sites = usize::try_from(number("AVOCET_SIMULATION_SITES", 60)).unwrap();
    let mut tree = Tree::new(seed, sites).await;
    watched(seed, sites, &mut tree, live_through_an_hour_cut_off).await;
}

/// A change, while the hub ends after the first, the second, … of its writes: until it needs no more writes than that.
#[tokio::test]
async fn promises_are_kept_by_a_hub_that_ends_after_any_of_its_writes() {
    let seed = number("AVOCET_SIMULATION_SEED", 1);
    for writes in 1.. {
        let mut tree = Tree::new(seed, 6).await;
        let mut has_ended = false;
        watched(seed, 6, &mut tree, async |tree| {
            faults::begin(tree).await;
            until_complete(tree).await;
            tree.function("changes", "good-1").await;
            tree.hub_ends_after = Some(writes);
            tree.step().await;
            until_complete(tree).await;
            has_ended = tree.hub_ends_after.is_none();
            come_to_rest(tree).await;
        })
        .await;
        if !has_ended {
            assert!(writes > 10, "a change of six sites takes more than {writes} writes");
            return;
        }
    }
}

#[tokio::test]
async fn promises_are_kept_by_a_thousand_sites_in_a_short_time() {
    let seed = number("AVOCET_SIMULATION_SEED", 1);
    let mut tree = Tree::new(seed, MANY).await;
    watched(seed, MANY, &mut tree, live_with_many).await;
}

#[tokio::test]
#[ignore = "takes minutes: thousands of sites"]
async fn promises_are_kept_by_thousands_of_sites() {
    let sites = usize::try_from(number("AVOCET_SIMULATION_SITES", 2000)).unwrap();
    simulate(number("AVOCET_SIMULATION_SEED", 1), sites, 600).await;
}
