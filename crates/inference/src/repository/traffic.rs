//! Which version answers a request that names none, and when a version loses its share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use types::{Rollback, Share, Traffic};

use super::Served;
use crate::histogram::Histogram;
use crate::kept::Kept;

/// Answers needed before a version is judged, where the bounds don't say.
const MIN_REQUESTS: u64 = 20;

/// The rules of one model. Choosing takes no lock and no random number.
#[derive(Default)]
pub(super) struct Route {
    traffic: Traffic,
    trials: HashMap<String, Arc<Trial>>,
    requests: AtomicU64,
}

/// How a version that is on trial does.
#[derive(Default)]
pub(crate) struct Trial {
    bounds: Rollback,
    answered: AtomicU64,
    failed: AtomicU64,
    latency: Histogram,
    verdict: OnceLock<String>,
    note: Option<Note>,
}

/// Where verdicts outlive the process.
pub(super) struct Verdicts<'a> {
    pub kept: &'a Arc<Kept>,
    pub model: &'a str,
}

const TABLE: &str = "rolled-back-models";
/// Of the records; others are passed over.
const FORMAT: u32 = 1;

/// Where the verdict of one trial is written down.
struct Note {
    kept: Arc<Kept>,
    key: String,
    weight: u32,
}

/// It holds for this share and these bounds.
#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    weight: u32,
    bounds: Rollback,
    verdict: String,
}

impl Verdicts<'_> {
    fn key(&self, version: &str) -> String {
        format!("{}/{version}", self.model)
    }

    fn forget(&self, version: &str) {
        self.kept.delete(TABLE, self.key(version));
    }

    /// A trial that begins, or that was judged before this process began; anew in any case after another one.
    fn trial(&self, share: &Share, bounds: &Rollback, is_anew: bool) -> Trial {
        let key = self.key(&share.version);
        let note = Note { kept: Arc::clone(self.kept), key, weight: share.weight };
        let trial = Trial { bounds: bounds.clone(), note: Some(note), ..Trial::default() };
        if is_anew {
            self.forget(&share.version);
            return trial;
        }
        let known = self.kept.get::<Record>(TABLE, &self.key(&share.version));
        let same = |known: &Record| {
            known.format == FORMAT && known.weight == share.weight && known.bounds == *bounds
        };
        if let Some(Record { verdict, .. }) = known.filter(same) {
            let Verdicts { model, .. } = self;
            tracing::warn!(model, version = share.version, "stays rolled back: {verdict}");
            let _ = trial.verdict.set(verdict);
        }
        trial
    }
}

impl Route {
    /// New rules; a version whose share and bounds stay keeps its record, over a restart, too, if it was judged.
    pub fn new(
        traffic: Traffic,
        default: Option<&str>,
        before: Option<&Route>,
        verdicts: &Verdicts<'_>,
    ) -> Route {
        let mut trials = HashMap::new();
        if let Some(bounds) = &traffic.rollback {
            let tried = traffic.split.iter().filter(|share| Some(share.version.as_str()) != default);
            for share in tried {
                let kept = before.filter(|before| {
                    before.traffic.split.contains(share) && before.traffic.rollback.as_ref() == Some(bounds)
                });
                let kept = kept.and_then(|before| before.trials.get(&share.version)).cloned();
                let was_other = before.is_some_and(|before| before.trials.contains_key(&share.version));
                let trial = || Arc::new(verdicts.trial(share, bounds, was_other));
                trials.insert(share.version.clone(), kept.unwrap_or_else(trial));
            }
        }
        let ended = before.into_iter().flat_map(|before| before.trials.keys());
        ended.filter(|version| !trials.contains_key(*version)).for_each(|version| verdicts.forget(version));
        Route { traffic, trials, requests: AtomicU64::new(0) }
    }

    /// The version for the next request; `None` stands for the default one. Shares are met to within a request or
    /// two over any stretch: successive multiples of the golden ratio fill a circle evenly.
    pub fn choose(&self) -> Option<&str> {
        const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
        let turn = self.requests.fetch_add(1, Relaxed).wrapping_mul(GOLDEN);
        let total: u64 = self.open().map(|share| u64::from(share.weight)).sum();
        let mut at = (u128::from(turn) * u128::from(total)) >> 64;
        let chosen = self.open().find(|share| match at.checked_sub(share.weight.into()) {
            Some(rest) => {
                at = rest;
                false
            }
            None => true,
        });
        chosen.map(|share| share.version.as_str())
    }

