//! A hub's API over loopback, as clients of any kind meet it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests stop at the first thing that is not as it should be"
)]

mod access;
mod bodies;
mod limits;
mod malformed;
mod resources;
mod support;
mod watches;
