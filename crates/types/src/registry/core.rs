//! The kinds of Kubernetes itself that are served here.

use serde_json::{Value, json};

use crate::names;

use super::{AGE, Alias, Cell, Column, KindInfo, NAME, column};
use crate::core::{
    CertificateSigningRequestSpec, ClusterRoleBindingBody, ClusterRoleBody, ConfigMapBody,
    CustomResourceDefinitionSpec, EventBody, LeaseBody, LimitRangeBody, NamespaceSpec, ResourceQuotaSpec,
    RoleBindingBody, RoleBody, SecretBody, ServiceAccountBody, ServiceSpec,
};

const fn computed(name: &'static str, cell: fn(&Value) -> Value, description: &'static str) -> Column {
    Column { name, format: "string", cell: Cell::Computed(cell), priority: 0, description }
}

const fn wide(column: Column) -> Column {
    Column { priority: 1, ..column }
}

const ROLE: Column = computed("Role", role, "what is given");
const USERS: Column = wide(computed("Users", |binding| subjects(binding, "User"), "users who get it"));
const GROUPS: Column = wide(computed("Groups", |binding| subjects(binding, "Group"), "groups who get it"));
const ACCOUNTS: Column =
    wide(computed("ServiceAccounts", |binding| subjects(binding, "ServiceAccount"), "programs that get it"));
const CREATED: Column = column("Created At", "date", ".metadata.creationTimestamp", 0, "when it was created");

const EVENT: KindInfo = KindInfo::plain::<EventBody>(
    "event",
    &["ev"],
    &[
        Column {
            cell: Cell::Age(&[".lastTimestamp", ".series.lastObservedTime", ".eventTime", ".firstTimestamp"]),
            ..column("Last Seen", "string", "", 0, "how long ago it happened last")
        },
        column("Type", "string", ".type", 0, "Normal or Warning"),
        column("Reason", "string", ".reason", 0, "why, as a word for programs"),
        computed("Object", object, "what it happened to"),
        wide(column("Subobject", "string", ".involvedObject.fieldPath", 1, "which part of it")),
        wide(column("Source", "string", ".source.component", 1, "who told")),
        column("Message", "string", ".message", 0, "what happened"),
        wide(Column {
            cell: Cell::Age(&[".firstTimestamp", ".eventTime"]),
            ..column("First Seen", "string", "", 1, "when it happened first")
        }),
        wide(column("Count", "integer", ".count", 1, "how often it happened")),
        wide(NAME),
    ],
)
.selectable_by(&[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
]);

/// Kinds that show what is kept as another one.
pub(super) static ALIASES: [KindInfo; 1] = [KindInfo {
    group: "events.k8s.io",
    selectable: &[
        "regarding.kind",
        "regarding.namespace",
        "regarding.name",
        "regarding.uid",
        "regarding.apiVersion",
        "regarding.resourceVersion",
        "regarding.fieldPath",
        "reason",
        "reportingController",
        "type",
    ],
    alias: Some(&Alias {
        kept: &EVENT,
        renamed: &[
            ("involvedObject", "regarding"),
            ("message", "note"),
            ("source", "deprecatedSource"),
            ("firstTimestamp", "deprecatedFirstTimestamp"),
            ("lastTimestamp", "deprecatedLastTimestamp"),
            ("count", "deprecatedCount"),
            ("reportingComponent", "reportingController"),
        ],
    }),
    ..EVENT
}];

