//! One placement's view of the fleet: whether each site matches, how it scores, and which are selected.
//!
//! A board remembers what it found, so that a site that changed costs the work of one site. What it remembers is
//! nothing but what it would find again: a new board gives the same answer.

mod choose;
mod score;
mod view;

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;

use crate::crowd::{Crowd, PlacementKey};
use crate::fleet::{Field, Fleet, Slot};
use crate::policy::{Policy, TermKind};

pub use score::normalized_score;
pub(crate) use view::{Away, Rejection, Standing, View};

/// The key of a site that doesn't match.
const OUT: i64 = i64::MIN;
/// What lifts a site over all others, whatever they score.
const PINNED: i64 = 1 << 60;
/// What puts a site below all others.
const AVOIDED: i64 = 1 << 58;
/// What keeps a site from giving way to better ones.
const STAYS: i64 = 1 << 56;
/// No sum of scores reaches farther than this.
const FARTHEST: i64 = 1 << 54;

/// A site that is selected already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selected {
    /// Its row.
    pub slot: Slot,
    /// Since when; `None` where that isn't known.
    pub since: Option<Timestamp>,
    /// Since when it doesn't match any more, and is held; `None` where it matches.
    pub unmatched_since: Option<Timestamp>,
}

impl Selected {
    fn times(&self) -> Times {
        Times {
            since: self.since.map_or(i64::MIN, Timestamp::as_microsecond),
            unmatched: self.unmatched_since.map_or(MATCHES, Timestamp::as_microsecond),
        }
    }
}

/// What is known of a selected site, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Times {
    /// Since when it is selected; the least there is where that isn't known.
    pub since: i64,
    /// Since when it doesn't match.
    pub unmatched: i64,
}

impl Times {
    /// Of sites that aren't selected: none who is has these, so that whoever comes is seen to come.
    const NONE: Self = Self { since: i64::MAX, unmatched: MATCHES };
}

/// The time since when a site that matches doesn't.
const MATCHES: i64 = i64::MAX;

/// Values of one metric, by row, from 0 to 1; NaN where a site has none.
#[derive(Debug, Clone, Default)]
pub struct MetricColumn {
    /// Changes with the values.
    pub version: u64,
    /// The values.
    pub values: Arc<Vec<f64>>,
}

/// All that a decision depends on beside the sites.
#[derive(Clone, Copy)]
pub struct Situation<'a> {
    /// The time.
    pub now: Timestamp,
    /// Who decides.
    pub key: &'a PlacementKey,
    /// What was decided before.
    pub current: &'a [Selected],
    /// Whether that followed the same spec: then selected sites have their time before they give way.
    pub is_settled: bool,
    /// What all placements decided.
    pub crowd: &'a Crowd,
    /// What to be near to; `None` where that isn't known, and then nothing is far.
    pub origins: Option<&'a [Slot]>,
    /// The placements that each of `antiAffinity` keeps away from.
    pub avoided: &'a [Vec<PlacementKey>],
    /// The values of each of `metrics`.
    pub metrics: &'a [MetricColumn],
}

/// How much was looked at, for tests and benchmarks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effort {
    /// Sites that were asked whether they match.
    pub evaluated: usize,
    /// Sites whose score was summed up.
    pub scored: usize,
}

/// What was seen when it was decided last.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    fleet: u64,
    crowd: u64,
    topology: u64,
    origins: Option<Vec<Slot>>,
    avoided: Vec<Vec<PlacementKey>>,
    metrics: Vec<u64>,
    is_settled: bool,
}

/// One placement's view of the fleet.
pub struct Board {
    policy: Policy,
    seen: Option<Seen>,
    /// The earliest time at which time alone changes something, in seconds.
    wakes: i64,
    current: Vec<bool>,
    current_slots: Vec<Selected>,
    times: Vec<Times>,
    /// Selected sites that don't match, and are held.
    held: Vec<bool>,
    /// How often the crowd counts this placement itself.
    own: Vec<u32>,
    /// How many other placements chose the site that most chose.
    most: u32,
    keys: Vec<i64>,
    /// For each term that is relative, the values of sites that match; NaN for others.
    raws: Vec<Vec<f64>>,
    ranges: Vec<(f64, f64)>,
    away: Vec<Away>,
    pinned: HashSet<Slot>,
    field: Option<Arc<Field>>,
    selected: Vec<Slot>,
    spread: choose::Spread,
    effort: Effort,
}

