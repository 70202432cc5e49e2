//! What makes resources true.
//!
//! Every controller is a function from what is to the [`Write`]s that bring it closer to what is wanted. It has no
//! memory and waits for nothing, so it may run at any time, any number of times. (That of placements keeps an index of
//! sites, which it could make again at any time.) [`run`] shows those of our own
//! kinds a [`Snapshot`] of all their objects, whenever one of them changed, until they have nothing left to write;
//! [`run_lifecycle`] leads those that work on objects of all kinds to the few that a change concerns. [`run_sources`] is
//! of another make: it fetches, so it takes turns, and asks the API like any client.

mod aggregation;
mod application;
mod certificate;
mod dependents;
mod events;
mod garbage;
#[cfg(test)]
mod graph_tests;
mod instances;
mod lifecycle;
mod measure;
mod namespace;
mod placement;
mod quota;
mod run;
#[cfg(test)]
mod simulation;
mod site;
mod snapshot;
mod source;
#[cfg(test)]
mod testing;
mod write;

pub use aggregation::aggregate;
pub use application::note_report;
pub use certificate::{Applicant, Signer};
pub use events::{Events, Occurrence, Subject};
pub use instances::Duplicate;
pub use lifecycle::{Authority, run_lifecycle};
pub use measure::{Measurements, run_measurements};
pub use namespace::namespace_manifest;
pub use placement::{Outlook, Overlay, Unfit, explain, simulate, tell_changes, tell_explanation};
pub use run::run;
pub use site::{Beat, Heartbeats};
pub use snapshot::Snapshot;
pub use source::{
    Account, Ask, Cluster, Errands, Place, Refusal, SOURCE_MANAGER, SourceOptions, SourceQueue, read_secret,
    run_sources,
};
pub use write::{Action, Write};
