//! Bodies of requests, with a limit and with refusals in the form that clients read.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::server::LARGEST_MANIFEST;
use crate::{ApiError, protobuf};

/// The media types of bodies that are no patches.
pub const FORMATS: [&str; 3] = ["application/json", "application/yaml", protobuf::MEDIA_TYPE];

/// How much of a body a refusal shows, in bytes.
const LONGEST_SUMMARY: usize = 30;

/// The media type of server-side applies.
pub const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// The whole body.
///
/// # Errors
/// 413 if it is too large, 400 if it breaks off.
pub async fn read(request: Request) -> Result<Bytes, ApiError> {
    match Bytes::from_request(request, &()).await {
        Ok(body) => Ok(body),
        Err(refusal) if refusal.status().as_u16() == 413 => Err(ApiError::too_large(format!(
            "Request entity too large: limit is {LARGEST_MANIFEST}; keep large content in buckets or artifacts"
        ))),
        Err(refusal) => Err(ApiError::bad_request(refusal.body_text())),
    }
}

/// JSON of a kind from bytes.
///
/// # Errors
/// 400 that says what is wrong with them, as the API server of Kubernetes does.
pub fn parse(kind: &str, body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        let problem = format!("couldn't get version/kind; json parse error: {}", syntax_error(body, &error));
        unrecognized(kind, &problem, body)
    })
}

/// Whether a value is of a shape that tells its version and kind.
///
/// # Errors
/// 400 for what is no object, or has something else than texts there.
pub fn check_can_tell(kind: &str, value: &Value, body: &[u8]) -> Result<(), ApiError> {
    let place = match not_an_object(value) {
        Some(found) => Some(format!("{found} into Go value of type {TYPE_META}")),
        None => ["apiVersion", "kind"].into_iter().find_map(|field| {
            let stated = value.get(field).filter(|stated| !stated.is_string() && !stated.is_null())?;
            Some(format!("{} into Go struct field .{field} of type string", word(stated)))
        }),
    };
    let Some(place) = place else { return Ok(()) };
    let problem = format!("couldn't get version/kind; json parse error: json: cannot unmarshal {place}");
    Err(unrecognized(kind, &problem, body))
}

/// How Kubernetes names the part of an object that tells what it is.
const TYPE_META: &str =
    r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;

/// What a value is that is no object; null counts as an empty one.
pub fn not_an_object(value: &Value) -> Option<&'static str> {
    (!value.is_object() && !value.is_null()).then(|| word(value))
}

/// What a value is, in the words of errors.
pub fn word(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) | Value::Null => "bool",
    }
}

/// 400 for a body that doesn't tell what it is.
pub fn unrecognized(kind: &str, problem: &str, body: &[u8]) -> ApiError {
    let summary = summarize(body);
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {problem} ({summary})"
    ))
}

/// The beginning of a body: as text if it looks like JSON, in hexadecimal if not.
fn summarize(body: &[u8]) -> String {
    let beginning = body.get(..LONGEST_SUMMARY).unwrap_or(body);
    let rest = if body.len() > beginning.len() { " ..." } else { "" };
    match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{rest}", String::from_utf8_lossy(beginning)),
        Some(_) => {
            let digits: String = beginning.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{digits}{rest}")
        }
    }
}

/// Where JSON breaks off, in the words that clients of Kubernetes know.
pub fn syntax_error(body: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".to_owned();
    }
    let text = error.to_string();
    let known = [
        ("expected value", "looking for beginning of value"),
        ("key must be a string", "looking for beginning of object key string"),
        ("expected `:`", "after object key"),
        ("expected `,` or `}`", "after object key:value pair"),
        ("expected `,` or `]`", "after array element"),
        ("trailing characters", "after top-level value"),
    ];
    let place = known.iter().find(|(words, _)| text.starts_with(words)).map(|(_, place)| *place);
    let line = body.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1));
    let byte = line.and_then(|line| line.get(error.column().saturating_sub(1)));
    match (place, byte) {
        (Some(place), Some(byte)) => format!("invalid character {:?} {place}", char::from(*byte)),
        _ => text,
    }
}

/// JSON from bytes that are protobuf.
///
/// # Errors
/// 400 that says what is wrong with them, 415 for what is only read as JSON.
pub fn parse_protobuf(body: &[u8]) -> Result<Value, ApiError> {
    protobuf::read(body).map_err(|error| match error {
        protobuf::Error::Unknown { .. } => unknown_format(&["application/json", "application/yaml"]),
        error => ApiError::bad_request(format!("the body of the request can't be read: {error}")),
    })
}

/// 415 for a media type that is none of the accepted ones.
pub fn unknown_format(accepted: &[&str]) -> ApiError {
    ApiError::unsupported_media_type(format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        accepted.join(", ")
    ))
}

/// The media type of a body, without its parameters; empty if it is not stated.
pub fn media_type(headers: &HeaderMap) -> &str {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim()
}

/// A body of a type, as JSON or protobuf. Unlike axum's own it does not insist on a content type, and refuses with a
/// `Status`.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let is_protobuf = media_type(request.headers()) == protobuf::MEDIA_TYPE;
        let body = read(request).await?;
        let parsed = if is_protobuf {
            serde_json::from_value(parse_protobuf(&body)?)
        } else {
            serde_json::from_slice(&body)
        };
        parsed
            .map(Self)
            .map_err(|error| ApiError::bad_request(format!("the body of the request can't be read: {error}")))
    }
}
