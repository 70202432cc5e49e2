//! What is written of a request: an event of `audit.k8s.io/v1`.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::authentication::User;
use crate::rbac::ResourceAttempt;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event<'a> {
    pub kind: &'static str,
    pub api_version: &'static str,
    pub level: &'static str,
    #[serde(rename = "auditID")]
    pub audit_id: &'a str,
    pub stage: &'static str,
    #[serde(rename = "requestURI")]
    pub request_uri: &'a str,
    pub verb: &'a str,
    pub user: Person<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impersonated_user: Option<Person<'a>>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "<[String]>::is_empty")]
    pub source_ips: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    pub user_agent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_ref: Option<ObjectReference<'a>>,
    pub response_status: ResponseStatus,
    pub request_received_timestamp: String,
    pub stage_timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Annotations<'a>>,
}

/// Who asks.
#[derive(Default, Serialize)]
pub struct Person<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub username: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<&'a str>,
}

impl<'a> Person<'a> {
    pub fn of(user: &'a User) -> Self {
        Self { username: &user.name, groups: user.groups.iter().map(String::as_str).collect() }
    }
}

/// What is asked for.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    resource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    api_group: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    api_version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    subresource: &'a str,
}

impl<'a> ObjectReference<'a> {
    pub fn of(attempt: &ResourceAttempt<'a>) -> Self {
        Self {
            resource: attempt.plural,
            namespace: attempt.namespace,
            name: attempt.name,
            api_group: attempt.group,
            api_version: attempt.version,
            subresource: attempt.subresource,
        }
    }
}

/// What was answered.
#[derive(Serialize)]
pub struct ResponseStatus {
    pub metadata: Map<String, Value>,
    pub code: u16,
}

/// Whether it was allowed, and why.
#[derive(Serialize)]
pub struct Annotations<'a> {
    #[serde(rename = "authorization.k8s.io/decision")]
    pub decision: &'static str,
    #[serde(rename = "authorization.k8s.io/reason")]
    pub reason: &'a str,
}
