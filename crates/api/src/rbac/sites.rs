//! What a site's agent may do: read what is in its own namespace, report how that stands, say that it lives.
//!
//! It follows from the site's name, as kubelets' rights do in Kubernetes' node authorizer: nothing of it is stored, so that
//! it costs a hub of many sites nothing, and what a new version allows holds for all of them.

use std::sync::LazyLock;

use serde_json::{Value, json};
use store::{Deletion, Error, Store};
use types::Time;
use types::core::PolicyRule;

use crate::rbac::index::PLURALS;

const READ: [&str; 3] = ["get", "list", "watch"];
const REPORT: [&str; 3] = ["get", "patch", "update"];
/// Stands for the site's name.
const SITE: &str = "SITE";

/// What sites may do everywhere, and in the namespace of their name.
static RULES: LazyLock<[Vec<PolicyRule>; 2]> =
    LazyLock::new(|| [everywhere(), within()].map(|rules| serde_json::from_value(rules).unwrap_or_default()));

/// The rules of a site in a namespace: those that hold everywhere, and at home those of its own.
pub fn rules<'a>(site: &'a str, namespace: &str) -> impl Iterator<Item = PolicyRule> + use<'a> {
    let [everywhere, within] = &*RULES;
    let within = if namespace == site { within.as_slice() } else { &[] };
    everywhere.iter().chain(within).map(|rule| of(site, rule))
}

/// A rule, of one site.
fn of(site: &str, rule: &PolicyRule) -> PolicyRule {
    let mut rule = rule.clone();
    for named in rule.resource_names.iter_mut().chain(&mut rule.non_resource_urls) {
        *named = named.replace(SITE, site);
    }
    rule
}

fn everywhere() -> Value {
    json!([
        {"verbs": READ, "apiGroups": [types::GROUP], "resources": ["sites"], "resourceNames": [SITE]},
        {"verbs": REPORT, "apiGroups": [types::GROUP], "resources": ["sites/status"], "resourceNames": [SITE]},
        {
            "verbs": ["post"],
            "nonResourceURLs": ["/avocet/v1/sites/SITE/heartbeat", "/avocet/v1/sites/SITE/certificate"],
        },
        // For sites that are hubs themselves; what each of them may do is checked there.
        {
            "verbs": ["post"],
            "nonResourceURLs": ["/avocet/v1/sites/SITE/children", "/avocet/v1/sites/SITE/reports"],
        },
        {
            "verbs": ["get"],
            "nonResourceURLs": [
                "/avocet/v1/sites/SITE/probe",
                "/avocet/v1/sites/SITE/assignments",
                "/avocet/v1/sites/SITE/sources",
            ],
        },
        {"verbs": ["post"], "nonResourceURLs": ["/avocet/v1/sites/SITE/sources/*"]},
        {"verbs": ["put"], "nonResourceURLs": ["/avocet/v1/sites/SITE/peers"]},
        {"verbs": ["post"], "nonResourceURLs": ["/avocet/v1/sites/SITE/peers/questions"]},
        {"verbs": ["post", "put"], "nonResourceURLs": ["/avocet/v1/offload/SITE/*"]},
        {
            "verbs": ["get", "head", "delete"],
            "nonResourceURLs": ["/avocet/v1/mailbox/SITE", "/avocet/v1/mailbox/SITE/*"],
        },
    ])
}

fn within() -> Value {
    let leases = "coordination.k8s.io";
    json!([
        {"verbs": READ, "apiGroups": [types::GROUP], "resources": ["assignments", "functions", "models"]},
        {"verbs": REPORT, "apiGroups": [types::GROUP], "resources": ["assignments/status"]},
        {"verbs": READ, "apiGroups": [""], "resources": ["configmaps", "secrets"]},
        {"verbs": ["create", "patch"], "apiGroups": [""], "resources": ["events"]},
        {"verbs": ["create"], "apiGroups": [leases], "resources": ["leases"]},
        {"verbs": REPORT, "apiGroups": [leases], "resources": ["leases"], "resourceNames": [SITE]},
    ])
}

/// Deletes the roles and bindings that older versions stored for each site.
///
/// # Errors
/// If the store fails.
pub async fn forget_roles(store: &Store, now: Time) -> Result<(), Error> {
    for plural in PLURALS {
        let (objects, _) = store.list(plural, None);
        for object in objects {
            let made = object.metadata.labels.get("kubernetes.io/bootstrapping");
            if object.key.name.starts_with("site:") && made.is_some_and(|by| by == "rbac-defaults") {
                store.delete(object.key.clone(), Deletion::at(now)).await?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_has_rights_of_its_own_and_at_home() {
        let [everywhere, within] = &*RULES;
        assert!(everywhere.len() > 5 && within.len() > 3, "the tables are rules");
        assert_eq!(rules("plant", "shop").count(), everywhere.len());
        let at_home: Vec<PolicyRule> = rules("plant", "plant").collect();
        assert_eq!(at_home.len(), everywhere.len() + within.len());
        assert!(!format!("{at_home:?}").contains(SITE));
    }
}