    /// The version that gets a copy of the request that was chosen for last, if that one is to be copied.
    pub fn shadow(&self) -> Option<&str> {
        let shadow = self.traffic.shadow.as_ref()?;
        let turn = self.requests.load(Relaxed);
        let percent = u64::from(shadow.percent);
        // The copies are spread: one whenever the running total of percent passes another hundred.
        let copied = (turn.wrapping_add(1) * percent) / 100 != (turn * percent) / 100;
        copied.then_some(shadow.version.as_str())
    }

    pub fn trial(&self, version: &str) -> Option<Arc<Trial>> {
        self.trials.get(version).cloned()
    }

    /// Percentage of requests that a version gets, and why it gets none any more.
    pub fn share(&self, version: &str) -> (Option<u32>, Option<String>) {
        let total: u64 = self.open().map(|share| u64::from(share.weight)).sum();
        let own = self.open().find(|share| share.version == version);
        let percent = own.filter(|_| total > 0).map(|share| u64::from(share.weight) * 100 / total);
        let verdict = self.trials.get(version).and_then(|trial| trial.verdict.get().cloned());
        (percent.and_then(|percent| u32::try_from(percent).ok()), verdict)
    }

    fn open(&self) -> impl Iterator<Item = &Share> {
        let failed = |share: &&Share| {
            self.trials.get(&share.version).is_none_or(|trial| trial.verdict.get().is_none())
        };
        self.traffic.split.iter().filter(failed)
    }
}

impl Trial {
    /// Notes how a run of its version went.
    pub fn hear(&self, model: &Served, went_well: bool, took: Duration) {
        if let Some(verdict) = self.record(went_well, took) {
            let Served { name, version, .. } = model;
            tracing::warn!(model = name, version, "rolled back: {verdict}");
        }
    }

    /// Whether this is longer than it should take.
    pub fn is_too_slow(&self, took: Duration) -> bool {
        self.bounds.max_latency_milliseconds.is_some_and(|bound| took.as_millis() > bound.into())
    }

    /// Notes an outcome; gives the verdict when this one crossed a bound.
    fn record(&self, ok: bool, took: Duration) -> Option<&str> {
        let answered = self.answered.fetch_add(1, Relaxed) + 1;
        let failed = if ok { self.failed.load(Relaxed) } else { self.failed.fetch_add(1, Relaxed) + 1 };
        self.latency.record(took);
        let enough =
            if self.bounds.min_requests == 0 { MIN_REQUESTS } else { self.bounds.min_requests.into() };
        if answered < enough || self.verdict.get().is_some() {
            return None;
        }
        let verdict = self.judge(answered, failed)?;
        self.verdict.set(verdict).ok()?;
        let verdict = self.verdict.get()?;
        if let Some(Note { kept, key, weight }) = &self.note {
            let (bounds, verdict) = (self.bounds.clone(), verdict.clone());
            kept.put(TABLE, key.clone(), &Record { format: FORMAT, weight: *weight, bounds, verdict });
        }
        Some(verdict)
    }

