//! Cluster sets, which only they have; groups and conditions.

use avocet_planner::groups;
use serde_json::{Value, json};
use types::Site;

use super::super::{Case, Verdict};
use super::decide::input;
use super::world::{self, Binding, Cluster, Input, Placement};

const SET_LABEL: &str = "cluster.open-cluster-management.io/clusterset";
const DISABLED: &str = "cluster.open-cluster-management.io/experimental-scheduling-disable";
/// How many clusters one decision of theirs holds.
const PER_DECISION: usize = 100;

/// The bindings of the placement's namespace whose set exists.
pub fn valid_bindings(input: &Input) -> Vec<&Binding> {
    let namespace = input.placement.as_ref().map_or("", |placement| &placement.namespace);
    let is_valid = |binding: &&Binding| {
        binding.namespace == namespace && input.cluster_sets.iter().any(|set| set.name == binding.cluster_set)
    };
    input.bindings.iter().filter(is_valid).collect()
}

/// The bound sets that the placement asks for, or all.
pub fn eligible_sets(placement: &Placement, bindings: &[&Binding]) -> Vec<String> {
    let asked = placement.spec.get("clusterSets").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut sets: Vec<String> = bindings.iter().map(|binding| binding.cluster_set.clone()).collect();
    sets.sort();
    sets.dedup();
    sets.retain(|set| asked.is_empty() || asked.iter().any(|asked| asked == set));
    sets
}

