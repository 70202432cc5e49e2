//! Why objects could not be kept or found.

use std::io;
use std::path::PathBuf;

use store::ledger;
use types::FieldError;

/// Why objects could not be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name breaks S3's rules for buckets.
    #[error(
        "`{0}` is not a bucket name; write 3 to 63 of a-z, 0-9, '-' and '.', with a letter or digit at both ends \
         of each part"
    )]
    BucketName(String),
    /// There is no such bucket.
    #[error("there is no bucket `{0}`; create it first")]
    NoSuchBucket(String),
    /// The bucket is there already.
    #[error("bucket `{0}` exists already")]
    BucketExists(String),
    /// A bucket with objects can't be deleted.
    #[error("bucket `{0}` still has objects; delete them first")]
    BucketNotEmpty(String),
    /// There is no such object.
    #[error("there is no object `{key}` in bucket `{bucket}`")]
    NoSuchKey {
        /// The bucket that was asked.
        bucket: String,
        /// The key that was asked for.
        key: String,
    },
    /// What was given for a field can't be.
    #[error("{0}")]
    Invalid(FieldError),
    /// The object is larger than allowed.
    #[error(
        "the object has {size} bytes or more, but at most {limit} are allowed; split it, or raise the limit"
    )]
    TooLarge {
        /// Bytes seen or announced so far.
        size: u64,
        /// The most that is allowed, in bytes.
        limit: u64,
    },
    /// The bytes that came are not those that the sender described.
    #[error(
        "the {what} of the bytes that arrived is `{actual}`, but `{expected}` was announced; send them again"
    )]
    Mismatch {
        /// Which check failed, as `MD5`.
        what: &'static str,
        /// What the sender announced.
        expected: String,
        /// What arrived.
        actual: String,
    },
    /// Fewer or more bytes came than were announced.
    #[error("{actual} bytes arrived, but {expected} were announced; send them again")]
    Incomplete {
        /// Bytes announced.
        expected: u64,
        /// Bytes that arrived.
        actual: u64,
    },
    /// The object is not in the state that the writer asked for.
    #[error("object `{key}` in bucket `{bucket}` is not as the condition asks; read it again")]
    ConditionFailed {
        /// The object's bucket.
        bucket: String,
        /// The object's key.
        key: String,
    },
    /// The range begins beyond the object's end.
    #[error("the range begins at byte {offset}, but the object has {size} bytes; ask for a smaller offset")]
    Range {
        /// Where the range begins, in bytes.
        offset: u64,
        /// The object's size, in bytes.
        size: u64,
    },
    /// There is no such multipart upload; it may have ended or expired.
    #[error("there is no upload `{0}` for this object; begin a new one")]
    NoSuchUpload(String),
    /// A part to complete with was never uploaded, or is another one by now.
    #[error("part {number} of upload `{upload}` is not there or has another ETag; upload it again")]
    InvalidPart {
        /// The upload.
        upload: String,
        /// The part's number.
        number: u32,
    },
    /// Parts to complete with must be in ascending order.
    #[error("part {0} is out of order; list parts by ascending number, each once")]
    PartOrder(u32),
    /// Too many multipart uploads are open.
    #[error("{0} uploads are open, which is the most allowed; complete or abort some")]
    TooManyUploads(u64),
    /// The disk is full; nothing of the write was kept.
    #[error("the disk of `{}` is full; free some space and try again", .0.display())]
    Full(PathBuf),
    /// The changes asked for were trimmed; what they said is only in the objects themselves.
    #[error(
        "changes up to {trimmed} were trimmed, but those after {after} were asked for; list and go on from there"
    )]
    Trimmed {
        /// From where changes were asked for.
        after: u64,
        /// Up to where they were trimmed.
        trimmed: u64,
    },
    /// Another process has these objects open.
    #[error("`{}` is in use by another process; stop it, or choose another folder", .0.display())]
    InUse(PathBuf),
    /// The record is there, but its file is not.
    #[error("the bytes of object `{key}` in bucket `{bucket}` are lost; upload it again and check the disk")]
    Lost {
        /// The object's bucket.
        bucket: String,
        /// The object's key.
        key: String,
    },
    /// The sender stopped or failed.
    #[error("the object's bytes stopped coming; send them again")]
    Body(#[source] io::Error),
    /// The disk failed.
    #[error("`{}` can't be read or written; check the disk", path.display())]
    Disk {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The records failed.
    #[error("the objects' records can't be read or written")]
    Ledger(#[from] ledger::Error),
    /// The process is about to end.
    #[error("the process is ending; try again later")]
    Ending,
}

impl Error {
    pub(crate) fn disk(path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(path),
            _ => Self::Disk { path, source },
        }
    }

    pub(crate) fn no_such_key(bucket: &str, key: &str) -> Self {
        Self::NoSuchKey { bucket: bucket.to_owned(), key: key.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_as_such() {
        // ENOSPC and EDQUOT.
        for code in [28, 122] {
            let error = Error::disk("blobs", io::Error::from_raw_os_error(code));
            assert!(matches!(error, Error::Full(_)), "{error:?}");
        }
    }
}
