//! Rollouts that keep to their budget, whatever sites do.

use std::collections::BTreeMap;
use std::time::Duration;

use avocet_planner::rollout::{Budget, Member, Outcome, Stage, State, Step, advance, is_open, opens_at};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::json;
use types::{MaintenanceWindow, Portion};

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn after(seconds: i64) -> Timestamp {
    start() + SignedDuration::from_secs(seconds)
}

/// What becomes of a site that is told.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Runs(i64),
    Fails(i64),
    Hangs,
    IsAway,
    IsAwayUntil(i64),
}

/// Sites with fates, and a clock that goes from one change to the next.
struct World {
    stages: Vec<Stage>,
    sites: Vec<(Fate, usize)>,
    told: BTreeMap<usize, i64>,
    now: i64,
}

impl World {
    fn new(fates: &[Fate]) -> Self {
        let sites = fates.iter().map(|fate| (*fate, 0)).collect();
        Self { stages: vec![Stage::default()], sites, told: BTreeMap::new(), now: 0 }
    }

    fn state(&self, index: usize) -> State {
        let fate = self.sites[index].0;
        match (fate, self.told.get(&index)) {
            (Fate::IsAway, _) => State::Offline,
            (Fate::IsAwayUntil(back), _) if self.now < back => State::Offline,
            (_, None) => State::Waiting,
            (Fate::Runs(takes), Some(told)) if self.now >= told + takes => {
                State::Running(after(told + takes))
            }
            (Fate::Fails(takes), Some(told)) if self.now >= told + takes => State::Failed,
            (Fate::IsAwayUntil(_), Some(told)) => State::Running(after(*told)),
            (_, Some(told)) => State::Working(after(*told)),
        }
    }

    fn step(&self, budget: &Budget) -> Step {
        let member = |(index, (_, stage)): (usize, &(Fate, usize))| Member {
            site: format!("s{index:03}"),
            stage: *stage,
            state: self.state(index),
        };
        let members: Vec<Member> = self.sites.iter().enumerate().map(member).collect();
        advance(&self.stages, &members, budget, after(self.now))
    }

    fn tell(&mut self, step: &Step) {
        for site in &step.start {
            self.told.insert(site[1..].parse().unwrap(), self.now);
        }
    }

    /// Those whose time is over are failures.
    fn at_work(&self) -> usize {
        let is_at_work = |index: &usize| match self.state(*index) {
            State::Working(since) => after(self.now) < since + SignedDuration::from_secs(DEADLINE),
            _ => false,
        };
        (0..self.sites.len()).filter(is_at_work).count()
    }

    fn failures(&self) -> usize {
        (0..self.sites.len()).filter(|index| matches!(self.state(*index), State::Failed)).count()
    }

    /// Goes on until nothing is left to do; answers the last step.
    fn run(&mut self, budget: &Budget, mut look: impl FnMut(&Self, &Step)) -> Step {
        for _ in 0..1000 {
            let step = self.step(budget);
            self.tell(&step);
            look(self, &step);
            let waits_for_return = step.message.ends_with("none of its sites can be changed now");
            if step.outcome != Outcome::Underway || (waits_for_return && self.now > 300) {
                return step;
            }
            self.now += 1;
        }
        panic!("does not end: {:?}", self.step(budget));
    }
}

const DEADLINE: i64 = 30;

fn budget(concurrency: u32, failures: u32) -> Budget {
    Budget {
        concurrency: Some(Portion::Number(concurrency)),
        failures: Some(Portion::Number(failures)),
        deadline: Some(Duration::from_secs(DEADLINE.unsigned_abs())),
        ..Budget::default()
    }
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => (0..20_i64).prop_map(Fate::Runs),
        2 => (0..20_i64).prop_map(Fate::Fails),
        1 => Just(Fate::Hangs),
        1 => Just(Fate::IsAway),
        1 => (0..200_i64).prop_map(Fate::IsAwayUntil),
    ]
}

