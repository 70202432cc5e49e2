//! What can go wrong with a blob.

use std::io;
use std::path::{Path, PathBuf};

use types::Digest;

/// Why a blob could not be kept, read or fetched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The content is not what its name says. After a fetch the bad bytes are already gone; a stored blob
    /// stays until it is quarantined or removed.
    #[error(
        "blob `{digest}` is corrupt: its content hashes to `{actual}`; remove it so that it is fetched again, \
         and check the disk or the source if this repeats"
    )]
    Corrupt {
        /// The name.
        digest: Digest,
        /// What the content hashes to.
        actual: Digest,
    },
    /// There is no such blob here.
    #[error("blob `{digest}` is not in this store; push or fetch it first")]
    Missing {
        /// The name.
        digest: Digest,
    },
    /// Another fetch of the same blob is at work.
    #[error("blob `{digest}` is being fetched already; wait for that fetch to end")]
    Busy {
        /// The name.
        digest: Digest,
    },
    /// The source ended early. What arrived is kept and a later fetch goes on from there.
    #[error("blob `{digest}` has {received} of {size} bytes so far; fetch again to go on from there")]
    Incomplete {
        /// The name.
        digest: Digest,
        /// Bytes that are here.
        received: u64,
        /// Bytes that were declared.
        size: u64,
    },
    /// There is more content than declared. The partial is gone.
    #[error("blob `{digest}` is longer than its declared {size} bytes; correct the size or check the source")]
    TooLong {
        /// The name.
        digest: Digest,
        /// Bytes that were declared.
        size: u64,
    },
    /// The source failed. What arrived before is kept and a later fetch goes on from there.
    #[error("blob `{digest}` could not be read from its source")]
    Source {
        /// The name.
        digest: Digest,
        /// What the source said.
        #[source]
        source: io::Error,
    },
    /// The disk failed, is full or is not ours to write.
    #[error("can't {action} `{}`", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: what was tried, and where.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}
