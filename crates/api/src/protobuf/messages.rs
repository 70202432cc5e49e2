//! Which fields the messages have that clients send: number, name in JSON, type. The numbers are those of the
//! `generated.proto` files of `k8s.io/api` and `k8s.io/apimachinery`. What only servers say of reviews is left out, and
//! so is what is not kept here.

/// A field of a message.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    pub number: u64,
    pub name: &'static str,
    pub kind: Kind,
    pub shape: Shape,
}

/// What a field's content means.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Text,
    /// Base64 in JSON.
    Bytes,
    Number,
    Flag,
    /// To the second.
    Time,
    /// To the microsecond.
    MicroTime,
    /// A message whose field 1 is JSON.
    Json,
    /// A message whose field 1 is a text, and just that text in JSON.
    Quantity,
    /// A message whose field 1 is a list of texts, and just that list in JSON.
    Texts,
    Message(Message),
}

/// How often a field occurs, and what it means if it is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Empty is the same as missing: senders always write it, JSON has it only if it isn't empty.
    Plain,
    /// Empty is something else than missing.
    Optional,
    List,
    /// From texts to what the kind says.
    Map,
}

pub type Message = &'static [Field];

const fn field(number: u64, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, shape: Shape::Plain }
}

const fn text(number: u64, name: &'static str) -> Field {
    field(number, name, Kind::Text)
}

const fn number(number: u64, name: &'static str) -> Field {
    field(number, name, Kind::Number)
}

const fn time(number: u64, name: &'static str) -> Field {
    field(number, name, Kind::Time)
}

const fn micro_time(number: u64, name: &'static str) -> Field {
    field(number, name, Kind::MicroTime)
}

const fn message(number: u64, name: &'static str, message: Message) -> Field {
    field(number, name, Kind::Message(message))
}

const fn texts(number: u64, name: &'static str) -> Field {
    list(text(number, name))
}

const fn labels(number: u64, name: &'static str) -> Field {
    map(text(number, name))
}

const fn optional(field: Field) -> Field {
    Field { shape: Shape::Optional, ..field }
}

const fn list(field: Field) -> Field {
    Field { shape: Shape::List, ..field }
}

const fn map(field: Field) -> Field {
    Field { shape: Shape::Map, ..field }
}

const fn flag(number: u64, name: &'static str) -> Field {
    optional(field(number, name, Kind::Flag))
}

/// `apiVersion` and kind of all messages that stand for themselves.
pub const MESSAGES: [(&str, &str, Message); 21] = [
    ("v1", "Namespace", NAMESPACE),
    ("v1", "ConfigMap", CONFIG_MAP),
    ("v1", "Secret", SECRET),
    ("v1", "ServiceAccount", SERVICE_ACCOUNT),
    ("v1", "Event", EVENT),
    ("v1", "ResourceQuota", RESOURCE_QUOTA),
    ("coordination.k8s.io/v1", "Lease", LEASE),
    ("certificates.k8s.io/v1", "CertificateSigningRequest", CERTIFICATE_SIGNING_REQUEST),
    ("rbac.authorization.k8s.io/v1", "Role", ROLE),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", ROLE),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", ROLE_BINDING),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", ROLE_BINDING),
    ("authentication.k8s.io/v1", "TokenRequest", TOKEN_REQUEST),
    ("authentication.k8s.io/v1", "TokenReview", TOKEN_REVIEW),
    ("authentication.k8s.io/v1", "SelfSubjectReview", &[METADATA]),
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview", SUBJECT_ACCESS_REVIEW),
    ("authorization.k8s.io/v1", "LocalSubjectAccessReview", SUBJECT_ACCESS_REVIEW),
    ("authorization.k8s.io/v1", "SubjectAccessReview", SUBJECT_ACCESS_REVIEW),
    ("authorization.k8s.io/v1", "SelfSubjectRulesReview", RULES_REVIEW),
    ("autoscaling/v1", "Scale", SCALE),
    // Clients name the version of what they delete.
    ("", "DeleteOptions", DELETE_OPTIONS),
];

/// A list of texts as a message of its own.
pub const ITEMS: Message = &[texts(1, "items")];

const METADATA: Field = message(1, "metadata", OBJECT_META);

