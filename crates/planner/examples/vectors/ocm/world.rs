//! Their clusters as sites, their placements as ours. What they have and we don't (cluster sets) stays here.

use std::collections::BTreeMap;

use avocet_planner::{Dialect, Fleet, Outcome, PlacementKey, Question, answer, taints};
use jiff::Timestamp;
use schema::cel::Quantity;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use types::{
    Amount, DecisionGroups, LabelSelector, Migration, PlacementScore, PlacementSpec, Predicate,
    PrioritizerMode, PrioritizerPolicy, Site, SmallMap, TaintEffect, Toleration, TolerationOperator,
};

/// The members of all kinds of input.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    pub placement: Option<Placement>,
    #[serde(default)]
    pub clusters: Vec<Cluster>,
    #[serde(default)]
    pub selected: Vec<Cluster>,
    #[serde(default)]
    pub unscheduled: i64,
    #[serde(default)]
    pub existing_decisions: Vec<Decision>,
    #[serde(default)]
    pub add_on_scores: Vec<AddOnScores>,
    #[serde(default)]
    pub cluster_sets: Vec<ClusterSet>,
    #[serde(default)]
    pub bindings: Vec<Binding>,
    #[serde(default)]
    pub valid_bindings: Vec<Binding>,
    #[serde(default)]
    pub eligible_cluster_sets: Vec<String>,
}

#[derive(Deserialize, Default)]
pub struct Placement {
    #[serde(default)]
    pub namespace: String,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub annotations: SmallMap,
    #[serde(default)]
    pub spec: Value,
    #[serde(default)]
    pub status: Value,
}

#[derive(Deserialize, Clone)]
pub struct Cluster {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub labels: SmallMap,
    #[serde(default)]
    pub claims: SmallMap,
    #[serde(default)]
    pub allocatable: BTreeMap<String, Value>,
    #[serde(default)]
    pub capacity: BTreeMap<String, Value>,
    #[serde(default)]
    pub taints: Vec<Value>,
    #[serde(default)]
    pub deleting: bool,
}