proptest! {
    #[test]
    fn promise_4_a_rollout_keeps_to_its_concurrency_and_its_failure_budget_and_ends(
        fates in prop::collection::vec(fate(), 1..40),
        stages in prop::collection::vec(0..3_usize, 40),
        concurrency in 1..6_u32,
        failures in 0..5_u32,
        soak in 0..10_u64,
        mandatory in any::<bool>(),
        per_stage in any::<bool>(),
    ) {
        let mut world = World::new(&fates);
        world.stages = vec![Stage { name: "canary".into(), mandatory }, Stage::default(), Stage::default()];
        for (site, stage) in world.sites.iter_mut().zip(stages) {
            site.1 = stage;
        }
        let budget = Budget {
            soak: Duration::from_secs(soak), failures_per_stage: per_stage, ..budget(concurrency, failures)
        };
        let most = concurrency as usize;
        let stages = if per_stage { 3 } else { 1 };
        if !fates.iter().all(|fate| matches!(fate, Fate::IsAway | Fate::Fails(_) | Fate::Hangs)) {
            world.run(&budget, |world, step| {
                assert!(world.at_work() <= most, "{} at work", world.at_work());
                assert!(world.failures() <= failures as usize * stages + most, "{step:?}");
                if step.outcome == Outcome::Breached {
                    assert!(step.start.is_empty());
                }
            });
        }
    }
}

#[test]
fn promise_4_one_of_a_hundred_sites_that_always_fails_does_not_stop_the_others() {
    let mut fates = vec![Fate::Runs(3); 100];
    fates[17] = Fate::Fails(1);
    let mut world = World::new(&fates);
    let last = world.run(&budget(10, 1), |world, _| assert!(world.at_work() <= 10));
    assert_eq!(last.outcome, Outcome::Complete);
    assert_eq!((last.counts.done, last.counts.failed), (99, 1));
    assert_eq!(last.message, "1 site can't run it");

    let mut world = World::new(&fates);
    let last = world.run(&budget(10, 0), |_, _| {});
    assert_eq!(last.outcome, Outcome::Breached);
    assert_eq!(last.message, "1 site failed, and 0 may: s017");
    assert!(world.told.len() < 40, "it stopped early: {}", world.told.len());
}

#[test]
fn promise_4_offline_sites_are_neither_failures_nor_in_the_way_and_follow_when_they_are_back() {
    let mut fates = vec![Fate::IsAway; 10];
    fates.extend([Fate::Runs(1), Fate::Runs(1), Fate::IsAwayUntil(100)]);
    let mut world = World::new(&fates);
    let last = world.run(&budget(1, 0), |_, _| {});
    assert_eq!(last.outcome, Outcome::Complete);
    assert_eq!((last.counts.done, last.counts.offline), (2, 11));
    world.now = 100;
    let step = world.step(&budget(1, 0));
    assert_eq!((step.outcome, step.start), (Outcome::Underway, vec!["s012".to_owned()]));
}

#[test]
fn a_failed_site_without_deadline_holds_no_place() {
    let mut world = World::new(&[Fate::Fails(0), Fate::Runs(0), Fate::Runs(0)]);
    let last = world.run(&Budget { deadline: None, ..budget(1, 1) }, |_, _| {});
    assert_eq!((last.outcome, last.counts.done), (Outcome::Complete, 2));
}

#[test]
fn mandatory_groups_come_first_and_none_of_their_sites_may_fail() {
    let mut world = World::new(&[Fate::Runs(5), Fate::Runs(1), Fate::Fails(2)]);
    world.stages = vec![Stage { name: "canary".into(), mandatory: true }, Stage::default()];
    world.sites[0].1 = 1;
    let first = world.step(&budget(9, 9));
    assert_eq!(first.start, ["s001", "s002"]);
    assert_eq!(first.message, "group `canary`: waits for s001, s002");
    let last = world.run(&budget(9, 9), |_, _| {});
    assert_eq!(last.message, "1 site failed in mandatory group `canary`, and 0 may: s002");
    assert!(!world.told.contains_key(&0), "the other group was never told");
}

#[test]
fn a_mandatory_group_that_is_away_is_waited_for() {
    let mut world = World::new(&[Fate::IsAwayUntil(50), Fate::Runs(0)]);
    world.stages = vec![Stage { name: "canary".into(), mandatory: true }, Stage::default()];
    world.sites[1].1 = 1;
    let step = world.step(&budget(9, 9));
    assert_eq!((step.start.len(), step.outcome), (0, Outcome::Underway));
    assert_eq!(step.message, "group `canary`: none of its sites can be changed now");
    let last = world.run(&budget(9, 9), |_, _| {});
    assert_eq!((last.outcome, last.counts.done), (Outcome::Complete, 2));
}