impl Board {
    /// Of a policy.
    pub fn new(policy: Policy) -> Self {
        let relative = policy.terms.iter().filter(|term| term.kind.is_relative()).count();
        let pinned = policy.pinned.iter().copied().collect();
        Self {
            policy,
            seen: None,
            wakes: i64::MAX,
            current: vec![],
            current_slots: vec![],
            times: vec![],
            held: vec![],
            own: vec![],
            most: 0,
            keys: vec![],
            raws: vec![vec![]; relative],
            ranges: vec![(f64::NAN, f64::NAN); relative],
            away: vec![],
            pinned,
            field: None,
            selected: vec![],
            spread: choose::Spread::default(),
            effort: Effort::default(),
        }
    }

    /// What is followed.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The selected sites, best first, as last decided.
    pub fn selected(&self) -> &[Slot] {
        &self.selected
    }

    /// Whether other sites are selected than before, or others of them are held.
    pub fn is_changed(&self) -> bool {
        let is_same = |slot: &Slot| {
            let row = *slot as usize;
            let was_held = self.times.get(row).is_some_and(|times| times.unmatched != MATCHES);
            self.current.get(row).copied().unwrap_or(false) && self.is_held(*slot) == was_held
        };
        self.selected.len() != self.current_slots.len() || !self.selected.iter().all(is_same)
    }

    /// Whether a selected site doesn't match, and stays for the time that `migration.holdSeconds` says.
    pub fn is_held(&self, slot: Slot) -> bool {
        self.held.get(slot as usize).copied().unwrap_or(false)
    }

    /// How much the last decision looked at.
    pub fn effort(&self) -> Effort {
        self.effort
    }

    /// How many sites match.
    pub fn matching(&self) -> usize {
        self.keys.iter().filter(|key| **key != OUT).count()
    }

    /// Decides which sites are selected, best first. Afterwards the board knows more and needs to look at less.
    pub fn decide(&mut self, fleet: &mut Fleet, situation: &Situation) -> &[Slot] {
        let rows = fleet.rows();
        let mut dirty = self.changed(fleet, situation);
        self.grow(rows);
        self.take_current(situation, &mut dirty);
        let most = if self.take_crowd(situation) { self.count_most(situation) } else { self.most };
        self.field = situation.origins.map(|origins| fleet.field(origins));
        self.effort = Effort::default();
        let fleet = &*fleet;
        let rescore = match &dirty {
            None => {
                self.wakes = i64::MAX;
                self.evaluate(fleet, situation, 0..Slot::try_from(rows).unwrap_or(Slot::MAX));
                self.find_ranges();
                true
            }
            Some(dirty) => {
                let touched = self.evaluate(fleet, situation, dirty.iter().copied());
                let ranges = std::mem::take(&mut self.ranges);
                if touched {
                    self.find_ranges();
                } else {
                    self.ranges.clone_from(&ranges);
                }
                let moved = self
                    .ranges
                    .iter()
                    .zip(&ranges)
                    .any(|(new, old)| new.0.total_cmp(&old.0).is_ne() || new.1.total_cmp(&old.1).is_ne());
                moved || self.most != most
            }
        };
        self.most = most;
        self.order(fleet, situation, if rescore { None } else { dirty.as_deref() });
        self.seen = Some(Seen {
            fleet: fleet.changes(),
            crowd: situation.crowd.changes(),
            topology: fleet.topology(),
            origins: situation.origins.map(<[Slot]>::to_vec),
            avoided: situation.avoided.to_vec(),
            metrics: situation.metrics.iter().map(|metric| metric.version).collect(),
            is_settled: situation.is_settled,
        });
        &self.selected
    }

