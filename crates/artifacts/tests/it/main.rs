//! Blobs, fetches and bundles, and what tries to break them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod blobs;
mod bundles;
