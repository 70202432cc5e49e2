//! Durable state. [`Ledger`] keeps small records in tables: one writer, group commit, honest `fsync`.
//! [`Store`] keeps versioned resources on a ledger: get, list, watch from a version, compare-and-swap, delete
//! with finalizers. Nothing else in the workspace names SQLite.

pub mod ledger;
mod resources;
mod watch;

pub use ledger::Ledger;
pub use resources::{Deletion, Error, Key, Object, Store};
pub use watch::{Event, EventKind, Expired, Watch};
