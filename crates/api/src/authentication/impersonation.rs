//! `Impersonate-User` and its like: who may, acts as somebody else.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::HeaderMap;

use super::User;
use super::user::AUTHENTICATED;
use crate::audit::Trail;
use crate::rbac::{Attempt, ResourceAttempt};
use crate::{ApiError, Hub};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const ANONYMOUS: &str = "system:anonymous";
const UNAUTHENTICATED: &str = "system:unauthenticated";
const ACCOUNT_PREFIX: &str = "system:serviceaccount:";
/// How many headers may say whom to act as.
const MOST_HEADERS: usize = 64;

/// Whom a request is from: who it names, if its maker may act as them, or else its maker.
///
/// # Errors
/// 403 that says which part of whom the maker may not act as; 400 for headers that can't be read.
pub fn impersonate(hub: &Hub, caller: Arc<User>, request: &Request) -> Result<Arc<User>, ApiError> {
    let Some(other) = wanted(request.headers())? else { return Ok(caller) };
    check(hub, &caller, &other)?;
    let other = Arc::new(with_groups(other));
    Trail::of(request).impersonated(other.clone());
    Ok(other)
}

/// Whom the headers name; `None` if nobody.
fn wanted(headers: &HeaderMap) -> Result<Option<User>, ApiError> {
    let mut named = Vec::new();
    for (header, value) in headers.iter().filter(|(header, _)| header.as_str().starts_with("impersonate-")) {
        let value = value.to_str().map_err(|_| ApiError::bad_request(format!("{header} is not a text")))?;
        named.push((header.as_str(), value.to_owned()));
    }
    if named.len() > MOST_HEADERS {
        return Err(ApiError::bad_request(format!("at most {MOST_HEADERS} headers may say whom to act as")));
    }
    let mut other = User::default();
    for (header, value) in named.iter().filter(|(_, value)| !value.is_empty()) {
        match *header {
            USER => other.name.clone_from(value),
            GROUP => other.groups.push(value.clone()),
            UID => other.uid.clone_from(value),
            _ => {
                let Some(key) = header.strip_prefix(EXTRA) else {
                    return Err(ApiError::bad_request(format!("the header {header} is not known")));
                };
                let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy().into_owned();
                other.extra.entry(key).or_default().push(value.clone());
            }
        }
    }
    match (named.is_empty(), other.name.is_empty()) {
        (true, _) => Ok(None),
        (false, true) => {
            let headers: Vec<&str> = named.iter().map(|(header, _)| *header).collect();
            let headers = headers.join(" ");
            Err(ApiError::bad_request(format!("requested [{headers}] without impersonating a user")))
        }
        (false, false) => Ok(Some(other)),
    }
}

/// Whether a user may act as every part of another.
fn check(hub: &Hub, user: &User, other: &User) -> Result<(), ApiError> {
    let ask = |group, plural, namespace, name, subresource| {
        let (verb, version) = ("impersonate", "v1");
        let attempt = ResourceAttempt { verb, group, version, plural, namespace, name, subresource };
        hub.rbac.check(user, &Attempt::Resource(attempt))
    };
    match service_account(&other.name) {
        Some((namespace, name)) => ask("", "serviceaccounts", namespace, name, "")?,
        None => ask("", "users", "", &other.name, "")?,
    }
    for group in &other.groups {
        ask("", "groups", "", group, "")?;
    }
    for (key, values) in &other.extra {
        for value in values {
            ask("authentication.k8s.io", "userextras", "", value, key)?;
        }
    }
    if other.uid.is_empty() { Ok(()) } else { ask("authentication.k8s.io", "uids", "", &other.uid, "") }
}

/// With the groups that such a user has anyway.
fn with_groups(mut other: User) -> User {
    if let Some((namespace, _)) = service_account(&other.name)
        && other.groups.is_empty()
    {
        other.groups =
            vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    }
    if !other.is_in(AUTHENTICATED) && !other.is_in(UNAUTHENTICATED) {
        let own = if other.name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
        other.groups.push(own.to_owned());
    }
    other
}

/// Namespace and name of a service account, if a user name is that of one.
fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(ACCOUNT_PREFIX)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}
