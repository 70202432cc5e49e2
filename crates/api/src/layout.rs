//! How the JSON of an answer is laid out: for programs, for people, or as YAML.

use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::Request;
use axum::http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use crate::ApiError;

/// The media type of YAML.
pub const YAML: &str = "application/yaml";

const JSON: &str = "application/json";
/// How long an answer may be that is laid out otherwise than as it was written, in bytes.
const LONGEST: usize = 16 << 20;
/// What people ask with. They get lines and spaces, as from the API server of Kubernetes.
const TOOLS: [&str; 3] = ["curl", "Wget", "Mozilla/5.0"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Lines,
    Yaml,
}

impl Layout {
    /// What a request asks for; `None` for JSON as it is written. Watches stay as they are: each line is an event.
    fn asked(headers: &HeaderMap, query: &str) -> Option<Self> {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or("");
        let parameter = |name: &str| {
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
        };
        if !matches!(parameter("watch"), "" | "0" | "false") {
            return None;
        }
        let media_type = text(ACCEPT).split([',', ';']).next().unwrap_or_default().trim();
        let is_tool = TOOLS.iter().any(|tool| text(USER_AGENT).starts_with(tool));
        match parameter("pretty") {
            _ if media_type == YAML => Some(Self::Yaml),
            "" => is_tool.then_some(Self::Lines),
            pretty => matches!(pretty, "1" | "t" | "T" | "true" | "True" | "TRUE").then_some(Self::Lines),
        }
    }

    fn write(self, value: &Value) -> Option<String> {
        match self {
            Self::Lines => serde_json::to_string_pretty(value).ok(),
            Self::Yaml => serde_saphyr::to_string(value).ok(),
        }
    }
}

/// Lays out what is answered as the client asks for.
pub async fn lay_out(request: Request, next: Next) -> Response {
    let layout = Layout::asked(request.headers(), request.uri().query().unwrap_or_default());
    let response = next.run(request).await;
    let is_json = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == JSON);
    match layout.filter(|layout| is_json && (*layout == Layout::Yaml || is_short(&response))) {
        Some(layout) => rewrite(response, layout).await,
        None => response,
    }
}

fn is_short(response: &Response) -> bool {
    let stated = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    stated.or_else(|| response.body().size_hint().exact()).is_some_and(|length| length <= LONGEST as u64)
}

async fn rewrite(response: Response, layout: Layout) -> Response {
    let (mut head, body) = response.into_parts();
    let Ok(written) = to_bytes(body, LONGEST).await else {
        let message =
            format!("{YAML} is for answers of up to {LONGEST} bytes: ask for {JSON}, or set a limit");
        return ApiError::not_acceptable(message).into_response();
    };
    let Some(text) = serde_json::from_slice(&written).ok().and_then(|value| layout.write(&value)) else {
        return Response::from_parts(head, Body::from(written));
    };
    head.headers.remove(CONTENT_LENGTH);
    if layout == Layout::Yaml {
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static(YAML));
    }
    Response::from_parts(head, Body::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_get_lines_and_programs_what_they_ask_for() {
        let asked = |name, value: &'static str, query: &str| {
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
            Layout::asked(&headers, query)
        };
        for (name, value, query, expected) in [
            (USER_AGENT, "curl/8.0", "", Some(Layout::Lines)),
            (USER_AGENT, "curl/8.0", "limit=1&pretty=false", None),
            (USER_AGENT, "curl/8.0", "watch=1", None),
            (USER_AGENT, "kubectl/v1.32", "", None),
            (USER_AGENT, "kubectl/v1.32", "pretty=true", Some(Layout::Lines)),
            (ACCEPT, "application/yaml", "", Some(Layout::Yaml)),
            (ACCEPT, "application/json, application/yaml", "", None),
        ] {
            assert_eq!(asked(name, value, query), expected, "{value} {query}");
        }
    }
}
