//! Open Cluster Management: rollouts.

use std::time::Duration;

use avocet_planner::rollout::{
    Entry, Group, Mandatory, Plan, Progress, Strategy, WorkCondition, deadline, determine, follow,
    go_duration, is_to_apply, progress_of, size,
};
use serde_json::Value;
use types::{ConditionStatus, Portion, Time};

use super::{Case, Verdict};

/// Runs a case.
///
/// # Errors
/// Why it can't be run.
pub fn run(case: &Case) -> Result<Verdict, String> {
    match case.kind.as_str() {
        "rollout" => whole(case),
        "rollout.status" => status(case),
        "rollout.size" => amount(case),
        "rollout.deadline" => span(case),
        "rollout.toapply" => to_apply(case),
        "rollout.workstatus" => work_status(case),
        other => Err(format!("unknown kind `{other}`")),
    }
}

fn now(case: &Case) -> Result<Time, String> {
    case.now.ok_or_else(|| "says no time".to_owned())
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn integer(value: &Value, field: &str) -> i64 {
    value.get(field).and_then(Value::as_i64).unwrap_or_default()
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn time(value: &Value, field: &str) -> Result<Option<Time>, String> {
    match value.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(time) => serde_json::from_value(time.clone()).map(Some).map_err(|error| error.to_string()),
    }
}

fn progress(word: &str) -> Progress {
    match word {
        "ToApply" => Progress::ToApply,
        "Progressing" => Progress::Progressing,
        "Succeeded" => Progress::Succeeded,
        "Failed" => Progress::Failed,
        "TimeOut" => Progress::TimeOut,
        "Skip" => Progress::Skip,
        _ => Progress::Unknown,
    }
}

/// Seconds, unless they are as many as the other uses for ever.
fn seconds(value: &Value, field: &str) -> Option<Duration> {
    let seconds = value.get(field).and_then(Value::as_f64)?;
    if seconds >= 9.2e9 { None } else { Duration::try_from_secs_f64(seconds.max(0.0)).ok() }
}

/// A number or a percentage; what is below zero is as good as nothing.
fn to_amount(value: Option<&Value>) -> Portion {
    match value {
        Some(Value::String(text)) => Portion::Percent(text.clone()),
        Some(number) => {
            Portion::Number(u32::try_from(number.as_i64().unwrap_or_default()).unwrap_or_default())
        }
        None => Portion::Number(0),
    }
}

fn amount(case: &Case) -> Result<Verdict, String> {
    let count = |field: &str| usize::try_from(integer(&case.input, field)).unwrap_or_default();
    let (total, default) = (count("total"), count("default"));
    let outcome = size(&to_amount(case.input.get("value")), total, default);
    let is_error = outcome.is_err();
    let actual = (outcome.unwrap_or(default), is_error);
    let wanted = usize::try_from(integer(&case.expected, "size")).unwrap_or_default();
    Ok(Verdict::compare("size, error", &actual, &(wanted, failed(&case.expected))))
}

fn failed(expected: &Value) -> bool {
    expected.get("error").is_some_and(|error| !matches!(error, Value::Null | Value::Bool(false)))
}

fn span(case: &Case) -> Result<Verdict, String> {
    let outcome = deadline(text(&case.input, "value"));
    let is_error = outcome.is_err();
    let ends = outcome.unwrap_or_else(|error| error.instead);
    let actual = (ends.map(|ends| ends.as_secs_f64()), ends.is_none(), is_error);
    let expected = &case.expected;
    let is_infinite = expected.get("infinite").and_then(Value::as_bool).unwrap_or_default();
    let wanted = (expected.get("seconds").and_then(Value::as_f64), is_infinite, failed(expected));
    Ok(Verdict::compare("seconds, infinite, error", &actual, &wanted))
}

fn work_condition(value: Option<&Value>) -> Result<Option<WorkCondition>, String> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    let status: ConditionStatus = serde_json::from_value(value.get("status").cloned().unwrap_or_default())
        .map_err(|error| error.to_string())?;
    Ok(Some(WorkCondition { status, observed_generation: integer(value, "observedGeneration") }))
}

fn to_apply(case: &Case) -> Result<Verdict, String> {
    let told = |field: &str| work_condition(case.input.get(field));
    let generation = integer(&case.input, "generation");
    let actual = is_to_apply(generation, told("applied")?, told("progressing")?, told("degraded")?);
    let wanted = case.expected.get("toApply").and_then(Value::as_bool).unwrap_or_default();
    Ok(Verdict::compare("toApply", &actual, &wanted))
}

fn work_status(case: &Case) -> Result<Verdict, String> {
    let conditions = list(&case.input, "conditions");
    let told = |kind: &str| work_condition(conditions.iter().find(|one| text(one, "type") == kind));
    let generation = integer(&case.input, "generation");
    let (actual, dated) = progress_of(generation, told("Applied")?, told("Progressing")?, told("Degraded")?);
    let by = case.expected.get("lastTransitionFromOneOf").and_then(Value::as_array);
    let is_dated_right = match (dated, by) {
        (None, None) => true,
        (Some(dated), Some(by)) => by.iter().any(|kind| kind == dated),
        _ => false,
    };
    Ok(Verdict::all([
        Verdict::compare("status", &actual, &progress(text(&case.expected, "status"))),
        Verdict::compare(&format!("dated by {dated:?}"), &is_dated_right, &true),
    ]))
}

