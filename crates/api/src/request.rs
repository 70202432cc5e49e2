//! What a request is about, told once for everybody who needs to know: access control, limits, the audit log and the
//! handlers.

use std::collections::HashMap;

use axum::extract::{Query, Request};
use axum::http::Method;
use types::Kind;
use types::core::NamespaceSpec;

use crate::rbac::{Attempt, ResourceAttempt};
use crate::target::Target;
use crate::{ApiError, body, discovery};

/// What a request is about.
#[derive(Debug, Clone)]
pub struct RequestInfo {
    /// The Kubernetes verb for resources, the method in lower case for other paths.
    pub verb: &'static str,
    /// The path.
    pub path: String,
    /// Whether it is a server-side apply.
    pub is_apply: bool,
    /// What resource the path names; `None` for other paths.
    pub target: Option<Target>,
    /// What review the path names; `None` for other paths.
    pub review: Option<Review>,
    /// The parameters.
    pub query: HashMap<String, String>,
}

/// A review that a path names: it is asked and not kept.
#[derive(Debug, Clone)]
pub struct Review {
    pub group: String,
    pub version: String,
    pub plural: String,
    namespace: String,
}

impl RequestInfo {
    /// Reads method, path and query.
    ///
    /// # Errors
    /// 400 or 404 for a path or a query that can't be read, 405 for a method that is not for what it names.
    pub fn read(request: &Request) -> Result<Self, ApiError> {
        let Query(query) = Query::<HashMap<String, String>>::try_from_uri(request.uri())
            .map_err(|error| ApiError::bad_request(error.body_text()))?;
        let path = request.uri().path().to_owned();
        let target = match resource_path(&path) {
            Some((group, version, rest)) => {
                Some(Target::parse(&decode(group)?, &decode(version)?, &decode(rest)?)?)
            }
            None => None,
        };
        let review = review_path(&path);
        let verb = match (&target, &review) {
            (Some(target), _) => resource_verb(request.method(), target, &query)?,
            (None, Some(_)) if request.method() == Method::POST => "create",
            _ => method_verb(request.method()),
        };
        let is_apply = verb == "patch" && body::media_type(request.headers()) == body::APPLY_PATCH;
        Ok(Self { verb, path, is_apply, target, review, query })
    }

    /// What is to be done with which resource or path.
    pub fn attempt(&self) -> Attempt<'_> {
        if let Some(target) = &self.target {
            let is_selection = matches!(self.verb, "list" | "watch");
            return Attempt::Resource(ResourceAttempt {
                verb: self.verb,
                group: target.info.group,
                version: target.info.version,
                plural: target.info.plural,
                namespace: self.namespace(),
                name: if is_selection { self.selected_name() } else { &target.name },
                subresource: target.subresource.name(),
            });
        }
        if let Some(Review { group, version, plural, namespace }) = &self.review {
            let verb = self.verb;
            let review = ResourceAttempt { verb, group, version, plural, namespace, ..Default::default() };
            return Attempt::Resource(review);
        }
        Attempt::Path { verb: self.verb, path: &self.path }
    }

    /// The namespace that the path names. A Namespace is in itself, so that who may do all in a namespace may look at
    /// it, too.
    fn namespace(&self) -> &str {
        match &self.target {
            Some(target) if target.info.plural == NamespaceSpec::PLURAL => &target.name,
            Some(target) => &target.namespace,
            None => "",
        }
    }

    /// The one name that a field selector lets pass; empty if it isn't one.
    fn selected_name(&self) -> &str {
        let mut terms = self.text("fieldSelector").split(',');
        terms
            .find_map(|term| term.strip_prefix("metadata.name="))
            .map_or("", |name| name.trim_start_matches('='))
    }

    /// A parameter; empty if it is missing.
    pub fn text(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    /// Whether a parameter says yes: it is there, and doesn't say no.
    pub fn is_set(&self, name: &str) -> bool {
        is_yes(self.query.get(name))
    }

    /// A parameter that is a number.
    ///
    /// # Errors
    /// 400 if it is none.
    pub fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let text = self.text(name);
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|error| {
            let problem = unreadable("strconv.ParseInt", text, &error);
            ApiError::bad_request(problem)
        })
    }

    /// The version that the client names; 0 stands for any.
    ///
    /// # Errors
    /// 400 if it is none.
    pub fn version(&self) -> Result<Option<u64>, ApiError> {
        let text = self.text("resourceVersion");
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|error| {
            let problem = unreadable("strconv.ParseUint", text, &error);
            ApiError::bad_request(format!("resourceVersion: Invalid value: {text:?}: {problem}"))
        })
    }
}

