//! Outputs on their way between sites, with the real outboxes, mailbox, inboxes and buckets on a disk, while requests and
//! answers get lost, come twice or break off, sites are cut off, and everything is restarted.
//!
//! What goes wrong follows from a seed, which a failure prints; `AVOCET_SIMULATION_SEED` begins there, and
//! `AVOCET_SIMULATION_RUNS` makes it longer. What waits where is judged after every round.

mod faults;
mod hub;
mod site;

use std::collections::{BTreeMap, BTreeSet};

use tempfile::TempDir;

use faults::Faults;
use hub::RunningHub;
use site::TestSite;

const SITES: [&str; 3] = ["plant", "shop", "yard"];
/// How many rounds things go wrong.
const ROUNDS: usize = 20;
/// How many rounds it takes to its end then, at most.
const REST: usize = 10;

/// What was made for whom: the content, by the site that it is for and its id.
type Made = BTreeMap<(String, String), Vec<u8>>;

struct World {
    folder: TempDir,
    faults: Faults,
    /// None only while it is restarted.
    hub: Option<RunningHub>,
    sites: BTreeMap<&'static str, TestSite>,
    made: Made,
    journal: Vec<String>,
}

impl World {
    async fn new(seed: u64) -> Self {
        let (folder, faults) = (tempfile::tempdir().unwrap(), Faults::new(seed));
        let hub = RunningHub::start(&folder.path().join("hub"), &faults).await;
        hub.welcome(&SITES).await;
        let sites =
            SITES.iter().map(|name| (*name, TestSite::open(name, &folder.path().join(name)))).collect();
        Self { folder, faults, hub: Some(hub), sites, made: Made::new(), journal: vec![] }
    }

    /// Some sites make something for others, and something goes wrong.
    async fn act(&mut self, round: usize) {
        for name in SITES {
            for number in 0..self.faults.below(4) {
                let target = SITES[self.faults.below(3)];
                let id = format!("{name}-{round:02}-{number}");
                let content = format!("{id} {}", "x".repeat(self.faults.below(3000))).into_bytes();
                self.sites[name].make(&id, target, &content).await;
                if self.faults.one_in(6) {
                    // It was killed before it noted that it had made this, and makes it again.
                    self.sites[name].make(&id, target, &content).await;
                }
                self.made.insert((target.to_owned(), id), content);
            }
        }
        if self.faults.one_in(5) {
            self.journal.push(format!("{round:>3} the hub is restarted"));
            self.hub.take().unwrap().stop().await;
            self.hub = Some(RunningHub::start(&self.folder.path().join("hub"), &self.faults).await);
        }
        let name = SITES[self.faults.below(3)];
        if self.faults.one_in(3) {
            self.journal.push(format!("{round:>3} {name} is restarted"));
            // All that it has open is closed before it is opened again, as after a kill.
            drop(self.sites.remove(name));
            self.sites.insert(name, TestSite::open(name, &self.folder.path().join(name)));
        }
    }

    fn hub(&self) -> &RunningHub {
        self.hub.as_ref().unwrap()
    }

    /// All sites send and receive, but for those that are cut off, until something fails.
    async fn pass_on(&mut self) {
        let mut journal = Vec::new();
        for (name, site) in &self.sites {
            let is_cut = self.faults.are_likely() && self.faults.one_in(4);
            if is_cut {
                continue;
            }
            let client = self.hub().client(name);
            let (sent, received) = (site.send(&client).await, site.receive(&client).await);
            journal.push(format!("    {name} sent {sent}, received {received}"));
        }
        self.journal.extend(journal);
    }

    /// What was made is somewhere, and is nowhere twice.
    async fn judge(&self) {
        let in_outboxes: BTreeSet<String> = self.sites.values().flat_map(TestSite::to_be_sent).collect();
        for (name, site) in &self.sites {
            let arrived = site.arrived().await;
            for (id, contents) in &arrived {
                let expected = &self.made[&((*name).to_owned(), id.clone())];
                assert_eq!(contents.len(), 1, "{id} came {} times to {name}", contents.len());
                assert!(&contents[0] == expected, "{id} came to {name} as something else");
            }
            let made = self.made.keys().filter(|(target, _)| target == name).map(|(_, id)| id);
            let boxed = self.hub().waiting(name).await;
            for id in made {
                assert!(
                    arrived.contains_key(id) || boxed.contains(id) || in_outboxes.contains(id),
                    "{id} for {name} is lost"
                );
            }
        }
    }
}

/// Lets outputs travel with faults, and then without, until all have arrived.
async fn live(seed: u64, rounds: usize) -> Vec<String> {
    let mut world = World::new(seed).await;
    for round in 0..rounds {
        world.act(round).await;
        world.pass_on().await;
        world.judge().await;
    }
    world.faults.end();
    for _ in 0..REST {
        world.pass_on().await;
    }
    world.judge().await;
    for (name, site) in &world.sites {
        assert_eq!(site.to_be_sent(), Vec::<String>::new(), "{name} still has what it made");
        let arrived: Vec<String> = site.arrived().await.into_keys().collect();
        let made = world.made.keys().filter(|(target, _)| target == name).map(|(_, id)| id.clone());
        assert_eq!(arrived, made.collect::<Vec<_>>(), "not all arrived at {name}");
        assert!(world.hub().waiting(name).await.is_empty(), "the box of {name} is not empty in the end");
    }
    assert!(world.faults.met() > rounds, "hardly anything went wrong");
    world.hub.take().unwrap().stop().await;
    world.journal
}

#[tokio::test]
async fn outputs_arrive_once_whatever_is_cut_lost_told_twice_or_restarted() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let seed = number("AVOCET_SIMULATION_SEED", 1);
    for seed in seed..seed + number("AVOCET_SIMULATION_RUNS", 1) {
        println!("AVOCET_SIMULATION_SEED={seed}");
        live(seed, ROUNDS).await;
    }
}

#[tokio::test]
async fn the_same_seed_makes_the_same_history_of_outputs() {
    assert_eq!(live(11, 6).await, live(11, 6).await);
}
