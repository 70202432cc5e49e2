//! One page to look at results. The page itself holds no data and no secret; what it shows it fetches with a token
//! that its user types in, or that stands behind the `#` of its address, which browsers never send.

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::{ApiError, Hub, discovery, health};

const PAGE: &str = include_str!("ui.html");

pub fn routes() -> Router<Arc<Hub>> {
    Router::new().route("/", get(root)).route("/ui", get(page))
}

/// The page for who looks with a browser, the paths that are served for everybody else.
async fn root(headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.contains("text/html") {
        return Redirect::temporary("/ui").into_response();
    }
    Json(json!({"paths": paths()})).into_response()
}

/// What programs may begin with, in order.
fn paths() -> Vec<String> {
    let others = ["/metrics", "/openapi/v2", "/openapi/v3", "/openapi/v3/", "/openid/v1/jwks", "/version"];
    let mut paths: Vec<String> = others.map(str::to_owned).into();
    paths.push("/.well-known/openid-configuration".to_owned());
    paths.extend(discovery::paths());
    paths.extend(health::paths());
    paths.sort_unstable();
    paths
}

async fn page() -> Result<impl IntoResponse, ApiError> {
    // Only the script and the style of this very answer run, whatever else finds its way into the page.
    let nonce = daemon::random_hex(16).map_err(|error| ApiError::internal(&error))?;
    // Pictures come straight from the sites, which have addresses of their own.
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; img-src blob: data:; \
         connect-src http: https:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'"
    );
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (CONTENT_SECURITY_POLICY, policy),
        (CACHE_CONTROL, "no-store".to_owned()),
        (REFERRER_POLICY, "no-referrer".to_owned()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    Ok((headers, PAGE.replace("{nonce}", &nonce)))
}
