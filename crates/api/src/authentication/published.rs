//! What others need to check the tokens of service accounts, open to everybody: public keys and where they are.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::Value;

use crate::Hub;

pub fn routes() -> Router<Arc<Hub>> {
    Router::new()
        .route("/.well-known/openid-configuration", get(configuration))
        .route("/openid/v1/jwks", get(keys))
}

async fn configuration(State(hub): State<Arc<Hub>>, headers: HeaderMap) -> Json<Value> {
    // The hub has many addresses; whoever asks knows one that works.
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    Json(hub.service_accounts.configuration(&format!("https://{host}")))
}

async fn keys(State(hub): State<Arc<Hub>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/jwk-set+json")], hub.service_accounts.keys().to_string())
}
