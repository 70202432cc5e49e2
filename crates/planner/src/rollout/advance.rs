//! What production does next: see [`super`] for how it differs from what it follows.

use std::time::Duration;

use jiff::Timestamp;
use types::{Portion, RolloutCounts};

use super::portion::part;
use super::{Progress, Verdict, determine};
use crate::first_of;

/// Sites that are changed together, before those of later stages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stage {
    /// What people call it.
    pub name: String,
    /// Whether none of its sites may fail.
    pub mandatory: bool,
}

/// A site that is to run a revision.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// The site.
    pub site: String,
    /// The index of its stage.
    pub stage: usize,
    /// How far it is.
    pub state: State,
}

/// How far a site is with a revision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum State {
    /// It was not told yet.
    Waiting,
    /// It was told then, or came back then, and is at it.
    Working(Timestamp),
    /// It runs the revision since then.
    Running(Timestamp),
    /// It can't run the revision.
    Failed,
    /// It was told and is not known to run it, and nobody hears it since then.
    Silent(Timestamp),
    /// Nobody hears it, and it was not told.
    Offline,
    /// It lets nobody change it, until then if that is known.
    Held(Option<Timestamp>),
}

/// What a rollout may cost.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Budget {
    /// At how many sites it is at work at once; `None` is all.
    pub concurrency: Option<Portion>,
    /// How many sites may fail; `None` is all.
    pub failures: Option<Portion>,
    /// Whether so many of each stage may fail, rather than of all sites.
    pub failures_per_stage: bool,
    /// How long a site has to run the revision before it counts as done.
    pub soak: Duration,
    /// How long a site may be at work; `None` is for ever.
    pub deadline: Option<Duration>,
    /// Sites that were told, but are not to run it any more: they take their places while they are at work.
    pub leaving: Vec<State>,
}

/// How long a site that fell silent at work keeps its place where no deadline is stated.
const PATIENCE: Duration = Duration::from_secs(600);

/// How a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// There is something to do, or to wait for.
    Underway,
    /// Every site that can be changed runs it, and did so for long enough.
    Complete,
    /// More sites failed than may.
    Breached,
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Sites that are to be told now.
    pub start: Vec<String>,
    /// Sites that were told and stayed silent for too long: others take their places, so that they have to wait for
    /// their turn again when they are back.
    pub recall: Vec<String>,
    /// How it stands.
    pub outcome: Outcome,
    /// How many sites are how far, before these are told.
    pub counts: RolloutCounts,
    /// Sites that failed or took too long.
    pub failed: Vec<String>,
    /// What it waits for, or what went wrong; empty where neither is so.
    pub message: String,
    /// When something changes even if no site reports anything.
    pub recheck: Option<Timestamp>,
}

