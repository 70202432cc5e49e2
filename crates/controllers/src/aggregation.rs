//! `ClusterRole`: those with an aggregation rule have the rules of all that it selects.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use serde_json::json;
use store::{Error, Object, Store};
use types::core::{ClusterRoleBody, PolicyRule};
use types::{Kind, LabelSelector, Plain, Time};

use crate::{Action, Events, Write};

/// Writes the rules of aggregated roles that are not as they should be.
pub(crate) fn reconcile(store: &Store) -> Vec<Write> {
    let (roles, _) = store.list(ClusterRoleBody::PLURAL, None);
    let kept = roles.iter().filter(|role| role.metadata.deletion_timestamp.is_none());
    let changed = kept.filter_map(|role| {
        let rules = json!(gathered(role, &roles)?);
        let mut manifest = role.manifest();
        let fields = manifest.as_object_mut().filter(|fields| fields.get("rules") != Some(&rules))?;
        fields.insert("rules".to_owned(), rules);
        Some(Write::new(role.key.clone(), Action::Spec(manifest)))
    });
    changed.collect()
}

fn selectors(role: &Object) -> Option<Vec<LabelSelector>> {
    let role = role.parse::<Plain<ClusterRoleBody>>().ok()?;
    Some(role.body.aggregation_rule?.cluster_role_selectors)
}

/// The rules that an aggregated role should have: those of all roles that it selects, and that these select in their
/// turn, each once. `None` for a role that isn't aggregated.
fn gathered(role: &Object, roles: &[Arc<Object>]) -> Option<Vec<PolicyRule>> {
    let mut rules: Vec<PolicyRule> = Vec::new();
    let mut seen = BTreeSet::from([role.key.name.as_str()]);
    let mut wanted = VecDeque::from([selectors(role)?]);
    while let Some(selectors) = wanted.pop_front() {
        let is_selected =
            |part: &Object| selectors.iter().any(|selector| selector.matches(&part.metadata.labels));
        for part in roles.iter().filter(|part| is_selected(part)) {
            if !seen.insert(part.key.name.as_str()) {
                continue;
            }
            match self::selectors(part) {
                Some(further) => wanted.push_back(further),
                None => add_rules(part, &mut rules),
            }
        }
    }
    Some(rules)
}

fn add_rules(part: &Object, rules: &mut Vec<PolicyRule>) {
    let own = part.parse::<Plain<ClusterRoleBody>>().map(|role| role.body.rules);
    for rule in own.unwrap_or_default() {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
}

/// Brings all aggregated roles up to date.
///
/// # Errors
/// If the store fails.
pub async fn aggregate(store: &Store, now: Time) -> Result<(), Error> {
    let events = Events::new(store.clone());
    for write in reconcile(store) {
        match write.apply(store, &events, now).await {
            // Whoever changed it meanwhile is followed by the next look.
            Ok(()) | Err(Error::Conflict { .. } | Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use store::{Key, Ledger};

    async fn put(store: &Store, name: &str, labels: Value, verb: Option<&str>, selects: Option<&str>) {
        let rules: Vec<Value> = verb
            .iter()
            .map(|verb| json!({"verbs": [verb], "apiGroups": [""], "resources": ["pods"]}))
            .collect();
        let mut role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": name, "labels": labels}, "rules": rules,
        });
        if let Some(label) = selects {
            role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
        }
        store.create(Key::new("clusterroles", "", name), role, daemon::now()).await.unwrap();
    }

    fn verbs(store: &Store, name: &str) -> Vec<String> {
        let object = store.get(&Key::new("clusterroles", "", name)).unwrap();
        let role = object.parse::<ClusterRoleBody>().unwrap();
        role.rules.into_iter().flat_map(|rule| rule.verbs).collect()
    }

    #[tokio::test]
    async fn rules_are_gathered_through_roles_that_are_gathered_themselves_each_once_and_in_order() {
        let store = Store::open(Ledger::memory().unwrap(), &["clusterroles"]).unwrap();
        put(&store, "all", json!({}), None, Some("to-all")).await;
        put(&store, "part", json!({"to-all": "true"}), Some("stale"), Some("to-part")).await;
        put(&store, "z", json!({"to-all": "true", "to-part": "true"}), Some("get"), None).await;
        put(&store, "a", json!({"to-part": "true"}), Some("list"), None).await;
        put(&store, "other", json!({"to-all": "false"}), Some("delete"), None).await;
        aggregate(&store, daemon::now()).await.unwrap();
        assert_eq!(verbs(&store, "part"), ["list", "get"]);
        assert_eq!(verbs(&store, "all"), ["get", "list"]);
        assert!(reconcile(&store).is_empty());
    }

    #[tokio::test]
    async fn roles_that_select_themselves_or_each_other_come_to_rest() {
        let store = Store::open(Ledger::memory().unwrap(), &["clusterroles"]).unwrap();
        put(&store, "own", json!({"to-own": "true"}), Some("get"), Some("to-own")).await;
        put(&store, "left", json!({"to-right": "true"}), Some("get"), Some("to-left")).await;
        put(&store, "right", json!({"to-left": "true"}), None, Some("to-right")).await;
        put(&store, "leaf", json!({"to-left": "true"}), Some("list"), None).await;
        aggregate(&store, daemon::now()).await.unwrap();
        assert_eq!(verbs(&store, "own"), [] as [&str; 0]);
        assert_eq!(
            (verbs(&store, "left"), verbs(&store, "right")),
            (vec!["list".into()], vec!["list".into()])
        );
        assert!(reconcile(&store).is_empty());
    }
}