/// The clusters of these sets that aren't being removed, by name.
pub fn available_clusters(input: &Input, eligible: &[String]) -> Result<Vec<Cluster>, String> {
    let mut found: Vec<Cluster> = Vec::new();
    for name in eligible {
        let Some(set) = input.cluster_sets.iter().find(|set| set.name == *name) else { continue };
        let kind = set.selector.as_ref().map_or("", |selector| &selector.selector_type);
        for cluster in input.clusters.iter().filter(|cluster| !cluster.deleting) {
            let is_member = match kind {
                "" | "ExclusiveClusterSetLabel" => cluster.labels.get(SET_LABEL) == Some(name),
                "LabelSelector" => {
                    let selector = set.selector.as_ref().and_then(|selector| selector.label_selector.clone());
                    // None selects nothing, an empty one everything.
                    selector.is_some_and(|selector| selector.matches(&cluster.labels))
                }
                other => return Err(format!("unknown selector type `{other}`")),
            };
            if is_member && !found.iter().any(|known| known.name == cluster.name) {
                found.push(cluster.clone());
            }
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// Why a placement is or isn't satisfied, in their order.
pub fn reason(
    bindings: usize,
    eligible: usize,
    available: usize,
    selected: usize,
    unscheduled: i64,
) -> &'static str {
    match (bindings, eligible, available, selected, unscheduled) {
        (0, ..) => "NoManagedClusterSetBindings",
        (_, 0, ..) => "NoIntersection",
        (_, _, 0, ..) => "AllManagedClusterSetsEmpty",
        (_, _, _, 0, _) => "NoManagedClusterMatched",
        (.., 0) => "AllDecisionsScheduled",
        _ => "NotAllDecisionsScheduled",
    }
}

pub fn eligible(case: &Case) -> Result<Verdict, String> {
    let input = input(case)?;
    let placement = input.placement.as_ref().ok_or("input: no placement")?;
    let sets = eligible_sets(placement, &input.valid_bindings.iter().collect::<Vec<_>>());
    Ok(Verdict::compare("clusterSets", &json!(sets), &list(&case.expected, "clusterSets")))
}

pub fn available(case: &Case) -> Result<Verdict, String> {
    let input = input(case)?;
    let clusters = available_clusters(&input, &input.eligible_cluster_sets);
    if case.expected.get("error").is_some_and(|error| *error != json!(false) && !error.is_null()) {
        return Ok(Verdict::compare("error", &clusters.is_err(), &true));
    }
    let names: Vec<String> = clusters?.into_iter().map(|cluster| cluster.name).collect();
    Ok(Verdict::compare("clusters", &json!(names), &sorted(list(&case.expected, "clusters"))))
}

fn list(from: &Value, key: &str) -> Value {
    from.get(key).filter(|value| !value.is_null()).cloned().unwrap_or_else(|| json!([]))
}

fn sorted(mut list: Value) -> Value {
    if let Some(entries) = list.as_array_mut() {
        entries.sort_by_key(ToString::to_string);
    }
    list
}

pub fn satisfied(case: &Case) -> Result<Verdict, String> {
    let count = |key: &str| case.input.get(key).and_then(Value::as_u64).unwrap_or(0) as usize;
    let eligible = case.input.get("eligible").and_then(Value::as_array).map_or(0, Vec::len);
    let unscheduled = case.input.get("unscheduled").and_then(Value::as_i64).unwrap_or(0);
    let mut reason = reason(count("bindings"), eligible, count("available"), count("feasible"), unscheduled);
    let failed = ["error", "status", "pluginError"].iter().any(|key| {
        case.input.get(*key).is_some_and(|value| *value == json!(true) || *value == json!("Error"))
    });
    if failed
        && !["NoManagedClusterSetBindings", "NoIntersection", "AllManagedClusterSetsEmpty"].contains(&reason)
    {
        reason = "NotAllDecisionsScheduled";
    }
    let status = if reason == "AllDecisionsScheduled" { "True" } else { "False" };
    let expected = |key: &str| case.expected.get(key).and_then(Value::as_str).unwrap_or_default();
    Ok(Verdict::all([
        Verdict::compare("reason", &reason, &expected("reason")),
        Verdict::compare("status", &status, &expected("status")),
    ]))
}

/// What a placement of theirs makes of selected clusters: decisions and groups. `None` if it can't be followed.
fn divide(placement: &Placement, selected: &[Cluster]) -> Result<Option<(Value, Value)>, String> {
    let sites: Vec<Site> = selected.iter().map(world::site).collect::<Result<_, _>>()?;
    let Ok(strategy) = world::decision_groups(&placement.spec) else { return Ok(None) };
    let Ok(divided) = groups::divide(&strategy, &sites.iter().collect::<Vec<_>>()) else { return Ok(None) };
    let (mut decisions, mut statuses) = (Vec::new(), Vec::new());
    for group in &divided {
        let mut names = Vec::new();
        let empty: [&[String]; 1] = [&[]];
        let parts: Vec<&[String]> =
            if group.sites.is_empty() { empty.to_vec() } else { group.sites.chunks(PER_DECISION).collect() };
        for part in parts {
            let name = format!("{}-decision-{}", placement.name, decisions.len() + 1);
            decisions.push(json!({
                "name": name, "groupName": group.name, "groupIndex": group.index, "clusters": part,
            }));
            names.push(name);
        }
        statuses.push(json!({
            "decisionGroupIndex": group.index, "decisionGroupName": group.name, "decisions": names,
            "clusterCount": group.sites.len(),
        }));
    }
    Ok(Some((json!(decisions), json!(statuses))))
}

pub fn groups(case: &Case) -> Result<Verdict, String> {
    let input = input(case)?;
    let placement = input.placement.as_ref().ok_or("input: no placement")?;
    let Some((decisions, groups)) = divide(placement, &input.selected)? else {
        let status = case.expected.get("status").and_then(Value::as_str).unwrap_or_default();
        return Ok(Verdict::compare("status", &"Misconfigured", &status));
    };
    Ok(Verdict::all([
        Verdict::compare("decisions", &decisions, &list(&case.expected, "decisions")),
        Verdict::compare("groups", &groups, &list(&case.expected, "groups")),
    ]))
}

/// The groups of selected clusters; `None` if they can't be followed.
pub fn selected_groups(
    placement: &Placement,
    clusters: &[Cluster],
    selected: &[String],
) -> Result<Option<Value>, String> {
    let selected = clusters.iter().filter(|cluster| selected.contains(&cluster.name));
    let sites: Vec<Site> = selected.map(world::site).collect::<Result<_, _>>()?;
    let Ok(strategy) = world::decision_groups(&placement.spec) else { return Ok(None) };
    let Ok(divided) = groups::divide(&strategy, &sites.iter().collect::<Vec<_>>()) else { return Ok(None) };
    let divided = divided
        .into_iter()
        .map(|group| json!({"name": group.name, "index": group.index, "clusters": group.sites}));
    Ok(Some(Value::Array(divided.collect())))
}

/// What a controller of theirs writes for a decision that is given.
pub fn reconcile(case: &Case) -> Result<Verdict, String> {
    let input = input(case)?;
    let placement = input.placement.as_ref().ok_or("input: no placement")?;
    if placement.annotations.get(DISABLED).is_some_and(|value| value == "true") {
        return Ok(Verdict::compare("actions", &json!([]), &list(&case.expected, "actions")));
    }
    let (decisions, groups) = divide(placement, &input.selected)?.ok_or("the groups can't be followed")?;
    let bindings = valid_bindings(&input);
    let eligible = eligible_sets(placement, &bindings);
    let available = available_clusters(&input, &eligible)?;
    let reason =
        reason(bindings.len(), eligible.len(), available.len(), input.selected.len(), input.unscheduled);
    let status = if reason == "AllDecisionsScheduled" { "True" } else { "False" };
    let mut actions: Vec<&str> = Vec::new();
    let decisions = decisions.as_array().cloned().unwrap_or_default();
    for decision in &decisions {
        let known =
            input.existing_decisions.iter().find(|known| decision.get("name") == Some(&json!(known.name)));
        match known {
            None => actions.push("create:placementdecisions"),
            Some(known) if decision.get("clusters") != Some(&json!(known.clusters)) => {
                actions.push("patch:placementdecisions");
            }
            Some(_) => {}
        }
    }
    let is_wanted = |name: &str| {
        decisions.iter().any(|decision| decision.get("name").and_then(Value::as_str) == Some(name))
    };
    let redundant = input.existing_decisions.iter().filter(|known| !is_wanted(&known.name));
    actions.extend(redundant.map(|_| "delete:placementdecisions"));
    let conditions = json!({
        "PlacementMisconfigured": {"status": "False", "reason": "Succeedconfigured"},
        "PlacementSatisfied": {"status": status, "reason": reason},
    });
    if !tells(placement, input.selected.len(), &groups, &conditions, actions.is_empty()) {
        actions.push("patch:placements");
    }
    let mut verdicts = vec![Verdict::compare("actions", &json!(actions), &list(&case.expected, "actions"))];
    for (key, actual) in [
        ("numberOfSelectedClusters", json!(input.selected.len())),
        ("decisionGroups", groups),
        ("conditions", conditions),
    ] {
        if let Some(expected) = case.expected.get(key).filter(|expected| !expected.is_null()) {
            verdicts.push(Verdict::compare(key, &actual, expected));
        }
    }
    Ok(Verdict::all(verdicts))
}

/// Whether a placement's status tells all this already. Where a case leaves the status out, it does if its decisions
/// were right already.
fn tells(
    placement: &Placement,
    selected: usize,
    groups: &Value,
    conditions: &Value,
    is_decided: bool,
) -> bool {
    let Some(status) = placement.status.as_object() else { return is_decided };
    let told: serde_json::Map<String, Value> = status
        .get("conditions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|one| {
            let kind = one.get("type")?.as_str()?;
            Some((kind.to_owned(), json!({"status": one.get("status"), "reason": one.get("reason")})))
        })
        .collect();
    status.get("numberOfSelectedClusters").and_then(Value::as_u64) == Some(selected as u64)
        && status.get("decisionGroups") == Some(groups)
        && Value::Object(told) == *conditions
}