pub(super) static CORE: [KindInfo; 15] = [
    KindInfo {
        verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
        name_problems: names::label_problems,
        ..KindInfo::resource::<NamespaceSpec>(
            "namespace",
            &["ns"],
            &[NAME, column("Status", "string", ".status.phase", 0, "Active or Terminating"), AGE],
        )
        .selectable_by(&["status.phase"])
    },
    KindInfo {
        verbs: &["get", "list", "watch"],
        categories: &["all"],
        ..KindInfo::resource::<ServiceSpec>(
            "service",
            &["svc"],
            &[
                NAME,
                column("Type", "string", ".spec.type", 0, "how it is reached"),
                column("Cluster-IP", "string", ".spec.clusterIP", 0, "its address"),
                AGE,
            ],
        )
        .without_status()
    },
    KindInfo {
        verbs: &["get", "list", "watch"],
        ..KindInfo::plain::<LimitRangeBody>("limitrange", &["limits"], &[NAME, CREATED])
    },
    KindInfo::plain::<ConfigMapBody>(
        "configmap",
        &["cm"],
        &[NAME, computed("Data", count_data, "number of keys"), AGE],
    ),
    KindInfo::plain::<SecretBody>(
        "secret",
        &[],
        &[
            NAME,
            column("Type", "string", ".type", 0, "what it is for"),
            computed("Data", count_data, "number of keys"),
            AGE,
        ],
    )
    .selectable_by(&["type"]),
    EVENT,
    KindInfo::plain::<LeaseBody>(
        "lease",
        &[],
        &[NAME, column("Holder", "string", ".spec.holderIdentity", 0, "who has it"), AGE],
    ),
    KindInfo::plain::<ServiceAccountBody>(
        "serviceaccount",
        &["sa"],
        &[NAME, computed("Secrets", |account| count(account, "/secrets"), "secrets of its own"), AGE],
    ),
    KindInfo::resource::<CertificateSigningRequestSpec>(
        "certificatesigningrequest",
        &["csr"],
        &[
            NAME,
            AGE,
            column("SignerName", "string", ".spec.signerName", 0, "who shall sign"),
            column("Requestor", "string", ".spec.username", 0, "who asked"),
            computed("RequestedDuration", requested_duration, "for how long it should be good"),
            computed("Condition", condition, "what became of it"),
        ],
    )
    .selectable_by(&["spec.signerName"]),
    KindInfo {
        categories: &["api-extensions"],
        ..KindInfo::resource::<CustomResourceDefinitionSpec>(
            "customresourcedefinition",
            &["crd", "crds"],
            &[NAME, CREATED],
        )
    },
    KindInfo::resource::<ResourceQuotaSpec>(
        "resourcequota",
        &["quota"],
        &[
            NAME,
            computed("Request", |quota| quotas(quota, false), "how many there are, of how many there may be"),
            computed("Limit", |quota| quotas(quota, true), "the same of limits"),
            AGE,
        ],
    ),
    KindInfo::plain::<RoleBody>("role", &[], &[NAME, CREATED]).with_free_names(),
    KindInfo::plain::<RoleBindingBody>("rolebinding", &[], &[NAME, ROLE, AGE, USERS, GROUPS, ACCOUNTS])
        .with_free_names(),
    KindInfo::plain::<ClusterRoleBody>("clusterrole", &[], &[NAME, CREATED]).with_free_names(),
    KindInfo::plain::<ClusterRoleBindingBody>(
        "clusterrolebinding",
        &[],
        &[NAME, ROLE, AGE, USERS, GROUPS, ACCOUNTS],
    )
    .with_free_names(),
];

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn count(object: &Value, pointer: &str) -> Value {
    let number = match object.pointer(pointer) {
        Some(Value::Object(fields)) => fields.len(),
        Some(Value::Array(entries)) => entries.len(),
        _ => 0,
    };
    json!(number)
}

fn count_data(object: &Value) -> Value {
    let number = |pointer| count(object, pointer).as_u64().unwrap_or(0);
    json!(number("/data") + number("/binaryData"))
}

fn object(event: &Value) -> Value {
    let kind = text(event, "/involvedObject/kind").to_lowercase();
    json!(format!("{kind}/{}", text(event, "/involvedObject/name")))
}

fn role(binding: &Value) -> Value {
    json!(format!("{}/{}", text(binding, "/roleRef/kind"), text(binding, "/roleRef/name")))
}

fn subjects(binding: &Value, kind: &str) -> Value {
    let all = binding.get("subjects").and_then(Value::as_array).into_iter().flatten();
    let names: Vec<String> = all
        .filter(|subject| text(subject, "/kind") == kind)
        .map(|subject| match text(subject, "/namespace") {
            "" => text(subject, "/name").to_owned(),
            namespace => format!("{namespace}/{}", text(subject, "/name")),
        })
        .collect();
    json!(names.join(", "))
}

fn requested_duration(request: &Value) -> Value {
    match request.pointer("/spec/expirationSeconds").and_then(Value::as_i64) {
        None => json!("<none>"),
        Some(seconds) if seconds % 86_400 == 0 => json!(format!("{}d", seconds / 86_400)),
        Some(seconds) if seconds % 3600 == 0 => json!(format!("{}h", seconds / 3600)),
        Some(seconds) if seconds % 60 == 0 => json!(format!("{}m", seconds / 60)),
        Some(seconds) => json!(format!("{seconds}s")),
    }
}

fn condition(request: &Value) -> Value {
    let decided = request.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let mut words: Vec<&str> = decided.map(|condition| text(condition, "/type")).collect();
    if words.is_empty() {
        words.push("Pending");
    }
    if !text(request, "/status/certificate").is_empty() {
        words.push("Issued");
    }
    json!(words.join(","))
}

/// What a quota says of limits, or of all else: `RESOURCE: USED/HARD`.
fn quotas(quota: &Value, limits: bool) -> Value {
    let hard = quota.pointer("/status/hard").and_then(Value::as_object).into_iter().flatten();
    let told =
        hard.filter(|(resource, _)| resource.starts_with("limits") == limits).map(|(resource, most)| {
            let used =
                quota.pointer("/status/used").and_then(|used| used.get(resource)).and_then(Value::as_str);
            format!("{resource}: {}/{}", used.unwrap_or("0"), most.as_str().unwrap_or("0"))
        });
    json!(told.collect::<Vec<String>>().join(", "))
}
