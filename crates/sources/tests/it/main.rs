//! Repositories as git really serves them, and overlays compared with the real kustomize.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests stop at the first thing that is not as it should be"
)]

mod backend;
mod charts;
mod fetches;
mod overlays;
mod repository;
mod signatures;
mod ssh;
