//! Krake: constraints, metrics, scores, back-off.

use std::collections::BTreeMap;

use avocet_planner::constraint::{
    ConstraintError, LabelConstraint, LabelOperator, MetricConstraint, MetricOperator, check_label,
};
use avocet_planner::metrics::{normalize, rank, weighted};
use avocet_planner::retry::{Retry, after_failure};
use serde::Deserialize;
use serde_json::{Value, json};
use types::SmallMap;

use super::{Case, Verdict};

/// Runs a case.
///
/// # Errors
/// Why it can't be run.
pub fn run(case: &Case) -> Result<Verdict, String> {
    match case.kind.as_str() {
        "krake.label.parse" => label_parse(case),
        "krake.label.match" => label_match(case),
        "krake.label.validate" => {
            let valid = check_label(text(&case.input, "key")?, text(&case.input, "value")?).is_ok();
            Ok(Verdict::compare("valid", &Some(valid), &case.expected.get("valid").and_then(Value::as_bool)))
        }
        "krake.metric.parse" => metric_parse(case),
        "krake.metric.match" => metric_match(case),
        "krake.normalize" => normalized(case),
        "krake.score.cloud" => cloud(case),
        "krake.select" => select(case),
        "krake.backoff" => backoff(case),
        other => Err(format!("unknown kind `{other}`")),
    }
}

fn text<'a>(from: &'a Value, key: &str) -> Result<&'a str, String> {
    from.get(key).and_then(Value::as_str).ok_or(format!("no {key}"))
}

fn read<T: for<'de> Deserialize<'de>>(from: &Value, key: &str) -> Result<T, String> {
    serde_json::from_value(from.get(key).cloned().unwrap_or_default())
        .map_err(|error| format!("{key}: {error}"))
}

/// Compares all that is expected with what came out.
fn compare(actual: &Value, expected: &Value) -> Verdict {
    let fields = expected.as_object().into_iter().flatten();
    Verdict::all(
        fields
            .map(|(key, expected)| Verdict::compare(key, actual.get(key).unwrap_or(&Value::Null), expected)),
    )
}

fn failure(error: &ConstraintError) -> Value {
    let word = match error {
        ConstraintError::Grammar => "grammar",
        ConstraintError::Validation(_) => "validation",
    };
    json!({"ok": false, "error": word})
}

fn label_parse(case: &Case) -> Result<Verdict, String> {
    let actual = match LabelConstraint::parse(text(&case.input, "expression")?) {
        Err(error) => failure(&error),
        Ok(constraint) => {
            let operator = match constraint.operator() {
                LabelOperator::Equal => "eq",
                LabelOperator::NotEqual => "ne",
                LabelOperator::In => "in",
                LabelOperator::NotIn => "notin",
            };
            json!({
                "ok": true, "key": constraint.key(), "op": operator, "canonical": constraint.to_string(),
                "value": constraint.values().first(), "values": constraint.values(),
            })
        }
    };
    Ok(compare(&actual, &case.expected))
}

fn label_match(case: &Case) -> Result<Verdict, String> {
    let constraint =
        LabelConstraint::parse(text(&case.input, "expression")?).map_err(|error| error.to_string())?;
    let labels: SmallMap = read(&case.input, "labels")?;
    let expected = case.expected.get("match").and_then(Value::as_bool);
    Ok(Verdict::compare("match", &Some(constraint.matches(&labels)), &expected))
}

fn metric_parse(case: &Case) -> Result<Verdict, String> {
    let actual = match MetricConstraint::parse(text(&case.input, "expression")?) {
        Err(error) => failure(&error),
        Ok(constraint) => {
            let operator = match constraint.operator() {
                MetricOperator::Equal => "eq",
                MetricOperator::NotEqual => "ne",
                MetricOperator::Greater => "gt",
                MetricOperator::GreaterOrEqual => "ge",
                MetricOperator::Less => "lt",
                MetricOperator::LessOrEqual => "le",
            };
            json!({
                "ok": true, "key": constraint.metric(), "op": operator, "canonical": constraint.to_string(),
                "value": constraint.value_text(),
            })
        }
    };
    Ok(compare(&actual, &case.expected))
}

fn metric_match(case: &Case) -> Result<Verdict, String> {
    let constraint =
        MetricConstraint::parse(text(&case.input, "expression")?).map_err(|error| error.to_string())?;
    let values: BTreeMap<String, f64> = read(&case.input, "values")?;
    let matches = values.get(constraint.metric()).is_some_and(|value| constraint.holds(*value));
    Ok(Verdict::compare("match", &Some(matches), &case.expected.get("match").and_then(Value::as_bool)))
}

fn is_close(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-9 * other.abs().max(1.0)
}

