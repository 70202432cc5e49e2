//! Errors as the Kubernetes API words them: a `Status` object.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use daemon::chain;
use schema::managed_fields::Conflict;
use schema::{Reason, Violation};
use serde_json::{Map, Value, json};
use tracing::error;
use types::KindInfo;

use crate::discovery;

/// The group of what the parameters of writes are together.
const OPTIONS_GROUP: &str = "meta.k8s.io";

/// One mistake.
#[derive(Debug, Clone, PartialEq)]
pub struct Cause {
    /// A CamelCase word for programs.
    pub reason: &'static str,
    /// Where.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

/// An answer that refuses.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP status.
    pub code: u16,
    /// A CamelCase word for programs.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
    /// One for each mistake.
    pub causes: Vec<Cause>,
    /// After how many seconds it may be tried again, if that would help.
    pub retry_after: Option<u64>,
    /// The kind and name of what it is about, if that is one resource.
    pub subject: Option<Box<(String, String)>>,
}

impl ApiError {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code: code.as_u16(),
            reason,
            message: message.into(),
            causes: vec![],
            retry_after: None,
            subject: None,
        }
    }

    fn about(self, kind: &str, name: &str) -> Self {
        Self { subject: Some(Box::new((kind.to_owned(), name.to_owned()))), ..self }
    }

    /// Worth another try after this time.
    pub fn retry_after(self, after: Duration) -> Self {
        Self {
            retry_after: Some(after.as_secs().saturating_add(u64::from(after.subsec_nanos() > 0)).max(1)),
            ..self
        }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", message)
    }

    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// A refusal that is about a resource; the name may be empty.
    pub fn forbidden_resource(group: &str, plural: &str, name: &str, problem: &str) -> Self {
        let resource = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
        let resource = if name.is_empty() { resource } else { format!("{resource} {name:?}") };
        Self::forbidden(format!("{resource} is forbidden: {problem}")).about(plural, name)
    }

    /// A patch that can be read and does not fit what it patches.
    pub fn unfitting_patch() -> Self {
        Self::unprocessable("the server rejected our request due to an error in our request")
    }

    /// A request that can be read and makes no sense.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    pub fn method_not_allowed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    /// Something that can't be done with any resource of a kind, or not at this path.
    pub fn unfit_method() -> Self {
        Self::method_not_allowed("the server does not allow this method on the requested resource")
    }

    /// Something that can't be done with a part of our kinds.
    pub fn unsupported_method(verb: &str, info: &KindInfo) -> Self {
        let message = format!("{verb} is not supported on resources of kind {:?}", info.qualified());
        Self::method_not_allowed(message).about(info.plural, "")
    }

    /// What an apply states that isn't as the schema of its kind says.
    pub fn untyped(info: &KindInfo, namespace: &str, name: &str, untyped: &[String]) -> Self {
        let told = match untyped {
            [one] => one.clone(),
            many => format!("errors:\n  {}", many.join("\n  ")),
        };
        let object =
            [namespace, name].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        let kind = format!("{}/{}, Kind={}", info.group, info.version, info.kind);
        let message = format!("failed to create typed patch object ({object}; {kind}): {told}");
        // Kubernetes has no reason for this, either, but blames itself with a 500.
        Self::new(StatusCode::BAD_REQUEST, "", message)
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "Conflict", message)
    }

    /// Another object is meant than the one that is there under that name.
    pub fn other_uid(key: &store::Key, wanted: &str, found: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{}\": Precondition failed: UID in precondition: {wanted}, UID in \
             object meta: {found}",
            qualified(key),
            key.name
        );
        Self::conflict(message).about(key.plural, &key.name)
    }

    /// Another version is meant than the one that is there.
    pub fn other_version(key: &store::Key, wanted: &str, found: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{}\": Precondition failed: ResourceVersion in precondition: {wanted}, \
             ResourceVersion in object meta: {found}",
            qualified(key),
            key.name
        );
        Self::conflict(message).about(key.plural, &key.name)
    }

    /// Fields that other clients state otherwise.
    pub fn apply_conflict(conflicts: &[Conflict]) -> Self {
        let message = match conflicts {
            [Conflict { manager, field }] => {
                format!("Apply failed with 1 conflict: conflict with {manager}: {field}")
            }
            many => {
                let mut fields = BTreeMap::<_, Vec<_>>::new();
                for Conflict { manager, field } in many {
                    fields.entry(manager).or_default().push(format!("\n- {field}"));
                }
                let told =
                    fields.iter().map(|(manager, of)| format!("conflicts with {manager}:{}", of.concat()));
                let told: Vec<String> = told.collect();
                format!("Apply failed with {} conflicts: {}", many.len(), told.join("\n"))
            }
        };
        let causes = conflicts.iter().map(|Conflict { manager, field }| Cause {
            reason: "FieldManagerConflict",
            field: field.clone(),
            message: format!("conflict with {manager}"),
        });
        Self { causes: causes.collect(), ..Self::conflict(message) }
    }

    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
    }

    /// A version that the hub has not reached yet.
    pub fn future_version(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let cause = Cause {
            reason: "ResourceVersionTooLarge",
            field: String::new(),
            message: "Too large resource version".to_owned(),
        };
        Self { causes: vec![cause], ..Self::timeout(message) }.retry_after(Duration::from_secs(1))
    }

    pub fn too_many_requests(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message)
    }

    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    pub fn insufficient_storage(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "InsufficientStorage", message)
    }

    /// The server's own failure: the cause goes to the log, the client learns that it isn't their fault.
    pub fn internal(cause: &dyn std::error::Error) -> Self {
        error!(error = %chain(cause), "request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", chain(cause))
    }

    /// Mistakes in a manifest.
    pub fn invalid(info: &KindInfo, name: &str, violations: &[Violation]) -> Self {
        Self::refused(&qualified_kind(info), name, violations).about(info.kind, name)
    }

    /// An update that doesn't say what it updates.
    pub fn unversioned(info: &KindInfo, name: &str) -> Self {
        let message = "Invalid value: 0x0: must be specified for an update".to_owned();
        let field = "metadata.resourceVersion".to_owned();
        let violation = Violation { field, reason: Reason::Invalid, message };
        Self::refused(&info.qualified(), name, &[violation]).about(info.plural, name)
    }

    /// Something else than the kind that the path names.
    pub fn other_kind(info: &KindInfo, name: &str, kind: &str) -> Self {
        let message = format!("Invalid value: {kind:?}: must be {}", info.kind);
        let violation = Violation { field: "kind".to_owned(), reason: Reason::Invalid, message };
        Self::refused(&format!("{kind}.{}", info.group), name, &[violation]).about(kind, name)
    }

    /// One mistake in what is asked and not kept.
    pub fn review(kind: &str, field: &str, problem: &str) -> Self {
        let (field, message) = (field.to_owned(), problem.to_owned());
        let violation = Violation { field, reason: Reason::Invalid, message };
        Self::refused(&format!("{kind}.authentication.k8s.io"), "", &[violation])
    }

    /// Mistakes in the parameters of a write.
    pub fn options(kind: &str, violations: &[Violation]) -> Self {
        Self::refused(&format!("{kind}.{OPTIONS_GROUP}"), "", violations).about(kind, "")
    }

    fn refused(kind: &str, name: &str, violations: &[Violation]) -> Self {
        let told: Vec<String> = violations.iter().map(Violation::to_string).collect();
        let told = match told.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let causes = violations.iter().map(|violation| Cause {
            reason: violation.reason.as_str(),
            field: violation.field.clone(),
            message: violation.message.clone(),
        });
        let message = format!("{kind} \"{name}\" is invalid: {told}");
        Self { causes: causes.collect(), ..Self::unprocessable(message) }
    }

    /// One mistake in a manifest, worded as Kubernetes does.
    pub fn field(info: &KindInfo, name: &str, field: &str, problem: &str) -> Self {
        let (field, message) = (field.to_owned(), problem.to_owned());
        Self::invalid(info, name, &[Violation { field, reason: Reason::Invalid, message }])
    }

    /// The `Status` object.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            json_patch::merge(&mut status, &json!({"reason": self.reason}));
        }
        let details = self.details();
        if !details.is_empty() {
            json_patch::merge(&mut status, &json!({"details": details}));
        }
        status
    }

    fn details(&self) -> Map<String, Value> {
        let mut details = Map::new();
        if let Some((kind, name)) = self.subject.as_deref() {
            let kept = types::kind_named(kind).map(|info| info.group);
            let options = kind.ends_with("Options").then_some(OPTIONS_GROUP);
            let group = kept.or_else(|| discovery::review_group(kind)).or(options).unwrap_or(types::GROUP);
            let texts = [("name", name.as_str()), ("group", group), ("kind", kind)];
            let stated = texts.into_iter().filter(|(_, text)| !text.is_empty());
            details.extend(stated.map(|(field, text)| (field.to_owned(), json!(text))));
        }
        let tell = |Cause { reason, field, message }: &Cause| match field.as_str() {
            "" => json!({"reason": reason, "message": message}),
            field => json!({"reason": reason, "message": message, "field": field}),
        };
        let causes: Vec<Value> = self.causes.iter().map(tell).collect();
        if !causes.is_empty() {
            details.insert("causes".to_owned(), json!(causes));
        }
        if let Some(seconds) = self.retry_after {
            details.insert("retryAfterSeconds".to_owned(), json!(seconds));
        }
        details
    }
}

