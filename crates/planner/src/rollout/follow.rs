//! Strategies, as Open Cluster Management's rollout handler follows them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use types::Portion;

use super::duration::LARGEST;
use super::{InvalidPortion, Progress, Verdict, determine, size};

/// A group of sites, by the name and the index that decisions have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// The group's name; several may have the same, or none.
    pub name: String,
    /// The group's place in the order.
    pub index: i64,
    /// Its sites.
    pub sites: Vec<String>,
}

/// A group that has to succeed before all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mandatory {
    /// All groups of that name.
    Named(String),
    /// The group at that place.
    At(i64),
}

impl Mandatory {
    fn takes(&self, group: &Group) -> bool {
        match self {
            Self::Named(name) => group.name == *name,
            Self::At(index) => group.index == *index,
        }
    }
}

/// In what order, how many at once, and when to stop.
#[derive(Debug, Clone, PartialEq)]
pub enum Strategy {
    /// All sites at once.
    All {
        /// How long a site may try.
        deadline: Option<Duration>,
    },
    /// So many sites at once, by name.
    Progressive {
        /// Groups that come first, and must not fail.
        mandatory: Vec<Mandatory>,
        /// How many at once; all if that is no part of them.
        concurrency: Portion,
        /// How many of all sites may fail.
        failures: Portion,
        /// How long a success has to last.
        soak: Duration,
        /// How long a site may try.
        deadline: Option<Duration>,
    },
    /// One group after the other.
    PerGroup {
        /// Groups that come first, and must not fail.
        mandatory: Vec<Mandatory>,
        /// How many of each group may fail.
        failures: Portion,
        /// How long a success has to last.
        soak: Duration,
        /// How long a site may try.
        deadline: Option<Duration>,
    },
}

/// One site, how far it is, and what follows.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The site.
    pub site: String,
    /// Name and index of its group.
    pub group: (String, i64),
    /// How far it is.
    pub progress: Progress,
    /// Since when.
    pub since: Option<Timestamp>,
    /// When it is to be looked at again, or was.
    pub recheck: Option<Timestamp>,
}

/// What is to be done now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Sites to roll out to, or that are at it.
    pub roll: Vec<Entry>,
    /// Sites whose time is over.
    pub timed_out: Vec<Entry>,
    /// Sites that are no longer selected.
    pub removed: Vec<Entry>,
    /// Whether more failed than may.
    pub breach: bool,
    /// After how long to look again.
    pub recheck_after: Option<Duration>,
}

/// What a strategy does next, to the letter of the handler that [`super`] names, hazards included: failures behind the
/// last free place are not counted, a failed site without deadline holds its place for ever.
///
/// # Errors
/// If an amount is none.
pub fn follow(
    strategy: &Strategy,
    groups: &[Group],
    existing: Vec<Entry>,
    now: Timestamp,
) -> Result<Plan, InvalidPortion> {
    let mut groups: Vec<&Group> = groups.iter().collect();
    groups.sort_by_key(|group| group.index);
    let counted = counted(&groups);
    let selected: BTreeSet<&str> = sites(&counted).collect();
    let (existing, removed): (Vec<Entry>, Vec<Entry>) =
        existing.into_iter().partition(|entry| selected.contains(entry.site.as_str()));
    let run = Run { existing, now };
    let mut plan = match strategy {
        Strategy::All { deadline } => {
            let limits = Limits { soak: Duration::ZERO, deadline: *deadline };
            run.per_site(&counted, selected.len(), selected.len(), limits)
        }
        Strategy::Progressive { mandatory, concurrency, failures, soak, deadline } => {
            let limits = Limits { soak: *soak, deadline: *deadline };
            let most_failures = size(failures, selected.len(), 0)?;
            let (first, rest) = (split(&groups, mandatory).0, split(&counted, mandatory).1);
            match run.mandatory(&first, limits)? {
                Some(plan) => plan,
                None => {
                    let count = sites(&rest).collect::<BTreeSet<_>>().len();
                    let most = size(concurrency, count, count)?;
                    run.per_site(&rest, most, most_failures, limits)
                }
            }
        }
        Strategy::PerGroup { mandatory, failures, soak, deadline } => {
            let limits = Limits { soak: *soak, deadline: *deadline };
            size(failures, 0, 0)?;
            let (first, rest) = (split(&groups, mandatory).0, split(&counted, mandatory).1);
            match run.mandatory(&first, limits)? {
                Some(plan) => plan,
                None => run.per_group(&rest, failures, limits)?,
            }
        }
    };
    plan.removed = removed;
    plan.recheck_after = recheck_after(&plan.roll, now);
    Ok(plan)
}

/// The handler counts indices from 0 up to as many as there are: behind a gap it sees only mandatory groups.
fn counted<'a>(groups: &[&'a Group]) -> Vec<&'a Group> {
    let indices: BTreeSet<i64> = groups.iter().map(|group| group.index).collect();
    let count = i64::try_from(indices.len()).unwrap_or(i64::MAX);
    groups.iter().copied().filter(|group| (0..count).contains(&group.index)).collect()
}

