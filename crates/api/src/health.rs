//! `/livez`, `/readyz` and `/healthz`: whether the hub works, in one word or check by check.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::{ApiError, Hub};

/// A check: its name, and what fails it.
type Check = (&'static str, fn(&Hub) -> bool);

const PING: Check = ("ping", |_| true);
const STORE: Check = ("store", |hub| hub.store.works());
const SHUTDOWN: Check = ("shutdown", |hub| !hub.shutdown.is_due());

/// A hub that ends is still healthy, but no longer ready for more.
const ENDPOINTS: [(&str, &[Check]); 3] =
    [("healthz", &[PING, STORE]), ("livez", &[PING, STORE]), ("readyz", &[PING, STORE, SHUTDOWN])];

/// All checks together, for everybody.
pub fn routes() -> Router<Arc<Hub>> {
    let mut routes = Router::new();
    for (name, _) in ENDPOINTS {
        routes = routes.route(&format!("/{name}"), get(all));
    }
    routes
}

/// Where health is told, in one word and check by check.
pub fn paths() -> impl Iterator<Item = String> {
    ENDPOINTS.into_iter().flat_map(|(name, checks)| {
        let single = checks.iter().map(move |(check, _)| format!("/{name}/{check}"));
        std::iter::once(format!("/{name}")).chain(single)
    })
}

/// Single checks.
pub fn check_routes() -> Router<Arc<Hub>> {
    let mut routes = Router::new();
    for (name, checks) in ENDPOINTS {
        for (check, _) in checks {
            routes = routes.route(&format!("/{name}/{check}"), get(one));
        }
    }
    routes
}

async fn all(State(hub): State<Arc<Hub>>, uri: Uri, Query(query): Query<Vec<(String, String)>>) -> Response {
    let name = uri.path().trim_matches('/');
    let checks = ENDPOINTS.iter().find(|(known, _)| *known == name).map_or(&[][..], |(_, checks)| checks);
    let mut excluded: Vec<&str> =
        query.iter().filter(|(key, _)| key == "exclude").map(|(_, check)| check.as_str()).collect();
    let mut report = String::new();
    let mut failed = false;
    for (check, works) in checks {
        let before = excluded.len();
        excluded.retain(|excluded| excluded != check);
        if excluded.len() < before {
            report.push_str(&format!("[+]{check} excluded: ok\n"));
        } else if works(&hub) {
            report.push_str(&format!("[+]{check} ok\n"));
        } else {
            failed = true;
            report.push_str(&format!("[-]{check} failed: reason withheld\n"));
        }
    }
    if !excluded.is_empty() {
        let unknown: Vec<String> = excluded.iter().map(|check| format!("{check:?}")).collect();
        let unknown = unknown.join(",");
        report.push_str(&format!("warn: some health checks cannot be excluded: no matches for {unknown}\n"));
    }
    match (failed, query.iter().any(|(key, _)| key == "verbose")) {
        (true, _) => answer(StatusCode::INTERNAL_SERVER_ERROR, format!("{report}{name} check failed\n")),
        (false, true) => answer(StatusCode::OK, format!("{report}{name} check passed\n")),
        (false, false) => answer(StatusCode::OK, "ok".to_owned()),
    }
}

async fn one(State(hub): State<Arc<Hub>>, uri: Uri) -> Result<Response, ApiError> {
    let asked = uri.path().rsplit('/').next().unwrap_or_default();
    let mut checks = ENDPOINTS.iter().flat_map(|(_, checks)| checks.iter());
    match checks.find(|(check, _)| *check == asked) {
        Some((_, works)) if works(&hub) => Ok(answer(StatusCode::OK, "ok".to_owned())),
        _ => Ok(answer(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("internal server error: {asked} failed: reason withheld\n"),
        )),
    }
}

fn answer(code: StatusCode, text: String) -> Response {
    let headers: [(HeaderName, &str); 3] = [
        (CONTENT_TYPE, "text/plain; charset=utf-8"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-cache, private"),
    ];
    (code, headers, text).into_response()
}