/// `Kind.group`, as messages about manifests name kinds.
fn qualified_kind(info: &KindInfo) -> String {
    if info.group.is_empty() { info.kind.to_owned() } else { format!("{}.{}", info.kind, info.group) }
}

/// `plural.group`, as messages name kinds.
fn qualified(key: &store::Key) -> String {
    types::kind_named(key.plural).map_or_else(|| key.plural.to_owned(), types::KindInfo::qualified)
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        match &error {
            store::Error::NotFound(key) => {
                Self::not_found(format!("{} \"{}\" not found", qualified(key), key.name))
                    .about(key.plural, &key.name)
            }
            store::Error::Exists(key) => {
                let message = format!("{} \"{}\" already exists", qualified(key), key.name);
                Self::new(StatusCode::CONFLICT, "AlreadyExists", message).about(key.plural, &key.name)
            }
            store::Error::Conflict { key, .. } => {
                let message = format!(
                    "Operation cannot be fulfilled on {} \"{}\": the object has been modified; please apply your \
                     changes to the latest version and try again",
                    qualified(key),
                    key.name
                );
                Self::conflict(message).about(key.plural, &key.name)
            }
            store::Error::Expired(_) => Self::gone(error.to_string()),
            store::Error::Manifest { .. } => Self::bad_request(chain(&error)),
            store::Error::Ledger(_) | store::Error::Sealed { .. } => Self::internal(&error),
        }
    }
}

impl From<store::ledger::Error> for ApiError {
    fn from(error: store::ledger::Error) -> Self {
        Self::internal(&error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let code = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response =
            (code, [(CONTENT_TYPE, "application/json")], self.status().to_string()).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}