/// A parameter that is there says yes, unless it says no.
fn is_yes(value: Option<&String>) -> bool {
    value.is_some_and(|value| !matches!(value.as_str(), "false" | "0"))
}

/// What is said of a text that is no number.
fn unreadable(reader: &str, text: &str, error: &std::num::ParseIntError) -> String {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    let problem = match error.kind() {
        PosOverflow | NegOverflow => "value out of range",
        _ => "invalid syntax",
    };
    format!("{reader}: parsing {text:?}: {problem}")
}

/// Group, version and the rest of a path to resources. Discovery (`/apis/GROUP/VERSION`) and reviews, which are asked
/// and not kept, are no such paths.
fn resource_path(path: &str) -> Option<(&str, &str, &str)> {
    let (group, version, rest) = match path.strip_prefix("/api/") {
        Some(rest) => {
            let (version, rest) = rest.split_once('/')?;
            ("", version, rest)
        }
        None => {
            let (group, rest) = path.strip_prefix("/apis/")?.split_once('/')?;
            let (version, rest) = rest.split_once('/')?;
            (group, version, rest)
        }
    };
    (review_path(path).is_none() && !rest.is_empty()).then_some((group, version, rest))
}

/// The review that a path names, in a namespace or not. Two groups have nothing else.
fn review_path(path: &str) -> Option<Review> {
    let (group, rest) = path.strip_prefix("/apis/")?.split_once('/')?;
    let (version, rest) = rest.split_once('/').filter(|(_, rest)| !rest.is_empty())?;
    let (namespace, plural) =
        rest.strip_prefix("namespaces/").and_then(|rest| rest.split_once('/')).unwrap_or(("", rest));
    let has_nothing_else =
        version == "v1" && matches!(group, "authentication.k8s.io" | "authorization.k8s.io");
    if !has_nothing_else && discovery::review_at(group, version, plural).is_none() {
        return None;
    }
    let owned = str::to_owned;
    Some(Review {
        group: owned(group),
        version: owned(version),
        plural: owned(plural),
        namespace: owned(namespace),
    })
}

/// Names have characters that clients may write as `%3A`, but none has a slash.
fn decode(part: &str) -> Result<String, ApiError> {
    let decoded = percent_encoding::percent_decode_str(part).decode_utf8();
    let decoded =
        decoded.map_err(|error| ApiError::bad_request(format!("the path is not UTF-8: {error}")))?;
    Ok(decoded.into_owned())
}

fn resource_verb(
    method: &Method,
    target: &Target,
    query: &HashMap<String, String>,
) -> Result<&'static str, ApiError> {
    let is_watch = is_yes(query.get("watch"));
    let is_collection = target.name.is_empty();
    let is_create = is_collection || target.subresource == crate::target::Subresource::Token;
    Ok(match (method, is_collection) {
        (&Method::GET | &Method::HEAD, true) if is_watch => "watch",
        (&Method::GET | &Method::HEAD, true) => "list",
        (&Method::GET | &Method::HEAD, false) => "get",
        (&Method::POST, _) if is_create => "create",
        (&Method::PUT, false) => "update",
        (&Method::PATCH, false) => "patch",
        (&Method::DELETE, false) if target.is_whole() => "delete",
        (&Method::DELETE, true) => "deletecollection",
        (&Method::DELETE, false) if target.info.is_ours() => {
            return Err(ApiError::unsupported_method("delete", target.info));
        }
        _ => return Err(ApiError::unfit_method()),
    })
}

fn method_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::HEAD => "head",
        Method::OPTIONS => "options",
        _ => "other",
    }
}
