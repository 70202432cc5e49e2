//! Who am I, who is that, and what may I do: the review kinds that clients ask with.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde_json::{Value, json};
use types::kinds;

use crate::Hub;
use crate::access::{self, Attempt};
use crate::auth::Identity;
use crate::body::Body;

const AUTHENTICATION: &str = "authentication.k8s.io/v1";
const AUTHORIZATION: &str = "authorization.k8s.io/v1";

/// `TokenReview`: a site asks whether the bearer of a token may look at it. Only tokens that the hub signed for this
/// very site are; what another token is worth, no site learns here.
pub async fn token(
    State(hub): State<Hub>,
    Extension(identity): Extension<Identity>,
    Body(review): Body<Value>,
) -> (StatusCode, Json<Value>) {
    let token = review.pointer("/spec/token").and_then(Value::as_str).unwrap_or_default();
    let is_good = match &identity {
        Identity::Site(site) => hub.site_tokens.is_good(token, site, daemon::now()),
        Identity::Admin => false,
    };
    let status = if is_good {
        json!({"authenticated": true, "user": {"username": "admin", "groups": ["avocet:site-admins"]}})
    } else {
        json!({"authenticated": false, "error": "the token is not good at this site, or no longer"})
    };
    created(json!({"apiVersion": AUTHENTICATION, "kind": "TokenReview", "metadata": {}, "status": status}))
}

/// `SelfSubjectReview`, for `kubectl auth whoami`.
pub async fn whoami(Extension(identity): Extension<Identity>) -> (StatusCode, Json<Value>) {
    let status = json!({"userInfo": user(&identity)});
    created(
        json!({"apiVersion": AUTHENTICATION, "kind": "SelfSubjectReview", "metadata": {}, "status": status}),
    )
}

/// `SelfSubjectAccessReview`, for `kubectl auth can-i VERB KIND`.
pub async fn can_i(
    Extension(identity): Extension<Identity>,
    Body(review): Body<Value>,
) -> (StatusCode, Json<Value>) {
    let spec = review.get("spec").cloned().unwrap_or_default();
    let attributes = spec.get("resourceAttributes").cloned().unwrap_or_default();
    let text = |name: &str| attributes.get(name).and_then(Value::as_str).unwrap_or_default();
    let verb = text("verb");
    let attempt = Attempt {
        verb,
        group: text("group"),
        plural: text("resource"),
        namespace: text("namespace"),
        name: text("name"),
        subresource: text("subresource"),
    };
    let status = match access::check(&identity, attempt) {
        Ok(()) => json!({"allowed": true}),
        Err(error) => json!({"allowed": false, "reason": error.message}),
    };
    created(json!({
        "apiVersion": AUTHORIZATION, "kind": "SelfSubjectAccessReview", "metadata": {}, "spec": spec, "status": status,
    }))
}

/// `SelfSubjectRulesReview`, for `kubectl auth can-i --list`. Worked out by trying, so it can't differ from what
/// requests meet.
pub async fn rules(
    Extension(identity): Extension<Identity>,
    Body(review): Body<Value>,
) -> (StatusCode, Json<Value>) {
    let namespace = review.pointer("/spec/namespace").and_then(Value::as_str).unwrap_or("default");
    let mut rules = Vec::new();
    for info in kinds() {
        for subresource in ["", "status"] {
            let own_name = match &identity {
                Identity::Site(name) => name.as_str(),
                Identity::Admin => "",
            };
            let namespace = if info.namespaced { namespace } else { "" };
            let may = |verb: &&&'static str| {
                let attempt = Attempt {
                    verb,
                    group: info.group,
                    plural: info.plural,
                    namespace,
                    name: own_name,
                    subresource,
                };
                access::check(&identity, attempt).is_ok()
            };
            let verbs: Vec<&&str> = VERBS.iter().filter(may).collect();
            if !verbs.is_empty() {
                let resource = [info.plural, subresource].join("/");
                let mut rule = json!({
                    "verbs": verbs, "apiGroups": [info.group], "resources": [resource.trim_end_matches('/')],
                });
                if !own_name.is_empty() && !info.namespaced {
                    json_patch::merge(&mut rule, &json!({"resourceNames": [own_name]}));
                }
                rules.push(rule);
            }
        }
    }
    let status = json!({"resourceRules": rules, "nonResourceRules": [], "incomplete": false});
    created(json!({
        "apiVersion": AUTHORIZATION, "kind": "SelfSubjectRulesReview", "metadata": {}, "spec": {}, "status": status,
    }))
}

const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];

fn user(identity: &Identity) -> Value {
    json!({"username": identity.user(), "groups": identity.groups()})
}

fn created(review: Value) -> (StatusCode, Json<Value>) {
    (StatusCode::CREATED, Json(review))
}