const OBJECT_META: Message = &[
    text(1, "name"),
    text(2, "generateName"),
    text(3, "namespace"),
    text(4, "selfLink"),
    text(5, "uid"),
    text(6, "resourceVersion"),
    number(7, "generation"),
    time(8, "creationTimestamp"),
    time(9, "deletionTimestamp"),
    optional(number(10, "deletionGracePeriodSeconds")),
    labels(11, "labels"),
    labels(12, "annotations"),
    list(message(13, "ownerReferences", OWNER_REFERENCE)),
    texts(14, "finalizers"),
    list(message(17, "managedFields", MANAGED_FIELDS)),
];

const OWNER_REFERENCE: Message = &[
    text(1, "kind"),
    text(3, "name"),
    text(4, "uid"),
    text(5, "apiVersion"),
    flag(6, "controller"),
    flag(7, "blockOwnerDeletion"),
];

const MANAGED_FIELDS: Message = &[
    text(1, "manager"),
    text(2, "operation"),
    text(3, "apiVersion"),
    time(4, "time"),
    text(6, "fieldsType"),
    field(7, "fieldsV1", Kind::Json),
    text(8, "subresource"),
];

const DELETE_OPTIONS: Message = &[
    optional(number(1, "gracePeriodSeconds")),
    message(2, "preconditions", &[optional(text(1, "uid")), optional(text(2, "resourceVersion"))]),
    flag(3, "orphanDependents"),
    optional(text(4, "propagationPolicy")),
    texts(5, "dryRun"),
];

const NAMESPACE: Message = &[
    METADATA,
    message(2, "spec", &[texts(1, "finalizers")]),
    message(3, "status", &[text(1, "phase"), list(message(2, "conditions", NAMESPACE_CONDITION))]),
];

const NAMESPACE_CONDITION: Message = &[
    text(1, "type"),
    text(2, "status"),
    time(4, "lastTransitionTime"),
    text(5, "reason"),
    text(6, "message"),
];

const CONFIG_MAP: Message =
    &[METADATA, labels(2, "data"), map(field(3, "binaryData", Kind::Bytes)), flag(4, "immutable")];

const SECRET: Message = &[
    METADATA,
    map(field(2, "data", Kind::Bytes)),
    text(3, "type"),
    labels(4, "stringData"),
    flag(5, "immutable"),
];

const SERVICE_ACCOUNT: Message = &[
    METADATA,
    list(message(2, "secrets", OBJECT_REFERENCE)),
    list(message(3, "imagePullSecrets", &[text(1, "name")])),
    flag(4, "automountServiceAccountToken"),
];

const OBJECT_REFERENCE: Message = &[
    text(1, "kind"),
    text(2, "namespace"),
    text(3, "name"),
    text(4, "uid"),
    text(5, "apiVersion"),
    text(6, "resourceVersion"),
    text(7, "fieldPath"),
];

const EVENT: Message = &[
    METADATA,
    message(2, "involvedObject", OBJECT_REFERENCE),
    text(3, "reason"),
    text(4, "message"),
    message(5, "source", &[text(1, "component"), text(2, "host")]),
    time(6, "firstTimestamp"),
    time(7, "lastTimestamp"),
    number(8, "count"),
    text(9, "type"),
    micro_time(10, "eventTime"),
    message(11, "series", &[number(1, "count"), micro_time(2, "lastObservedTime")]),
    text(12, "action"),
    message(13, "related", OBJECT_REFERENCE),
    text(14, "reportingComponent"),
    text(15, "reportingInstance"),
];

const RESOURCE_QUOTA: Message = &[
    METADATA,
    message(2, "spec", &[map(field(1, "hard", Kind::Quantity))]),
    message(3, "status", &[map(field(1, "hard", Kind::Quantity)), map(field(2, "used", Kind::Quantity))]),
];

const LEASE: Message = &[METADATA, message(2, "spec", LEASE_SPEC)];

const LEASE_SPEC: Message = &[
    optional(text(1, "holderIdentity")),
    optional(number(2, "leaseDurationSeconds")),
    micro_time(3, "acquireTime"),
    micro_time(4, "renewTime"),
    optional(number(5, "leaseTransitions")),
    optional(text(6, "strategy")),
    optional(text(7, "preferredHolder")),
];

