//! Bodies of requests, with a limit and with refusals in the form that clients read.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::ApiError;
use crate::server::LARGEST_MANIFEST;

/// The whole body.
///
/// # Errors
/// 413 if it is too large, 400 if it breaks off.
pub async fn read(request: Request) -> Result<Bytes, ApiError> {
    match Bytes::from_request(request, &()).await {
        Ok(body) => Ok(body),
        Err(refusal) if refusal.status().as_u16() == 413 => Err(ApiError::too_large(format!(
            "Request entity too large: limit is {LARGEST_MANIFEST}; keep large content in buckets or artifacts"
        ))),
        Err(refusal) => Err(ApiError::bad_request(refusal.body_text())),
    }
}

/// JSON from bytes.
///
/// # Errors
/// 400 that says where it is none.
pub fn parse(body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("the body of the request is not JSON: {error}")))
}

/// A JSON body of a type. Unlike axum's own it does not ask for a content type, and refuses with a `Status`.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let body = read(request).await?;
        serde_json::from_slice(&body)
            .map(Self)
            .map_err(|error| ApiError::bad_request(format!("the body of the request can't be read: {error}")))
    }
}
