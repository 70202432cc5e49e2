//! Buckets of objects on local disk, with an ordered log of their changes, and a front that S3 clients speak to.
//!
//! [`Objects`] is the whole of the storage: bytes are files, everything else (names, metadata, changes) is records
//! in a [`store::Ledger`]. An object appears, is replaced or goes away in one transaction together with its
//! [`Change`]: readers see the old object or the new one, consumers of changes miss nothing and see nothing twice.
//! [`front`] serves the same buckets over HTTP as S3 does.
#![warn(missing_docs)]

mod blobs;
mod changes;
mod error;
mod info;
mod listing;
mod objects;
mod records;
mod uploads;

pub mod front;

pub use error::Error;
pub use info::{Bucket, Change, ChangeKind, Condition, Info, Limits, PutOptions};
pub use listing::{List, Page};
pub use objects::Objects;
pub use uploads::{CompletedPart, Part, UploadOptions};
