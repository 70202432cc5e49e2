//! Who am I, who is that, and what may I do: the review kinds that clients ask with.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde_json::{Value, json};
use types::core::PolicyRule;

use crate::authentication::User;
use crate::body::Body;
use crate::nesting::Branch;
use crate::rbac::{Attempt, ResourceAttempt};
use crate::{ApiError, Hub};

const AUTHENTICATION: &str = "authentication.k8s.io/v1";
const AUTHORIZATION: &str = "authorization.k8s.io/v1";

/// `TokenReview`: a site asks whether the bearer of a token may look at it. Only tokens that the hub, or one above it,
/// signed for this very site are, or for one below it; what another token is worth, no site learns here.
pub async fn token(
    State(hub): State<Arc<Hub>>,
    Extension(identity): Extension<Arc<User>>,
    Body(review): Body<Value>,
) -> (StatusCode, Json<Value>) {
    let token = review.pointer("/spec/token").and_then(Value::as_str).unwrap_or_default();
    let named = token.split('.').next().unwrap_or_default();
    let is_theirs = identity.site().is_some_and(|site| named == site || Branch::of(&hub, site).has(named));
    let is_good = is_theirs
        && (hub.site_tokens.is_good(token, named, daemon::now()) || is_good_above(&hub, &review).await);
    let status = if is_good {
        json!({"authenticated": true, "user": {"username": "admin", "groups": ["avocet:site-admins"]}})
    } else {
        json!({"authenticated": false, "error": "the token is not good at this site, or no longer"})
    };
    created(json!({"apiVersion": AUTHENTICATION, "kind": "TokenReview", "metadata": {}, "status": status}))
}

async fn is_good_above(hub: &Hub, review: &Value) -> bool {
    match &hub.parent {
        Some(parent) => parent.vouches(review).await,
        None => false,
    }
}

/// `SelfSubjectReview`, for `kubectl auth whoami`.
pub async fn whoami(Extension(identity): Extension<Arc<User>>) -> (StatusCode, Json<Value>) {
    let status = json!({"userInfo": identity});
    created(
        json!({"apiVersion": AUTHENTICATION, "kind": "SelfSubjectReview", "metadata": {}, "status": status}),
    )
}

/// `SelfSubjectAccessReview`, for `kubectl auth can-i VERB KIND`.
///
/// # Errors
/// 422 for a review that asks for nothing, or for two things.
pub async fn can_i(
    State(hub): State<Arc<Hub>>,
    Extension(user): Extension<Arc<User>>,
    Body(review): Body<Value>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    answer(&hub, &user, "SelfSubjectAccessReview", &review)
}

/// `SubjectAccessReview`: what others may do.
///
/// # Errors
/// 422 for a review that names nobody, asks for nothing, or for two things.
pub async fn can_they(
    State(hub): State<Arc<Hub>>,
    Body(review): Body<Value>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    answer(&hub, &subject("SubjectAccessReview", &review)?, "SubjectAccessReview", &review)
}

/// `LocalSubjectAccessReview`: what others may do in one namespace.
///
/// # Errors
/// As for [`can_they`], and 400 for another namespace than the path's.
pub async fn can_they_here(
    State(hub): State<Arc<Hub>>,
    Path(namespace): Path<String>,
    Body(review): Body<Value>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    const KIND: &str = "LocalSubjectAccessReview";
    if review.pointer("/spec/resourceAttributes/namespace").and_then(Value::as_str) != Some(&namespace) {
        return Err(ApiError::bad_request(format!(
            "spec.resourceAttributes.namespace must match namespace: {namespace}"
        )));
    }
    answer(&hub, &subject(KIND, &review)?, KIND, &review)
}

fn invalid(kind: &str, problem: &str) -> ApiError {
    ApiError::unprocessable(format!("{kind}.authorization.k8s.io \"\" is invalid: {problem}"))
}

/// Of whom is asked.
fn subject(kind: &str, review: &Value) -> Result<User, ApiError> {
    let name = review.pointer("/spec/user").and_then(Value::as_str).unwrap_or_default().to_owned();
    let groups = review.pointer("/spec/groups").and_then(Value::as_array).into_iter().flatten();
    let groups: Vec<String> = groups.filter_map(Value::as_str).map(str::to_owned).collect();
    if name.is_empty() && groups.is_empty() {
        return Err(invalid(
            kind,
            "spec.user: Invalid value: \"\": at least one of user or group must be specified",
        ));
    }
    Ok(User { name, groups, ..User::default() })
}

fn answer(
    hub: &Hub,
    caller: &User,
    kind: &str,
    review: &Value,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let spec = review.get("spec").cloned().unwrap_or_default();
    let (resource, path) = (spec.get("resourceAttributes"), spec.get("nonResourceAttributes"));
    let attempt = match (resource.filter(|found| !found.is_null()), path.filter(|found| !found.is_null())) {
        (Some(resource), None) => {
            let text = |name: &str| resource.get(name).and_then(Value::as_str).unwrap_or_default();
            Attempt::Resource(ResourceAttempt {
                verb: text("verb"),
                group: text("group"),
                version: text("version"),
                plural: text("resource"),
                namespace: text("namespace"),
                name: text("name"),
                subresource: text("subresource"),
            })
        }
        (None, Some(path)) => {
            let text = |name: &str| path.get(name).and_then(Value::as_str).unwrap_or_default();
            Attempt::Path { verb: text("verb"), path: text("path") }
        }
        _ => {
            let problem = "spec.resourceAttributes: Invalid value: exactly one of nonResourceAttributes or \
                           resourceAttributes must be specified";
            return Err(invalid(kind, problem));
        }
    };
    let decision = hub.rbac.decide(caller, &attempt);
    let mut status = json!({"allowed": decision.allowed});
    if !decision.reason.is_empty() {
        json_patch::merge(&mut status, &json!({"reason": decision.reason}));
    }
    Ok(created(json!({
        "apiVersion": AUTHORIZATION, "kind": kind, "metadata": {}, "spec": spec, "status": status,
    })))
}

/// `SelfSubjectRulesReview`, for `kubectl auth can-i --list`.
///
/// # Errors
/// 400 for a review that names no namespace.
pub async fn rules(
    State(hub): State<Arc<Hub>>,
    Extension(user): Extension<Arc<User>>,
    Body(review): Body<Value>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let namespace = review.pointer("/spec/namespace").and_then(Value::as_str).unwrap_or_default();
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    let rules = hub.rbac.rules(&user, namespace);
    let (mut of_resources, mut of_paths) = (Vec::new(), Vec::new());
    for rule in rules {
        if !rule.resources.is_empty() {
            let resource = PolicyRule { non_resource_urls: vec![], ..rule.clone() };
            of_resources.push(resource);
        }
        if !rule.non_resource_urls.is_empty() {
            of_paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}));
        }
    }
    let status = json!({"resourceRules": of_resources, "nonResourceRules": of_paths, "incomplete": false});
    Ok(created(json!({
        "apiVersion": AUTHORIZATION, "kind": "SelfSubjectRulesReview", "metadata": {}, "spec": {}, "status": status,
    })))
}

fn created(review: Value) -> (StatusCode, Json<Value>) {
    (StatusCode::CREATED, Json(review))
}
