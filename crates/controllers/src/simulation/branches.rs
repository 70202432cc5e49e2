//! A hub above hubs: placements at the top find leaves by labels, and what is between them is cut, ends and comes back.
//!
//! The controllers of all hubs are the real ones, and what a hub brings down, takes away and tells is decided by
//! [`planner::branch`]. Only the way between two hubs is of here.

mod level;
mod link;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use store::{Deletion, Key};
use types::names::label::ORIGIN;
use types::{ConditionStatus, Kind, SiteSpec, condition};

use super::chance::Chance;
use super::hub::GRACE;
use super::site::{Nature, Site};
use crate::placement::Decision;
use crate::testing::at;
use level::Level;
use link::Link;

/// How many leaves the application at the top changes at once.
pub const CONCURRENCY: usize = 4;
/// Where the hub at the top has what it assigns to a leaf.
pub const EVERYWHERE: &str = "everywhere";
/// The application that each hub in the middle has itself.
const OWN: &str = "own";
/// The one leaf that fails whatever it runs.
const BROKEN: &str = "m1-l02";
/// How long a hub in the middle is cut off at most, in seconds.
const LONGEST_CUT: i64 = 300;
/// How long it takes until all is well again, at most.
const REST: i64 = 1500;

/// A hub in the middle, its way to the top, and the sites below it.
pub struct Branch {
    pub level: Level,
    pub link: Link,
    pub leaves: BTreeMap<String, Site>,
}

pub struct Branches {
    pub top: Level,
    pub branches: BTreeMap<String, Branch>,
    pub chance: Chance,
    pub now: i64,
    journal: Vec<String>,
}

impl Branches {
    pub async fn new(seed: u64, middles: usize, leaves: usize) -> Self {
        let mut all = Self {
            top: Level::new("top"),
            branches: BTreeMap::new(),
            chance: Chance::new(seed),
            now: 0,
            journal: vec![],
        };
        for middle in 0..middles {
            let name = format!("m{middle}");
            let mut branch =
                Branch { level: Level::new(&name), link: Link::default(), leaves: BTreeMap::new() };
            all.top.apply("site", &name, json!({"tier": "plant"}), 0).await;
            all.top.set_version(&name).await;
            branch.level.function(OWN, "good-own", 0).await;
            branch.level.apply("placement", "all", json!({"tiers": ["edge"]}), 0).await;
            branch.level.application(OWN, "all", OWN, 3).await;
            for leaf in 0..leaves {
                let leaf = format!("{name}-l{leaf:02}");
                all.chance.below(2);
                branch.join(&leaf, &mut all.chance, 0).await;
            }
            all.branches.insert(name, branch);
        }
        all.top.function(EVERYWHERE, "good-0", 0).await;
        let wanted = json!({"siteSelector": {"matchLabels": {"works": "yes"}}, "tiers": ["edge"]});
        all.top.apply("placement", EVERYWHERE, wanted, 0).await;
        all.top.application(EVERYWHERE, EVERYWHERE, EVERYWHERE, CONCURRENCY).await;
        all
    }

    pub fn note(&mut self, what: impl Into<String>) {
        self.journal.push(format!("{:>6} {}", self.now, what.into()));
    }

    /// One second: leaves work, hubs pass on, and controllers write until they rest.
    async fn step(&mut self) {
        self.now += 1;
        let now = self.now;
        self.top.come_back(now);
        for branch in self.branches.values_mut() {
            branch.level.come_back(now);
            branch.let_leaves_work(now, &mut self.chance).await;
        }
        let names: Vec<String> = self.branches.keys().cloned().collect();
        for name in &names {
            let branch = self.branches.get_mut(name).unwrap();
            link::pass_on(&mut self.top, name, branch, now).await;
        }
        let told = self.top.told(EVERYWHERE);
        self.top.look(now, &mut self.chance).await;
        let after = self.top.told(EVERYWHERE);
        let rollout = self.top.status(EVERYWHERE).rollout.unwrap_or_default();
        let wanted = rollout.number.to_string();
        let news: Vec<_> = after.difference(&told).filter(|(_, revision)| *revision == wanted).collect();
        assert!(news.len() <= CONCURRENCY, "{now}: told in one second: {news:?}; {rollout:?}");
        for branch in self.branches.values_mut() {
            branch.level.look(now, &mut self.chance).await;
        }
        self.judge();
    }

