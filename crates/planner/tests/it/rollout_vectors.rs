//! The rollouts that production runs, held against what Open Cluster Management's handler answers to the same vectors:
//! the spec is translated by what controllers use, and [`advance`] says who is next.
//!
//! Where it deliberately stops and the handler goes on, [`STRICTER`] says why. What failed holds no place in production,
//! so it is not compared as being at work.

use std::collections::{BTreeMap, BTreeSet};

use avocet_planner::rollout::{
    Budget, Haste, Member, Outcome, State, advance, deadline, go_duration, stage_of, stages,
};
use serde::Deserialize;
use serde_json::{Value, json};
use types::{Rollout, Time};

#[derive(Deserialize)]
struct File {
    vectors: Vec<Value>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    input: Input,
    expected: Expected,
    now: Time,
}

#[derive(Deserialize)]
struct Input {
    strategy: Value,
    groups: Vec<Group>,
    existing: Vec<Entry>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    name: String,
    index: i64,
    clusters: Vec<String>,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
struct Entry {
    cluster: String,
    status: String,
    #[serde(default)]
    last_transition_time: Option<Time>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Expected {
    #[serde(default)]
    to_rollout: Vec<Entry>,
    #[serde(default)]
    timed_out: Vec<Entry>,
    #[serde(default)]
    max_failure_breach: bool,
}

/// Vectors at which production stops because of failures that the handler doesn't count there and then.
const STRICTER: [(&str, &str); 4] = [
    (
        "oracle-rollout-054",
        "c06 is of a mandatory group and timed out; the handler starts c01 and c03 of the next one",
    ),
    (
        "oracle-rollout-118",
        "c07 failed in group 1, where none may; the handler goes on with group 0, which is before it",
    ),
    ("oracle-rollout-187", "c07 timed out in group 2, where none may; the handler goes on with group 0"),
    (
        "oracle-rollout-258",
        "c03 failed in group 0, where none may; the handler says so, and starts c01 all the same",
    ),
];

/// What both answer, in the words of production.
#[derive(Debug, PartialEq)]
struct Answer {
    told: Vec<String>,
    at_work: usize,
    breach: bool,
    /// Those whose time is over, and who failed before.
    failed: BTreeSet<String>,
}

/// A group's name by its place, which is unique.
fn group_name(index: i64) -> String {
    format!("group-{index}")
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// The spec that says what the strategy does. Mandatory groups are named in their order.
fn rollout(input: &Input) -> Rollout {
    let kind = text(&input.strategy, "type");
    let part = &input.strategy[match kind {
        "All" => "all",
        "Progressive" => "progressive",
        _ => "progressivePerGroup",
    }];
    let mut groups: Vec<&Group> = input.groups.iter().collect();
    groups.sort_by_key(|group| group.index);
    let is_mandatory = |group: &&&Group| {
        part["mandatoryDecisionGroups"].as_array().into_iter().flatten().any(|wanted| {
            match text(wanted, "groupName") {
                "" => wanted["groupIndex"].as_i64().unwrap_or_default() == group.index,
                name => group.name == name,
            }
        })
    };
    let mandatory: Vec<String> =
        groups.iter().filter(is_mandatory).map(|group| group_name(group.index)).collect();
    let mut spec = json!({"type": kind, "mandatoryGroups": mandatory,
        "groups": groups.iter().map(|group| json!({"name": group_name(group.index), "siteSelector": {}})).collect::<Vec<_>>()});
    if kind != "All" {
        spec["maxFailures"] = part.get("maxFailures").cloned().unwrap_or(json!(0));
    }
    // None at once is how the other writes that nothing was said.
    if let Some(concurrency) = part.get("maxConcurrency").filter(|concurrency| **concurrency != json!(0)) {
        spec["maxConcurrency"] = concurrency.clone();
    }
    let seconds = |span: std::time::Duration| json!(format!("{}s", span.as_secs()));
    if let Some(soak) = go_duration(text(part, "minSuccessTime")).filter(|_| kind != "All") {
        spec["minSuccessTime"] = seconds(soak);
    }
    if let Some(ends) = deadline(text(part, "progressDeadline")).unwrap() {
        spec["progressDeadline"] = seconds(ends);
    }
    serde_json::from_value(spec).unwrap()
}

fn state(entry: Option<&Entry>, now: Time) -> State {
    let Some(entry) = entry else { return State::Waiting };
    let since = entry.last_transition_time.unwrap_or(now).0;
    match entry.status.as_str() {
        "ToApply" => State::Waiting,
        "Progressing" => State::Working(since),
        "Succeeded" => State::Running(since),
        "Failed" | "TimeOut" => State::Failed,
        "Skip" => State::Held(None),
        other => panic!("{other}"),
    }
}

/// What production does.
fn production(case: &Case) -> Answer {
    let rollout = rollout(&case.input);
    let stages = stages(&rollout, Haste::default());
    let entries: BTreeMap<&str, &Entry> =
        case.input.existing.iter().map(|entry| (entry.cluster.as_str(), entry)).collect();
    let mut members: Vec<Member> = Vec::new();
    for group in &case.input.groups {
        let stage = stage_of(Some(&group_name(group.index)), &stages);
        members.extend(group.clusters.iter().map(|site| {
            let state = state(entries.get(site.as_str()).copied(), case.now);
            Member { site: site.clone(), stage, state }
        }));
    }
    members.sort_by(|a, b| a.site.cmp(&b.site));
    let step = advance(&stages, &members, &Budget::of(&rollout, Haste::default()), case.now.0);
    let at_work = step.counts.progressing + step.counts.soaking;
    Answer {
        told: step.start,
        at_work: at_work as usize,
        breach: step.outcome == Outcome::Breached,
        failed: step.failed.into_iter().collect(),
    }
}

/// What the handler does.
fn handler(expected: &Expected) -> Answer {
    let of = |is_it: fn(&str) -> bool| {
        let entries = expected.to_rollout.iter().filter(move |entry| is_it(&entry.status));
        entries.map(|entry| entry.cluster.clone())
    };
    let mut told: Vec<String> = of(|status| status == "ToApply").collect();
    told.sort();
    let timed_out = expected.timed_out.iter().map(|entry| entry.cluster.clone());
    Answer {
        told,
        at_work: of(|status| !matches!(status, "ToApply" | "Failed")).count(),
        breach: expected.max_failure_breach,
        failed: of(|status| status == "Failed").chain(timed_out).collect(),
    }
}

#[test]
fn what_production_runs_answers_vectors_as_the_handler_does_or_stops_earlier() {
    let (mut count, mut stricter) = (0, vec![]);
    for text in [include_str!("../data/ocm_unit.json"), include_str!("../data/ocm_random.json")] {
        let file: File = serde_json::from_str(text).unwrap();
        for vector in file.vectors.into_iter().filter(|vector| vector["kind"] == "rollout") {
            let case: Case = serde_json::from_value(vector).unwrap();
            count += 1;
            let (ours, theirs) = (production(&case), handler(&case.expected));
            let id = &case.id;
            assert!(
                ours.failed.is_superset(&theirs.failed),
                "{id}: a failure is not counted: {ours:?}, {theirs:?}"
            );
            if let Some((id, _)) = STRICTER.iter().find(|(stricter, _)| stricter == id) {
                assert!(
                    ours.breach && ours.told.is_empty() && !theirs.told.is_empty(),
                    "{id}: {ours:?}, {theirs:?}"
                );
                stricter.push(*id);
                continue;
            }
            // Where sites failed earlier the handler forgets them in its answer; who is told is the same.
            let theirs = Answer { failed: ours.failed.clone(), ..theirs };
            assert_eq!(ours, theirs, "{id}");
        }
    }
    assert_eq!((count, stricter), (36, STRICTER.map(|(id, _)| id).to_vec()));
}