#[test]
fn a_success_has_to_last_before_the_next_site_is_told() {
    let mut world = World::new(&[Fate::Runs(0), Fate::Runs(0)]);
    let budget = Budget { soak: Duration::from_secs(60), ..budget(1, 0) };
    world.tell(&world.step(&budget));
    world.now = 30;
    let step = world.step(&budget);
    assert_eq!(step.start, [""; 0]);
    assert_eq!(step.message, "s000 has to run well until 2026-01-01T00:01:00Z");
    assert_eq!(step.recheck, Some(after(60)));
    world.now = 60;
    assert_eq!(world.step(&budget).start, ["s001"]);
}

#[test]
fn a_site_that_takes_too_long_counts_as_failed() {
    let mut world = World::new(&[Fate::Hangs, Fate::Runs(0)]);
    let last = world.run(&budget(1, 0), |_, _| {});
    assert_eq!((last.outcome, last.counts.timed_out, world.now), (Outcome::Breached, 1, 30));
}

fn window(value: serde_json::Value) -> MaintenanceWindow {
    serde_json::from_value(value).unwrap()
}

#[test]
fn maintenance_windows_open_in_their_own_time_zone_and_over_midnight() {
    let night =
        window(json!({"start": "22:00", "duration": "4h", "timeZone": "Europe/Madrid", "days": ["Friday"]}));
    let windows = std::slice::from_ref(&night);
    let at = |text: &str| -> Timestamp { text.parse().unwrap() };
    // In winter Madrid is an hour ahead of UTC, in summer two. 2026-01-02 and 2026-07-03 are Fridays.
    for (time, is_one_open) in [
        ("2026-01-02T20:59:59Z", false),
        ("2026-01-02T21:00:00Z", true),
        ("2026-01-03T00:59:59Z", true),
        ("2026-01-03T01:00:00Z", false),
        ("2026-07-03T20:00:00Z", true),
        ("2026-07-03T19:59:59Z", false),
        ("2026-07-04T21:00:00Z", false),
    ] {
        assert_eq!(is_open(windows, at(time)), is_one_open, "{time}");
    }
    assert_eq!(opens_at(windows, at("2026-01-02T21:00:00Z")), Some(at("2026-01-09T21:00:00Z")));
    assert_eq!(opens_at(windows, at("2026-01-01T00:00:00Z")), Some(at("2026-01-02T21:00:00Z")));
    assert!(is_open(&[], at("2026-01-01T00:00:00Z")), "without windows a site can be changed at any time");
}

#[test]
fn promise_4_a_site_that_falls_silent_keeps_its_place_for_a_deadline_and_is_recalled_then() {
    let member = |site: &str, state: State| Member { site: site.to_owned(), stage: 0, state };
    let members = [member("a", State::Silent(start())), member("b", State::Waiting)];
    let at = |budget: &Budget, seconds: i64| advance(&[Stage::default()], &members, budget, after(seconds));
    let step = at(&budget(1, 0), DEADLINE - 1);
    assert_eq!((step.start.len(), step.recall.len(), step.recheck), (0, 0, Some(after(DEADLINE))));
    assert_eq!((step.message.as_str(), step.counts.offline), ("a fell silent", 1));
    let step = at(&budget(1, 0), DEADLINE);
    assert_eq!((step.start, step.recall), (vec!["b".to_owned()], vec!["a".to_owned()]));
    // Without a deadline it is ten minutes.
    let endless = Budget { deadline: None, ..budget(1, 0) };
    assert_eq!((at(&endless, 599).recall.len(), at(&endless, 600).recall.len()), (0, 1));
    // Where all may be changed at once nobody waits for it, and it keeps what it was told.
    let step = at(&Budget { concurrency: None, ..budget(1, 0) }, 0);
    assert_eq!((step.start, step.recall.len()), (vec!["b".to_owned()], 0));
}

#[test]
fn promise_4_sites_that_leave_take_their_places_until_they_are_through() {
    let members = [Member { site: "b".to_owned(), stage: 0, state: State::Waiting }];
    for (state, starts) in [(State::Working(start()), 0), (State::Running(start()), 1), (State::Failed, 1)] {
        let step =
            advance(&[Stage::default()], &members, &Budget { leaving: vec![state], ..budget(1, 0) }, start());
        assert_eq!(step.start.len(), starts, "{state:?}");
    }
}
