//! The protocol as its clients see it.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail tests by panicking"
)]

mod client;
mod errors;
mod infer;
mod jobs;
mod metadata;
mod mlbuffet;
mod replay;
mod shelf;
mod support;
