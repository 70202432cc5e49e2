//! What requests ask beside the bytes: conditions, ranges, sources.

use std::collections::BTreeMap;
use std::ops;

use base64::prelude::{BASE64_STANDARD, Engine};
use s3s::dto::{CopySource, ETagCondition, Metadata, Range, Timestamp};
use s3s::{S3Result, s3_error};

use super::lists::timestamp;
use crate::{Condition, Info};

/// The condition that a write's headers state.
pub(super) fn of_writer(
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
) -> S3Result<Condition> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Condition::Always),
        (None, Some(ETagCondition::Any)) => Ok(Condition::Absent),
        (Some(ETagCondition::Any), None) => Ok(Condition::Present),
        (Some(ETagCondition::ETag(etag)), None) => Ok(Condition::ETag(etag.into_value())),
        _ => Err(s3_error!(NotImplemented, "write `If-Match` with an ETag or *, or `If-None-Match: *`")),
    }
}

/// The conditions that a reader's headers state.
#[derive(Default)]
pub(super) struct OfReader {
    pub(super) if_match: Option<ETagCondition>,
    pub(super) if_none_match: Option<ETagCondition>,
    pub(super) if_modified_since: Option<Timestamp>,
    pub(super) if_unmodified_since: Option<Timestamp>,
}

impl OfReader {
    /// `PreconditionFailed` or `NotModified` if the object is not to be shown. ETags go before dates.
    pub(super) fn check(&self, info: &Info) -> S3Result {
        let matches =
            |condition: &ETagCondition| condition.as_etag().is_none_or(|etag| etag.value() == info.etag);
        // Dates in headers have no fractions of a second.
        let modified =
            timestamp(info.last_modified.to_string().parse().map_or(info.last_modified, types::Time));
        let wanted = match (&self.if_match, &self.if_unmodified_since) {
            (Some(condition), _) => matches(condition),
            (None, Some(since)) => modified <= *since,
            (None, None) => true,
        };
        if !wanted {
            return Err(s3_error!(PreconditionFailed, "the object is not as the condition asks"));
        }
        let known = match (&self.if_none_match, &self.if_modified_since) {
            (Some(condition), _) => matches(condition),
            (None, Some(since)) => modified <= *since,
            (None, None) => false,
        };
        if known { Err(s3_error!(NotModified)) } else { Ok(()) }
    }

    /// The same for the source of a copy, for which there is no `NotModified`.
    pub(super) fn check_source(&self, info: &Info) -> S3Result {
        self.check(info).map_err(|_| s3_error!(PreconditionFailed, "the source is not as the condition asks"))
    }
}

/// Bucket and key of a copy's source.
pub(super) fn source(source: &CopySource) -> S3Result<(&str, &str)> {
    match source {
        CopySource::Bucket { bucket, key, version_id: None } => Ok((bucket, key)),
        _ => Err(s3_error!(
            NotImplemented,
            "copy from `bucket/key`; versions and access points are not supported"
        )),
    }
}

/// The bytes of an object of this size that a range means.
pub(super) fn range(range: Option<Range>, size: u64) -> S3Result<Option<ops::Range<u64>>> {
    let Some(range) = range else { return Ok(None) };
    let bytes = range.check(size)?;
    // The last bytes of an empty object are none, which no `Content-Range` can say.
    if bytes.is_empty() { Err(s3_error!(InvalidRange, "the object is empty")) } else { Ok(Some(bytes)) }
}

pub(super) fn metadata(metadata: Option<Metadata>) -> BTreeMap<String, String> {
    metadata.unwrap_or_default().into_iter().collect()
}

pub(super) fn refuse_encryption(asked: bool) -> S3Result {
    if asked {
        Err(s3_error!(NotImplemented, "encryption at rest is not supported; ask for none"))
    } else {
        Ok(())
    }
}

pub(super) fn refuse_part(asked: Option<i32>) -> S3Result {
    match asked {
        None => Ok(()),
        Some(_) => Err(s3_error!(NotImplemented, "objects are not kept in parts; ask for a range instead")),
    }
}

pub(super) fn length(content_length: Option<i64>) -> Option<u64> {
    content_length.and_then(|length| u64::try_from(length).ok())
}

pub(super) fn md5(header: Option<&str>) -> S3Result<Option<[u8; 16]>> {
    let Some(text) = header else { return Ok(None) };
    let invalid = || s3_error!(InvalidDigest, "`Content-MD5` = {text:?}: is not the base64 of 16 bytes");
    BASE64_STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(invalid).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_md5_is_the_base64_of_16_bytes() {
        let bytes = md5(Some("1B2M2Y8AsgTpgAmY7PhCfg==")).unwrap().unwrap();
        assert_eq!(crate::blobs::hex(&bytes), "d41d8cd98f00b204e9800998ecf8427e");
        assert!(md5(Some("not base64")).is_err() && md5(Some("AAAA")).is_err());
        assert_eq!(md5(None).unwrap(), None);
    }
}
