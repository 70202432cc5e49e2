//! The roles and bindings that every hub has, with the names that they have in Kubernetes.

use serde_json::{Map, Value, json};
use store::{Error, Key, Store};
use types::core::{ClusterRoleBindingBody, ClusterRoleBody, PolicyRule};
use types::{Kind, Time};

use crate::authentication::MASTERS;
use crate::rbac::rules::missing;

const RBAC: &str = "rbac.authorization.k8s.io";
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
/// The group of all agents of sites.
pub const SITES: &str = "avocet:sites";
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";

const READ: [&str; 3] = ["get", "list", "watch"];
const WRITE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];
const ALL: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Our kinds that people write, and parts of them.
const STATED: [&str; 6] =
    ["applications", "functions", "models", "placements", "placements/scale", "sources"];
/// Our kinds that people only look at.
const SHOWN: [&str; 14] = [
    "applicationrevisions",
    "applicationrevisions/status",
    "applications/status",
    "assignments",
    "assignments/status",
    "functions/status",
    "models/status",
    "placementdecisions",
    "placementdecisions/status",
    "placements/explanation",
    "placements/status",
    "placementscores",
    "sites",
    "sources/status",
];

fn rule(verbs: &[&str], group: &str, resources: &[&str]) -> Value {
    json!({"verbs": verbs, "apiGroups": [group], "resources": resources})
}

fn paths(verbs: &[&str], urls: &[&str]) -> Value {
    json!({"verbs": verbs, "nonResourceURLs": urls})
}

/// Name, what its rules are added to (admin, edit or view; empty for nothing), and rules.
type Role = (&'static str, &'static str, Vec<Value>);

fn roles() -> Vec<Role> {
    let asked = |group, plurals: &[&str]| rule(&["create"], group, plurals);
    let (authentication, authorization) = ("authentication.k8s.io", "authorization.k8s.io");
    vec![
        ("cluster-admin", "", vec![rule(&["*"], "*", &["*"]), paths(&["*"], &["*"])]),
        (
            "system:basic-user",
            "",
            vec![
                asked(authorization, &["selfsubjectaccessreviews", "selfsubjectrulesreviews"]),
                asked(authentication, &["selfsubjectreviews"]),
            ],
        ),
        (
            "system:discovery",
            "",
            vec![paths(
                &["get"],
                &[
                    "/api",
                    "/api/*",
                    "/apis",
                    "/apis/*",
                    "/healthz",
                    "/livez",
                    "/openapi",
                    "/openapi/*",
                    "/readyz",
                    "/version",
                    "/version/",
                ],
            )],
        ),
        (
            "system:public-info-viewer",
            "",
            vec![paths(&["get"], &["/healthz", "/livez", "/readyz", "/version", "/version/"])],
        ),
        (
            "system:monitoring",
            "",
            vec![paths(
                &["get"],
                &[
                    "/healthz",
                    "/healthz/*",
                    "/livez",
                    "/livez/*",
                    "/metrics",
                    "/metrics/slis",
                    "/readyz",
                    "/readyz/*",
                ],
            )],
        ),
        (
            "system:aggregate-to-admin",
            "admin",
            vec![
                asked(authorization, &["localsubjectaccessreviews"]),
                rule(&ALL, RBAC, &["rolebindings", "roles"]),
            ],
        ),
        (
            "system:aggregate-to-edit",
            "edit",
            vec![
                rule(&READ, "", &["secrets"]),
                rule(&["impersonate"], "", &["serviceaccounts"]),
                rule(&WRITE, "", &["configmaps", "events", "secrets", "serviceaccounts"]),
                asked("", &["serviceaccounts/token"]),
                rule(&ALL, "coordination.k8s.io", &["leases"]),
            ],
        ),
        (
            "system:aggregate-to-view",
            "view",
            vec![
                rule(&READ, "", &["configmaps", "serviceaccounts"]),
                rule(
                    &READ,
                    "",
                    &[
                        "events",
                        "limitranges",
                        "namespaces",
                        "namespaces/status",
                        "resourcequotas",
                        "resourcequotas/status",
                        "services",
                    ],
                ),
            ],
        ),
        (
            "avocet:aggregate-to-edit",
            "edit",
            vec![rule(&WRITE, types::GROUP, &STATED), asked(types::GROUP, &[types::PLACEMENT_SIMULATIONS])],
        ),
        (
            "avocet:aggregate-to-view",
            "view",
            vec![rule(&READ, types::GROUP, &STATED), rule(&READ, types::GROUP, &SHOWN)],
        ),
        // Bound to nobody: for those who may bring artifacts, which are in no namespace.
        (
            "avocet:publisher",
            "",
            vec![
                paths(&["get", "head", "put"], &["/avocet/v1/blobs/*"]),
                paths(&["delete", "get", "head", "patch", "post", "put"], &["/v2/*"]),
            ],
        ),
        // Bound to nobody, either: for those who may take whatever is in the registry.
        ("avocet:puller", "", vec![paths(&["get", "head"], &["/v2/*"])]),
        // Clients of registries log in by asking for this; it says nothing.
        ("avocet:registry-login", "", vec![paths(&["get", "head"], &["/v2", "/v2/"])]),
        // What all sites need alike. To whose box and what a site may deliver is checked at the mailbox.
        (
            SITES,
            "",
            vec![
                asked(authentication, &["tokenreviews"]),
                paths(&["get", "head"], &["/avocet/v1/blobs/*", "/v2/*"]),
                paths(&["put"], &["/avocet/v1/mailbox/*"]),
            ],
        ),
    ]
}

