//! Parts of objects with addresses of their own: `scale`, a namespace's `finalize`, a service account's `token`.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use store::{Key, Object};
use types::{Scale, Time};

use crate::authentication::Account;
use crate::resources::Call;
use crate::{ApiError, admission};

/// `GET …/scale`.
///
/// # Errors
/// 404 if the object does not exist.
pub fn get_scale(call: &Call) -> Result<Response, ApiError> {
    Ok(Json(scale_of(call, &*call.find()?)?).into_response())
}

fn scale(call: &Call) -> Result<Scale, ApiError> {
    call.target
        .info
        .scale
        .ok_or_else(|| ApiError::not_found("the server could not find the requested resource"))
}

fn scale_of(call: &Call, object: &Object) -> Result<Value, ApiError> {
    let paths = scale(call)?;
    let manifest = object.manifest();
    let replicas =
        |path: &str| manifest.pointer(&path.replace('.', "/")).and_then(Value::as_i64).unwrap_or_default();
    let metadata = &object.metadata;
    let times = metadata.creation_timestamp;
    Ok(json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale",
        "metadata": {
            "name": metadata.name, "namespace": metadata.namespace, "uid": metadata.uid,
            "resourceVersion": metadata.resource_version, "creationTimestamp": times,
        },
        "spec": {"replicas": replicas(paths.spec_replicas)},
        "status": {"replicas": replicas(paths.status_replicas)},
    }))
}

/// `PUT` and `PATCH …/scale`.
///
/// # Errors
/// 400 for what is no scale, 409 if the object changed since it was read.
pub async fn set_scale(call: &Call) -> Result<Response, ApiError> {
    let paths = scale(call)?;
    let current = call.look()?;
    let wanted = match call.info.verb {
        "patch" => call.patched(&scale_of(call, &current.object)?, &call.parse_patch()?)?,
        _ => call.parse_body()?,
    };
    let replicas = wanted.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or_default();
    let version = wanted.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
    let mut manifest = current.manifest.clone();
    let mut place = &mut manifest;
    for name in paths.spec_replicas.split('.').filter(|name| !name.is_empty()) {
        let fields =
            place.as_object_mut().ok_or_else(|| ApiError::bad_request("the object can't be scaled"))?;
        place = fields.entry(name).or_insert(Value::Null);
    }
    *place = json!(replicas);
    if !version.is_empty() {
        json_patch::merge(&mut manifest, &json!({"metadata": {"resourceVersion": version}}));
    }
    let manifest = admission::admit(call, manifest, Some(&current), &call.target.name)?;
    let written = call.write_object(current, manifest).await?;
    Ok(Json(scale_of(call, &written)?).into_response())
}

/// `PUT namespaces/NAME/finalize`: who holds a namespace.
///
/// # Errors
/// 404 or 409 as for every update.
pub async fn finalize(call: &Call) -> Result<Response, ApiError> {
    let current = call.look()?;
    let manifest = admission::admit(call, call.parse_body()?, Some(&current), &call.target.name)?;
    let written = call.write_object(current, manifest).await?;
    Ok(call.answer(StatusCode::OK, &written))
}

/// For how long a token is good unless the client says, and at least and at most, in seconds.
const TOKEN_SECONDS: i64 = 3600;
const SHORTEST_TOKEN: i64 = 600;
const LONGEST_TOKEN: i64 = 1 << 32;

/// Whether the Secret is there that a token is to be bound to.
fn check_bound_object(call: &Call, request: &Value) -> Result<(), ApiError> {
    let text = |field: &str| {
        let found = request.pointer(&format!("/spec/boundObjectRef/{field}"));
        found.and_then(Value::as_str).unwrap_or_default()
    };
    let (kind, name) = (text("kind"), text("name"));
    if kind.is_empty() && name.is_empty() {
        return Ok(());
    }
    if kind != "Secret" {
        return Err(ApiError::bad_request(format!("cannot bind token for object of type /v1, Kind={kind}")));
    }
    let key = Key::new("secrets", &*call.target.namespace, name);
    call.hub.store.get(&key).map(|_| ()).ok_or_else(|| store::Error::NotFound(key).into())
}

/// `POST serviceaccounts/NAME/token`: a `TokenRequest`, answered with its token.
///
/// # Errors
/// 404 if there is no such account, 422 for a time that is too short or too long.
pub async fn create_token(call: &Call) -> Result<Response, ApiError> {
    let account = call.find()?;
    let mut request = call.parse_body()?;
    let seconds = request.pointer("/spec/expirationSeconds").and_then(Value::as_i64).unwrap_or(TOKEN_SECONDS);
    if !(SHORTEST_TOKEN..=LONGEST_TOKEN).contains(&seconds) {
        let bound = if seconds < SHORTEST_TOKEN {
            "may not specify a duration less than 10 minutes"
        } else {
            "may not specify a duration larger than 2^32 seconds"
        };
        let message = format!("Invalid value: {seconds}: {bound}");
        return Err(ApiError::review("TokenRequest", "spec.expirationSeconds", &message));
    }
    check_bound_object(call, &request)?;
    let audiences: Vec<String> = match request.pointer("/spec/audiences") {
        Some(audiences) if !audiences.is_null() => serde_json::from_value(audiences.clone())
            .map_err(|error| ApiError::bad_request(format!("spec.audiences: {error}")))?,
        _ => vec![],
    };
    let named =
        Account { namespace: &account.key.namespace, name: &account.key.name, uid: &account.metadata.uid };
    let ttl = Duration::from_secs(seconds.unsigned_abs());
    let now = daemon::now();
    let token = call
        .hub
        .service_accounts
        .sign(named, &audiences, ttl, now)
        .map_err(|error| ApiError::internal(&error))?;
    let expires =
        now.0.checked_add(ttl).map(Time).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let status = json!({"token": token, "expirationTimestamp": expires});
    json_patch::merge(&mut request, &json!({"spec": {"expirationSeconds": seconds}, "status": status}));
    Ok((StatusCode::CREATED, Json(request)).into_response())
}
