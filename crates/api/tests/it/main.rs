//! A hub's API over loopback, as clients of any kind meet it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests stop at the first thing that is not as it should be"
)]

mod access;
mod audit;
mod bodies;
mod certificates;
mod definitions;
mod forms;
mod health;
mod images;
mod impersonation;
mod joining;
mod lifecycle;
mod limits;
mod mailbox;
mod malformed;
mod multiplexed;
mod nesting;
mod offload;
mod oidc;
mod outlooks;
mod peers;
mod quotas;
mod resources;
mod rights;
mod service_accounts;
mod sources;
mod support;
mod tokens;
mod watches;
mod wording;
