//! Leases, clocks, taints, evictions.

use std::collections::BTreeSet;

use avocet_planner::health::{self, Eviction, Lease, LeaseAction, Reach};
use serde_json::Value;

use super::super::{Case, Verdict};

fn text<'a>(case: &'a Case, key: &str) -> Option<&'a str> {
    case.input.get(key).and_then(Value::as_str)
}

fn flag(case: &Case, key: &str) -> bool {
    case.input.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn number(case: &Case, key: &str) -> Option<f64> {
    case.input.get(key).and_then(Value::as_f64)
}

fn lease_seconds(case: &Case) -> u64 {
    case.input.get("leaseDurationSeconds").and_then(Value::as_u64).unwrap_or(0)
}

pub fn lease(case: &Case) -> Result<Verdict, String> {
    let action = health::lease(Lease {
        is_decided: text(case, "hubAcceptedCondition").is_some(),
        is_deleting: flag(case, "deleting"),
        age_seconds: number(case, "leaseAgeSeconds"),
        lease_seconds: lease_seconds(case),
        is_unknown: text(case, "availableCondition") == Some("Unknown"),
    });
    let (action, to) = match action {
        LeaseAction::None => ("none", None),
        LeaseAction::Create => ("createLease", None),
        LeaseAction::SetUnknown => ("setAvailable", Some("Unknown")),
    };
    let expected = |key: &str| case.expected.get(key).and_then(Value::as_str);
    Ok(Verdict::all([
        Verdict::compare("action", &Some(action), &expected("action")),
        Verdict::compare("to", &to, &expected("to")),
    ]))
}

pub fn clock(case: &Case) -> Result<Verdict, String> {
    let difference = number(case, "agentMinusHubSeconds").ok_or("input: no agentMinusHubSeconds")?;
    let is_skipped = text(case, "skipAnnotation") == Some("true");
    let synced = is_skipped || health::is_clock_synced(difference, lease_seconds(case));
    let expected = case.expected.get("clockSynced").and_then(Value::as_bool);
    Ok(Verdict::compare("clockSynced", &Some(synced), &expected))
}

const UNAVAILABLE: &str = "cluster.open-cluster-management.io/unavailable";
const UNREACHABLE: &str = "cluster.open-cluster-management.io/unreachable";

fn taints(value: Option<&Value>) -> BTreeSet<(String, String)> {
    let word =
        |taint: &Value, key: &str| taint.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let taints = value.and_then(Value::as_array).into_iter().flatten();
    taints.map(|taint| (word(taint, "key"), word(taint, "effect"))).collect()
}

pub fn taint(case: &Case) -> Result<Verdict, String> {
    let available = match text(case, "availableCondition") {
        Some("True") => Some(true),
        Some("False") => Some(false),
        _ => None,
    };
    let mut has = taints(case.input.get("existingTaints"));
    has.retain(|(key, _)| key != UNAVAILABLE && key != UNREACHABLE);
    let wanted = match health::reach(available) {
        Reach::Available => None,
        Reach::Unavailable => Some(UNAVAILABLE),
        Reach::Unreachable => Some(UNREACHABLE),
    };
    has.extend(wanted.map(|key| (key.to_owned(), "NoSelect".to_owned())));
    Ok(Verdict::compare("taints", &has, &taints(case.expected.get("taints"))))
}

pub fn evict(case: &Case) -> Result<Verdict, String> {
    let is_same_hub = case.input.get("agentHubHash") == case.input.get("appliedHubHash");
    let action = health::evict(
        flag(case, "workOnHub") && is_same_hub,
        number(case, "evictionStartedSecondsAgo"),
        number(case, "gracePeriodSeconds").ok_or("input: no gracePeriodSeconds")?,
    );
    let words: &[&str] = match action {
        Eviction::Keep => {
            &["none", "keep", "cancel", "cancelEviction", "stopEviction", "resetEviction", "clear"]
        }
        Eviction::Begin => {
            &["start", "startEviction", "begin", "mark", "markEviction", "setEvictionStartTime"]
        }
        Eviction::Wait => &["wait"],
        Eviction::Evict => &["delete", "evict", "deleteAppliedManifestWork"],
    };
    let expected = case.expected.get("action").and_then(Value::as_str).unwrap_or_default();
    let is_known = words.contains(&expected);
    Ok(if is_known {
        Verdict::Pass
    } else {
        Verdict::Fail(format!("action is {action:?}, expected {expected}"))
    })
}