/// What there is to know of a metric.
#[derive(Deserialize, Default)]
struct Metric {
    value: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
    #[serde(default, alias = "allowedValues", alias = "allowed_values")]
    allowed: Vec<f64>,
    #[serde(default)]
    error: Option<Value>,
}

impl Metric {
    fn share(&self) -> Option<f64> {
        let value = self.value.filter(|_| self.error.is_none())?;
        normalize(value, self.min.unwrap_or(0.0), self.max.unwrap_or(1.0), &self.allowed).ok()
    }
}

fn normalized(case: &Case) -> Result<Verdict, String> {
    let metric: Metric = serde_json::from_value(case.input.clone()).map_err(|error| error.to_string())?;
    Ok(match (metric.share(), case.expected.get("value").and_then(Value::as_f64)) {
        (Some(share), Some(expected)) if is_close(share, expected) => Verdict::Pass,
        (None, None) => Verdict::Pass,
        (share, expected) => Verdict::Fail(format!("value is {share:?}, expected {expected:?}")),
    })
}

/// A value and how much it counts.
#[derive(Deserialize)]
struct Weighted {
    value: f64,
    weight: f64,
}

fn cloud(case: &Case) -> Result<Verdict, String> {
    let metrics: Vec<Weighted> = read(&case.input, "metrics")?;
    let score = weighted(metrics.iter().map(|metric| (metric.value, metric.weight)), 0.0).unwrap_or(0.0);
    let expected = case.expected.get("score").and_then(Value::as_f64).ok_or("expected: no score")?;
    Ok(if is_close(score, expected) {
        Verdict::Pass
    } else {
        Verdict::Fail(format!("score is {score}, expected {expected}"))
    })
}

/// A reference of a cluster to a metric.
#[derive(Deserialize)]
struct Reference {
    name: String,
    weight: f64,
}