    /// What must hold after every second.
    fn judge(&mut self) {
        let (now, long) = (self.now, 2 * i64::try_from(GRACE).unwrap());
        let is_old = self.top.hub.as_ref().is_some_and(|hub| now - hub.started > long);
        let top = self.top.snapshot();
        for (name, branch) in &self.branches {
            let is_lost = is_old && branch.link.mute_since.is_some_and(|since| now - since > long);
            for leaf in branch.leaves.keys().filter(|leaf| branch.link.was_told(leaf)) {
                let site = top.site(leaf);
                let site = site.unwrap_or_else(|| panic!("{leaf} is gone above, though it is there below"));
                let ready = condition(&site.status.conditions, "Ready").map(|ready| ready.status);
                assert!(
                    !is_lost || ready != Some(ConditionStatus::True),
                    "{leaf} is ready, and nothing is heard of {name}"
                );
            }
        }
        let selected = Decision::of(top, "default", EVERYWHERE).names();
        assert!(now < 60 || !selected.is_empty(), "absence took the selection away");
    }

    /// What the leaves run of what.
    fn running(&self) -> BTreeSet<(String, String, String)> {
        let leaves = self.branches.values().flat_map(|branch| branch.leaves.values());
        let runs = leaves.flat_map(|leaf| {
            let run = leaf.runs.iter();
            run.map(|(assignment, version)| (leaf.name.clone(), assignment.clone(), version.clone()))
        });
        runs.collect()
    }

    /// A second in which something may go wrong, or people do something.
    async fn act(&mut self) {
        let now = self.now;
        let names: Vec<String> = self.branches.keys().cloned().collect();
        let middle = self.chance.pick(&names).clone();
        let leaves: Vec<String> = self.branches[&middle].leaves.keys().cloned().collect();
        let leaf = self.chance.pick(&leaves).clone();
        let until = now + self.chance.seconds(2, LONGEST_CUT);
        let dice = self.chance.below(100);
        let branch = self.branches.get_mut(&middle).unwrap();
        let what = match dice {
            0..=2 => {
                branch.link.cut(until, until);
                format!("{middle} is cut off until {until}")
            }
            3 => {
                branch.link.cut(until, now);
                format!("{middle} is mute until {until}")
            }
            4 => {
                branch.link.cut(now, until);
                format!("{middle} is deaf until {until}")
            }
            5..=7 => {
                branch.level.ends_after = Some(usize::try_from(self.chance.below(6)).unwrap() + 1);
                format!("{middle} is to end")
            }
            8..=10 => {
                self.top.ends_after = Some(usize::try_from(self.chance.below(12)).unwrap() + 1);
                "the top is to end".to_owned()
            }
            11..=16 => {
                let site = branch.leaves.get_mut(&leaf).unwrap();
                (site.mute_until, site.deaf_until) = (until, until);
                format!("{leaf} is cut off until {until}")
            }
            17..=21 if branch.level.hub.is_some() => {
                let works = self.chance.one_in(2);
                branch.level.label(&leaf, works).await;
                format!("{leaf} works: {works}")
            }
            22..=23 if self.top.hub.is_some() => {
                self.top.function(EVERYWHERE, &format!("good-{now}"), now).await;
                format!("good-{now} is wanted everywhere")
            }
            24..=25 if branch.level.hub.is_some() => {
                branch.level.function(OWN, &format!("good-own-{now}"), now).await;
                format!("good-own-{now} is wanted below {middle}")
            }
            26 if branch.level.hub.is_some() => {
                let new = format!("{middle}-n{now:04}");
                branch.join(&new, &mut self.chance, now).await;
                format!("{new} joins")
            }
            27 if branch.level.hub.is_some() && leaves.len() > 4 && leaf != BROKEN => {
                branch.leave(&leaf, now).await;
                format!("{leaf} leaves")
            }
            _ => return,
        };
        self.note(what);
    }