const CERTIFICATE_SIGNING_REQUEST: Message = &[
    METADATA,
    message(2, "spec", CERTIFICATE_SIGNING_REQUEST_SPEC),
    message(3, "status", CERTIFICATE_SIGNING_REQUEST_STATUS),
];

const CERTIFICATE_SIGNING_REQUEST_SPEC: Message = &[
    field(1, "request", Kind::Bytes),
    text(2, "username"),
    text(3, "uid"),
    texts(4, "groups"),
    texts(5, "usages"),
    map(field(6, "extra", Kind::Texts)),
    text(7, "signerName"),
    optional(number(8, "expirationSeconds")),
];

const CERTIFICATE_SIGNING_REQUEST_STATUS: Message =
    &[list(message(1, "conditions", CERTIFICATE_CONDITION)), field(2, "certificate", Kind::Bytes)];

const CERTIFICATE_CONDITION: Message = &[
    text(1, "type"),
    text(2, "reason"),
    text(3, "message"),
    time(4, "lastUpdateTime"),
    time(5, "lastTransitionTime"),
    text(6, "status"),
];

const ROLE: Message = &[
    METADATA,
    list(message(2, "rules", POLICY_RULE)),
    message(3, "aggregationRule", &[list(message(1, "clusterRoleSelectors", LABEL_SELECTOR))]),
];

const POLICY_RULE: Message = &[
    texts(1, "verbs"),
    texts(2, "apiGroups"),
    texts(3, "resources"),
    texts(4, "resourceNames"),
    texts(5, "nonResourceURLs"),
];

const LABEL_SELECTOR: Message =
    &[labels(1, "matchLabels"), list(message(2, "matchExpressions", REQUIREMENT))];

const REQUIREMENT: Message = &[text(1, "key"), text(2, "operator"), texts(3, "values")];

const ROLE_BINDING: Message = &[
    METADATA,
    list(message(
        2,
        "subjects",
        &[text(1, "kind"), text(2, "apiGroup"), text(3, "name"), text(4, "namespace")],
    )),
    message(3, "roleRef", &[text(1, "apiGroup"), text(2, "kind"), text(3, "name")]),
];

const TOKEN_REQUEST: Message = &[METADATA, message(2, "spec", TOKEN_REQUEST_SPEC)];

const TOKEN_REQUEST_SPEC: Message = &[
    texts(1, "audiences"),
    message(3, "boundObjectRef", &[text(1, "kind"), text(2, "apiVersion"), text(3, "name"), text(4, "uid")]),
    optional(number(4, "expirationSeconds")),
];

const TOKEN_REVIEW: Message = &[METADATA, message(2, "spec", &[text(1, "token"), texts(2, "audiences")])];

const SUBJECT_ACCESS_REVIEW: Message = &[METADATA, message(2, "spec", SUBJECT_ACCESS_REVIEW_SPEC)];

const SUBJECT_ACCESS_REVIEW_SPEC: Message = &[
    message(1, "resourceAttributes", RESOURCE_ATTRIBUTES),
    message(2, "nonResourceAttributes", &[text(1, "path"), text(2, "verb")]),
    text(3, "user"),
    texts(4, "groups"),
    map(field(5, "extra", Kind::Texts)),
    text(6, "uid"),
];

const RESOURCE_ATTRIBUTES: Message = &[
    text(1, "namespace"),
    text(2, "verb"),
    text(3, "group"),
    text(4, "version"),
    text(5, "resource"),
    text(6, "subresource"),
    text(7, "name"),
    message(8, "fieldSelector", SELECTOR_ATTRIBUTES),
    message(9, "labelSelector", SELECTOR_ATTRIBUTES),
];

const SELECTOR_ATTRIBUTES: Message = &[text(1, "rawSelector"), list(message(2, "requirements", REQUIREMENT))];

const RULES_REVIEW: Message = &[METADATA, message(2, "spec", &[text(1, "namespace")])];

const SCALE: Message = &[
    METADATA,
    message(2, "spec", &[number(1, "replicas")]),
    message(3, "status", &[number(1, "replicas"), text(2, "selector")]),
];
