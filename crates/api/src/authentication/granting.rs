//! Admins make, list and revoke tokens for users.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, get};
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{MASTERS, TokenInfo, User};
use crate::body::Body;
use crate::{ApiError, Hub};

/// For how long a token may be good, in seconds.
const LONGEST_TTL: u64 = 366 * 24 * 3600;
/// How many groups a user may be in.
const MOST_GROUPS: usize = 100;
/// How long a name of a user or group may be, in bytes.
const LONGEST_NAME: usize = 256;

pub fn routes() -> Router<Arc<Hub>> {
    Router::new()
        .route("/avocet/v1/tokens", get(list).post(create))
        .route("/avocet/v1/tokens/{id}", delete(revoke))
}

/// Asks for a token.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenRequest {
    /// Whose it is to be.
    pub user: String,
    /// The user's groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// For how long it is to be good, in seconds.
    pub ttl_seconds: u64,
}

async fn create(
    State(hub): State<Arc<Hub>>,
    Extension(user): Extension<Arc<User>>,
    Body(request): Body<TokenRequest>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    // Whom roles let make tokens could become anybody: but not more than everybody.
    if !user.is_admin() && request.groups.iter().any(|group| group == MASTERS) {
        return Err(ApiError::forbidden(format!("only who is in group {MASTERS} may make tokens for it")));
    }
    if request.groups.len() > MOST_GROUPS {
        let count = request.groups.len();
        return Err(ApiError::bad_request(format!(
            "{count} groups are too many; name {MOST_GROUPS} at most"
        )));
    }
    for name in request.groups.iter().chain([&request.user]) {
        if name.is_empty() || name.len() > LONGEST_NAME || name.contains(char::is_control) {
            return Err(ApiError::bad_request(format!(
                "{name:?} is no name of a user or group: write 1 to {LONGEST_NAME} characters"
            )));
        }
    }
    if !(1..=LONGEST_TTL).contains(&request.ttl_seconds) {
        return Err(ApiError::bad_request(format!(
            "`ttlSeconds` = {} is out of range: write 1 to {LONGEST_TTL}",
            request.ttl_seconds
        )));
    }
    let ttl = Duration::from_secs(request.ttl_seconds);
    let bearer = User::new(request.user, request.groups);
    let (token, info) = hub.tokens.create(bearer, daemon::now(), ttl).await?;
    Ok((StatusCode::CREATED, Json(json!({"token": token, "info": info}))))
}

#[derive(Serialize)]
struct List {
    tokens: Vec<TokenInfo>,
}

async fn list(State(hub): State<Arc<Hub>>) -> Result<Json<List>, ApiError> {
    Ok(Json(List { tokens: hub.tokens.list(daemon::now())? }))
}

async fn revoke(State(hub): State<Arc<Hub>>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    hub.tokens.revoke(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}