fn sites<'a>(groups: &'a [&Group]) -> impl Iterator<Item = &'a str> {
    groups.iter().flat_map(|group| &group.sites).map(String::as_str)
}

fn split<'a>(groups: &[&'a Group], mandatory: &[Mandatory]) -> (Vec<&'a Group>, Vec<&'a Group>) {
    groups.iter().partition(|group| mandatory.iter().any(|wanted| wanted.takes(group)))
}

fn recheck_after(roll: &[Entry], now: Timestamp) -> Option<Duration> {
    let waits = roll.iter().filter_map(|entry| Duration::try_from(entry.recheck?.duration_since(now)).ok());
    waits.filter(|wait| !wait.is_zero()).min().map(|wait| wait.min(LARGEST))
}

#[derive(Clone, Copy)]
struct Limits {
    soak: Duration,
    deadline: Option<Duration>,
}

struct Run {
    existing: Vec<Entry>,
    now: Timestamp,
}

impl Run {
    /// Puts a site where it belongs; answers how far it is then.
    fn sort_in(&self, entry: &Entry, limits: Limits, plan: &mut Plan) -> Progress {
        match determine(entry.progress, entry.since, limits.soak, limits.deadline, self.now) {
            Verdict::Roll(recheck) => plan.roll.push(Entry { recheck, ..entry.clone() }),
            Verdict::TimeOut(at) => {
                let entry = Entry { progress: Progress::TimeOut, recheck: Some(at), ..entry.clone() };
                plan.timed_out.push(entry);
                return Progress::TimeOut;
            }
            Verdict::Leave => {}
        }
        entry.progress
    }

    fn per_site(&self, groups: &[&Group], most: usize, most_failures: usize, limits: Limits) -> Plan {
        let mut existing: Vec<&Entry> = self.existing.iter().filter(|entry| !entry.site.is_empty()).collect();
        existing.sort_by(|a, b| a.site.cmp(&b.site));
        let (mut plan, mut failures) = (Plan::default(), 0);
        let mut known = BTreeSet::new();
        for entry in existing {
            known.insert(entry.site.as_str());
            if plan.breach && entry.progress == Progress::ToApply {
                continue;
            }
            if has_failed(self.sort_in(entry, limits, &mut plan)) {
                failures += 1;
                plan.breach = failures > most_failures;
            }
            if plan.roll.len() >= most {
                return plan;
            }
        }
        if plan.breach {
            return plan;
        }
        let mut new: BTreeMap<&str, &Group> = BTreeMap::new();
        for group in groups {
            new.extend(group.sites.iter().map(|site| (site.as_str(), *group)));
        }
        for (site, group) in new {
            if known.contains(site) {
                continue;
            }
            plan.roll.push(to_apply(site, group));
            if plan.roll.len() >= most {
                break;
            }
        }
        plan
    }

    fn per_group(&self, groups: &[&Group], most: &Portion, limits: Limits) -> Result<Plan, InvalidPortion> {
        let mut plan = Plan::default();
        let mut known = BTreeMap::new();
        for entry in &self.existing {
            if !entry.site.is_empty() && entry.progress != Progress::ToApply {
                let progress = self.sort_in(entry, limits, &mut plan);
                known.insert(entry.site.as_str(), progress);
            }
        }
        let mut failures = 0;
        for group in groups {
            let mut members: Vec<&str> = group.sites.iter().map(String::as_str).collect();
            members.sort_unstable();
            let most = size(most, members.len(), 0)?;
            let mut failures_here = 0;
            for site in members {
                match known.get(site) {
                    Some(progress) if has_failed(*progress) => {
                        failures_here += 1;
                        plan.breach = failures_here > most;
                    }
                    Some(_) => {}
                    None => plan.roll.push(to_apply(site, group)),
                }
            }
            failures += failures_here;
            if plan.roll.len() > failures || plan.breach {
                break;
            }
        }
        Ok(plan)
    }

    /// What the mandatory groups still need, if anything: none of them may fail.
    fn mandatory(&self, groups: &[&Group], limits: Limits) -> Result<Option<Plan>, InvalidPortion> {
        if groups.is_empty() {
            return Ok(None);
        }
        let plan = self.per_group(groups, &Portion::Number(0), limits)?;
        let is_at_work = !plan.roll.is_empty() || !plan.timed_out.is_empty();
        Ok(is_at_work.then_some(plan))
    }
}

fn has_failed(progress: Progress) -> bool {
    matches!(progress, Progress::TimeOut | Progress::Failed)
}

fn to_apply(site: &str, group: &Group) -> Entry {
    Entry {
        site: site.to_owned(),
        group: (group.name.clone(), group.index),
        progress: Progress::ToApply,
        since: None,
        recheck: None,
    }
}
