//! What a placement sees of one site: why it doesn't match, or how it scores.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};

use super::{AVOIDED, FARTHEST, MATCHES, PINNED, STAYS, Situation, Times, score};
use crate::crowd::thousandths;
use crate::fleet::{Field, Fleet, Slot};
use crate::metrics;
use crate::policy::taints::{Tolerance, is_avoided, tolerance, tolerance_of};
use crate::policy::{Policy, TermKind};

/// A selected site is let go only where it is this much beyond a limit, so that noise around it moves nothing.
const SLACK: f64 = 1.1;

/// Why a site doesn't match. Numbers are indices into what the policy lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejection {
    Absent,
    Deleting,
    Unpinned,
    Test(usize),
    NoPredicate,
    Taint(usize),
    Cordoned,
    NotReady,
    Unconnected,
    TooFar,
    WidthUnknown,
    TooNarrow,
    Full(usize),
    Away(usize),
    NoMetric(usize),
    Limit(usize),
}

/// How a site stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Matches,
    /// It doesn't match, and is selected still for the time that it is held.
    Held(Rejection),
    Out(Rejection),
}

impl Standing {
    /// Why it can't be selected, if it can't.
    pub fn rejection(self) -> Option<Rejection> {
        match self {
            Self::Matches | Self::Held(_) => None,
            Self::Out(rejection) => Some(rejection),
        }
    }
}

/// The sites that one of `antiAffinity` keeps away from.
#[derive(Debug)]
pub(crate) struct Away {
    /// Rows, or words of the topology's column.
    taken: HashSet<u32>,
    column: Option<usize>,
    /// Whether this placement stays where both are.
    stays: bool,
}

pub(super) fn away(policy: &Policy, fleet: &Fleet, situation: &Situation) -> Vec<Away> {
    let others = situation.avoided.iter().map(Vec::as_slice).chain(std::iter::repeat(&[][..]));
    policy
        .away
        .iter()
        .zip(others)
        .map(|(column, others)| {
            let others: Vec<_> = others.iter().filter(|other| *other != situation.key).collect();
            let slots = others.iter().flat_map(|other| situation.crowd.chosen(other).iter().copied());
            let taken = match column {
                None => slots.collect(),
                Some(column) => {
                    slots.map(|slot| fleet.columns.word_at(*column, slot)).filter(|word| *word != 0).collect()
                }
            };
            let stays = others.iter().all(|other| situation.key < *other);
            Away { taken, column: *column, stays }
        })
        .collect()
}

/// What a placement sees.
pub(crate) struct View<'a> {
    pub fleet: &'a Fleet,
    pub policy: &'a Policy,
    pub situation: &'a Situation<'a>,
    pub field: Option<&'a Field>,
    pub current: &'a [bool],
    pub times: &'a [Times],
    pub own: &'a [u32],
    pub most: u32,
    pub ranges: &'a [(f64, f64)],
    pub away: &'a [Away],
    pub pinned: &'a HashSet<Slot>,
}

