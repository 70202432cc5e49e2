//! A site that does what it is told as soon as it hears it, goes on while it hears nothing, and tells how it stands.

use std::collections::BTreeMap;

use serde_json::json;
use types::{Assignment, Condition};

use super::chance::Chance;
use crate::testing::at;

/// How often a site says that it lives, in seconds.
const BEAT: i64 = 5;
/// How often it tells again what the hub should know already, in seconds.
const TELL_AGAIN: i64 = 60;

/// What is wrong with a site for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Nature {
    Good,
    /// It fails whatever it is told to run.
    Broken,
    /// It takes longer than any deadline, now and then.
    Slow,
}

/// What a site tells of one assignment.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    pub site: String,
    pub assignment: String,
    pub uid: String,
    pub condition: Condition,
}

/// An assignment as a site knows it.
#[derive(Debug, Clone)]
struct Known {
    uid: String,
    generation: i64,
    version: String,
    /// When it is ready to run; `None` once it was tried.
    ready_at: Option<i64>,
    has_failed: bool,
    told: Option<Condition>,
    told_at: i64,
}

#[derive(Debug)]
pub struct Site {
    pub name: String,
    pub nature: Nature,
    /// Until when nothing it says arrives, and until when nothing it is told does.
    pub mute_until: i64,
    pub deaf_until: i64,
    /// By how many seconds its clock is wrong.
    skew: i64,
    known: BTreeMap<String, Known>,
    /// What it runs of each assignment.
    pub runs: BTreeMap<String, String>,
}

/// Whether a version fails at a site.
fn is_bad(version: &str, site: &str) -> bool {
    let sum: usize = version.bytes().chain(site.bytes()).map(usize::from).sum();
    version.starts_with("bad") && sum.is_multiple_of(3)
}

impl Site {
    pub fn new(name: &str, nature: Nature, chance: &mut Chance) -> Self {
        Self {
            name: name.to_owned(),
            nature,
            mute_until: 0,
            deaf_until: 0,
            skew: chance.seconds(-3600, 3600),
            known: BTreeMap::new(),
            runs: BTreeMap::new(),
        }
    }

    /// What was slow isn't any more.
    pub fn recover(&mut self, now: i64) {
        if self.nature == Nature::Slow {
            self.nature = Nature::Good;
        }
        for known in self.known.values_mut() {
            known.ready_at = known.ready_at.map(|ready| ready.min(now));
        }
    }

    pub fn is_mute(&self, now: i64) -> bool {
        now < self.mute_until
    }

    /// Since when it is reached in both directions.
    pub fn connected_since(&self) -> i64 {
        self.mute_until.max(self.deaf_until)
    }

    pub fn beats(&self, now: i64) -> bool {
        !self.is_mute(now) && now % BEAT == 0
    }

    /// Takes over what it is told now, if it hears it.
    pub fn hear(&mut self, told: &[&Assignment], now: i64, chance: &mut Chance) {
        if now < self.deaf_until {
            return;
        }
        let is_told = |name: &String| told.iter().any(|assignment| assignment.name() == name);
        self.known.retain(|name, _| is_told(name));
        self.runs.retain(|name, _| is_told(name));
        for assignment in told {
            let (uid, generation) = (&assignment.metadata.uid, assignment.metadata.generation);
            let is_same = |known: &Known| known.uid == *uid && known.generation == generation;
            if self.known.get(assignment.name()).is_some_and(is_same) {
                continue;
            }
            let hangs = self.nature == Nature::Slow && chance.one_in(2);
            let takes = if hangs { 1_000_000 } else { chance.seconds(1, 8) };
            let known = Known {
                uid: uid.clone(),
                generation,
                version: assignment.spec.function.as_ref().unwrap().spec.handler.clone(),
                ready_at: Some(now + takes),
                has_failed: false,
                told: None,
                told_at: 0,
            };
            self.known.insert(assignment.name().to_owned(), known);
        }
    }

    /// Runs what is ready. What runs already goes on until then.
    pub fn work(&mut self, now: i64) {
        for (name, known) in &mut self.known {
            if known.ready_at.is_some_and(|ready| ready <= now) {
                known.ready_at = None;
                known.has_failed = self.nature == Nature::Broken || is_bad(&known.version, &self.name);
                if known.has_failed {
                    self.runs.remove(name);
                } else {
                    self.runs.insert(name.clone(), known.version.clone());
                }
            }
        }
    }

    /// What is news to the hub, as far as this site knows.
    pub fn report(&mut self, now: i64) -> Vec<Report> {
        if self.is_mute(now) {
            return vec![];
        }
        let mut reports = Vec::new();
        for (name, known) in &mut self.known {
            let (status, reason) = match (known.ready_at, known.has_failed) {
                (Some(_), _) => ("False", "Preparing"),
                (None, true) => ("False", "FunctionFailed"),
                (None, false) => ("True", "Running"),
            };
            let condition = json!({"type": "Available", "status": status, "reason": reason, "message": "",
                "observedGeneration": known.generation, "lastTransitionTime": at(self.skew)});
            let condition: Condition = serde_json::from_value(condition).unwrap();
            if known.told.as_ref() != Some(&condition) || now - known.told_at >= TELL_AGAIN {
                (known.told, known.told_at) = (Some(condition.clone()), now);
                let (site, uid) = (self.name.clone(), known.uid.clone());
                reports.push(Report { site, assignment: name.clone(), uid, condition });
            }
        }
        reports
    }

    /// A report did not arrive.
    pub fn missed(&mut self, report: &Report) {
        if let Some(known) = self.known.get_mut(&report.assignment) {
            known.told = None;
        }
    }
}
