//! Why a model was not kept, changed or found.

use store::ledger;

/// What went wrong, as the uploader may see it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tag can't be a name.
    #[error(
        "tag `{0}` can't be used; tags are of lowercase letters, digits and hyphens, begin with a letter or digit and have at most 63 characters"
    )]
    Name(String),
    /// Another one serves a model of that name.
    #[error(
        "model `{0}` comes from the hub and can't be changed here; choose another tag, or change it at the hub"
    )]
    Taken(String),
    /// No such tag.
    #[error("there is no tag `{0}`")]
    UnknownTag(String),
    /// The tag has no such version.
    #[error("tag `{tag}` has no version {version}")]
    UnknownVersion {
        /// The tag.
        tag: String,
        /// The version.
        version: u32,
    },
    /// The file is too large.
    #[error(
        "the file is over the limit of {limit} bytes; make the model smaller or ask the operator to raise the limit"
    )]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// All files together would be too large.
    #[error(
        "there is no room for the file: uploaded models have {kept} bytes already, of at most {limit} together; delete \
         some or ask the operator to raise the limit"
    )]
    Full {
        /// Bytes of those that are there.
        kept: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// There are too many of something.
    #[error("there are {limit} {what} already, and there can't be more; delete some")]
    TooMany {
        /// `tags`, or `versions of tag T`.
        what: String,
        /// The limit.
        limit: usize,
    },
    /// No engine takes the file; nothing of it is kept.
    #[error("the file can't be served: {0}")]
    Unloadable(String),
    /// Another upload of the same content failed at the same instant.
    #[error("another upload of the same file was undone meanwhile; try again")]
    Undone,
    /// The upload broke off, or the disk failed.
    #[error("the file can't be kept")]
    Artifacts(#[from] artifacts::Error),
    /// The records can't be read or written.
    #[error("the records of models can't be read or written")]
    Ledger(#[from] ledger::Error),
    /// The process is ending.
    #[error("loading was cut off; try again")]
    CutOff,
}
