//! Errors as S3 names them.

use hyper::StatusCode;
use s3s::{S3Error, S3ErrorCode};

use super::body::Rejected;
use crate::Error;

/// The S3 error of an error; its message is ours, except where it would tell about the inside.
pub(super) fn s3_error(error: Error) -> S3Error {
    let code = match &error {
        Error::BucketName(_) => S3ErrorCode::InvalidBucketName,
        Error::NoSuchBucket(_) => S3ErrorCode::NoSuchBucket,
        Error::BucketExists(_) => S3ErrorCode::BucketAlreadyOwnedByYou,
        Error::BucketNotEmpty(_) => S3ErrorCode::BucketNotEmpty,
        Error::NoSuchKey { .. } => S3ErrorCode::NoSuchKey,
        Error::Invalid(problem) if problem.field == "metadata" => S3ErrorCode::MetadataTooLarge,
        Error::Invalid(_) => S3ErrorCode::InvalidArgument,
        Error::TooLarge { .. } => S3ErrorCode::EntityTooLarge,
        Error::Mismatch { .. } => S3ErrorCode::BadDigest,
        Error::Incomplete { .. } => S3ErrorCode::IncompleteBody,
        Error::ConditionFailed { .. } => S3ErrorCode::PreconditionFailed,
        Error::Range { .. } => S3ErrorCode::InvalidRange,
        Error::NoSuchUpload(_) => S3ErrorCode::NoSuchUpload,
        Error::InvalidPart { .. } => S3ErrorCode::InvalidPart,
        Error::PartOrder(_) => S3ErrorCode::InvalidPartOrder,
        Error::TooManyUploads(_) => S3ErrorCode::InvalidRequest,
        Error::Full(_) => {
            tracing::error!(%error, "an upload was refused");
            let mut full = S3Error::new(S3ErrorCode::Custom("InsufficientStorage".into()));
            full.set_message("the server's disk is full; free some space and try again");
            full.set_status_code(StatusCode::INSUFFICIENT_STORAGE);
            return full;
        }
        Error::Body(cause) => match Rejected::of(cause) {
            Some(rejected) => return rejected.s3_error(),
            None => S3ErrorCode::IncompleteBody,
        },
        Error::Ending => S3ErrorCode::ServiceUnavailable,
        Error::Trimmed { .. }
        | Error::InUse(_)
        | Error::Lost { .. }
        | Error::Disk { .. }
        | Error::Ledger(_) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(%error, cause, "a request failed");
            return S3Error::with_message(S3ErrorCode::InternalError, "the server failed; its log tells why");
        }
    };
    S3Error::with_message(code, error.to_string())
}