    /// Nothing goes wrong any more.
    async fn heal(&mut self) {
        let now = self.now;
        self.top.heal(now);
        for branch in self.branches.values_mut() {
            branch.level.heal(now);
            branch.link.cut(now, now);
            for leaf in branch.leaves.values_mut() {
                (leaf.mute_until, leaf.deaf_until) = (now, now);
            }
        }
        self.note("nothing goes wrong any more");
        self.step().await;
        let names: Vec<(String, String)> = self
            .branches
            .iter()
            .flat_map(|(middle, branch)| branch.leaves.keys().map(|leaf| (middle.clone(), leaf.clone())))
            .collect();
        for (middle, leaf) in names {
            self.branches.get_mut(&middle).unwrap().level.label(&leaf, true).await;
        }
    }

    fn is_complete(&mut self) -> bool {
        let leaves: usize = self.branches.values().map(|branch| branch.leaves.len()).sum();
        if self.top.told(EVERYWHERE).len() < leaves {
            return false;
        }
        let mut levels = vec![(&mut self.top, EVERYWHERE)];
        levels.extend(self.branches.values_mut().map(|branch| (&mut branch.level, OWN)));
        levels.into_iter().all(|(level, name)| level.is_complete(name))
    }

    /// Everything that is to run runs, and each hub says so of all that it assigned.
    fn at_rest(&mut self) {
        let leaves: BTreeSet<String> =
            self.branches.values().flat_map(|branch| branch.leaves.keys().cloned()).collect();
        let running = self.running();
        let top = self.top.snapshot();
        let selected: BTreeSet<String> =
            Decision::of(top, "default", EVERYWHERE).names().into_iter().collect();
        assert_eq!(selected, leaves, "all leaves have the label at the top, too");
        let known: BTreeSet<String> = top
            .sites
            .iter()
            .filter(|site| site.spec.tier == "edge")
            .map(|site| site.name().to_owned())
            .collect();
        assert_eq!(known, leaves);
        let ready = |level: &mut Level, name: &str| {
            let status = level.status(name);
            let components = &status.components;
            (components[0].sites.len(), components[0].ready_sites as usize, status.rollout.unwrap().complete)
        };
        let broken = usize::from(leaves.contains(BROKEN));
        let all = leaves.len();
        assert_eq!(
            ready(&mut self.top, EVERYWHERE),
            (all, all - broken, true),
            "the status at the top counts all leaves"
        );
        let wanted = self.top.wanted(EVERYWHERE);
        for (name, branch) in &mut self.branches {
            let (count, is_broken) = (branch.leaves.len(), usize::from(branch.leaves.contains_key(BROKEN)));
            assert_eq!(ready(&mut branch.level, OWN), (count, count - is_broken, true), "{name}");
            let own = branch.level.wanted(OWN);
            for leaf in branch.leaves.keys().filter(|leaf| *leaf != BROKEN) {
                let of =
                    |version: &str| running.iter().any(|(site, _, runs)| site == leaf && runs == version);
                assert!(of(&wanted) && of(&own), "{leaf} does not run {wanted} and {own}: {running:?}");
            }
            let brought = branch.level.snapshot().assignments.iter();
            let brought = brought.filter(|one| one.metadata.labels.contains_key(ORIGIN)).count();
            assert_eq!(
                brought, count,
                "{name} keeps what the top assigns to its leaves, and nothing else of it"
            );
        }
    }
}

impl Branch {
    async fn join(&mut self, leaf: &str, chance: &mut Chance, now: i64) {
        let nature = if leaf == BROKEN { Nature::Broken } else { Nature::Good };
        self.leaves.insert(leaf.to_owned(), Site::new(leaf, nature, chance));
        self.level.apply("site", leaf, json!({"tier": "edge"}), now).await;
        self.level.set_version(leaf).await;
        self.level.label(leaf, true).await;
    }

    /// Somebody removes a site, and what was assigned to it goes with its namespace.
    async fn leave(&mut self, leaf: &str, now: i64) {
        let store = &self.level.store;
        store.delete(Key::new(SiteSpec::PLURAL, "", leaf), Deletion::at(at(now))).await.unwrap();
        self.level.empty(leaf, now).await;
        self.leaves.remove(leaf);
    }