    fn judge(&self, answered: u64, failed: u64) -> Option<String> {
        if let Some(bound) = self.bounds.max_error_percent
            && failed * 100 > u64::from(bound) * answered
        {
            return Some(format!("{failed} of {answered} requests failed; at most {bound}% may"));
        }
        let bound = self.bounds.max_latency_milliseconds?;
        let p99 = self.latency.quantile(0.99).as_millis();
        (p99 > bound.into()).then(|| format!("99% of requests took up to {p99} ms; the bound is {bound} ms"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(traffic: Traffic, before: Option<&Route>) -> Route {
        Route::new(traffic, Some("1"), before, &Verdicts { kept: &Arc::default(), model: "m" })
    }

    fn route(split: &[(&str, u32)], rollback: Option<Rollback>) -> Route {
        let share = |&(version, weight): &(&str, u32)| Share { version: version.into(), weight };
        let split = split.iter().map(share).collect();
        routed(Traffic { split, rollback, ..Traffic::default() }, None)
    }

    fn chosen(route: &Route, requests: usize) -> HashMap<Option<String>, usize> {
        let mut counts = HashMap::new();
        for _ in 0..requests {
            *counts.entry(route.choose().map(str::to_owned)).or_default() += 1;
        }
        counts
    }

    #[test]
    fn shares_are_met_over_short_stretches_too() {
        let route = route(&[("1", 90), ("2", 10)], None);
        for _ in 0..20 {
            let canary = chosen(&route, 50)[&Some("2".into())];
            assert!((3..=7).contains(&canary), "{canary}");
        }
        assert_eq!(route.share("2"), (Some(10), None));
        assert_eq!(super::Route::default().choose(), None);
    }

    #[test]
    fn a_version_that_fails_too_often_loses_its_share() {
        let bounds = Rollback { max_error_percent: Some(10), min_requests: 10, ..Rollback::default() };
        let route = route(&[("1", 50), ("2", 50)], Some(bounds));
        assert!(route.trial("1").is_none(), "the default version is never rolled back");
        let trial = route.trial("2").unwrap();
        for _ in 0..9 {
            assert_eq!(trial.record(false, Duration::ZERO), None, "too few to judge");
        }
        assert_eq!(trial.record(false, Duration::ZERO), Some("10 of 10 requests failed; at most 10% may"));
        assert_eq!(trial.record(false, Duration::ZERO), None, "told once");
        assert_eq!(chosen(&route, 10), HashMap::from([(Some("1".into()), 10)]));
        let (share, verdict) = route.share("2");
        assert!(share.is_none() && verdict.unwrap().starts_with("10 of 10"));
    }

    #[test]
    fn a_version_that_is_too_slow_loses_its_share() {
        let bounds = Rollback { max_latency_milliseconds: Some(20), ..Rollback::default() };
        let route = route(&[("1", 1), ("2", 1)], Some(bounds));
        let trial = route.trial("2").unwrap();
        for _ in 0..19 {
            assert_eq!(trial.record(true, Duration::from_millis(50)), None);
        }
        assert!(trial.record(true, Duration::from_millis(50)).unwrap().contains("the bound is 20 ms"));
    }

    #[test]
    fn an_unchanged_share_keeps_its_record_and_a_changed_one_starts_anew() {
        let bounds = Some(Rollback { max_error_percent: Some(0), min_requests: 1, ..Rollback::default() });
        let before = route(&[("1", 50), ("2", 50)], bounds);
        before.trial("2").unwrap().record(false, Duration::ZERO).unwrap();
        let same = routed(before.traffic.clone(), Some(&before));
        assert!(same.share("2").1.is_some());
        let mut traffic = before.traffic.clone();
        traffic.split[1].weight = 5;
        assert_eq!(routed(traffic, Some(&before)).share("2"), (Some(9), None));
    }

    #[test]
    fn a_verdict_outlives_the_process_as_long_as_share_and_bounds_stay() {
        let folder = tempfile::tempdir().unwrap();
        let start = || {
            let ledger = store::Ledger::open(&folder.path().join("l.db")).unwrap();
            Arc::new(Kept::start(Some(ledger)).unwrap())
        };
        let share = |weight| vec![Share { version: "2".into(), weight }];
        let bounds = Some(Rollback { max_error_percent: Some(0), min_requests: 1, ..Rollback::default() });
        let traffic = |weight, rollback| Traffic { split: share(weight), rollback, ..Traffic::default() };
        let verdict = |route: &Route| route.share("2").1;
        let first = |kept: &Arc<Kept>, traffic| {
            Route::new(traffic, Some("1"), Some(&Route::default()), &Verdicts { kept, model: "m" })
        };
        let kept = start();
        let route = first(&kept, traffic(5, bounds.clone()));
        route.trial("2").unwrap().record(false, Duration::ZERO).unwrap();
        drop((route, kept));

        let kept = start();
        let told = Some("1 of 1 requests failed; at most 0% may".to_owned());
        let route = first(&kept, traffic(5, bounds.clone()));
        assert_eq!(verdict(&route), told);
        assert_eq!(verdict(&first(&kept, traffic(6, bounds.clone()))), None, "another share");
        let other = Some(Rollback { max_error_percent: Some(1), ..Rollback::default() });
        assert_eq!(verdict(&first(&kept, traffic(5, other))), None, "other bounds");
        let verdicts = Verdicts { kept: &kept, model: "m" };
        let changed = Route::new(traffic(6, bounds.clone()), Some("1"), Some(&route), &verdicts);
        assert_eq!(verdict(&changed), None);
        drop((route, changed, kept));
        let kept = start();
        assert_eq!(verdict(&first(&kept, traffic(5, bounds))), None, "the change forgave it for good");
    }

    #[test]
    fn copies_are_spread_evenly() {
        let shadow = Some(types::Shadow { version: "2".into(), percent: 30 });
        let route = routed(Traffic { shadow, ..Traffic::default() }, None);
        let copies = (0..100).filter(|_| {
            assert_eq!(route.choose(), None);
            route.shadow().is_some()
        });
        assert_eq!(copies.count(), 30);
    }
}