    /// The rows to look at again; `None` for all of them.
    fn changed(&self, fleet: &Fleet, situation: &Situation) -> Option<Vec<Slot>> {
        let seen = self.seen.as_ref()?;
        let is_same = seen.topology == fleet.topology()
            && seen.origins.as_deref() == situation.origins
            && seen.avoided == situation.avoided
            && seen.is_settled == situation.is_settled
            && seen.metrics.iter().copied().eq(situation.metrics.iter().map(|metric| metric.version))
            && situation.now.as_second() < self.wakes;
        let crowded = situation.crowd.changed_since(seen.crowd)?;
        let spreads_away = self.policy.away.iter().any(Option::is_some) && !crowded.is_empty();
        if !is_same || spreads_away {
            return None;
        }
        let mut dirty = fleet.changed_since(seen.fleet)?.to_vec();
        dirty.extend_from_slice(crowded);
        Some(dirty)
    }

    fn grow(&mut self, rows: usize) {
        self.current.resize(rows, false);
        self.times.resize(rows, Times::NONE);
        self.held.resize(rows, false);
        self.own.resize(rows, 0);
        self.keys.resize(rows, OUT);
        self.raws.iter_mut().for_each(|raw| raw.resize(rows, f64::NAN));
    }

    /// Takes over which sites are selected now. Those for which that changed are to be looked at again.
    fn take_current(&mut self, situation: &Situation, dirty: &mut Option<Vec<Slot>>) {
        if self.current_slots == situation.current {
            return;
        }
        let old = std::mem::replace(&mut self.current_slots, situation.current.to_vec());
        let mut changed = Vec::new();
        for selected in &old {
            self.mark(selected.slot, false);
        }
        for selected in situation.current {
            let times = selected.times();
            self.mark(selected.slot, true);
            if let Some(known) = self.times.get_mut(selected.slot as usize).filter(|known| **known != times) {
                *known = times;
                changed.push(selected.slot);
            }
        }
        for selected in &old {
            let row = selected.slot as usize;
            if self.current.get(row) == Some(&false) {
                changed.push(selected.slot);
                if let Some(times) = self.times.get_mut(row) {
                    *times = Times::NONE;
                }
            }
        }
        if let Some(dirty) = dirty {
            dirty.extend(changed);
        }
    }

    fn mark(&mut self, slot: Slot, is_current: bool) {
        if let Some(current) = self.current.get_mut(slot as usize) {
            *current = is_current;
        }
    }

    /// Takes over what this placement itself is counted for, and from which sites it keeps away. Whether that changed.
    fn take_crowd(&mut self, situation: &Situation) -> bool {
        let is_same = self
            .seen
            .as_ref()
            .is_some_and(|seen| seen.crowd == situation.crowd.changes() && seen.avoided == situation.avoided);
        if is_same {
            return false;
        }
        self.own.fill(0);
        for slot in situation.crowd.chosen(situation.key) {
            if let Some(own) = self.own.get_mut(*slot as usize) {
                *own += 1;
            }
        }
        self.away.clear();
        true
    }

    fn count_most(&self, situation: &Situation) -> u32 {
        let counts = situation.crowd.counts().iter().zip(self.own.iter().chain(std::iter::repeat(&0)));
        counts.map(|(count, own)| count.saturating_sub(*own)).max().unwrap_or(0)
    }

    pub(crate) fn view<'a>(&'a self, fleet: &'a Fleet, situation: &'a Situation<'a>) -> View<'a> {
        View {
            fleet,
            policy: &self.policy,
            situation,
            field: self.field.as_deref(),
            current: &self.current,
            times: &self.times,
            own: &self.own,
            most: self.most,
            ranges: &self.ranges,
            away: &self.away,
            pinned: &self.pinned,
        }
    }

