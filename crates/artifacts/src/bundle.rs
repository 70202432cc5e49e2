//! A folder of code as one blob: a tar archive that is the same, byte for byte, wherever and whenever it is
//! packed, and that is unpacked without trusting it.

mod pack;
mod unpack;

pub use pack::pack;
pub use unpack::unpack;

use std::io;
use std::path::{Path, PathBuf};

/// How many files and folders a bundle may have.
pub const MAXIMUM_ENTRIES: usize = 10_000;
/// How many bytes all files of a bundle may have.
pub const MAXIMUM_BYTES: u64 = 1 << 30;
/// How many folders deep a bundle may be.
pub const MAXIMUM_DEPTH: usize = 64;

/// Why a bundle was not made or not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something other than a file or a folder.
    #[error("`{}` is {what}, which a bundle can't have; use only files and folders", .path.display())]
    Unsupported {
        /// Its path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A name that leads out of the bundle.
    #[error("`{}` is not a path inside the bundle; write relative paths without `..`", .path.display())]
    Outside {
        /// The path.
        path: PathBuf,
    },
    /// The same file twice, or one name for a file and a folder.
    #[error("`{}` is in the bundle twice; pack it anew", .path.display())]
    Twice {
        /// The path.
        path: PathBuf,
    },
    /// Too many files and folders.
    #[error("there are more than {MAXIMUM_ENTRIES} files and folders; leave out what the code does not need")]
    TooMany,
    /// Too many folders in each other.
    #[error("`{}` is more than {MAXIMUM_DEPTH} folders deep; make the tree flatter", .path.display())]
    TooDeep {
        /// The path.
        path: PathBuf,
    },
    /// Too many bytes.
    #[error(
        "`{}` makes the bundle larger than {} MiB; put large files in a bucket or a model instead",
        .path.display(), MAXIMUM_BYTES >> 20
    )]
    TooLarge {
        /// The file that was too much.
        path: PathBuf,
    },
    /// A file that grew or shrank while it was read.
    #[error("`{}` changed while it was packed; pack again", .path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Not a tar archive, or a broken or misleading one.
    #[error("`{}` is not a tar archive that can be read; make it with `avocet push`", .path.display())]
    NotTar {
        /// The archive.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// The disk failed, is full or is not ours to read or write.
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
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}
