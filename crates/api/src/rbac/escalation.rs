//! Nobody gives rights that they don't have: neither by writing roles, nor by binding them.

use serde::Deserialize;
use serde_json::{Value, json};
use store::Seen;
use types::Kind;
use types::core::{ClusterRoleBindingBody, ClusterRoleBody, PolicyRule, RoleBindingBody, RoleBody, RoleRef};

use crate::ApiError;
use crate::authentication::User;
use crate::rbac::rules::{describe, missing, quote};
use crate::rbac::{Attempt, Rbac, ResourceAttempt};
use crate::target::Target;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Whether a caller may write this role or binding; other kinds pass.
///
/// # Errors
/// 403 that tells what rights are missing; 404 for a binding of a role that isn't there.
pub fn check(
    rbac: &Rbac,
    caller: &User,
    target: &Target,
    name: &str,
    new: &Value,
    old: Option<&Seen>,
) -> Result<(), ApiError> {
    let plural = target.info.plural;
    let is_role = matches!(plural, RoleBody::PLURAL | ClusterRoleBody::PLURAL);
    let is_binding = matches!(plural, RoleBindingBody::PLURAL | ClusterRoleBindingBody::PLURAL);
    if !(is_role || is_binding) || caller.is_admin() {
        return Ok(());
    }
    if old.is_some_and(|old| without_ownership(&old.manifest) == without_ownership(new)) {
        return Ok(());
    }
    let forbidden = |problem: &str| ApiError::forbidden_resource(GROUP, plural, name, problem);
    let may = |verb, plural, name| {
        let attempt = ResourceAttempt {
            verb,
            group: GROUP,
            plural,
            namespace: &target.namespace,
            name,
            ..Default::default()
        };
        rbac.decide(caller, &Attempt::Resource(attempt)).allowed
    };
    if is_binding {
        let role = new.get("roleRef").cloned().unwrap_or_default();
        let role = RoleRef::deserialize(&role).map_err(|error| ApiError::bad_request(error.to_string()))?;
        let bound =
            if role.kind == ClusterRoleBody::KIND { ClusterRoleBody::PLURAL } else { RoleBody::PLURAL };
        if may("bind", bound, &role.name) {
            return Ok(());
        }
        let rules = rbac.index().rules_of(&role, &target.namespace);
        let rules = rules.map_err(ApiError::not_found)?;
        return check_held(rbac, caller, &target.namespace, &rules).map_err(|problem| forbidden(&problem));
    }
    if may("escalate", plural, name) {
        return Ok(());
    }
    let rules = Vec::<PolicyRule>::deserialize(new.get("rules").unwrap_or(&json!([])));
    let rules = rules.map_err(|error| ApiError::bad_request(error.to_string()))?;
    check_held(rbac, caller, &target.namespace, &rules).map_err(|problem| forbidden(&problem))?;
    let gathers = |role: &Value| role.get("aggregationRule").is_some_and(|rule| !rule.is_null());
    let gathers = gathers(new) || old.is_some_and(|old| gathers(&old.manifest));
    if gathers && check_held(rbac, caller, "", &everything()).is_err() {
        return Err(forbidden("must have cluster-admin privileges to use an aggregationRule"));
    }
    Ok(())
}

fn check_held(rbac: &Rbac, caller: &User, namespace: &str, wanted: &[PolicyRule]) -> Result<(), String> {
    let lacking = missing(&rbac.rules(caller, namespace), wanted);
    if lacking.is_empty() {
        return Ok(());
    }
    let mut lines: Vec<String> = lacking.iter().map(describe).collect();
    lines.sort();
    lines.dedup();
    Err(format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        caller.name,
        quote(&caller.groups),
        lines.join("\n")
    ))
}

/// The rules of those who may do everything.
fn everything() -> [PolicyRule; 2] {
    let all = || vec!["*".to_owned()];
    let resources = PolicyRule { verbs: all(), api_groups: all(), resources: all(), ..PolicyRule::default() };
    [resources, PolicyRule { verbs: all(), non_resource_urls: all(), ..PolicyRule::default() }]
}

/// Without what garbage collection and bookkeeping change.
fn without_ownership(manifest: &Value) -> Value {
    let mut rest = manifest.clone();
    if let Some(metadata) = rest.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion", "generation"] {
            metadata.remove(field);
        }
    }
    rest
}
