//! Answers and refusals as the specification words them.

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, LINK};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Asked;
use crate::{Code, Error};

pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// A refusal in the form that clients read.
#[derive(Debug)]
pub struct Refusal {
    code: Code,
    message: String,
    /// A header that goes with it.
    header: Option<(HeaderName, HeaderValue)>,
}

impl Refusal {
    /// A refusal with a code and status of the specification.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), header: None }
    }

    /// The same with a further header; one that is no header is left out.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        self.header = value.parse().ok().map(|value| (name, value));
        self
    }

    pub(super) fn method(allowed: &'static str) -> Self {
        let code = Code { word: "UNSUPPORTED", status: 405 };
        Self::new(code, format!("the method is not for this path; use {allowed}")).with_header(ALLOW, allowed)
    }

    pub(super) fn pagination(text: &str) -> Self {
        let code = Code { word: "PAGINATION_NUMBER_INVALID", status: 400 };
        let shown: String = text.chars().take(80).collect();
        Self::new(code, format!("n = {shown:?} is not a number; write how many entries are wanted"))
    }

    pub(super) fn query(problem: &str) -> Self {
        Self::new(Code { word: "UNSUPPORTED", status: 400 }, problem)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let code = error.code();
        if code.status == 500 {
            tracing::error!(error = daemon::chain(&error), "a request to the registry failed");
            return Self::new(code, "the server failed; its log tells why");
        }
        Self::new(code, daemon::chain(&error))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { code, message, header } = self;
        let status = StatusCode::from_u16(code.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = json!({"errors": [{"code": code.word, "message": message}]});
        let mut response = (status, axum::Json(body)).into_response();
        response.headers_mut().extend(header);
        response
    }
}

/// A response of these headers; text that is no header's value leaves its header out.
pub(super) fn answer<const N: usize>(
    status: StatusCode,
    headers: [(HeaderName, String); N],
    body: Body,
) -> Response {
    let mut response = (status, body).into_response();
    for (name, value) in headers {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// JSON, and where the list goes on.
pub(super) fn listed(media_type: &str, list: &serde_json::Value, next: Option<String>) -> Response {
    let headers = [(CONTENT_TYPE, media_type.to_owned())];
    let mut response = answer(StatusCode::OK, headers, Body::from(list.to_string()));
    if let Some(Ok(link)) = next.map(|next| format!("<{next}>; rel=\"next\"").parse()) {
        response.headers_mut().insert(LINK, link);
    }
    response
}

pub(super) fn version(asked: &Asked) -> Result<Response, Refusal> {
    if !is_read(&asked.method) {
        return Err(Refusal::method("GET, HEAD"));
    }
    let headers = [(API_VERSION, "registry/2.0".to_owned()), (CONTENT_TYPE, "application/json".to_owned())];
    Ok(answer(StatusCode::OK, headers, Body::from("{}")))
}

pub(super) fn is_read(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD
}