/// The next step of a rollout. Members are told in their order, stage by stage.
pub fn advance(stages: &[Stage], members: &[Member], budget: &Budget, now: Timestamp) -> Step {
    let places: Vec<(&Member, Place)> =
        members.iter().map(|member| (member, place(member.state, budget, now))).collect();
    let counts = count(&places);
    let failed: Vec<String> = places
        .iter()
        .filter(|(_, place)| place.has_failed())
        .map(|(member, _)| member.site.clone())
        .collect();
    let recall: Vec<String> =
        named(&places, |place| *place == Place::Lost).into_iter().map(str::to_owned).collect();
    let recheck = places.iter().filter_map(|(_, place)| place.until()).filter(|until| *until > now).min();
    let step = |start, outcome, message| Step { start, recall, outcome, counts, failed, message, recheck };

    if let Some(message) = breach(stages, &places, budget) {
        return step(vec![], Outcome::Breached, message);
    }
    let in_flight = named(&places, Place::is_in_flight).len();
    let leaving = budget.leaving.iter().filter(|state| place(**state, budget, now).is_in_flight()).count();
    let reachable = named(&places, |place| !place.is_offline()).len();
    let most = budget.concurrency.as_ref().map_or(usize::MAX, |amount| part(amount, reachable).max(1));
    let mut room = most.saturating_sub(in_flight + leaving);
    for (index, stage) in stages.iter().enumerate() {
        let here: Vec<(&Member, Place)> =
            places.iter().filter(|(member, _)| member.stage == index).copied().collect();
        let waiting = named(&here, |place| matches!(place, Place::Waiting));
        if waiting.is_empty() && !here.iter().any(|(_, place)| place.is_in_flight()) {
            if stage.mandatory && !here.is_empty() && named(&here, Place::is_done).is_empty() {
                let message = format!("group `{}`: none of its sites can be changed now", stage.name);
                return step(vec![], Outcome::Underway, message);
            }
            continue;
        }
        room = room.min(waiting.len());
        let start: Vec<String> = waiting.iter().take(room).map(|site| (*site).to_owned()).collect();
        let message = waits_for(&here, stage, &start, stages.len() > 1);
        return step(start, Outcome::Underway, message);
    }
    let done = places.iter().any(|(_, place)| place.is_done());
    let (outcome, message) = match (done, rest(&counts)) {
        (true, rest) => (Outcome::Complete, rest),
        (false, rest) if rest.is_empty() => (Outcome::Underway, "no site runs it".to_owned()),
        (false, rest) => (Outcome::Underway, format!("no site runs it: {rest}")),
    };
    step(vec![], outcome, message)
}

/// A member's state, measured by the budget.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Waiting,
    /// Until its time is over.
    Working(Option<Timestamp>),
    /// Until it is done.
    Soaking(Timestamp),
    Done,
    Failed,
    TimedOut,
    /// Nobody knows how far it is; until its place is given away.
    Silent(Timestamp),
    /// It was silent for so long that others take its place.
    Lost,
    Offline,
    Held(Option<Timestamp>),
}

impl Place {
    fn has_failed(&self) -> bool {
        matches!(self, Self::Failed | Self::TimedOut)
    }

    fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    fn is_soaking(&self) -> bool {
        matches!(self, Self::Soaking(_))
    }

    fn is_in_flight(&self) -> bool {
        matches!(self, Self::Working(_) | Self::Soaking(_) | Self::Silent(_))
    }

    fn is_offline(&self) -> bool {
        matches!(self, Self::Offline | Self::Lost)
    }

    fn until(&self) -> Option<Timestamp> {
        match self {
            Self::Working(until) | Self::Held(until) => *until,
            Self::Soaking(until) | Self::Silent(until) => Some(*until),
            _ => None,
        }
    }
}

fn place(state: State, budget: &Budget, now: Timestamp) -> Place {
    let judge = |progress, since| determine(progress, Some(since), budget.soak, budget.deadline, now);
    match state {
        State::Waiting => Place::Waiting,
        State::Working(since) => match judge(Progress::Progressing, since) {
            Verdict::Roll(until) => Place::Working(until),
            Verdict::TimeOut(_) | Verdict::Leave => Place::TimedOut,
        },
        State::Running(since) => match judge(Progress::Succeeded, since) {
            Verdict::Roll(Some(until)) => Place::Soaking(until),
            Verdict::Roll(None) | Verdict::TimeOut(_) | Verdict::Leave => Place::Done,
        },
        State::Failed => Place::Failed,
        // Where all may be changed at once nobody waits for its place.
        State::Silent(_) if budget.concurrency.is_none() => Place::Offline,
        State::Silent(since) => {
            let patience = Some(budget.deadline.unwrap_or(PATIENCE));
            match determine(Progress::Progressing, Some(since), budget.soak, patience, now) {
                Verdict::Roll(Some(until)) => Place::Silent(until),
                Verdict::Roll(None) | Verdict::TimeOut(_) | Verdict::Leave => Place::Lost,
            }
        }
        State::Offline => Place::Offline,
        State::Held(until) => Place::Held(until),
    }
}

