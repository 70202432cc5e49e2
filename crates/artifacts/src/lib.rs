//! Models and functions as files that are named by what they contain.
//!
//! [`Blobs`] keeps them in a folder: a name is the SHA-256 of the content, so what is there is right or is
//! found out by [`Blobs::verify`]. [`fetch`] brings a blob from elsewhere, goes on where an interrupted fetch
//! stopped, and lets in only what has the right size and digest. [`bundle`] makes one blob of a folder of code
//! and back; [`signature`] says who vouches for a blob; [`zip`] reads archives that others made.
#![warn(missing_docs)]

pub mod bundle;
pub mod signature;
pub mod zip;

mod blobs;
mod chunks;
mod error;
mod fetch;
mod partial;

pub use blobs::{Blobs, Collected, Stored};
pub use chunks::{PIECE, is_whole};
pub use error::Error;
pub use fetch::{Source, fetch, fetch_checked};
pub use partial::HeldPartial;