    async fn let_leaves_work(&mut self, now: i64, chance: &mut Chance) {
        let Self { level, leaves, .. } = self;
        for leaf in leaves.values_mut() {
            let before: BTreeSet<String> = leaf.runs.keys().cloned().collect();
            if level.hub.is_some() {
                let told = level.assigned(&leaf.name);
                leaf.hear(&told.iter().collect::<Vec<_>>(), now, chance);
            }
            if now < leaf.deaf_until || level.hub.is_none() {
                assert_eq!(
                    leaf.runs.keys().cloned().collect::<BTreeSet<_>>(),
                    before,
                    "absence stopped something"
                );
            }
            leaf.work(now);
            let Some(hub) = &level.hub else { continue };
            if leaf.beats(now) {
                hub.heartbeats.hear(&leaf.name);
            }
            for report in leaf.report(now) {
                level.take(&report).await;
            }
        }
    }
}

/// Lets a tree live with faults, and then come to its end.
async fn live(seed: u64, middles: usize, leaves: usize, seconds: usize) -> Vec<String> {
    let mut all = Branches::new(seed, middles, leaves).await;
    for _ in 0..REST {
        all.step().await;
        if all.is_complete() {
            break;
        }
    }
    for _ in 0..seconds {
        all.act().await;
        all.step().await;
    }
    come_to_rest(&mut all).await;
    all.journal
}

async fn come_to_rest(all: &mut Branches) {
    all.heal().await;
    for second in 0..REST {
        all.step().await;
        if second > 100 && all.is_complete() {
            break;
        }
    }
    for _ in 0..100 {
        all.step().await;
    }
    all.at_rest();
    let versions = |all: &Branches| -> Vec<u64> {
        let levels = all.branches.values().map(|branch| &branch.level).chain([&all.top]);
        levels.map(|level| level.store.version()).collect()
    };
    let before = versions(all);
    for _ in 0..100 {
        all.step().await;
    }
    assert_eq!(versions(all), before, "where nothing changes, nothing is written");
}

#[tokio::test]
async fn promises_are_kept_in_a_tree_of_hubs_whatever_goes_wrong() {
    let seed = super::number("AVOCET_SIMULATION_SEED", 1);
    for seed in seed..seed + super::number("AVOCET_SIMULATION_RUNS", 1) {
        println!("AVOCET_SIMULATION_SEED={seed}");
        live(seed, 3, 6, 250).await;
    }
}

#[tokio::test]
async fn the_same_seed_makes_the_same_history_of_a_tree_of_hubs() {
    assert_eq!(live(7, 2, 4, 120).await, live(7, 2, 4, 120).await);
}

#[tokio::test]
async fn leaves_go_on_while_the_hub_in_the_middle_is_cut_off_for_an_hour_and_follow_afterwards() {
    let mut all = Branches::new(3, 2, 3).await;
    for _ in 0..REST {
        all.step().await;
        if all.is_complete() {
            break;
        }
    }
    let back = all.now + 3600;
    all.branches.get_mut("m0").unwrap().link.cut(back, back);
    let wanted = all.now + 10;
    let mut before = BTreeSet::new();
    while all.now < back {
        if all.now == wanted {
            before = all.running();
            all.top.function(EVERYWHERE, "good-later", all.now).await;
        }
        all.step().await;
        let running = all.running();
        let kept = before.iter().filter(|(leaf, ..)| leaf.starts_with("m0"));
        assert!(kept.clone().all(|one| running.contains(one)), "something stopped below a hub that was away");
        if all.now == back - 1 {
            assert!(
                kept.count() >= 6
                    && !running
                        .iter()
                        .any(|(leaf, _, version)| leaf.starts_with("m0") && version == "good-later")
            );
            assert!(
                running.iter().any(|(leaf, _, version)| leaf.starts_with("m1") && version == "good-later"),
                "others don't wait"
            );
        }
    }
    come_to_rest(&mut all).await;
}