fn count(places: &[(&Member, Place)]) -> RolloutCounts {
    let mut counts =
        RolloutCounts { total: u32::try_from(places.len()).unwrap_or(u32::MAX), ..<_>::default() };
    for (_, place) in places {
        let count = match place {
            Place::Waiting => &mut counts.waiting,
            Place::Working(_) => &mut counts.progressing,
            Place::Soaking(_) => &mut counts.soaking,
            Place::Done => &mut counts.done,
            Place::Failed => &mut counts.failed,
            Place::TimedOut => &mut counts.timed_out,
            Place::Silent(_) | Place::Lost | Place::Offline => &mut counts.offline,
            Place::Held(_) => &mut counts.held,
        };
        *count += 1;
    }
    counts
}

fn named<'a>(places: &[(&'a Member, Place)], is_it: impl Fn(&Place) -> bool) -> Vec<&'a str> {
    let found = places.iter().filter(|(_, place)| is_it(place));
    found.map(|(member, _)| member.site.as_str()).collect()
}

/// What went wrong, if more did than may.
fn breach(stages: &[Stage], places: &[(&Member, Place)], budget: &Budget) -> Option<String> {
    let judge = |here: &[(&Member, Place)], most: usize, of: &str| {
        let failed = named(here, Place::has_failed);
        (failed.len() > most)
            .then(|| format!("{} failed{of}, and {most} may: {}", sites(failed.len()), list(&failed)))
    };
    let most = |total: usize| match &budget.failures {
        Some(amount) => part(amount, total),
        None => total,
    };
    for (index, stage) in stages.iter().enumerate() {
        let here: Vec<(&Member, Place)> =
            places.iter().filter(|(member, _)| member.stage == index).copied().collect();
        let judged = if stage.mandatory {
            judge(&here, 0, &format!(" in mandatory group `{}`", stage.name))
        } else if budget.failures_per_stage {
            judge(&here, most(here.len()), &format!(" in group `{}`", stage.name))
        } else {
            None
        };
        if judged.is_some() {
            return judged;
        }
    }
    if budget.failures_per_stage { None } else { judge(places, most(places.len()), "") }
}

fn waits_for(here: &[(&Member, Place)], stage: &Stage, start: &[String], says_stage: bool) -> String {
    let mut parts = Vec::new();
    let mut working = named(here, |place| matches!(place, Place::Working(_)));
    working.extend(start.iter().map(String::as_str));
    if !working.is_empty() {
        parts.push(format!("waits for {}", list(&working)));
    }
    let silent = named(here, |place| matches!(place, Place::Silent(_)));
    if !silent.is_empty() {
        parts.push(format!("{} fell silent", list(&silent)));
    }
    let soaking = named(here, Place::is_soaking);
    if !soaking.is_empty() {
        let until =
            here.iter().filter(|(_, place)| place.is_soaking()).filter_map(|(_, place)| place.until());
        let until = until.max().map_or_else(String::new, |until| format!(" until {}", types::Time(until)));
        parts.push(format!("{} has to run well{until}", list(&soaking)));
    }
    if parts.is_empty() {
        parts.push("waits for sites that leave".to_owned());
    }
    let all = parts.join("; ");
    if says_stage && !stage.name.is_empty() { format!("group `{}`: {all}", stage.name) } else { all }
}

/// What is left over although nothing can be done about it now.
fn rest(counts: &RolloutCounts) -> String {
    let parts = [
        (counts.failed + counts.timed_out, "can't run it"),
        (counts.offline, "can't be reached, to follow on return"),
        (counts.held, "not to be changed now"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts
        .map(|(count, what)| format!("{} {what}", sites(usize::try_from(*count).unwrap_or(usize::MAX))))
        .collect();
    parts.join("; ")
}

fn sites(count: usize) -> String {
    if count == 1 { "1 site".to_owned() } else { format!("{count} sites") }
}

/// How many names a message tells.
const NAMES: usize = 5;

fn list(names: &[&str]) -> String {
    first_of(names, NAMES, ", ")
}
