//! What a site's agent may do: read what is in its own namespace, report how that stands, say that it lives.

use serde_json::{Value, json};
use store::{Error, Object, Store};
use types::core::{ClusterRoleBindingBody, ClusterRoleBody, RoleBindingBody, RoleBody};
use types::{Kind, SiteSpec, Time};

use crate::rbac::defaults::ensure;

const RBAC: &str = "rbac.authorization.k8s.io";
const READ: [&str; 3] = ["get", "list", "watch"];
const REPORT: [&str; 3] = ["get", "patch", "update"];

/// Gives a site its rights; they go away with the Site.
///
/// # Errors
/// If the store fails.
pub async fn grant(store: &Store, site: &Object, now: Time) -> Result<(), Error> {
    let name = site.key.name.as_str();
    let role = format!("site:{name}");
    let owner = json!({
        "apiVersion": SiteSpec::api_version(), "kind": SiteSpec::KIND, "name": name, "uid": site.metadata.uid,
    });
    let metadata = |namespace: &str| {
        let mut metadata = json!({
            "name": role, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}, "ownerReferences": [owner],
        });
        if !namespace.is_empty() {
            json_patch::merge(&mut metadata, &json!({"namespace": namespace}));
        }
        metadata
    };
    let subjects = json!([{"kind": "User", "apiGroup": RBAC, "name": role}]);
    let role_ref = |kind| json!({"apiGroup": RBAC, "kind": kind, "name": role});
    let everywhere = json!({"metadata": metadata(""), "rules": rules_everywhere(name)});
    let within = json!({"metadata": metadata(name), "rules": rules_within(name)});
    let bound = json!({
        "metadata": metadata(""), "subjects": subjects, "roleRef": role_ref(ClusterRoleBody::KIND),
    });
    let bound_within =
        json!({"metadata": metadata(name), "subjects": subjects, "roleRef": role_ref(RoleBody::KIND)});
    ensure::<ClusterRoleBody>(store, everywhere, replace, now).await?;
    ensure::<RoleBody>(store, within, replace, now).await?;
    ensure::<ClusterRoleBindingBody>(store, bound, replace, now).await?;
    ensure::<RoleBindingBody>(store, bound_within, replace, now).await
}

fn rules_everywhere(site: &str) -> Value {
    let own = |path: &str| path.replace("SITE", site);
    json!([
        {"verbs": READ, "apiGroups": [types::GROUP], "resources": ["sites"], "resourceNames": [site]},
        {"verbs": REPORT, "apiGroups": [types::GROUP], "resources": ["sites/status"], "resourceNames": [site]},
        {
            "verbs": ["post"],
            "nonResourceURLs": [own("/avocet/v1/sites/SITE/heartbeat"), own("/avocet/v1/sites/SITE/certificate")],
        },
        // For sites that are hubs themselves; what each of them may do is checked there.
        {
            "verbs": ["post"],
            "nonResourceURLs": [own("/avocet/v1/sites/SITE/children"), own("/avocet/v1/sites/SITE/reports")],
        },
        {
            "verbs": ["get"],
            "nonResourceURLs": [
                own("/avocet/v1/sites/SITE/probe"),
                own("/avocet/v1/sites/SITE/assignments"),
                own("/avocet/v1/sites/SITE/sources"),
            ],
        },
        {"verbs": ["post"], "nonResourceURLs": [own("/avocet/v1/sites/SITE/sources/*")]},
        {"verbs": ["put"], "nonResourceURLs": [own("/avocet/v1/sites/SITE/peers")]},
        {"verbs": ["post"], "nonResourceURLs": [own("/avocet/v1/sites/SITE/peers/questions")]},
        {"verbs": ["post", "put"], "nonResourceURLs": [own("/avocet/v1/offload/SITE/*")]},
        {
            "verbs": ["get", "head", "delete"],
            "nonResourceURLs": [own("/avocet/v1/mailbox/SITE"), own("/avocet/v1/mailbox/SITE/*")],
        },
    ])
}

fn rules_within(site: &str) -> Value {
    let leases = "coordination.k8s.io";
    json!([
        {"verbs": READ, "apiGroups": [types::GROUP], "resources": ["assignments", "functions", "models"]},
        {"verbs": REPORT, "apiGroups": [types::GROUP], "resources": ["assignments/status"]},
        {"verbs": READ, "apiGroups": [""], "resources": ["configmaps", "secrets"]},
        {"verbs": ["create", "patch"], "apiGroups": [""], "resources": ["events"]},
        {"verbs": ["create"], "apiGroups": [leases], "resources": ["leases"]},
        {"verbs": REPORT, "apiGroups": [leases], "resources": ["leases"], "resourceNames": [site]},
    ])
}

/// Makes all of it as it is wanted, and owned by the Site that there is now.
fn replace(current: &mut Value, wanted: &Value) {
    for field in ["rules", "subjects", "roleRef"] {
        if let Some(value) = wanted.get(field)
            && let Some(fields) = current.as_object_mut()
        {
            fields.insert(field.to_owned(), value.clone());
        }
    }
    let metadata = wanted.get("metadata").cloned().unwrap_or_default();
    json_patch::merge(current, &json!({"metadata": metadata}));
}
