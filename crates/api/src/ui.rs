//! One page to look at results. The page itself holds no data and no secret; what it shows it fetches with a token
//! that its user types in, or that stands behind the `#` of its address, which browsers never send.

use std::sync::Arc;

use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;

use crate::{ApiError, Hub};

const PAGE: &str = include_str!("ui.html");

pub fn routes() -> Router<Arc<Hub>> {
    Router::new().route("/", get(|| async { Redirect::temporary("/ui") })).route("/ui", get(page))
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
