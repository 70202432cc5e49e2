//! What a registry refuses, with the codes that its clients know.

use std::io;

use store::ledger;
use types::Digest;

use crate::ContentDigest;

/// Why a registry could not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not the name of a repository.
    #[error(
        "{0:?} is not a repository's name; write parts of a-z and 0-9, with '.', '_', '__' or '-' between them, joined \
         by '/', 255 bytes at most"
    )]
    NameFormat(String),
    /// Not a tag.
    #[error("{0:?} is not a tag; write up to 128 letters, digits, '_', '.' and '-', the last two not first")]
    TagFormat(String),
    /// Not a digest, or of an algorithm that is not known here.
    #[error("{0:?} is not a digest; write sha256: and 64, or sha512: and 128 lower-case hex digits")]
    DigestFormat(String),
    /// The bytes are not those announced.
    #[error("the content has the digest {actual}, but {announced} was announced; send it again")]
    DigestMismatch {
        /// What the client said.
        announced: Box<ContentDigest>,
        /// What the bytes are.
        actual: Box<ContentDigest>,
    },
    /// Nothing was ever pushed under that name.
    #[error("repository {0} is not known here")]
    NameUnknown(String),
    /// The repository has no such blob.
    #[error("blob {digest} is not in repository {repository}")]
    BlobUnknown {
        /// Where it was looked for.
        repository: String,
        /// Which.
        digest: ContentDigest,
    },
    /// The repository has no such manifest.
    #[error("manifest {reference} is not in repository {repository}")]
    ManifestUnknown {
        /// Where it was looked for.
        repository: String,
        /// Its tag or digest.
        reference: String,
    },
    /// Signatures are demanded, and the manifest has none by a trusted key.
    #[error(
        "{0} has no valid signature by a key that is trusted here; sign it with `cosign sign --key` or `avocet artifact \
         sign --key`"
    )]
    Unsigned(String),
    /// A manifest names what its repository lacks.
    #[error("the manifest names blob {0}, which is not in its repository; push that first")]
    ManifestBlobUnknown(ContentDigest),
    /// Not a manifest.
    #[error("the manifest can't be taken: {0}")]
    ManifestInvalid(String),
    /// More bytes than allowed.
    #[error("{what} is larger than {limit} bytes, which is the most that is taken here")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The limit in bytes.
        limit: u64,
    },
    /// No such upload, or it was given up.
    #[error("upload {0:?} is not known here; it may be finished or given up: begin anew")]
    UploadUnknown(String),
    /// The chunk does not begin where the upload is.
    #[error("the upload has {received} bytes, but the chunk begins at {start}; go on from there")]
    OutOfOrder {
        /// Bytes that are here.
        received: u64,
        /// Where the chunk begins.
        start: u64,
    },
    /// The chunk is not as long as announced, or its range can't be read.
    #[error("the chunk can't be taken: {0}")]
    ChunkInvalid(String),
    /// Too much at once of one user.
    #[error(
        "{0} of your uploads are under way, which is the most at once; try again in some minutes, or cancel some"
    )]
    TooManyOfOne(u64),
    /// Another request writes the same upload.
    #[error("another request is writing this upload; wait for it to end")]
    UploadBusy,
    /// Too much at once.
    #[error("{0} uploads are under way, which is the most at once; try again later, or cancel some")]
    TooManyUploads(u64),
    /// The request's body broke off.
    #[error("the body of the request broke off; what arrived is kept, go on from there")]
    Body(#[source] io::Error),
    /// The registry above can't be asked.
    #[error("the registry above can't be asked now, and nothing is cached here: {0}")]
    Origin(String),
    /// Blobs can't be read or written.
    #[error("the registry's blobs can't be read or written")]
    Artifacts(#[from] artifacts::Error),
    /// Records can't be read or written.
    #[error("the registry's records can't be read or written")]
    Ledger(#[from] ledger::Error),
    /// The disk failed or is full.
    #[error("the registry's uploads can't be read or written")]
    Disk(#[from] io::Error),
    /// The records name a blob that is not on the disk.
    #[error("blob {0} is missing from the disk; push it again")]
    Lost(Digest),
}

/// A code of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// The word.
    pub word: &'static str,
    /// The HTTP status that goes with it.
    pub status: u16,
}

impl Error {
    pub(crate) fn mismatch(announced: ContentDigest, actual: ContentDigest) -> Self {
        Self::DigestMismatch { announced: Box::new(announced), actual: Box::new(actual) }
    }

    /// The code and status that tell clients what this is.
    pub fn code(&self) -> Code {
        let (word, status) = match self {
            Self::NameFormat(_) => ("NAME_INVALID", 400),
            Self::TagFormat(_) => ("MANIFEST_INVALID", 400),
            Self::DigestFormat(_) | Self::DigestMismatch { .. } => ("DIGEST_INVALID", 400),
            Self::NameUnknown(_) => ("NAME_UNKNOWN", 404),
            Self::BlobUnknown { .. } => ("BLOB_UNKNOWN", 404),
            Self::ManifestUnknown { .. } => ("MANIFEST_UNKNOWN", 404),
            Self::Unsigned(_) => ("DENIED", 403),
            Self::ManifestBlobUnknown(_) => ("MANIFEST_BLOB_UNKNOWN", 404),
            Self::ManifestInvalid(_) => ("MANIFEST_INVALID", 400),
            Self::TooLarge { .. } => ("SIZE_INVALID", 413),
            Self::UploadUnknown(_) => ("BLOB_UPLOAD_UNKNOWN", 404),
            Self::OutOfOrder { .. } => ("BLOB_UPLOAD_INVALID", 416),
            Self::ChunkInvalid(_) => ("BLOB_UPLOAD_INVALID", 400),
            Self::Body(_) => ("BLOB_UPLOAD_INVALID", 400),
            Self::UploadBusy => ("BLOB_UPLOAD_INVALID", 409),
            Self::TooManyUploads(_) | Self::TooManyOfOne(_) => ("TOOMANYREQUESTS", 429),
            Self::Origin(_) => ("UNKNOWN", 503),
            Self::Artifacts(_) | Self::Ledger(_) | Self::Disk(_) | Self::Lost(_) => ("UNKNOWN", 500),
        };
        Code { word, status }
    }
}
