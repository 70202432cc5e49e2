//! What is told of a turn: conditions, status, events.

use types::names::annotation;
use types::{
    Condition, ConditionStatus, FailedObject, Source, SourceDrift, SourceStatus, Time, condition,
    set_condition,
};

use super::apply::{MOST_DRIFTS, MOST_FAILURES, Outcome};
use crate::Occurrence;

/// Why a turn failed.
#[derive(Debug)]
pub struct Failure {
    /// A CamelCase word.
    pub reason: &'static str,
    /// What failed and what to do.
    pub message: String,
    /// Whether it stays so until somebody does something.
    pub is_stalled: bool,
    pub failures: Vec<FailedObject>,
}

impl Failure {
    /// One that passes by itself.
    pub fn passing(reason: &'static str, message: impl Into<String>) -> Self {
        Self { is_stalled: false, ..Self::new(reason, message) }
    }

    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), is_stalled: true, failures: vec![] }
    }
}

impl From<sources::Error> for Failure {
    fn from(error: sources::Error) -> Self {
        Self { is_stalled: error.is_lasting(), ..Self::new(error.reason(), error.to_string()) }
    }
}

/// What is known of a turn that came as far as the objects.
#[derive(Debug)]
pub struct Done {
    pub revision: String,
    pub bytes: u64,
    pub outcome: Outcome,
}

/// The status after a turn for `source`, and what there is to tell of it.
pub fn report(
    source: &Source,
    turn: &Result<Done, Failure>,
    attempted: &str,
    now: Time,
) -> (SourceStatus, Vec<Occurrence>) {
    let mut status = source.status.clone();
    status.observed_generation = source.metadata.generation;
    let asked = source.metadata.annotations.get(annotation::RECONCILE_AT);
    status.last_handled_reconcile_at = asked.cloned().unwrap_or_default();
    if !attempted.is_empty() {
        attempted.clone_into(&mut status.last_attempted_revision);
    }
    let told = match turn {
        Ok(done) if done.outcome.failures.is_empty() => succeeded(source, &mut status, done, now),
        Ok(done) => partly(source, &mut status, done, now),
        Err(failure) => failed(source, &mut status, failure, now),
    };
    (status, told)
}

fn succeeded(source: &Source, status: &mut SourceStatus, done: &Done, now: Time) -> Vec<Occurrence> {
    let Done { revision, bytes, outcome } = done;
    let is_new = status.last_applied_revision != *revision;
    if is_new || outcome.changed + outcome.pruned > 0 || status.last_applied_time.is_none() {
        status.last_applied_time = Some(now);
    }
    status.last_applied_revision.clone_from(revision);
    status.artifact_bytes = *bytes;
    status.inventory.clone_from(&outcome.inventory);
    status.objects = u32::try_from(outcome.inventory.len()).unwrap_or(u32::MAX);
    status.failures.clear();
    let drifted = drift(status, outcome, is_new);
    let count = outcome.inventory.len();
    let (objects, are) = if count == 1 { ("object", "is") } else { ("objects", "are") };
    let message = match drifted {
        0 => format!("{count} {objects} {are} as the repository says"),
        drifted => format!("{count} {objects} {are} applied; {drifted} of them were changed by others since"),
    };
    conclude(source, status, (ConditionStatus::True, "Applied", &message), false, now);
    let mut told = Vec::new();
    if is_new {
        let (changed, pruned) = (outcome.changed, outcome.pruned);
        let message = format!("applied {revision}: {changed} of {count} objects changed, {pruned} deleted");
        told.push(Occurrence::normal(source, "Applied", message));
    }
    for one in &outcome.drift {
        let what = if one.fields.is_empty() { "it was deleted".into() } else { one.fields.join(", ") };
        let (reason, end) = if one.corrected {
            ("DriftCorrected", "; it was put right")
        } else {
            ("Drifted", "; it is left so")
        };
        told.push(Occurrence::warning(
            source,
            reason,
            format!("{} was changed by others: {what}{end}", one.object),
        ));
    }
    told
}

/// Notes how objects differ; answers how many still do.
fn drift(status: &mut SourceStatus, outcome: &Outcome, is_new: bool) -> usize {
    let old = std::mem::take(&mut status.drift);
    let mut found: Vec<SourceDrift> = outcome.drift.clone();
    for one in &mut found {
        let same =
            old.iter().find(|old| old.object == one.object && old.fields == one.fields && !one.corrected);
        one.seen = same.map_or(one.seen, |old| old.seen);
    }
    let still = found.iter().filter(|one| !one.corrected).count();
    if found.is_empty() && !is_new {
        // What was put right stays told until there is something newer.
        found = old.into_iter().filter(|one| one.corrected).collect();
    }
    found.truncate(MOST_DRIFTS);
    status.drift = found;
    still
}

fn partly(source: &Source, status: &mut SourceStatus, done: &Done, now: Time) -> Vec<Occurrence> {
    let outcome = &done.outcome;
    status.inventory.clone_from(&outcome.inventory);
    status.objects = u32::try_from(outcome.inventory.len()).unwrap_or(u32::MAX);
    let message = failures_in_words(&outcome.failures, "could not be applied or deleted");
    let failure = Failure {
        is_stalled: false,
        failures: outcome.failures.clone(),
        ..Failure::new("ApplyFailed", message)
    };
    failed(source, status, &failure, now)
}

