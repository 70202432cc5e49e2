//! The bytes of an upload: watched for stalls, and compared with the checksums that came along, be it before them
//! (headers) or after (trailers).

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use hyper::HeaderMap;
use s3s::checksum::ChecksumHasher;
use s3s::dto::{Checksum, StreamingBlob};
use s3s::{S3Error, S3ErrorCode, TrailingHeaders, crypto};

/// How long a sender may pause.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why bytes were not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Rejected {
    #[error(
        "the {name} of the bytes that arrived is `{actual}`, but `{expected}` was announced; send them again"
    )]
    Checksum { name: &'static str, expected: String, actual: String },
    #[error("no byte arrived for {} seconds; send them again", PATIENCE.as_secs())]
    Stalled,
    #[error("the bytes did not arrive as announced or signed; send them again")]
    Transfer(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Rejected {
    pub(super) fn of(cause: &io::Error) -> Option<&Self> {
        cause.get_ref()?.downcast_ref()
    }

    pub(super) fn s3_error(&self) -> S3Error {
        let code = match self {
            Self::Checksum { .. } => S3ErrorCode::BadDigest,
            Self::Stalled => S3ErrorCode::RequestTimeout,
            // The kinds are private to the library; their names are not.
            Self::Transfer(cause) => match cause.to_string() {
                cause if cause.contains("Sha256Mismatch") => S3ErrorCode::BadDigest,
                cause if cause.contains("SignatureMismatch") => S3ErrorCode::SignatureDoesNotMatch,
                _ => S3ErrorCode::IncompleteBody,
            },
        };
        S3Error::with_message(code, self.to_string())
    }
}

/// Reads the named checksums from headers or trailers.
fn named(headers: &HeaderMap) -> Checksum {
    let value = |name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
    Checksum {
        checksum_crc32: value("x-amz-checksum-crc32"),
        checksum_crc32c: value("x-amz-checksum-crc32c"),
        checksum_crc64nvme: value("x-amz-checksum-crc64nvme"),
        checksum_sha1: value("x-amz-checksum-sha1"),
        checksum_sha256: value("x-amz-checksum-sha256"),
        checksum_type: None,
    }
}

/// The checksums that come with an upload.
#[derive(Clone)]
pub(super) struct Announced {
    before: Checksum,
    /// Which trailers are promised.
    promised: String,
    after: Option<TrailingHeaders>,
}

impl Announced {
    pub(super) fn new(headers: &HeaderMap, after: Option<TrailingHeaders>) -> Self {
        let promised = headers.get("x-amz-trailer").and_then(|names| names.to_str().ok());
        Self { before: named(headers), promised: promised.unwrap_or_default().to_ascii_lowercase(), after }
    }

    fn promises(&self, name: &str) -> bool {
        self.promised.split(',').any(|promised| promised.trim() == name)
    }

    fn hasher(&self) -> ChecksumHasher {
        let before = &self.before;
        let wanted = |value: &Option<String>, name| value.is_some() || self.promises(name);
        let mut hasher = ChecksumHasher::default();
        if wanted(&before.checksum_crc32, "x-amz-checksum-crc32") {
            hasher.crc32 = Some(crypto::Crc32::default());
        }
        if wanted(&before.checksum_crc32c, "x-amz-checksum-crc32c") {
            hasher.crc32c = Some(crypto::Crc32c::default());
        }
        if wanted(&before.checksum_crc64nvme, "x-amz-checksum-crc64nvme") {
            hasher.crc64nvme = Some(crypto::Crc64Nvme::default());
        }
        if wanted(&before.checksum_sha1, "x-amz-checksum-sha1") {
            hasher.sha1 = Some(crypto::Checksum::new());
        }
        if wanted(&before.checksum_sha256, "x-amz-checksum-sha256") {
            hasher.sha256 = Some(crypto::Checksum::new());
        }
        hasher
    }

    /// All that was announced; complete once the bytes are read.
    pub(super) fn all(&self) -> Checksum {
        let after = self.after.as_ref().and_then(|trailers| trailers.read(named)).unwrap_or_default();
        let before = self.before.clone();
        Checksum {
            checksum_crc32: before.checksum_crc32.or(after.checksum_crc32),
            checksum_crc32c: before.checksum_crc32c.or(after.checksum_crc32c),
            checksum_crc64nvme: before.checksum_crc64nvme.or(after.checksum_crc64nvme),
            checksum_sha1: before.checksum_sha1.or(after.checksum_sha1),
            checksum_sha256: before.checksum_sha256.or(after.checksum_sha256),
            checksum_type: None,
        }
    }

    fn check(&self, actual: Checksum) -> Result<(), Rejected> {
        let expected = self.all();
        for (name, expected, actual) in [
            ("CRC32", expected.checksum_crc32, actual.checksum_crc32),
            ("CRC32C", expected.checksum_crc32c, actual.checksum_crc32c),
            ("CRC64NVME", expected.checksum_crc64nvme, actual.checksum_crc64nvme),
            ("SHA1", expected.checksum_sha1, actual.checksum_sha1),
            ("SHA256", expected.checksum_sha256, actual.checksum_sha256),
        ] {
            match (expected, actual) {
                (Some(expected), Some(actual)) if expected != actual => {
                    return Err(Rejected::Checksum { name, expected, actual });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The bytes; the last item is an error if they are not those announced.
pub(super) fn checked(
    body: Option<StreamingBlob>,
    announced: Announced,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let hasher = announced.hasher();
    let body = body.map(|body| (body, hasher, announced));
    stream::unfold(body, |state| async move {
        let (mut body, mut hasher, announced) = state?;
        let rejected = match tokio::time::timeout(PATIENCE, body.next()).await {
            Ok(Some(Ok(chunk))) => {
                hasher.update(&chunk);
                return Some((Ok(chunk), Some((body, hasher, announced))));
            }
            Ok(Some(Err(cause))) => Rejected::Transfer(cause),
            Ok(None) => announced.check(hasher.finalize()).err()?,
            Err(_) => Rejected::Stalled,
        };
        Some((Err(io::Error::other(rejected)), None))
    })
}
