//! The crate as its callers see it: real engines on small committed models, and fakes where timing or failure matters.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail tests by panicking"
)]

mod classical;
mod conformance;
mod engines;
mod ensembles;
mod isolation;
mod loading;
mod parity;
mod published;
mod rehearsals;
mod repository;
mod scheduling;
mod steps;
mod support;
mod tables;
mod tensorflow;
mod trial;
mod versions;
mod vision;
