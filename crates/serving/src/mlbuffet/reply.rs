//! Answers in MLBuffet's form, and what MLBuffet itself would have said.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// What MLBuffet says when it stumbles.
const STUMBLE: &str = "The server encountered an internal error and was unable to complete your request. Either the \
                       server is overloaded or there is an error in the application.";

/// An answer whose code is true.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reply {
    code: StatusCode,
    description: String,
    /// In the place of the description where others than the client read.
    noted: Option<String>,
    more: Map<String, Value>,
    theirs: Theirs,
}

/// Where MLBuffet answers otherwise.
#[derive(Clone, Debug, Default, PartialEq)]
struct Theirs {
    /// HTTP's status.
    http: Option<StatusCode>,
    /// The status in the body.
    code: Option<StatusCode>,
    description: Option<String>,
    /// Whether members beside `http_status` are left out.
    bare: bool,
}

impl Reply {
    pub fn new(code: StatusCode, description: impl Into<String>) -> Reply {
        let description = description.into();
        Reply { code, description, noted: None, more: Map::new(), theirs: Theirs::default() }
    }

    pub fn ok(description: impl Into<String>) -> Reply {
        Reply::new(StatusCode::OK, description)
    }

    pub fn bad_request() -> Reply {
        let text = "The browser (or proxy) sent a request that this server could not understand.";
        Reply::new(StatusCode::BAD_REQUEST, text)
    }

    pub fn unprocessable(description: impl Into<String>) -> Reply {
        Reply::new(StatusCode::UNPROCESSABLE_ENTITY, description)
    }

    pub fn wrong_method() -> Reply {
        Reply::new(StatusCode::METHOD_NOT_ALLOWED, "The method is not allowed for the requested URL.")
    }

    pub fn too_large(limit: impl std::fmt::Display) -> Reply {
        let text = format!(
            "The request is over the limit of {limit} bytes; send less, or ask the operator to raise it"
        );
        Reply::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    }

    /// The true code.
    pub fn code(&self) -> StatusCode {
        self.code
    }

    /// What is written of it where others than the client read.
    pub fn noted(&self) -> &str {
        self.noted.as_ref().unwrap_or(&self.description)
    }

    pub fn noted_as(mut self, text: String) -> Reply {
        self.noted = Some(text);
        self
    }

    /// A member beside `http_status`.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Reply {
        self.more.insert(name.into(), value.into());
        self
    }

    /// A refused prediction, which MLBuffet answers with no values.
    pub fn without_values(self) -> Reply {
        self.with("values", json!([]))
    }

    /// In MLBuffet HTTP says 200 and the body `code`.
    pub fn theirs_in_body(mut self, code: StatusCode) -> Reply {
        self.theirs = Theirs { http: Some(StatusCode::OK), code: Some(code), ..self.theirs };
        self
    }

    /// In MLBuffet HTTP says 200 and the body what it says here.
    pub fn theirs_by_200(mut self) -> Reply {
        self.theirs.http = Some(StatusCode::OK);
        self
    }

    /// In MLBuffet the text is another one.
    pub fn theirs_says(mut self, description: impl Into<String>) -> Reply {
        self.theirs.description = Some(description.into());
        self
    }

    /// MLBuffet fails here.
    pub fn theirs_stumbles(mut self) -> Reply {
        let (code, description) = (Some(StatusCode::INTERNAL_SERVER_ERROR), Some(STUMBLE.into()));
        self.theirs = Theirs { http: code, code, description, bare: true };
        self
    }

    /// The answer, as `MLBuffet` gives it where `legacy` is on.
    pub fn into_response(self, legacy: bool) -> Response {
        let Reply { code, description, more, theirs, .. } = self;
        let theirs = if legacy { theirs } else { Theirs::default() };
        let shown = theirs.code.unwrap_or(code);
        let mut body = if theirs.bare { Map::new() } else { more };
        let status = json!({
            "code": shown.as_u16(),
            "name": shown.canonical_reason().unwrap_or_default(),
            "description": theirs.description.unwrap_or(description),
        });
        body.insert("http_status".into(), status);
        let text = ascii(&Value::Object(body).to_string());
        let code = theirs.http.unwrap_or(code);
        let mut response = (code, [(header::CONTENT_TYPE, "application/json")], text).into_response();
        if code == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// JSON as MLBuffet writes it: other characters escaped, and a line's end.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len() + 1);
    for character in json.chars() {
        if character.is_ascii() {
            text.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            text.push_str(&format!("\\u{unit:04x}"));
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_as_pythons_json_does() {
        assert_eq!(ascii(r#""grün 🥑""#), "\"gr\\u00fcn \\ud83e\\udd51\"\n");
    }

    #[tokio::test]
    async fn the_true_code_is_in_http_and_body_and_theirs_only_where_asked_for() {
        let reply = Reply::new(StatusCode::NOT_FOUND, "no").theirs_in_body(StatusCode::UNPROCESSABLE_ENTITY);
        for (legacy, http, code, name) in
            [(false, 404, 404, "Not Found"), (true, 200, 422, "Unprocessable Entity")]
        {
            let response = reply.clone().into_response(legacy);
            assert_eq!(response.status().as_u16(), http);
            let body = axum::body::to_bytes(response.into_body(), 999).await.unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body, json!({"http_status": {"code": code, "name": name, "description": "no"}}));
        }
    }
}
