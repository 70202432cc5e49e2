//! What is known of buckets, objects and their changes, and the limits they keep.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};
use types::{Digest, FieldError, Time, names};

use crate::Error;

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// When it was created.
    #[serde(serialize_with = "exact")]
    pub created: Time,
}

/// An object, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// The bucket it is in.
    pub bucket: String,
    /// Its name there.
    pub key: String,
    /// In bytes.
    pub size: u64,
    /// MD5 of the bytes as hex; of an object uploaded in N parts, that of the parts' MD5s and `-N`, as S3 has it.
    pub etag: String,
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// When it was written.
    #[serde(serialize_with = "exact")]
    pub last_modified: Time,
    /// MIME type, as the writer gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// What the writer wants to be kept with it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// The sequence number of the change that wrote it.
    pub sequence: u64,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ChangeKind {
    /// It was written, be it new or replaced.
    Put,
    /// It was deleted.
    Delete,
}

/// One change. Sequence numbers begin at 1 and leave no gaps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its place in the order of all changes.
    pub sequence: u64,
    /// What happened.
    pub kind: ChangeKind,
    /// The object's bucket.
    pub bucket: String,
    /// The object's key.
    pub key: String,
    /// The ETag of the object written or deleted.
    pub etag: String,
    /// The digest of the object written or deleted.
    pub digest: Digest,
    /// The size of the object written or deleted, in bytes.
    pub size: u64,
    /// When it happened.
    #[serde(serialize_with = "exact")]
    pub time: Time,
}

/// What must hold of the object under a key for a write to happen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    #[default]
    Always,
    /// There is none.
    Absent,
    /// There is one.
    Present,
    /// There is one with this ETag (hex, no quotes).
    ETag(String),
}

impl Condition {
    pub(crate) fn holds(&self, current: Option<&Info>) -> bool {
        match self {
            Self::Always => true,
            Self::Absent => current.is_none(),
            Self::Present => current.is_some(),
            Self::ETag(etag) => current.is_some_and(|info| info.etag == *etag),
        }
    }
}

/// How to write an object.
#[derive(Debug, Clone, Default)]
pub struct PutOptions {
    /// MIME type.
    pub content_type: Option<String>,
    /// Kept with the object: keys of `a-z 0-9 - _ .`, values without control characters, 2 KiB in all.
    pub metadata: BTreeMap<String, String>,
    /// A write with a key seen before writes nothing and answers with the object of the first, whatever bucket and
    /// key it names now. The latest [`Limits::idempotency_keys`] are remembered. 1 to 256 bytes.
    pub idempotency_key: Option<String>,
    /// How many bytes must come.
    pub expected_length: Option<u64>,
    /// The MD5 that they must have.
    pub expected_md5: Option<[u8; 16]>,
    /// The SHA-256 that they must have.
    pub expected_digest: Option<Digest>,
    /// Creates the bucket if there is none.
    pub create_bucket: bool,
    /// Writes only if this holds at the instant of the write.
    pub condition: Condition,
}

/// What is allowed at most.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of one object.
    pub object_size: u64,
    /// How many idempotency keys are remembered; the oldest are forgotten first.
    pub idempotency_keys: u64,
    /// How many multipart uploads are open.
    pub uploads: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { object_size: 5 << 30, idempotency_keys: 1_000_000, uploads: 10_000 }
    }
}

/// Bytes of a key.
const LONGEST_KEY: usize = 1024;
/// Bytes of all keys and values of an object's metadata.
const LARGEST_METADATA: usize = 2048;
const LONGEST_CONTENT_TYPE: usize = 255;
const LONGEST_IDEMPOTENCY_KEY: usize = 256;

pub(crate) fn check_bucket(name: &str) -> Result<(), Error> {
    if names::is_bucket(name) { Ok(()) } else { Err(Error::BucketName(name.chars().take(80).collect())) }
}

pub(crate) fn check_key(key: &str) -> Result<(), Error> {
    let problem = if key.is_empty() {
        "is empty; write 1 to 1024 bytes".to_owned()
    } else if key.len() > LONGEST_KEY {
        format!("has {} bytes; write at most {LONGEST_KEY}", key.len())
    } else if key.contains(['\0', '\u{10ffff}']) {
        "contains U+0000 or U+10FFFF; leave them out".to_owned()
    } else {
        return Ok(());
    };
    Err(invalid("key", key, problem))
}

pub(crate) fn check_metadata(
    metadata: &BTreeMap<String, String>,
    content_type: Option<&str>,
) -> Result<(), Error> {
    let size: usize = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > LARGEST_METADATA {
        let problem = format!("has {size} bytes in keys and values; write at most {LARGEST_METADATA}");
        return Err(invalid("metadata", "", problem));
    }
    for (key, value) in metadata {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        if key.is_empty() || !key.chars().all(fits) {
            return Err(invalid("metadata", key, "is not a metadata key; write a-z, 0-9, '-', '_' and '.'"));
        }
        if value.chars().any(char::is_control) {
            let field = format!("metadata.{key}");
            return Err(invalid(&field, value, "contains a control character; leave it out"));
        }
    }
    let is_type =
        |text: &str| text.len() <= LONGEST_CONTENT_TYPE && text.bytes().all(|b| (32..127).contains(&b));
    match content_type {
        Some(text) if !is_type(text) => Err(invalid(
            "content_type",
            text,
            "is not a MIME type; write at most 255 visible ASCII characters",
        )),
        _ => Ok(()),
    }
}

pub(crate) fn check_idempotency_key(key: &str) -> Result<(), Error> {
    if (1..=LONGEST_IDEMPOTENCY_KEY).contains(&key.len()) {
        return Ok(());
    }
    Err(invalid(
        "idempotency_key",
        key,
        format!("has {} bytes; write 1 to {LONGEST_IDEMPOTENCY_KEY}", key.len()),
    ))
}

pub(crate) fn invalid(field: &str, value: &str, problem: impl Into<String>) -> Error {
    Error::Invalid(FieldError::new(
        field,
        if value.is_empty() { String::new() } else { format!("{value:?}") },
        problem,
    ))
}

/// Times are kept to the nanosecond, unlike those of resources.
pub(crate) fn exact<S: Serializer>(time: &Time, serializer: S) -> Result<S::Ok, S::Error> {
    time.0.serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_1_to_1024_bytes_without_nul() {
        for key in ["a", "ü/.. /x", &"k".repeat(1024)] {
            assert!(check_key(key).is_ok(), "{key}");
        }
        for (key, why) in [("", "is empty"), ("a\0", "U+0000"), (&"k".repeat(1025), "has 1025 bytes")] {
            let error = check_key(key).unwrap_err().to_string();
            assert!(error.starts_with("`key`") && error.contains(why), "{error}");
        }
    }

    #[test]
    fn metadata_is_at_most_2_kib_of_what_fits_a_header() {
        let of = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        assert!(check_metadata(&of("a", &"v".repeat(2047)), Some("text/plain; charset=utf-8")).is_ok());
        for bad in [of("a", &"v".repeat(2048)), of("A", "v"), of("", "v"), of("a", "line\nline")] {
            assert!(check_metadata(&bad, None).is_err(), "{bad:?}");
        }
        assert!(check_metadata(&BTreeMap::new(), Some("text/\nplain")).is_err());
    }
}