/// Roles whose rules are those of others: the name, and the role that it is part of.
const GATHERED: [(&str, &str); 3] = [("admin", ""), ("edit", "admin"), ("view", "edit")];

/// Role and group; bindings have the names of their roles.
const BINDINGS: [(&str, &[&str]); 7] = [
    ("cluster-admin", &[MASTERS]),
    ("system:basic-user", &[AUTHENTICATED]),
    ("system:discovery", &[AUTHENTICATED]),
    ("system:monitoring", &["system:monitoring"]),
    ("system:public-info-viewer", &[AUTHENTICATED, UNAUTHENTICATED]),
    ("avocet:registry-login", &[AUTHENTICATED]),
    (SITES, &[SITES]),
];

fn aggregate_to(role: &str) -> Map<String, Value> {
    let mut labels = Map::new();
    if !role.is_empty() {
        labels.insert(format!("{RBAC}/aggregate-to-{role}"), json!("true"));
    }
    labels
}

fn metadata(name: &str, mut labels: Map<String, Value>) -> Value {
    labels.insert("kubernetes.io/bootstrapping".into(), json!("rbac-defaults"));
    json!({"name": name, "labels": labels, "annotations": {AUTOUPDATE: "true"}})
}

/// Creates what is missing of the default roles and bindings, and adds rules and subjects that they lack.
///
/// # Errors
/// If the store fails.
pub async fn reconcile(store: &Store, now: Time) -> Result<(), Error> {
    for (name, part_of, rules) in roles() {
        let role = json!({"metadata": metadata(name, aggregate_to(part_of)), "rules": rules});
        ensure::<ClusterRoleBody>(store, role, add_missing, now).await?;
    }
    for (name, part_of) in GATHERED {
        let selector = json!({"matchLabels": aggregate_to(name)});
        let role = json!({
            "metadata": metadata(name, aggregate_to(part_of)), "rules": [],
            "aggregationRule": {"clusterRoleSelectors": [selector]},
        });
        ensure::<ClusterRoleBody>(store, role, add_missing, now).await?;
    }
    for (name, groups) in BINDINGS {
        let subjects: Vec<Value> =
            groups.iter().map(|group| json!({"kind": "Group", "apiGroup": RBAC, "name": group})).collect();
        let role = json!({"apiGroup": RBAC, "kind": ClusterRoleBody::KIND, "name": name});
        let binding = json!({"metadata": metadata(name, Map::new()), "subjects": subjects, "roleRef": role});
        ensure::<ClusterRoleBindingBody>(store, binding, add_missing, now).await?;
    }
    Ok(())
}

/// Brings the present manifest closer to the wanted one.
pub type Merge = fn(&mut Value, &Value);

/// Creates an object, or merges it into the one that is there, unless that says that it wants no updates.
///
/// # Errors
/// If the store fails.
pub async fn ensure<B: Kind>(store: &Store, wanted: Value, merge: Merge, now: Time) -> Result<(), Error> {
    let text = |pointer: &str| wanted.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let key = Key::new(B::PLURAL, text("/metadata/namespace"), text("/metadata/name"));
    let mut wanted = wanted;
    json_patch::merge(&mut wanted, &json!({"apiVersion": B::api_version(), "kind": B::KIND}));
    loop {
        let written = match store.get(&key) {
            None => store.create(key.clone(), wanted.clone(), now).await,
            Some(current) => {
                if current.metadata.annotations.get(AUTOUPDATE).is_some_and(|update| update == "false") {
                    return Ok(());
                }
                let before = current.manifest();
                let mut manifest = before.clone();
                merge(&mut manifest, &wanted);
                if manifest == before {
                    return Ok(());
                }
                store.update(key.clone(), manifest, false).await
            }
        };
        match written {
            // Somebody was faster: merged into what they made.
            Err(Error::Exists(_) | Error::NotFound(_) | Error::Conflict { .. }) => {}
            other => return other.map(drop),
        }
    }
}

/// Adds labels, annotations, rules and subjects that are missing; takes nothing away.
fn add_missing(current: &mut Value, wanted: &Value) {
    let labels = wanted.pointer("/metadata/labels").cloned().unwrap_or_default();
    let annotations = wanted.pointer("/metadata/annotations").cloned().unwrap_or_default();
    json_patch::merge(current, &json!({"metadata": {"labels": labels, "annotations": annotations}}));
    let Some(fields) = current.as_object_mut() else { return };
    if let Some(gathered) = wanted.get("aggregationRule") {
        fields.entry("aggregationRule").or_insert_with(|| gathered.clone());
    }
    add_entries(fields, wanted, "rules", |present, rule| {
        let read = |rules: Value| serde_json::from_value::<Vec<PolicyRule>>(rules).unwrap_or_default();
        missing(&read(json!(present)), &read(json!([rule]))).is_empty()
    });
    add_entries(fields, wanted, "subjects", |present, subject| present.contains(subject));
}

fn add_entries(
    fields: &mut Map<String, Value>,
    wanted: &Value,
    field: &str,
    is_there: fn(&[Value], &Value) -> bool,
) {
    let Some(wanted) = wanted.get(field).and_then(Value::as_array) else { return };
    let present = fields.entry(field).or_insert_with(|| json!([]));
    let Some(present) = present.as_array_mut() else { return };
    for entry in wanted {
        if !is_there(present, entry) {
            present.push(entry.clone());
        }
    }
}