fn status(case: &Case) -> Result<Verdict, String> {
    let (input, now) = (&case.input, now(case)?);
    let soak = seconds(input, "minSuccessSeconds").unwrap_or_default();
    let entry = read_entry(input)?;
    let ends = seconds(input, "timeoutSeconds");
    let verdict = determine(entry.progress, entry.since, soak, ends, now.0);
    let (mut roll, mut timed_out) = (vec![], vec![]);
    match verdict {
        avocet_planner::rollout::Verdict::Roll(recheck) => roll.push(Entry { recheck, ..entry }),
        avocet_planner::rollout::Verdict::TimeOut(at) => {
            timed_out.push(Entry { progress: Progress::TimeOut, recheck: Some(at), ..entry });
        }
        avocet_planner::rollout::Verdict::Leave => {}
    }
    Ok(Verdict::all([
        entries("toRollout", &roll, &case.expected)?,
        entries("timedOut", &timed_out, &case.expected)?,
    ]))
}

fn read_entry(value: &Value) -> Result<Entry, String> {
    let group = value.get("group").cloned().unwrap_or_default();
    Ok(Entry {
        site: text(value, "cluster").to_owned(),
        group: (text(&group, "name").to_owned(), integer(&group, "index")),
        progress: progress(text(value, "status")),
        since: time(value, "lastTransitionTime")?.map(|time| time.0),
        recheck: time(value, "recheckTime")?.map(|time| time.0),
    })
}

/// Compares a list; times that the other does not tell in any entry are not compared.
fn entries(field: &str, actual: &[Entry], expected: &Value) -> Result<Verdict, String> {
    let wanted: Vec<Entry> = list(expected, field).iter().map(read_entry).collect::<Result<_, _>>()?;
    let tells = |name: &str| list(expected, field).iter().any(|entry| entry.get(name).is_some());
    let tells_since = tells("lastTransitionTime");
    // To the second, as times are written.
    let whole = |time: jiff::Timestamp| Time(time).to_string();
    let shown = |entry: &Entry| {
        let since = entry.since.filter(|_| tells_since).map(whole);
        (entry.site.clone(), entry.group.clone(), entry.progress, since, entry.recheck.map(whole))
    };
    let actual: Vec<_> = actual.iter().map(shown).collect();
    let wanted: Vec<_> = wanted.iter().map(shown).collect();
    Ok(Verdict::compare(field, &actual, &wanted))
}

fn whole(case: &Case) -> Result<Verdict, String> {
    let (input, expected, now) = (&case.input, &case.expected, now(case)?);
    let groups: Vec<Group> = list(input, "groups").iter().map(read_group).collect();
    let existing: Vec<Entry> = list(input, "existing").iter().map(read_entry).collect::<Result<_, _>>()?;
    let strategy = input.get("strategy").cloned().unwrap_or_default();
    let plan = strategy_of(&strategy)
        .and_then(|strategy| follow(&strategy, &groups, existing, now.0).map_err(|error| error.to_string()));
    let plan = match plan {
        Err(_) if failed(expected) => return Ok(Verdict::Pass),
        Err(error) => return Ok(Verdict::Fail(error)),
        Ok(_) if failed(expected) => return Ok(Verdict::Fail("is no error, expected one".into())),
        Ok(plan) => plan,
    };
    compare_plan(&plan, expected)
}

fn compare_plan(plan: &Plan, expected: &Value) -> Result<Verdict, String> {
    let breach = expected.get("maxFailureBreach").and_then(Value::as_bool).unwrap_or_default();
    let recheck = expected.get("recheckAfterSeconds").and_then(Value::as_f64);
    Ok(Verdict::all([
        entries("toRollout", &plan.roll, expected)?,
        entries("timedOut", &plan.timed_out, expected)?,
        entries("removed", &plan.removed, expected)?,
        Verdict::compare("maxFailureBreach", &plan.breach, &breach),
        Verdict::compare(
            "recheckAfterSeconds",
            &plan.recheck_after.map(|after| after.as_secs_f64()),
            &recheck,
        ),
    ]))
}

fn read_group(value: &Value) -> Group {
    let sites = list(value, "clusters").iter().filter_map(Value::as_str).map(str::to_owned);
    Group { name: text(value, "name").to_owned(), index: integer(value, "index"), sites: sites.collect() }
}

fn strategy_of(value: &Value) -> Result<Strategy, String> {
    let kind = text(value, "type");
    let part = match kind {
        "All" => "all",
        "Progressive" => "progressive",
        "ProgressivePerGroup" => "progressivePerGroup",
        other => return Err(format!("incorrect rollout strategy type {other}")),
    };
    let part = value.get(part).cloned().unwrap_or_default();
    let ends = deadline(text(&part, "progressDeadline")).map_err(|error| error.to_string())?;
    let soak = match part.get("minSuccessTime") {
        Some(Value::String(text)) => {
            // What is below zero has passed already.
            let size = text.strip_prefix('-').and_then(go_duration).map(|_| Duration::ZERO);
            size.or_else(|| go_duration(text)).ok_or_else(|| format!("`{text}` is no duration"))?
        }
        Some(number) => Duration::from_nanos(number.as_u64().unwrap_or_default()),
        None => Duration::ZERO,
    };
    let groups = list(&part, "mandatoryDecisionGroups").iter();
    let mandatory = groups.map(|group| match text(group, "groupName") {
        "" => Mandatory::At(integer(group, "groupIndex")),
        name => Mandatory::Named(name.to_owned()),
    });
    let mandatory = mandatory.collect();
    let failures = to_amount(part.get("maxFailures"));
    Ok(match kind {
        "All" => Strategy::All { deadline: ends },
        "Progressive" => {
            let concurrency = to_amount(part.get("maxConcurrency"));
            Strategy::Progressive { mandatory, concurrency, failures, soak, deadline: ends }
        }
        _ => Strategy::PerGroup { mandatory, failures, soak, deadline: ends },
    })
}