    /// Asks rows whether they match, and notes what their relative scores depend on. Whether a range may have changed.
    fn evaluate(&mut self, fleet: &Fleet, situation: &Situation, slots: impl Iterator<Item = Slot>) -> bool {
        if self.away.len() != self.policy.away.len() {
            self.away = view::away(&self.policy, fleet, situation);
        }
        let mut keys = std::mem::take(&mut self.keys);
        let mut raws = std::mem::take(&mut self.raws);
        let mut held = std::mem::take(&mut self.held);
        let mut wakes = self.wakes;
        let mut touched = false;
        let mut evaluated = 0;
        let view = self.view(fleet, situation);
        let relative: Vec<TermKind> =
            self.policy.terms.iter().map(|term| term.kind).filter(|kind| kind.is_relative()).collect();
        for slot in slots {
            evaluated += 1;
            let row = slot as usize;
            let standing = view.standing(slot, &mut wakes);
            let rejection = standing.rejection();
            if let Some(held) = held.get_mut(row) {
                *held = matches!(standing, Standing::Held(_));
            }
            wakes = wakes.min(view.scores_end(slot));
            if let Some(key) = keys.get_mut(row) {
                match rejection {
                    Some(_) => *key = OUT,
                    None if *key == OUT => *key = 0,
                    None => {}
                }
            }
            for ((kind, raws), range) in relative.iter().zip(&mut raws).zip(&self.ranges) {
                let new = if rejection.is_none() { view.raw(*kind, slot) } else { f64::NAN };
                if let Some(raw) = raws.get_mut(row) {
                    let is_edge = |value: f64| !(value.is_nan() || (value > range.0 && value < range.1));
                    touched |= raw.to_bits() != new.to_bits() && (is_edge(*raw) || is_edge(new));
                    *raw = new;
                }
            }
        }
        (self.keys, self.raws, self.held, self.wakes) = (keys, raws, held, wakes);
        self.effort.evaluated += evaluated;
        touched
    }

    fn find_ranges(&mut self) {
        self.ranges = self
            .raws
            .iter()
            .map(|raws| {
                raws.iter().filter(|raw| !raw.is_nan()).fold((f64::NAN, f64::NAN), |(least, most), raw| {
                    // `min` and `max` answer the other one where one is NaN.
                    (least.min(*raw), most.max(*raw))
                })
            })
            .collect();
    }

    /// Sums up the scores of rows (all, if none are named), and selects.
    fn order(&mut self, fleet: &Fleet, situation: &Situation, dirty: Option<&[Slot]>) {
        let mut keys = std::mem::take(&mut self.keys);
        let mut selected = std::mem::take(&mut self.selected);
        let mut spread = std::mem::take(&mut self.spread);
        let view = self.view(fleet, situation);
        let wanted = self.policy.wanted();
        let over = &self.policy.spread;
        let (scored, is_done) = match dirty {
            Some(dirty) if over.is_empty() => {
                let key = |slot| view.key(slot);
                (choose::mend(&mut selected, dirty, &mut keys, fleet.order(), wanted, key), true)
            }
            Some(dirty) => spread.mend(dirty, &mut keys, fleet, over, |slot| view.key(slot)),
            None => {
                let mut scored = 0;
                for (slot, key) in (0..).zip(&mut keys).filter(|(_, key)| **key != OUT) {
                    *key = view.key(slot);
                    scored += 1;
                }
                (scored, false)
            }
        };
        if !is_done && over.is_empty() {
            choose::best(&mut selected, &keys, fleet.order(), wanted);
        } else if !is_done {
            spread.choose(&mut selected, &keys, fleet, over, wanted);
        }
        (self.keys, self.selected, self.spread) = (keys, selected, spread);
        self.effort.scored += scored;
    }

    /// The earliest time at which a selected site stops to be tolerated.
    pub fn requeue_at(&self, fleet: &Fleet, situation: &Situation) -> Option<Timestamp> {
        let view = self.view(fleet, situation);
        situation.current.iter().filter_map(|selected| view.tolerated_until(selected.slot)).min()
    }
}
