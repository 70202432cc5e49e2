//! What sites fetch for Sources that the hub doesn't reach: they ask what is wanted, and bring it.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use sources::{Delivery, Order};

use crate::body::Body;
use crate::{ApiError, Hub};

/// How large a delivery may be, in bytes.
const LONGEST: usize = 48 << 20;

pub fn routes() -> Router<Arc<Hub>> {
    Router::new()
        .route("/avocet/v1/sites/{site}/sources", get(orders))
        .route("/avocet/v1/sites/{site}/sources/{id}", post(deliver))
        .layer(DefaultBodyLimit::max(LONGEST))
}

/// What a site is to fetch now.
async fn orders(State(hub): State<Arc<Hub>>, Path(site): Path<String>) -> Json<Vec<Order>> {
    Json(hub.errands.of(&site))
}

/// Takes what a site fetched.
///
/// # Errors
/// 404 if nobody waits for it any longer.
async fn deliver(
    State(hub): State<Arc<Hub>>,
    Path((site, id)): Path<(String, String)>,
    Body(delivery): Body<Delivery>,
) -> Result<StatusCode, ApiError> {
    if hub.errands.deliver(&site, &id, delivery) {
        return Ok(StatusCode::ACCEPTED);
    }
    Err(ApiError::not_found(format!("nobody waits for what source {id} brings")))
}
