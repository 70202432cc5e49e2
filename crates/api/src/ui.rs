//! One page to look at results. The page itself holds no data and no secret; what it shows it fetches with the
//! token behind the `#` of its address, which browsers never send.

use axum::Router;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;

use crate::Hub;

const PAGE: &str = include_str!("ui.html");

pub fn routes() -> Router<Hub> {
    Router::new().route("/", get(|| async { Redirect::temporary("/ui") })).route("/ui", get(page))
}

async fn page() -> impl IntoResponse {
    // Pictures come straight from the sites, which have addresses of their own.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src blob: data:; \
                  connect-src *; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    ([(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, policy)], PAGE)
}
