//! How far one site is with a change.

use std::time::Duration;

use jiff::Timestamp;
use types::{Condition, ConditionStatus, condition};

/// How far a site is with a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It is to get it, or was not heard of it yet.
    ToApply,
    /// It is at it.
    Progressing,
    /// It runs it.
    Succeeded,
    /// It can't run it.
    Failed,
    /// It was at it, or failed, for longer than it may.
    TimeOut,
    /// It is left out.
    Skip,
    /// Something else was said; treated as [`Progress::Progressing`].
    Unknown,
}

/// What follows for a site from how far it is, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// It is rolled out to, and looked at again then.
    Roll(Option<Timestamp>),
    /// Its time was over then.
    TimeOut(Timestamp),
    /// Nothing is to be done about it.
    Leave,
}

/// What follows for a site that is so far since then. `soak` is how long a success has to last before it counts,
/// `deadline` how long trying and failing may last; `None` is for ever. A site of which it is not known since when it is so far is so far
/// since now.
pub fn determine(
    progress: Progress,
    since: Option<Timestamp>,
    soak: Duration,
    deadline: Option<Duration>,
    now: Timestamp,
) -> Verdict {
    let until = |span: Duration| since.unwrap_or(now).checked_add(span).unwrap_or(Timestamp::MAX);
    match progress {
        Progress::ToApply => Verdict::Roll(None),
        Progress::Succeeded if now < until(soak) => Verdict::Roll(Some(until(soak))),
        Progress::Succeeded | Progress::TimeOut | Progress::Skip => Verdict::Leave,
        Progress::Progressing | Progress::Failed | Progress::Unknown => match deadline.map(until) {
            None => Verdict::Roll(None),
            Some(ends) if now < ends => Verdict::Roll(Some(ends)),
            Some(ended) => Verdict::TimeOut(ended),
        },
    }
}

/// A condition as [`progress_of`] looks at it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WorkCondition {
    /// Whether it holds.
    pub status: ConditionStatus,
    /// The generation that it is about.
    pub observed_generation: i64,
}

impl WorkCondition {
    /// The condition of that type, if there is one.
    pub fn find(conditions: &[Condition], kind: &str) -> Option<Self> {
        let found = condition(conditions, kind)?;
        Some(Self { status: found.status, observed_generation: found.observed_generation })
    }
}

/// Whether what a site tells is not about this generation yet: it applied none, or an older one.
pub fn is_to_apply(
    generation: i64,
    applied: Option<WorkCondition>,
    progressing: Option<WorkCondition>,
    degraded: Option<WorkCondition>,
) -> bool {
    let is_stale = |told: WorkCondition| told.observed_generation != generation;
    applied.is_none_or(|applied| is_stale(applied) || applied.status != ConditionStatus::True)
        || progressing.is_none_or(is_stale)
        || degraded.is_some_and(is_stale)
}

/// How far a site is, by the conditions that it told of this generation, and the type of the condition that dates
/// it, if one does.
pub fn progress_of(
    generation: i64,
    applied: Option<WorkCondition>,
    progressing: Option<WorkCondition>,
    degraded: Option<WorkCondition>,
) -> (Progress, Option<&'static str>) {
    let Some(at_work) = progressing.filter(|_| !is_to_apply(generation, applied, progressing, degraded))
    else {
        return (Progress::ToApply, None);
    };
    let is_degraded = degraded.is_some_and(|degraded| degraded.status == ConditionStatus::True);
    match at_work.status {
        ConditionStatus::True if is_degraded => (Progress::Failed, Some("Degraded")),
        ConditionStatus::False => (Progress::Succeeded, Some("Progressing")),
        ConditionStatus::True | ConditionStatus::Unknown => (Progress::Progressing, Some("Progressing")),
    }
}
