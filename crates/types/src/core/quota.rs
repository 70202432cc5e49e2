//! `ResourceQuota`: how many objects a namespace may have.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{FieldError, Kind, KindInfo, kinds, names};

/// How many objects a namespace may have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceQuotaSpec {
    /// The most there may be of each resource: `count/PLURAL.GROUP`, `count/PLURAL` in the core group, or just
    /// `secrets`, `configmaps` or `resourcequotas`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub hard: BTreeMap<String, String>,
}

/// How many objects a namespace has.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceQuotaStatus {
    /// The most there may be of each resource, as the spec says.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub hard: BTreeMap<String, String>,
    /// How many there are.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub used: BTreeMap<String, String>,
}

/// Resources that have a name of their own in quotas and are served here.
const NAMED: [&str; 3] = ["configmaps", "resourcequotas", "secrets"];
/// Resources that have a name of their own in quotas, of which there never is any here.
const ABSENT: [&str; 16] = [
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];

impl ResourceQuotaSpec {
    /// The kind whose objects a resource of a quota counts; `None` where it counts nothing that is served here.
    pub fn counted(resource: &str) -> Option<&'static KindInfo> {
        let known = |info: &&KindInfo| info.namespaced && !info.is_alias();
        match resource.strip_prefix("count/") {
            Some(counted) => kinds().filter(known).find(|info| info.qualified() == counted),
            None if NAMED.contains(&resource) => kinds().filter(known).find(|info| info.plural == resource),
            None => None,
        }
    }

    /// What a quota allows and what there is of it, where `count` tells how many objects of a kind there are.
    pub fn status(&self, count: impl Fn(&'static KindInfo) -> usize) -> ResourceQuotaStatus {
        let used = self.hard.keys().filter_map(|resource| match Self::counted(resource) {
            Some(info) => Some((resource.clone(), count(info).to_string())),
            None => ABSENT.contains(&resource.as_str()).then(|| (resource.clone(), "0".to_owned())),
        });
        ResourceQuotaStatus { hard: self.hard.clone(), used: used.collect() }
    }
}

impl Kind for ResourceQuotaSpec {
    const GROUP: &'static str = "";
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "ResourceQuota";
    const PLURAL: &'static str = "resourcequotas";
    type Status = ResourceQuotaStatus;

    fn check(&self, errors: &mut Vec<FieldError>) {
        for (resource, most) in &self.hard {
            let field = format!("spec.hard[{resource}]");
            let is_standard = NAMED.contains(&resource.as_str()) || ABSENT.contains(&resource.as_str());
            let mut problems = names::label_key_problems(resource);
            if problems.is_empty() && !resource.contains('/') && !is_standard {
                problems.push("must be a standard resource for quotas".to_owned());
            }
            let wrong =
                problems.iter().map(|problem| FieldError::new(&*field, format!("{resource:?}"), problem));
            errors.extend(wrong);
            if most.starts_with('-') {
                let problem = "must be greater than or equal to 0";
                errors.push(FieldError::new(field, format!("{most:?}"), problem));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_of_quotas_are_kinds() {
        let counted = |resource| ResourceQuotaSpec::counted(resource).map(|info| info.plural);
        assert_eq!(counted("count/placements.avocet.dev"), Some("placements"));
        assert_eq!(counted("count/secrets"), Some("secrets"));
        assert_eq!(counted("secrets"), Some("secrets"));
        for none in ["count/sites.avocet.dev", "count/placements", "placements.avocet.dev", "events", "pods"]
        {
            assert_eq!(counted(none), None, "{none}");
        }
    }

    #[test]
    fn a_status_counts_what_is_served_and_what_never_is() {
        let hard = ["count/secrets", "pods", "count/unknown.example.com"];
        let spec = ResourceQuotaSpec { hard: hard.map(|name| (name.to_owned(), "5".to_owned())).into() };
        let status = spec.status(|_| 3);
        assert_eq!(status.hard, spec.hard);
        let used = [("count/secrets", "3"), ("pods", "0")];
        assert_eq!(status.used, used.map(|(name, used)| (name.to_owned(), used.to_owned())).into());
    }
}
