//! From what went wrong to a status code and `{"error": "…"}`.

use std::error::Error as StdError;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use inference::steps::StepError;
use inference::{Error, InvalidInput, TensorError};
use tonic::{Code, Status};

use crate::control::ControlError;
use crate::model_config::ConfigError;
use crate::watch::REDACTED;

/// Why a request gets no answer, as the client may see it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The client can correct it.
    #[error("{0}")]
    BadRequest(String),
    #[error(
        "the body is over the limit of {limit} bytes; send smaller batches or ask the operator to raise it"
    )]
    BodyTooLarge { limit: usize },
    #[error("content encoding `{0}` is not supported; use gzip, deflate or none")]
    Encoding(String),
    /// What this server doesn't let anybody do.
    #[error("{0}")]
    Forbidden(String),
    #[error("{0}")]
    NotFound(String),
    /// An extension that isn't here.
    #[error("{0}")]
    NotOffered(String),
    /// The client's own deadline passed.
    #[error("the answer was not ready before the client's deadline; allow more time or send less at once")]
    Deadline,
    /// Others are sending too much.
    #[error("the requests that come at once are too large together; try again in a moment")]
    Crowded,
    /// The body didn't come to its end.
    #[error("the body comes too slowly; send less at once")]
    Slow,
    /// The server's own trouble, as text.
    #[error("{0}")]
    Failed(String),
    #[error("{what} is not ready; try again in a moment")]
    NotReady { what: &'static str },
    #[error("there is no such route here; see the Open Inference Protocol v2")]
    NoRoute,
    #[error("this route doesn't take this method; see the Open Inference Protocol v2")]
    Method,
    /// Content of another kind than the model takes.
    #[error("{0}")]
    MediaType(String),
    /// Plain content that the model can't be given, or an answer that can't be read.
    #[error(transparent)]
    Step(#[from] StepError),
    #[error(transparent)]
    Inference(#[from] Error),
    /// What it says may tell of what was sent, and goes to the client alone.
    #[error(transparent)]
    Private(Box<ApiError>),
    /// Our own mistake: an answer that can't be written.
    #[error("can't write the answer: {0}")]
    Answer(String),
}

impl From<TensorError> for ApiError {
    fn from(error: TensorError) -> Self {
        ApiError::BadRequest(error.to_string())
    }
}

impl From<InvalidInput> for ApiError {
    fn from(error: InvalidInput) -> Self {
        ApiError::BadRequest(error.to_string())
    }
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        let message = error.to_string();
        match error {
            ControlError::Off => ApiError::Forbidden(message),
            ControlError::Unknown { .. } => ApiError::NotFound(message),
            ControlError::Refused { .. } => ApiError::BadRequest(message),
            ControlError::Failed { .. } => ApiError::Failed(message),
        }
    }
}

impl From<ConfigError> for ApiError {
    fn from(error: ConfigError) -> Self {
        ApiError::BadRequest(error.to_string())
    }
}

impl ApiError {
    /// For a tensor that is said to lie in shared memory.
    pub fn no_shared_memory(name: &str) -> ApiError {
        ApiError::NotOffered(format!(
            "`{name}` has parameter `shared_memory_region`, but shared memory is not offered here; send the tensor itself"
        ))
    }

    pub fn status(&self) -> StatusCode {
        match self {
            ApiError::Private(error) => error.status(),
            ApiError::Inference(Error::Step { cause, .. }) => status_of_step(cause),
            ApiError::Step(error) | ApiError::Inference(Error::Content { source: error, .. }) => {
                status_of_content(error)
            }
            ApiError::BadRequest(_)
            | ApiError::NotOffered(_)
            | ApiError::Inference(Error::Invalid { .. }) => StatusCode::BAD_REQUEST,
            ApiError::BodyTooLarge { .. } | ApiError::Inference(Error::TooLarge { .. }) => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            ApiError::Encoding(_) | ApiError::MediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ApiError::Forbidden(_) => StatusCode::FORBIDDEN,
            ApiError::Deadline => StatusCode::GATEWAY_TIMEOUT,
            ApiError::Slow => StatusCode::REQUEST_TIMEOUT,
            ApiError::NotFound(_)
            | ApiError::NoRoute
            | ApiError::Inference(Error::UnknownModel { .. } | Error::UnknownVersion { .. }) => {
                StatusCode::NOT_FOUND
            }
            ApiError::Method => StatusCode::METHOD_NOT_ALLOWED,
            ApiError::Inference(Error::Late { .. }) => StatusCode::GATEWAY_TIMEOUT,
            ApiError::NotReady { .. }
            | ApiError::Crowded
            | ApiError::Inference(
                Error::NotReady { .. } | Error::Overloaded { .. } | Error::Crowded | Error::Stopped,
            ) => StatusCode::SERVICE_UNAVAILABLE,
            ApiError::Inference(Error::Engine { .. } | Error::Thread(_) | Error::Ensemble { .. })
            | ApiError::Answer(_)
            | ApiError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The same in gRPC's terms.
    pub fn code(&self) -> Code {
        match (self, self.status()) {
            (ApiError::NotOffered(_) | ApiError::Encoding(_), _) => Code::Unimplemented,
            (ApiError::Crowded, _) => Code::ResourceExhausted,
            (ApiError::Private(error), _) => error.code(),
            (
                _,
                StatusCode::BAD_REQUEST
                | StatusCode::UNPROCESSABLE_ENTITY
                | StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ) => Code::InvalidArgument,
            (_, StatusCode::FORBIDDEN) => Code::PermissionDenied,
            (_, StatusCode::NOT_FOUND) => Code::NotFound,
            (_, StatusCode::METHOD_NOT_ALLOWED) => Code::Unimplemented,
            (_, StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS) => Code::ResourceExhausted,
            (_, StatusCode::SERVICE_UNAVAILABLE) => Code::Unavailable,
            (_, StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT) => Code::DeadlineExceeded,
            _ => Code::Internal,
        }
    }

    /// The message and its causes on one line.
    pub fn message(&self) -> String {
        if let ApiError::Private(error) = self {
            return error.message();
        }
        let mut text = self.to_string();
        let mut cause = match self {
            ApiError::Inference(Error::Engine { source, .. }) => Some(source.as_ref() as &dyn StdError),
            _ => None,
        };
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl ApiError {
    /// What is written of it where others than the client read.
    pub fn noted(&self) -> String {
        match self {
            ApiError::Private(_) => REDACTED.to_owned(),
            other => other.message(),
        }
    }
}

fn status_of_content(error: &StepError) -> StatusCode {
    match error {
        StepError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        StepError::Picture { .. } | StepError::Table { .. } | StepError::Tensor(_) => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        StepError::NotTaken { .. } | StepError::UnknownFormat => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        StepError::Answer { .. } | StepError::Declaration { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// An ensemble whose model is gone isn't unknown: it isn't ready.
fn status_of_step(cause: &Error) -> StatusCode {
    match cause {
        Error::UnknownModel { .. } | Error::UnknownVersion { .. } | Error::NotReady { .. } => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Error::Invalid { .. } => StatusCode::BAD_REQUEST,
        Error::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Error::Overloaded { .. } | Error::Crowded | Error::Stopped => StatusCode::SERVICE_UNAVAILABLE,
        Error::Late { .. } => StatusCode::GATEWAY_TIMEOUT,
        Error::Step { cause, .. } => status_of_step(cause),
        Error::Content { source, .. } => status_of_content(source),
        Error::Engine { .. } | Error::Thread(_) | Error::Ensemble { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let (code, message) = (error.code(), error.message());
        if code == Code::Internal {
            tracing::warn!(error = error.noted(), "request failed");
        }
        Status::new(code, message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, message) = (self.status(), self.message());
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::warn!(error = self.noted(), "request failed");
        }
        let body = serde_json::json!({ "error": message }).to_string();
        let mut response = (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_meets_too_many_pictures_is_told_when_to_come_back() {
        let step = Error::Step { model: "m".into(), step: "s".into(), cause: Box::new(Error::Crowded) };
        for error in [Error::Crowded, step] {
            let response = ApiError::Inference(error).into_response();
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(response.headers().get(header::RETRY_AFTER).unwrap(), "1");
        }
    }
}
