//! Role-based access control: what may be done, and who may do it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{FieldError, Kind, LabelSelector, NoStatus};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Some verbs on some resources. `*` stands for all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyRule {
    /// What may be done: get, list, watch, create, update, patch, delete, deletecollection, …
    pub verbs: Vec<String>,
    /// API groups of the resources; the empty string is the core group.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    /// Plurals of the resources, or `plural/subresource`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Names of the objects; empty for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// Paths that are no resources, for example /version or /openapi/*; in ClusterRoles only.
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

/// Someone who may do what a role says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Subject {
    /// `User`, `Group` or `ServiceAccount`.
    pub kind: String,
    /// `rbac.authorization.k8s.io` for users and groups, empty for service accounts.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    /// Their name.
    pub name: String,
    /// The namespace of a service account.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

/// The role that a binding gives. It can't be changed later.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleRef {
    /// `rbac.authorization.k8s.io`.
    pub api_group: String,
    /// `Role` or `ClusterRole`.
    pub kind: String,
    /// The role's name.
    pub name: String,
}

/// What may be done in one namespace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleBody {
    /// Every rule adds to what may be done.
    pub rules: Vec<PolicyRule>,
}

/// What may be done in all namespaces, or in those of the bindings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterRoleBody {
    /// Every rule adds to what may be done.
    pub rules: Vec<PolicyRule>,
    /// Has the rules gathered from other ClusterRoles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregation_rule: Option<AggregationRule>,
}

/// Which ClusterRoles' rules are gathered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AggregationRule {
    /// The rules of every ClusterRole that one of these selects.
    pub cluster_role_selectors: Vec<LabelSelector>,
}

/// Gives a role to subjects in one namespace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleBindingBody {
    /// Who gets it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<Subject>,
    /// What they get.
    pub role_ref: RoleRef,
}

/// Gives a ClusterRole to subjects everywhere.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterRoleBindingBody {
    /// Who gets it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<Subject>,
    /// What they get.
    pub role_ref: RoleRef,
}

impl Kind for RoleBody {
    const GROUP: &'static str = GROUP;
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "Role";
    const PLURAL: &'static str = "roles";
    type Status = NoStatus;

    fn name_problem(name: &str) -> Option<&'static str> {
        segment_problem(name)
    }

    fn check(&self, errors: &mut Vec<FieldError>) {
        check_rules(&self.rules, errors);
        for (index, rule) in self.rules.iter().enumerate() {
            if !rule.non_resource_urls.is_empty() {
                errors.push(FieldError::new(
                    format!("rules[{index}].nonResourceURLs"),
                    format!("{:?}", rule.non_resource_urls),
                    "namespaced rules cannot apply to non-resource URLs",
                ));
            }
        }
    }
}

impl Kind for ClusterRoleBody {
    const GROUP: &'static str = GROUP;
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "ClusterRole";
    const PLURAL: &'static str = "clusterroles";
    const NAMESPACED: bool = false;
    type Status = NoStatus;

    fn name_problem(name: &str) -> Option<&'static str> {
        segment_problem(name)
    }

    fn check(&self, errors: &mut Vec<FieldError>) {
        check_rules(&self.rules, errors);
    }
}

impl Kind for RoleBindingBody {
    const GROUP: &'static str = GROUP;
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "RoleBinding";
    const PLURAL: &'static str = "rolebindings";
    type Status = NoStatus;

    fn name_problem(name: &str) -> Option<&'static str> {
        segment_problem(name)
    }

    fn check(&self, errors: &mut Vec<FieldError>) {
        check_role(&self.role_ref, &["Role", "ClusterRole"], errors);
        check_subjects(&self.subjects, errors);
    }
}

impl Kind for ClusterRoleBindingBody {
    const GROUP: &'static str = GROUP;
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "ClusterRoleBinding";
    const PLURAL: &'static str = "clusterrolebindings";
    const NAMESPACED: bool = false;
    type Status = NoStatus;

    fn name_problem(name: &str) -> Option<&'static str> {
        segment_problem(name)
    }

    fn check(&self, errors: &mut Vec<FieldError>) {
        check_role(&self.role_ref, &["ClusterRole"], errors);
        check_subjects(&self.subjects, errors);
    }
}

/// Roles and bindings have names with `:` in them; any one segment of a path will do.
fn segment_problem(name: &str) -> Option<&'static str> {
    let is_segment = !matches!(name, "" | "." | "..")
        && name.len() <= 253
        && !name.contains(|c: char| matches!(c, '/' | '%') || c.is_control());
    (!is_segment)
        .then_some("is not a name: write 1 to 253 characters, neither '.' nor '..', without '/' and '%'")
}

fn check_rules(rules: &[PolicyRule], errors: &mut Vec<FieldError>) {
    for (index, rule) in rules.iter().enumerate() {
        if rule.verbs.is_empty() {
            errors.push(FieldError::new(
                format!("rules[{index}].verbs"),
                "[]",
                "verbs must contain at least one value",
            ));
        }
        let names_resources = !rule.resources.is_empty() && !rule.api_groups.is_empty();
        if rule.non_resource_urls.is_empty() && !names_resources {
            errors.push(FieldError::new(
                format!("rules[{index}].resources"),
                "[]",
                "resource rules must supply at least one api group and at least one resource",
            ));
        }
    }
}

fn check_role(role: &RoleRef, kinds: &[&str], errors: &mut Vec<FieldError>) {
    if role.api_group != GROUP {
        errors.push(FieldError::new(
            "roleRef.apiGroup",
            format!("{:?}", role.api_group),
            format!("supported values: {GROUP:?}"),
        ));
    }
    if !kinds.contains(&role.kind.as_str()) {
        errors.push(FieldError::new(
            "roleRef.kind",
            format!("{:?}", role.kind),
            format!("supported values: {}", kinds.join(", ")),
        ));
    }
    if role.name.is_empty() {
        errors.push(FieldError::new("roleRef.name", "\"\"", "is required: name the role"));
    }
}

fn check_subjects(subjects: &[Subject], errors: &mut Vec<FieldError>) {
    for (index, subject) in subjects.iter().enumerate() {
        let place = format!("subjects[{index}]");
        match subject.kind.as_str() {
            "ServiceAccount" if subject.namespace.is_empty() => {
                errors.push(FieldError::new(
                    format!("{place}.namespace"),
                    "\"\"",
                    "is required: name the account's namespace",
                ));
            }
            "User" | "Group" | "ServiceAccount" => {}
            other => errors.push(FieldError::new(
                format!("{place}.kind"),
                format!("{other:?}"),
                "supported values: \"ServiceAccount\", \"User\", \"Group\"",
            )),
        }
        if subject.name.is_empty() {
            errors.push(FieldError::new(format!("{place}.name"), "\"\"", "is required: name the subject"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_roles_are_segments_of_paths() {
        for name in ["system:discovery", "site:plant", "a", "A b"] {
            assert_eq!(segment_problem(name), None, "{name}");
        }
        for name in ["", ".", "..", "a/b", "a%2fb", "a\nb", &"a".repeat(254)] {
            assert!(segment_problem(name).is_some(), "{name}");
        }
    }
}