#[derive(Deserialize)]
pub struct Decision {
    #[serde(default)]
    pub namespace: String,
    #[serde(default)]
    pub name: String,
    pub placement: Option<String>,
    #[serde(default)]
    pub clusters: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddOnScores {
    pub cluster: String,
    pub resource: String,
    #[serde(default)]
    pub scores: BTreeMap<String, i32>,
    pub valid_until: Option<Value>,
}

#[derive(Deserialize)]
pub struct ClusterSet {
    pub name: String,
    pub selector: Option<SetSelector>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetSelector {
    #[serde(default)]
    pub selector_type: String,
    pub label_selector: Option<LabelSelector>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    #[serde(default)]
    pub namespace: String,
    pub cluster_set: String,
}

/// What we can't read, in our words.
pub struct Unreadable {
    pub message: String,
}

fn read<T: for<'de> Deserialize<'de>>(value: Value) -> Result<T, Unreadable> {
    serde_json::from_value(value).map_err(|error| Unreadable { message: error.to_string() })
}

fn take(from: &Value, path: &str) -> Value {
    from.pointer(path).cloned().unwrap_or(Value::Null)
}

/// A selector without what is null or empty.
fn selector(value: Value) -> Result<LabelSelector, Unreadable> {
    match value {
        Value::Null => Ok(LabelSelector::default()),
        Value::Object(mut fields) => {
            fields.retain(|_, field| !field.is_null());
            read(Value::Object(fields))
        }
        other => read(other),
    }
}

pub fn predicate(selectors: &Value) -> Result<Predicate, Unreadable> {
    let expressions = take(selectors, "/celSelector/celExpressions");
    Ok(Predicate {
        label_selector: selector(take(selectors, "/labelSelector"))?,
        claim_selector: selector(take(selectors, "/claimSelector"))?,
        cel_expressions: if expressions.is_null() { vec![] } else { read(expressions)? },
    })
}

fn tolerations(spec: &Value) -> Result<Vec<Toleration>, Unreadable> {
    let tolerations = spec.get("tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
    let tolerations = tolerations.into_iter().map(|toleration| {
        let mut fields = toleration.as_object().cloned().unwrap_or_default();
        fields.retain(|_, field| !field.is_null() && *field != json!(""));
        let mut toleration: Toleration = read(Value::Object(fields))?;
        // Theirs is Equal, and to nothing, where nothing is said.
        toleration.operator.get_or_insert(TolerationOperator::Equal);
        Ok(toleration)
    });
    let mut tolerations: Vec<Toleration> = tolerations.collect::<Result<_, _>>()?;
    // They select sites with a PreferNoSelect taint as gladly as others.
    tolerations.push(Toleration {
        operator: Some(TolerationOperator::Exists),
        effect: Some(TaintEffect::PreferNoSelect),
        ..Toleration::default()
    });
    Ok(tolerations)
}

const BUILT_IN: [&str; 4] = ["Balance", "Steady", "ResourceAllocatableCPU", "ResourceAllocatableMemory"];

fn prioritizers(spec: &Value) -> Result<PrioritizerPolicy, Unreadable> {
    let mode = match take(spec, "/prioritizerPolicy/mode").as_str().unwrap_or_default() {
        "" | "Additive" => PrioritizerMode::Additive,
        "Exact" => PrioritizerMode::Exact,
        other => {
            return Err(Unreadable { message: format!("incorrect prioritizer policy mode: {other}") });
        }
    };
    let configurations = take(spec, "/prioritizerPolicy/configurations");
    let configurations = configurations.as_array().cloned().unwrap_or_default();
    let configurations = configurations.into_iter().map(|configuration| {
        let mut coordinate = take(&configuration, "/scoreCoordinate");
        let Some(fields) = coordinate.as_object_mut() else {
            let message = "scoreCoordinate field is required".to_owned();
            return Err(Unreadable { message });
        };
        fields.retain(|_, field| !field.is_null());
        // All that isn't built in is an add-on's to them.
        if fields.get("type").is_none_or(|kind| kind != "BuiltIn") {
            fields.insert("type".into(), json!("AddOn"));
        }
        // They have fewer that are built in.
        let name = fields.get("builtIn").and_then(Value::as_str).unwrap_or_default().to_owned();
        let is_known = BUILT_IN.contains(&name.as_str());
        let counts = configuration.get("weight").and_then(Value::as_i64).unwrap_or(0) != 0;
        if fields.get("type").is_some_and(|kind| kind == "BuiltIn") && !is_known && counts {
            return Err(Unreadable { message: format!("incorrect builtin prioritizer: {name}") });
        }
        read(json!({"scoreCoordinate": coordinate, "weight": configuration.get("weight").unwrap_or(&json!(0))}))
    });
    Ok(PrioritizerPolicy { mode, configurations: configurations.collect::<Result<_, _>>()? })
}

pub fn decision_groups(spec: &Value) -> Result<DecisionGroups, Unreadable> {
    let strategy = take(spec, "/decisionStrategy/groupStrategy");
    let groups = strategy.get("decisionGroups").and_then(Value::as_array).cloned().unwrap_or_default();
    let groups = groups.into_iter().map(|group| {
        Ok(types::GroupSelector {
            name: take(&group, "/groupName").as_str().unwrap_or_default().to_owned(),
            label_selector: selector(take(&group, "/groupClusterSelector/labelSelector"))?,
            claim_selector: selector(take(&group, "/groupClusterSelector/claimSelector"))?,
        })
    });
    let size = take(&strategy, "/clustersPerDecisionGroup");
    let size = if size.is_null() { None } else { read(size)? };
    Ok(DecisionGroups { sites_per_group: size, groups: groups.collect::<Result<_, _>>()? })
}

/// What filters in a placement of theirs: in their order, so that the first that can't be read is told of.
pub fn filters(spec: &Value) -> Result<PlacementSpec, Unreadable> {
    let predicates = spec.get("predicates").and_then(Value::as_array).cloned().unwrap_or_default();
    let predicates = predicates.iter().map(|one| predicate(&take(one, "/requiredClusterSelector")));
    Ok(PlacementSpec {
        predicates: predicates.collect::<Result<_, _>>()?,
        tolerations: tolerations(spec)?,
        migration: Migration { minimum_gain: 0.0, minimum_dwell_seconds: 0, ..Migration::default() },
        ..PlacementSpec::default()
    })
}

/// A placement of theirs as one of ours. They move for any gain, at once.
pub fn placement(spec: &Value) -> Result<PlacementSpec, Unreadable> {
    let number = spec.get("numberOfClusters").and_then(Value::as_i64);
    // Filters come before scores, also where neither can be read.
    let filters = filters(spec)?;
    Ok(PlacementSpec {
        number_of_sites: number.map(|number| u32::try_from(number).unwrap_or(0)),
        prioritizer_policy: prioritizers(spec)?,
        ..filters
    })
}

/// Amounts as we write them: with a digit first, and without a plus.
fn amounts(amounts: &BTreeMap<String, Value>) -> Value {
    let amounts = amounts.iter().map(|(name, amount)| {
        let text = amount.as_str().map(|text| text.strip_prefix('+').unwrap_or(text));
        let text = text.map(|text| if text.starts_with('.') { format!("0{text}") } else { text.to_owned() });
        (name.clone(), text.map_or_else(|| amount.clone(), Value::from))
    });
    Value::Object(amounts.collect())
}

/// A cluster of theirs as a site.
pub fn site(cluster: &Cluster) -> Result<Site, String> {
    let claims: Vec<Value> =
        cluster.claims.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    let taints = cluster.taints.iter().cloned().map(|mut taint| {
        if let Some(fields) = taint.as_object_mut() {
            fields.retain(|_, field| !field.is_null());
            // The zero of their times.
            fields.entry("timeAdded").or_insert_with(|| json!("0001-01-01T00:00:00Z"));
        }
        taint
    });
    let mut metadata = json!({"name": cluster.name, "labels": cluster.labels});
    if cluster.deleting {
        set(&mut metadata, "deletionTimestamp", json!("2020-01-01T00:00:00Z"))?;
    }
    let mut allocatable = amounts(&cluster.allocatable);
    if cluster.allocatable.is_empty() {
        // Nothing is known of it, rather than all there is.
        set(&mut allocatable, "", json!("0"))?;
    }
    let site = json!({
        "apiVersion": types::API_VERSION, "kind": "Site", "metadata": metadata,
        "spec": {"tier": "", "taints": taints.collect::<Vec<_>>()},
        "status": {
            "claims": claims, "allocatable": allocatable, "capacity": {"extended": amounts(&cluster.capacity)},
            "conditions": [{"type": "Ready", "status": "True", "reason": "Given",
                "lastTransitionTime": "2020-01-01T00:00:00Z"}],
        },
    });
    serde_json::from_value(site).map_err(|error| error.to_string())
}

/// A cluster as their expressions see it: what is empty isn't there, amounts are in their one form.
pub fn document(site: &Site) -> Value {
    let without_empty = |mut value: Value| {
        if let Some(fields) = value.as_object_mut() {
            fields.retain(|_, field| *field != json!(""));
        }
        value
    };
    let amounts = |amounts: &SmallMap<Amount>| -> Map<String, Value> {
        let known = amounts.iter().filter(|(name, _)| !name.is_empty());
        known
            .map(|(name, amount)| {
                let text = amount.to_string();
                (name.clone(), json!(Quantity::canonical(&text).unwrap_or(text)))
            })
            .collect()
    };
    let mut metadata = Map::from_iter([("name".to_owned(), json!(site.name()))]);
    if !site.metadata.labels.is_empty() {
        metadata.insert("labels".into(), json!(site.metadata.labels));
    }
    let mut status =
        Map::from_iter([("conditions".to_owned(), Value::Null), ("version".to_owned(), json!({}))]);
    if !site.status.claims.is_empty() {
        let claims = site.status.claims.iter().map(|claim| without_empty(json!(claim)));
        status.insert("clusterClaims".into(), claims.collect());
    }
    for (field, amounts) in [
        ("allocatable", amounts(&site.status.allocatable)),
        ("capacity", amounts(&site.status.capacity.extended)),
    ] {
        if !amounts.is_empty() {
            status.insert(field.into(), Value::Object(amounts));
        }
    }
    let mut spec = Map::from_iter([("hubAcceptsClient".to_owned(), json!(false))]);
    if !site.spec.taints.is_empty() {
        let taints = site.spec.taints.iter().map(|taint| {
            let mut taint = without_empty(json!(taint));
            if let Some(time) = taint.get_mut("timeAdded").filter(|time| *time == "0001-01-01T00:00:00Z") {
                *time = Value::Null;
            }
            taint
        });
        spec.insert("taints".into(), taints.collect());
    }
    json!({"metadata": metadata, "spec": spec, "status": status})
}

pub const DIALECT: Dialect = Dialect { variable: "managedCluster", document };

/// Sets a member of what must be an object.
pub fn set(object: &mut Value, name: &str, value: Value) -> Result<(), String> {
    let members = object.as_object_mut().ok_or_else(|| format!("`{name}` is set in what is no object"))?;
    members.insert(name.to_owned(), value);
    Ok(())
}

/// What others told, as resources of ours.
pub fn told(scores: &[AddOnScores]) -> Result<Vec<PlacementScore>, String> {
    let told = scores.iter().map(|told| {
        let scores: Vec<Value> =
            told.scores.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let mut spec = json!({"scores": scores});
        if let Some(until) = told.valid_until.clone().filter(|until| !until.is_null()) {
            set(&mut spec, "validUntil", until)?;
        }
        serde_json::from_value(json!({
            "apiVersion": types::API_VERSION, "kind": "PlacementScore",
            "metadata": {"name": told.resource, "namespace": told.cluster}, "spec": spec,
        }))
        .map_err(|error: serde_json::Error| error.to_string())
    });
    told.collect()
}

impl Input {
    /// When a cluster that is selected stops to be tolerated, available or not; they don't check tolerations for that.
    pub fn requeue_at(&self, now: Timestamp) -> Option<Timestamp> {
        let placement = self.placement.as_ref()?;
        let tolerations = tolerations(&placement.spec).ok()?;
        let own = self.existing_decisions.iter().filter(|decision| {
            decision.namespace == placement.namespace && decision.placement.as_ref() == Some(&placement.name)
        });
        let until = own.flat_map(|decision| &decision.clusters).filter_map(|name| {
            let cluster = self.clusters.iter().find(|cluster| cluster.name == *name)?;
            match taints::tolerance(&site(cluster).ok()?.spec.taints, &tolerations, true, now) {
                taints::Tolerance::Until(until) => Some(until),
                _ => None,
            }
        });
        until.min()
    }

    /// Decides for a placement over these clusters.
    pub fn decide(
        &self,
        spec: &PlacementSpec,
        clusters: &[Cluster],
        now: Timestamp,
    ) -> Result<Result<Outcome, Unreadable>, String> {
        let sites: Vec<Site> = clusters.iter().map(site).collect::<Result<_, _>>()?;
        let told = told(&self.add_on_scores)?;
        let nobody = Placement::default();
        let placement = self.placement.as_ref().unwrap_or(&nobody);
        let is_own = |decision: &&Decision| {
            decision.namespace == placement.namespace && decision.placement.as_ref() == Some(&placement.name)
        };
        let mut current: Vec<(String, Option<Timestamp>)> = Vec::new();
        for cluster in self.existing_decisions.iter().filter(is_own).flat_map(|decision| &decision.clusters) {
            if !current.iter().any(|(known, _)| known == cluster) {
                current.push((cluster.clone(), None));
            }
        }
        let others: Vec<_> = self
            .existing_decisions
            .iter()
            .enumerate()
            .filter(|(_, decision)| !is_own(decision))
            .map(|(index, decision)| {
                let key: PlacementKey = (decision.namespace.clone(), format!("{}/{index}", decision.name));
                (key, decision.clusters.clone(), BTreeMap::new())
            })
            .collect();
        let question = Question {
            told: &told,
            key: (placement.namespace.clone(), placement.name.clone()),
            current: &current,
            others: &others,
            ..Question::new(spec, &sites, now)
        };
        let outcome = answer(&question, Fleet::with_dialect(DIALECT));
        Ok(outcome.map_err(|wrong| Unreadable { message: wrong.message }))
    }
}
