//! Filters, scores and whole decisions.

use std::collections::{BTreeMap, BTreeSet};

use avocet_planner::{Outcome, holds_all, normalized_score};
use jiff::Timestamp;
use schema::cel::Expression;
use serde_json::{Value, json};
use types::PlacementSpec;

use super::super::{Case, Verdict};
use super::sets;
use super::world::{self, Cluster, Input, Unreadable, set};

pub fn input(case: &Case) -> Result<Input, String> {
    serde_json::from_value(without_nulls(case.input.clone())).map_err(|error| format!("input: {error}"))
}

/// What is null isn't there, as they have it.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, field)| !field.is_null())
            .map(|(name, field)| (name, without_nulls(field)))
            .collect(),
        Value::Array(entries) => entries.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

fn now(case: &Case) -> Timestamp {
    case.now.map_or(Timestamp::UNIX_EPOCH, |now| now.0)
}

fn names(value: Option<&Value>) -> BTreeSet<String> {
    let names = value.and_then(Value::as_array).into_iter().flatten();
    names.filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

/// The sites that this filter and those before it let pass.
fn passed(outcome: &Outcome, filter: &str) -> BTreeSet<String> {
    let fails = |name: &str| name == "Predicate" || (filter != "Predicate" && name == filter);
    let passed = outcome.verdicts.iter().filter(|verdict| !verdict.filter.is_some_and(fails));
    passed.map(|verdict| verdict.site.clone()).collect()
}

/// Whether a time is the one that is expected, where one is.
fn requeue(case: &Case, actual: Option<Timestamp>) -> Result<Verdict, String> {
    let expected = match case.expected.get("requeueAt") {
        None => return Ok(Verdict::Pass),
        Some(Value::Null) => None,
        Some(time) => {
            Some(serde_json::from_value(time.clone()).map_err(|error| format!("requeueAt: {error}"))?)
        }
    };
    Ok(Verdict::compare("requeueAt", &actual, &expected))
}

fn status(case: &Case, actual: &str) -> Verdict {
    let expected = case.expected.get("status").and_then(Value::as_str).unwrap_or("Success");
    Verdict::compare("status", &actual, &expected)
}

fn message(case: &Case, actual: &[String]) -> Verdict {
    match case.expected.get("message").and_then(Value::as_str) {
        Some(expected) if !actual.iter().any(|message| message == expected) => {
            Verdict::Fail(format!("message is {actual:?}, expected {expected:?}"))
        }
        _ => Verdict::Pass,
    }
}

/// One filter alone.
pub fn filter(case: &Case, filter: &str) -> Result<Verdict, String> {
    let input = input(case)?;
    let spec = &input.placement.as_ref().ok_or("input: no placement")?.spec;
    let decided = match world::filters(spec) {
        // They don't look at filters when there is nothing to filter.
        _ if input.clusters.is_empty() => input.decide(&PlacementSpec::default(), &[], now(case))?,
        Ok(spec) => input.decide(&spec, &input.clusters, now(case))?,
        Err(wrong) => Err(wrong),
    };
    let expected = names(case.expected.get("matched"));
    match decided {
        Ok(outcome) => Ok(Verdict::all([
            Verdict::compare("matched", &passed(&outcome, filter), &expected),
            status(case, "Success"),
            requeue(case, input.requeue_at(now(case)))?,
        ])),
        Err(wrong) => Ok(Verdict::all([
            Verdict::compare("matched", &BTreeSet::new(), &expected),
            status(case, "Misconfigured"),
            message(case, &[wrong.message]),
            requeue(case, input.requeue_at(now(case)))?,
        ])),
    }
}

/// One selector on one cluster.
pub fn selector(case: &Case) -> Result<Verdict, String> {
    let input_value = &case.input;
    let cluster: Cluster = serde_json::from_value(input_value.get("cluster").cloned().unwrap_or_default())
        .map_err(|error| format!("cluster: {error}"))?;
    let selectors = input_value.get("selector").cloned().unwrap_or_default();
    let decided = match world::predicate(&selectors) {
        Ok(predicate) => {
            let spec = PlacementSpec { predicates: vec![predicate], ..PlacementSpec::default() };
            input(case)?.decide(&spec, std::slice::from_ref(&cluster), now(case))?
        }
        Err(wrong) => Err(wrong),
    };
    let matches = decided.is_ok_and(|outcome| passed(&outcome, "Predicate").contains(&cluster.name));
    let expected = case.expected.get("match").and_then(Value::as_bool).unwrap_or(false);
    Ok(Verdict::compare("match", &matches, &expected))
}

/// Expressions on one cluster, and what they cost.
pub fn cel(case: &Case) -> Result<Verdict, String> {
    let sources = names_in_order(case.input.get("expressions"));
    let variable = world::DIALECT.variable;
    let compiled: Result<Vec<Expression>, _> =
        sources.iter().map(|source| Expression::compile_over_object(source, variable)).collect();
    let expected = |word: &str| case.expected.get(word).and_then(Value::as_bool).unwrap_or(false);
    let Ok(expressions) = compiled else {
        return Ok(Verdict::all([
            Verdict::compare("compileError", &true, &expected("compileError")),
            Verdict::compare("match", &false, &expected("match")),
        ]));
    };
    let mut document = match case.input.get("cluster").cloned().unwrap_or_default() {
        Value::Null => json!({}),
        cluster => {
            let cluster: Cluster = serde_json::from_value(cluster).map_err(|error| error.to_string())?;
            world::document(&world::site(&cluster)?)
        }
    };
    let scores = input(case)?.add_on_scores.into_iter().map(|told| {
        let scores = told.scores.iter().map(|(name, value)| json!({"name": name, "value": value}));
        (told.resource, Value::Array(scores.collect()))
    });
    set(&mut document, "scores", Value::Object(scores.collect()))?;
    let budget = case.input.get("costBudget").and_then(Value::as_u64).unwrap_or(1_000_000);
    let (matches, cost) = holds_all(&expressions, &document, variable, budget);
    let cost = match case.expected.get("cost").and_then(Value::as_u64) {
        Some(expected) => Verdict::compare("cost", &cost, &expected),
        None => Verdict::Pass,
    };
    Ok(Verdict::all([
        Verdict::compare("compileError", &false, &expected("compileError")),
        Verdict::compare("match", &matches, &expected("match")),
        cost,
    ]))
}

fn names_in_order(value: Option<&Value>) -> Vec<String> {
    let names = value.and_then(Value::as_array).into_iter().flatten();
    names.filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

type Scores = BTreeMap<String, i64>;

fn expected_scores(value: Option<&Value>) -> Scores {
    let scores = value.and_then(Value::as_object).into_iter().flatten();
    scores.filter_map(|(name, score)| Some((name.clone(), score.as_i64()?))).collect()
}

/// The scores of one prioritizer, and its weight.
fn scores(outcome: &Outcome, name: &str) -> Scores {
    let of = |verdict: &avocet_planner::Verdict| {
        let term = verdict.scores.iter().find(|term| term.name == name)?;
        Some((verdict.site.clone(), term.score?))
    };
    outcome.verdicts.iter().filter_map(of).collect()
}

/// One prioritizer alone.
pub fn score(case: &Case) -> Result<Verdict, String> {
    let input = input(case)?;
    let mut given =
        input.placement.as_ref().map(|placement| placement.spec.clone()).unwrap_or_else(|| json!({}));
    let word = |key: &str| case.input.get(key).and_then(Value::as_str).unwrap_or_default();
    let name = match (case.kind.as_str(), word("resource")) {
        ("score.balance", _) => "Balance",
        ("score.steady", _) => "Steady",
        ("score.addon", _) => "AddOn/",
        ("score.resource", _) if word("algorithm") != "Allocatable" => {
            return Err(format!("unknown algorithm `{}`", word("algorithm")));
        }
        ("score.resource", "cpu") => "ResourceAllocatableCPU",
        ("score.resource", "memory") => "ResourceAllocatableMemory",
        (_, resource) => return Err(format!("unknown resource `{resource}`")),
    };
    if name != "AddOn/" {
        let coordinate = json!({"type": "BuiltIn", "builtIn": name});
        let policy =
            json!({"mode": "Exact", "configurations": [{"scoreCoordinate": coordinate, "weight": 1}]});
        set(&mut given, "prioritizerPolicy", policy)?;
    }
    let spec = world::placement(&given).map_err(|wrong| wrong.message)?;
    // A prioritizer alone scores all that it is given.
    let mut clusters = input.clusters.clone();
    clusters.iter_mut().for_each(|cluster| cluster.taints.clear());
    let outcome = input.decide(&spec, &undeleted(clusters), now(case))?.map_err(|wrong| wrong.message)?;
    let terms = outcome.verdicts.iter().flat_map(|verdict| &verdict.scores);
    let found = terms.map(|term| term.name.as_str()).find(|term| term.starts_with(name)).unwrap_or(name);
    let warned = if outcome.warnings.is_empty() { "Success" } else { "Warning" };
    Ok(Verdict::all([
        Verdict::compare("scores", &scores(&outcome, found), &expected_scores(case.expected.get("scores"))),
        status(case, warned),
        message(case, &outcome.warnings),
    ]))
}

/// That a cluster goes away they look at when they list the clusters of a placement, and not again.
fn undeleted(mut clusters: Vec<Cluster>) -> Vec<Cluster> {
    clusters.iter_mut().for_each(|cluster| cluster.deleting = false);
    clusters
}

pub fn normalize(case: &Case) -> Result<Verdict, String> {
    let number = |key: &str| case.input.get(key).and_then(Value::as_f64).ok_or(format!("input: no {key}"));
    let score = normalized_score(number("value")?, number("min")?, number("max")?);
    let expected = case.expected.get("score").and_then(Value::as_i64);
    Ok(Verdict::compare("score", &Some(i64::from(score)), &expected))
}

/// What a scheduler of theirs would have answered.
struct Scheduled {
    status: &'static str,
    messages: Vec<String>,
    /// The names of filters that were passed so far, and who passed.
    filters: Vec<(&'static str, BTreeSet<String>)>,
    outcome: Option<Outcome>,
}

const FILTERS: [(&str, &str); 2] =
    [("Predicate", "Predicate"), ("TaintToleration", "Predicate,TaintToleration")];

/// Decides as they do, step by step: where something can't be followed, what came before it is known.
fn schedule_over(input: &Input, clusters: &[Cluster], now: Timestamp) -> Result<Scheduled, String> {
    let given = &input.placement.as_ref().ok_or("input: no placement")?.spec;
    let decide = |left_out: &[&str]| -> Result<Result<Outcome, Unreadable>, String> {
        let mut given = given.clone();
        if let Some(fields) = given.as_object_mut() {
            fields.retain(|name, _| !left_out.contains(&name.as_str()));
        }
        match world::placement(&given) {
            Ok(spec) => input.decide(&spec, clusters, now),
            Err(wrong) => Ok(Err(wrong)),
        }
    };
    let misconfigured = |wrong: Unreadable, filters| Scheduled {
        status: "Misconfigured",
        messages: vec![wrong.message],
        filters,
        outcome: None,
    };
    // They don't look at a filter when there is nothing to filter.
    let mut left_out = vec!["prioritizerPolicy", "tolerations"];
    if clusters.is_empty() {
        left_out.push("predicates");
    }
    let matching = match decide(&left_out)? {
        Ok(outcome) => passed(&outcome, "Predicate"),
        Err(wrong) => return Ok(misconfigured(wrong, vec![])),
    };
    if !matching.is_empty() {
        left_out.retain(|name| *name != "tolerations");
    }
    let filters = |outcome: &Outcome| FILTERS.map(|(filter, name)| (name, passed(outcome, filter))).to_vec();
    let filtered = match decide(&left_out)? {
        Ok(outcome) => filters(&outcome),
        Err(wrong) => return Ok(misconfigured(wrong, vec![("Predicate", matching)])),
    };
    left_out.retain(|name| *name != "prioritizerPolicy");
    Ok(match decide(&left_out)? {
        Ok(outcome) => {
            let status = if outcome.warnings.is_empty() { "Success" } else { "Warning" };
            let messages = outcome.warnings.clone();
            Scheduled { status, messages, filters: filters(&outcome), outcome: Some(outcome) }
        }
        Err(wrong) => misconfigured(wrong, filtered),
    })
}

/// A whole decision.
pub fn schedule(case: &Case) -> Result<Verdict, String> {
    let input = input(case)?;
    let expected = &case.expected;
    let is_full = case.kind == "schedule.full";
    let placement = input.placement.as_ref().ok_or("input: no placement")?;
    let bindings = sets::valid_bindings(&input);
    let eligible = sets::eligible_sets(placement, &bindings);
    let clusters: Vec<Cluster> = if is_full {
        sets::available_clusters(&input, &eligible)?
    } else {
        undeleted(input.clusters.clone())
    };
    let scheduled = schedule_over(&input, &clusters, now(case))?;
    let outcome = scheduled.outcome.as_ref();
    let selected: Vec<String> = outcome.map_or_else(Vec::new, |outcome| outcome.selected.clone());
    let wanted = outcome.and_then(|_| placement.spec.get("numberOfClusters").and_then(Value::as_i64));
    let unscheduled = wanted.map_or(0, |wanted| wanted - selected.len() as i64);
    let mut verdicts = vec![
        status(case, scheduled.status),
        message(case, &scheduled.messages),
        Verdict::compare("decisions", &selected, &names_in_order(expected.get("decisions"))),
        Verdict::compare(
            "unscheduled",
            &Some(unscheduled),
            &expected.get("unscheduled").and_then(Value::as_i64),
        ),
        Verdict::compare("filters", &filters_of(&scheduled), &expected_filters(expected.get("filters"))),
        Verdict::compare("totals", &totals(outcome), &expected_scores(expected.get("totals"))),
        Verdict::compare("prioritizers", &prioritizers(outcome), &expected_prioritizers(expected, outcome)),
    ];
    if is_full {
        let available: BTreeSet<String> = clusters.iter().map(|cluster| cluster.name.clone()).collect();
        let reason =
            sets::reason(bindings.len(), eligible.len(), clusters.len(), selected.len(), unscheduled);
        let satisfied = expected.pointer("/satisfied/reason").and_then(Value::as_str).unwrap_or_default();
        let groups = sets::selected_groups(placement, &clusters, &selected)?;
        let misconfigured =
            if scheduled.status == "Misconfigured" || groups.is_none() { "True" } else { "False" };
        verdicts.extend([
            Verdict::compare("available", &available, &names(expected.get("available"))),
            requeue(case, outcome.and_then(|_| input.requeue_at(now(case))))?,
            Verdict::compare("satisfied", &reason, &satisfied),
            Verdict::compare(
                "satisfied.status",
                &if reason == "AllDecisionsScheduled" { "True" } else { "False" },
                &expected.pointer("/satisfied/status").and_then(Value::as_str).unwrap_or_default(),
            ),
            Verdict::compare(
                "misconfigured",
                &misconfigured,
                &expected.get("misconfigured").and_then(Value::as_str).unwrap_or_default(),
            ),
            match expected.get("groups") {
                Some(wanted) => Verdict::compare("groups", &groups.unwrap_or_else(|| json!([])), wanted),
                None => Verdict::Pass,
            },
        ]);
    }
    Ok(Verdict::all(verdicts))
}

fn filters_of(scheduled: &Scheduled) -> BTreeMap<String, BTreeSet<String>> {
    scheduled.filters.iter().map(|(name, sites)| ((*name).to_owned(), sites.clone())).collect()
}

fn expected_filters(value: Option<&Value>) -> BTreeMap<String, BTreeSet<String>> {
    match value {
        Some(Value::Array(filters)) => filters
            .iter()
            .filter_map(|filter| {
                Some((filter.get("name")?.as_str()?.to_owned(), names(filter.get("filteredClusters"))))
            })
            .collect(),
        Some(Value::Object(filters)) => {
            filters.iter().map(|(name, sites)| (name.clone(), names(Some(sites)))).collect()
        }
        _ => BTreeMap::new(),
    }
}

fn totals(outcome: Option<&Outcome>) -> Scores {
    let verdicts = outcome.into_iter().flat_map(|outcome| &outcome.verdicts);
    verdicts.filter_map(|verdict| Some((verdict.site.clone(), verdict.total?))).collect()
}

fn prioritizers(outcome: Option<&Outcome>) -> BTreeMap<String, (i64, Scores)> {
    let mut found: BTreeMap<String, (i64, Scores)> = BTreeMap::new();
    for verdict in outcome.into_iter().flat_map(|outcome| &outcome.verdicts) {
        for term in &verdict.scores {
            let (_, scores) = found.entry(term.name.clone()).or_insert_with(|| (term.weight, Scores::new()));
            scores.extend(term.score.map(|score| (verdict.site.clone(), score)));
        }
    }
    found
}

/// What is expected of prioritizers. Where no site matches, ours have nobody to score.
fn expected_prioritizers(expected: &Value, outcome: Option<&Outcome>) -> BTreeMap<String, (i64, Scores)> {
    let nobody_matches =
        outcome.is_some_and(|outcome| outcome.verdicts.iter().all(|verdict| verdict.total.is_none()));
    let prioritizers = expected.get("prioritizers").and_then(Value::as_object).into_iter().flatten();
    let prioritizers = prioritizers.map(|(name, one)| {
        let weight = one.get("weight").and_then(Value::as_i64).unwrap_or_default();
        (name.clone(), (weight, expected_scores(one.get("scores"))))
    });
    prioritizers.filter(|(_, (_, scores))| !(nobody_matches && scores.is_empty())).collect()
}