#[derive(Deserialize)]
struct Cluster {
    name: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    labels: SmallMap,
    #[serde(default)]
    metrics: Vec<Reference>,
    #[serde(default, alias = "customResources")]
    custom_resources: Vec<String>,
    #[serde(default)]
    deleted: bool,
    #[serde(default)]
    online: Option<bool>,
    #[serde(default)]
    state: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct App {
    constraints: Option<Constraints>,
    scheduled_to: Option<String>,
    /// Seconds since it was scheduled.
    #[serde(default, alias = "scheduledAgo", alias = "scheduledAge", alias = "scheduledAgoSeconds")]
    scheduled_seconds_ago: Option<f64>,
    migration: Option<bool>,
    namespace: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Constraints {
    labels: Vec<String>,
    metrics: Vec<String>,
    #[serde(alias = "customResources")]
    custom_resources: Vec<String>,
    migration: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Selection {
    clusters: Vec<Cluster>,
    app: App,
    #[serde(default)]
    metrics: BTreeMap<String, Metric>,
    #[serde(default)]
    stickiness: f64,
    #[serde(default)]
    reschedule_after: f64,
}

/// Which cluster is chosen: filters first, then the mean of its metrics, drawn towards where the application is.
fn select(case: &Case) -> Result<Verdict, String> {
    let selection: Selection =
        serde_json::from_value(case.input.clone()).map_err(|error| error.to_string())?;
    let app = &selection.app;
    let constraints = app.constraints.as_ref();
    let labels = constraints.map_or(&[][..], |constraints| &constraints.labels);
    let labels: Vec<LabelConstraint> = labels
        .iter()
        .map(|text| LabelConstraint::parse(text))
        .collect::<Result<_, _>>()
        .map_err(|e| e.to_string())?;
    let limits = constraints.map_or(&[][..], |constraints| &constraints.metrics);
    let limits: Vec<MetricConstraint> = limits
        .iter()
        .map(|text| MetricConstraint::parse(text))
        .collect::<Result<_, _>>()
        .map_err(|e| e.to_string())?;
    let shares = |cluster: &Cluster| -> Option<Vec<(f64, f64)>> {
        let shares = cluster.metrics.iter().map(|metric| {
            Some((selection.metrics.get(&metric.name).and_then(Metric::share)?, metric.weight))
        });
        shares.collect()
    };
    let mut failing: Vec<&str> = Vec::new();
    let mut matching: Vec<(&Cluster, Vec<(f64, f64)>)> = Vec::new();
    for cluster in &selection.clusters {
        let is_there = !cluster.deleted
            && cluster.online.unwrap_or(true)
            && cluster.state.as_ref().is_none_or(|state| state == "ONLINE")
            && (app.namespace.is_none() || cluster.namespace.is_none() || app.namespace == cluster.namespace);
        let meets = labels.iter().all(|constraint| constraint.matches(&cluster.labels))
            && constraints.is_none_or(|asked| {
                asked.custom_resources.iter().all(|one| cluster.custom_resources.contains(one))
            });
        if !is_there || !meets {
            continue;
        }
        let shares = shares(cluster);
        let weighted_value = |name: &str| {
            let reference = cluster.metrics.iter().find(|metric| metric.name == name)?;
            Some(selection.metrics.get(name).and_then(Metric::share)? * reference.weight)
        };
        let is_within =
            limits.iter().all(|limit| weighted_value(limit.metric()).is_some_and(|value| limit.holds(value)));
        if !is_within {
            continue;
        }
        match shares {
            Some(shares) => matching.push((cluster, shares)),
            None => failing.push(&cluster.name),
        }
    }
    compare_selection(case, &selection, &matching, &failing)
}

fn compare_selection(
    case: &Case,
    selection: &Selection,
    matching: &[(&Cluster, Vec<(f64, f64)>)],
    failing: &[&str],
) -> Result<Verdict, String> {
    let app = &selection.app;
    let current = app.scheduled_to.as_deref();
    let candidates: Vec<(Vec<(f64, f64)>, f64)> = matching
        .iter()
        .map(|(cluster, shares)| {
            let stickiness = if current == Some(cluster.name.as_str()) { selection.stickiness } else { 0.0 };
            (shares.clone(), stickiness)
        })
        .collect();
    let ranks = rank(&candidates);
    let scores: BTreeMap<&str, f64> = matching
        .iter()
        .zip(&ranks)
        .filter_map(|((cluster, _), score)| Some((cluster.name.as_str(), (*score)?)))
        .collect();
    let best = scores.values().copied().max_by(f64::total_cmp);
    let stays = matching.iter().map(|(cluster, _)| cluster.name.as_str()).find(|name| Some(*name) == current);
    let may_move =
        app.migration.or(app.constraints.as_ref().and_then(|asked| asked.migration)).unwrap_or(true);
    let is_recent = app.scheduled_seconds_ago.is_some_and(|ago| ago < selection.reschedule_after);
    let selected: Vec<&str> = match (stays, best) {
        (Some(current), _) if is_recent || !may_move => vec![current],
        (_, Some(best)) => {
            scores.iter().filter(|(_, score)| is_close(**score, best)).map(|(name, _)| *name).collect()
        }
        _ => vec![],
    };
    let expected = &case.expected;
    if expected.get("error").is_some() {
        return Ok(Verdict::compare("selected", &selected, &vec![]));
    }
    let mut verdicts = Vec::new();
    if let Some(wanted) = expected.get("selectedAnyOf").and_then(Value::as_array) {
        let all_wanted =
            !selected.is_empty() && selected.iter().all(|name| wanted.iter().any(|one| one == name));
        if !all_wanted {
            verdicts.push(Verdict::Fail(format!("selected is {selected:?}, expected any of {wanted:?}")));
        }
    }
    if let Some(wanted) = expected.get("scores").and_then(Value::as_object) {
        let is_same = wanted.len() == scores.len()
            && wanted.iter().all(|(name, score)| {
                scores
                    .get(name.as_str())
                    .zip(score.as_f64())
                    .is_some_and(|(score, wanted)| is_close(*score, wanted))
            });
        if !is_same {
            verdicts.push(Verdict::Fail(format!("scores are {scores:?}, expected {wanted:?}")));
        }
    }
    if let Some(wanted) = expected.get("failingMetrics") {
        verdicts.push(Verdict::compare("failingMetrics", &json!(failing), wanted));
    }
    Ok(Verdict::all(verdicts))
}

fn backoff(case: &Case) -> Result<Verdict, String> {
    let number = |key: &str| case.input.get(key).and_then(Value::as_f64).ok_or(format!("no {key}"));
    let wait = number("backoffDelay")? * number("backoff")?;
    let mut left = case.input.get("backoffLimit").and_then(Value::as_i64).ok_or("no backoffLimit")?;
    let mut steps = Vec::new();
    for _ in 0..case.input.get("consecutiveFailures").and_then(Value::as_u64).unwrap_or(0).min(10_000) {
        match after_failure(left, wait) {
            Retry::Never => {
                steps.push(json!({"state": "FAILED", "retriesLeft": left}));
                break;
            }
            Retry::In { seconds, left: remaining } => {
                left = remaining;
                steps.push(json!({"state": "DEGRADED", "retriesLeft": left, "retryInSeconds": seconds}));
            }
        }
    }
    Ok(Verdict::compare("steps", &json!(steps), case.expected.get("steps").unwrap_or(&Value::Null)))
}
