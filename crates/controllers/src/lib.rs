//! What makes resources true.
//!
//! Every controller is a function from a [`Snapshot`] of all resources to the [`Write`]s that bring them closer
//! to what is wanted. It has no memory and waits for nothing, so it may run at any time, any number of times:
//! [`run`] calls all of them whenever something changed, until they have nothing left to write.

mod aggregation;
mod application;
mod placement;
mod run;
mod site;
mod snapshot;

pub use aggregation::aggregate;
pub use run::run;
pub use site::Heartbeats;
pub use snapshot::{Snapshot, Write};
