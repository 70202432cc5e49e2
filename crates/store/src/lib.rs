//! Durable state. [`Ledger`] keeps small records in tables: one writer, group commit, honest `fsync`.
//! [`Store`] keeps versioned resources on a ledger: get, list, watch from a version, compare-and-swap, delete
//! with finalizers. Nothing else in the workspace names SQLite.

pub mod backup;
mod format;
mod history;
pub mod ledger;
mod object;
mod resources;
mod seal;
mod watch;
mod writer;

pub use format::FORMAT;
pub use history::HistoryLimits;
pub use ledger::{Begun, Ledger};
pub use object::{Key, Object, Seen};
pub use resources::{Deletion, Error, Options, Store};
pub use seal::{Seal, SealError};
pub use watch::{Event, EventKind, Expired, Watch};
pub use writer::Change;