impl View<'_> {
    pub fn is_current(&self, slot: Slot) -> bool {
        self.current.get(slot as usize).copied().unwrap_or(false)
    }

    /// When so many seconds will be over since then, if they aren't.
    fn ends(&self, since: Timestamp, seconds: u32) -> Option<Timestamp> {
        let until = since.checked_add(SignedDuration::from_secs(i64::from(seconds))).ok()?;
        (self.situation.now < until).then_some(until)
    }

    /// Whether a selected site has been so for less than it dwells at least, and when it will have been so for long
    /// enough.
    fn dwells(&self, slot: Slot) -> Option<Timestamp> {
        let seconds = self.policy.migration().minimum_dwell_seconds;
        if seconds == 0 || !self.situation.is_settled || !self.is_current(slot) {
            return None;
        }
        let since = Timestamp::from_microsecond(self.times.get(slot as usize)?.since).ok()?;
        self.ends(since, seconds)
    }

    /// Until when a selected site that doesn't match stays, if it does. The time begins when that is seen.
    fn held_until(&self, slot: Slot) -> Option<Timestamp> {
        let seconds = self.policy.migration().hold_seconds;
        if seconds == 0 || !self.situation.is_settled || !self.is_current(slot) {
            return None;
        }
        let since = match self.times.get(slot as usize)?.unmatched {
            MATCHES => self.situation.now,
            since => Timestamp::from_microsecond(since).ok()?,
        };
        self.ends(since, seconds)
    }

    pub fn tolerance(&self, slot: Slot) -> Tolerance {
        let taints = self.fleet.taints(slot);
        tolerance(taints, &self.policy.spec.tolerations, self.is_current(slot), self.situation.now)
    }

    /// Until when a site's taints are tolerated, if they are and that ends.
    pub fn tolerated_until(&self, slot: Slot) -> Option<Timestamp> {
        let present = self.fleet.flags(slot).present;
        match self.tolerance(slot) {
            Tolerance::Until(until) if present => Some(until),
            _ => None,
        }
    }

    /// How a site stands. Lowers `wakes` to the time at which time alone may change that.
    pub fn standing(&self, slot: Slot, wakes: &mut i64) -> Standing {
        let flags = self.fleet.flags(slot);
        if !flags.present {
            return Standing::Out(Rejection::Absent);
        }
        if flags.deleting {
            return Standing::Out(Rejection::Deleting);
        }
        let mut wake = |until: Timestamp| *wakes = (*wakes).min(until.as_second());
        if let Some(until) = self.dwells(slot) {
            wake(until);
        }
        let by_selectors = self.reject_by_selectors(slot);
        let tolerance = self.tolerance(slot);
        if let Tolerance::Until(until) = tolerance {
            wake(until);
        }
        let is_repelled = tolerance == Tolerance::Never;
        let rejection = match by_selectors {
            None if is_repelled => Some(Rejection::Taint(self.repelling(slot))),
            None if self.is_current(slot) => self.reject_current(slot),
            None => self.reject_new(slot),
            found => found,
        };
        match (rejection, self.held_until(slot)) {
            (None, _) => Standing::Matches,
            (Some(rejection), Some(until)) if !is_repelled => {
                wake(until);
                Standing::Held(rejection)
            }
            (Some(rejection), _) => Standing::Out(rejection),
        }
    }

    /// Why a site that isn't selected yet can't be.
    fn reject_new(&self, slot: Slot) -> Option<Rejection> {
        let flags = self.fleet.flags(slot);
        if flags.cordoned {
            return Some(Rejection::Cordoned);
        }
        if !flags.ready {
            return Some(Rejection::NotReady);
        }
        self.reject_by_connection(slot, 1.0)
            .or_else(|| self.reject_by_room(slot))
            .or_else(|| self.reject_by_metrics(slot))
    }

    /// The time at which a told score of a site stops to be valid, in seconds.
    pub fn scores_end(&self, slot: Slot) -> i64 {
        let columns = self.policy.terms.iter().filter_map(|term| match term.kind {
            TermKind::AddOn(column) => Some(self.fleet.columns.score_at(column, slot).valid_until),
            _ => None,
        });
        let ends = columns.filter(|until| !self.is_expired(*until)).min();
        ends.unwrap_or(i64::MAX)
    }

    fn reject_by_selectors(&self, slot: Slot) -> Option<Rejection> {
        let columns = &self.fleet.columns;
        if !self.pinned.is_empty()
            && self.policy.spec.number_of_sites.is_none()
            && !self.pinned.contains(&slot)
        {
            return Some(Rejection::Unpinned);
        }
        if let Some(failed) = self.policy.must.iter().position(|test| !test.holds(columns, slot)) {
            return Some(Rejection::Test(failed));
        }
        let ways = &self.policy.ways;
        let matches = ways.is_empty()
            || ways.iter().any(|way| {
                way.tests.iter().all(|test| test.holds(columns, slot))
                    && way.truths.iter().all(|column| columns.truth_at(*column, slot))
            });
        (!matches).then_some(Rejection::NoPredicate)
    }

    /// The taint that keeps the placement away.
    fn repelling(&self, slot: Slot) -> usize {
        let is_current = self.is_current(slot);
        let repels = |taint| {
            tolerance_of(taint, &self.policy.spec.tolerations, is_current, self.situation.now)
                == Tolerance::Never
        };
        self.fleet.taints(slot).iter().position(repels).unwrap_or(0)
    }

    /// A selected site stays where something is missing or silent: only what is known to be wrong counts.
    fn reject_current(&self, slot: Slot) -> Option<Rejection> {
        let by_connection = self.reject_by_connection(slot, SLACK);
        let is_known = |rejection: &Rejection| matches!(rejection, Rejection::TooFar | Rejection::TooNarrow);
        by_connection.filter(is_known).or_else(|| self.reject_by_others(slot)).or_else(|| {
            let by_metrics = self.reject_by_metrics(slot);
            by_metrics.filter(|rejection| matches!(rejection, Rejection::Limit(_)))
        })
    }

    fn reject_by_connection(&self, slot: Slot, slack: f64) -> Option<Rejection> {
        let near = self.policy.spec.near.as_ref()?;
        let field = self.field?;
        if let Some(limit) = near.max_round_trip_milliseconds {
            match field.milliseconds(slot) {
                None => return Some(Rejection::Unconnected),
                Some(milliseconds) if milliseconds > limit * slack => return Some(Rejection::TooFar),
                Some(_) => {}
            }
        }
        let limit = near.min_megabits_per_second?;
        match field.megabits(slot) {
            None => Some(Rejection::WidthUnknown),
            Some(megabits) if megabits * slack < limit => Some(Rejection::TooNarrow),
            Some(_) => None,
        }
    }

    /// What of a resource others leave, in thousandths; `None` where nobody knows how much there is.
    pub fn room(&self, resource: &str, column: usize, slot: Slot) -> Option<i64> {
        let allocatable = self.fleet.columns.amounts_at(column, slot).allocatable;
        let taken = self.taken_by_others(resource, slot);
        (!allocatable.is_nan()).then(|| thousandths(allocatable).saturating_sub(taken))
    }

    /// In thousandths.
    fn taken_by_others(&self, resource: &str, slot: Slot) -> i64 {
        let crowd = self.situation.crowd;
        let taken = crowd.taken(resource, slot);
        match self.own.get(slot as usize).copied().unwrap_or(0) {
            0 => taken,
            own => {
                taken.saturating_sub(crowd.request(self.situation.key, resource).saturating_mul(own.into()))
            }
        }
    }

    fn reject_by_room(&self, slot: Slot) -> Option<Rejection> {
        let is_full = |request: &crate::policy::Request| {
            // Unknown room is none.
            let room = self.room(&request.resource, request.column, slot);
            room.is_none_or(|room| room < thousandths(request.amount))
        };
        self.policy
            .requests
            .iter()
            .position(is_full)
            .map(Rejection::Full)
            .or_else(|| self.reject_by_others(slot))
    }

    fn reject_by_others(&self, slot: Slot) -> Option<Rejection> {
        let is_current = self.is_current(slot);
        let keeps_away = |away: &Away| {
            let place = away.column.map_or(slot, |column| self.fleet.columns.word_at(column, slot));
            !(is_current && away.stays) && away.taken.contains(&place)
        };
        self.away.iter().position(keeps_away).map(Rejection::Away)
    }

    /// The value of a metric from 0 to 1.
    pub fn metric(&self, metric: usize, slot: Slot) -> Option<f64> {
        let column = self.situation.metrics.get(metric)?;
        column.values.get(slot as usize).copied().filter(|value| !value.is_nan())
    }

    fn reject_by_metrics(&self, slot: Slot) -> Option<Rejection> {
        let metrics = &self.policy.spec.metrics;
        if let Some(missing) = (0..metrics.len()).find(|metric| self.metric(*metric, slot).is_none()) {
            return Some(Rejection::NoMetric(missing));
        }
        let fails = |limit: &crate::policy::MetricLimit| {
            let weight = metrics.get(limit.metric).map_or(1.0, |metric| metric.weight);
            self.metric(limit.metric, slot).is_some_and(|value| !limit.constraint.holds(weight * value))
        };
        self.policy.limits.iter().position(fails).map(Rejection::Limit)
    }

    /// What a relative score depends on; NaN where a site doesn't have it.
    pub fn raw(&self, kind: TermKind, slot: Slot) -> f64 {
        match kind {
            TermKind::Resource(column) => {
                let amounts = self.fleet.columns.amounts_at(column, slot);
                if amounts.capacity.is_nan() { f64::NAN } else { amounts.allocatable }
            }
            // What is small is good.
            TermKind::Cost => -self.fleet.cost(slot),
            TermKind::Energy => -self.fleet.energy(slot),
            _ => f64::NAN,
        }
    }

    /// The scores of a site, one a term; none where it has nothing to be scored by.
    pub fn scores(&self, slot: Slot) -> impl Iterator<Item = (usize, Option<i64>)> + '_ {
        let mut relative = self.ranges.iter();
        self.policy.terms.iter().enumerate().map(move |(index, term)| {
            let range = if term.kind.is_relative() { relative.next().copied() } else { None };
            (index, self.score(term.kind, slot, range))
        })
    }

    fn score(&self, kind: TermKind, slot: Slot, range: Option<(f64, f64)>) -> Option<i64> {
        Some(match kind {
            TermKind::Steady => i64::from(self.is_current(slot)) * 100,
            TermKind::Balance => {
                let own = self.own.get(slot as usize).copied().unwrap_or(0);
                score::balance(self.situation.crowd.count(slot).saturating_sub(own), self.most)
            }
            TermKind::Resource(_) | TermKind::Cost | TermKind::Energy => {
                let (least, greatest) = range?;
                let raw = self.raw(kind, slot);
                if raw.is_nan() {
                    return None;
                }
                score::relative(raw, least, greatest)
            }
            TermKind::Packing => {
                let fullest = self.policy.requests.iter().map(|request| {
                    let allocatable = self.fleet.columns.amounts_at(request.column, slot).allocatable;
                    let taken = self.taken_by_others(&request.resource, slot);
                    score::packing(taken as f64 / 1000.0, allocatable)
                });
                fullest.max().unwrap_or(0)
            }
            TermKind::Latency => score::latency(self.field?.milliseconds(slot)),
            TermKind::Bandwidth => score::bandwidth(self.field?.megabits(slot)),
            TermKind::Metrics => {
                let metrics = self.policy.spec.metrics.iter().enumerate();
                let values = metrics.filter_map(|(index, metric)| {
                    let value = self.metric(index, slot)?;
                    // A metric of which little is good counts from the other end.
                    Some(if metric.weight < 0.0 {
                        (1.0 - value, -metric.weight)
                    } else {
                        (value, metric.weight)
                    })
                });
                score::share(metrics::weighted(values, 0.0)?)
            }
            TermKind::AddOn(column) => {
                let told = self.fleet.columns.score_at(column, slot);
                let is_valid = told.is_told && !self.is_expired(told.valid_until);
                if is_valid { i64::from(told.value) } else { 0 }
            }
        })
    }

    /// Whether what was valid until then isn't any more.
    pub fn is_expired(&self, valid_until: i64) -> bool {
        valid_until != i64::MAX
            && self.situation.now > Timestamp::from_second(valid_until).unwrap_or(Timestamp::MAX)
    }

    /// The weighted sum of the scores.
    pub fn total(&self, slot: Slot) -> i64 {
        let terms = &self.policy.terms;
        let scores = self.scores(slot).filter_map(|(index, score)| {
            terms.get(index).zip(score).map(|(term, score)| term.weight.saturating_mul(score))
        });
        scores.fold(0, i64::saturating_add).clamp(-FARTHEST, FARTHEST)
    }

    pub fn is_avoided(&self, slot: Slot) -> bool {
        let taints = self.fleet.taints(slot);
        !taints.is_empty() && is_avoided(taints, &self.policy.spec.tolerations)
    }

    /// What sites that match are put in order by, the greatest first.
    pub fn key(&self, slot: Slot) -> i64 {
        let mut key = self.total(slot);
        if self.is_current(slot) {
            let migration = self.policy.migration();
            key += self.policy.hysteresis();
            if !migration.enabled || self.dwells(slot).is_some() {
                key += STAYS;
            }
        }
        if self.is_avoided(slot) {
            key -= AVOIDED;
        }
        if self.pinned.contains(&slot) {
            key += PINNED;
        }
        key
    }
}