/// A sentence about what failed first, and how much more did.
pub fn failures_in_words(failures: &[FailedObject], what: &str) -> String {
    let Some(first) = failures.first() else { return String::new() };
    let place = if first.origin.is_empty() { String::new() } else { format!(" ({})", first.origin) };
    let more = match failures.len() {
        1 => String::new(),
        all => format!("; so it is with {} more", all - 1),
    };
    format!("{}{place} {what}: {}{more}", first.object, first.message)
}

fn failed(source: &Source, status: &mut SourceStatus, failure: &Failure, now: Time) -> Vec<Occurrence> {
    let Failure { reason, message, is_stalled, failures } = failure;
    status.failures = failures.iter().take(MOST_FAILURES).cloned().collect();
    let before =
        condition(&status.conditions, "Ready").map(|known| (known.reason.clone(), known.message.clone()));
    conclude(source, status, (ConditionStatus::False, reason, message), *is_stalled, now);
    match before {
        Some((known, told)) if known == *reason && told == *message => vec![],
        _ => vec![Occurrence::warning(source, reason, message.clone())],
    }
}

fn conclude(
    source: &Source,
    status: &mut SourceStatus,
    (ready, reason, message): (ConditionStatus, &str, &str),
    is_stalled: bool,
    now: Time,
) {
    let drifted = status.drift.iter().any(|one| !one.corrected);
    let truth = |holds: bool| if holds { ConditionStatus::True } else { ConditionStatus::False };
    let is_failing = ready == ConditionStatus::False;
    let settled = if is_failing { "" } else { "Settled" };
    let word = |holds: bool, yes: &str| if holds { yes.to_owned() } else { "No".to_owned() + yes };
    for (kind, status_of, reason, message) in [
        ("Ready", ready, reason.to_owned(), message.to_owned()),
        (
            "Reconciling",
            truth(is_failing && !is_stalled),
            if is_failing { "TryingAgain".into() } else { settled.to_owned() },
            String::new(),
        ),
        (
            "Stalled",
            truth(is_stalled),
            if is_stalled { reason.to_owned() } else { "NotStalled".into() },
            String::new(),
        ),
        ("Drifted", truth(drifted), word(drifted, "Drift"), String::new()),
    ] {
        let new = Condition {
            kind: kind.to_owned(),
            status: status_of,
            observed_generation: source.metadata.generation,
            last_transition_time: now,
            reason,
            message,
        };
        set_condition(&mut status.conditions, new);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use types::{AppliedObject, ObjectMeta, SourceSpec};

    use super::*;

    fn source() -> Source {
        let spec: SourceSpec =
            serde_json::from_value(json!({"git": {"url": "https://git.example.com/x"}})).unwrap();
        Source::new(ObjectMeta { generation: 3, ..ObjectMeta::named("deploy") }, spec)
    }

    fn done(revision: &str, outcome: Outcome) -> Result<Done, Failure> {
        Ok(Done { revision: revision.into(), bytes: 10, outcome })
    }

    fn outcome(drift: Vec<SourceDrift>) -> Outcome {
        Outcome { inventory: vec![AppliedObject::default()], drift, ..Outcome::default() }
    }

    fn of<'a>(status: &'a SourceStatus, kind: &str) -> (&'a str, ConditionStatus) {
        let found = condition(&status.conditions, kind).unwrap();
        (&found.reason, found.status)
    }

    #[test]
    fn a_failure_leaves_what_was_applied_and_is_told_once() {
        let mut source = source();
        let now = "2026-01-01T00:00:00Z".parse().map(Time).unwrap();
        let (status, told) = report(&source, &done("main@sha1:a", outcome(vec![])), "main@sha1:a", now);
        assert_eq!(of(&status, "Ready"), ("Applied", ConditionStatus::True));
        assert_eq!((status.observed_generation, status.objects, told.len()), (3, 1, 1));
        source.status = status;
        let broken = Err(Failure::new("BuildFailed", "x.yaml line 3: no YAML"));
        let (status, told) = report(&source, &broken, "main@sha1:b", now);
        assert_eq!(status.last_applied_revision, "main@sha1:a");
        assert_eq!(status.last_attempted_revision, "main@sha1:b");
        assert_eq!(of(&status, "Stalled"), ("BuildFailed", ConditionStatus::True));
        assert_eq!((status.inventory.len(), told.len()), (1, 1));
        source.status = status;
        assert_eq!(report(&source, &broken, "main@sha1:b", now).1, []);
    }

    #[test]
    fn drift_that_was_put_right_stays_told_until_the_next_commit() {
        let mut source = source();
        let now = "2026-01-01T00:00:00Z".parse().map(Time).unwrap();
        let one = SourceDrift { object: "Secret a/b".into(), corrected: true, ..SourceDrift::default() };
        let (status, told) = report(&source, &done("r", outcome(vec![one.clone()])), "r", now);
        assert_eq!(of(&status, "Drifted").1, ConditionStatus::False);
        assert_eq!(told.last().unwrap().reason, "DriftCorrected");
        source.status = status;
        source.status = report(&source, &done("r", outcome(vec![])), "r", now).0;
        assert_eq!(source.status.drift, [one]);
        source.status = report(&source, &done("s", outcome(vec![])), "s", now).0;
        assert_eq!(source.status.drift, []);
    }
}
