//! Repositories of images, charts, models and whatever else OCI clients bring.
//!
//! [`Registry`] is the whole of the storage: bytes are [`artifacts::Blobs`], one file for equal content however many
//! repositories hold it; names, tags, manifests, who refers to whom and uploads under way are records in a
//! [`store::Ledger`]. What was acknowledged survives `kill -9`. [`front`] serves it over HTTP as the OCI distribution
//! specification 1.1 says.
#![warn(missing_docs)]

mod content;
mod error;
mod garbage;
mod lists;
mod manifest;
mod names;
mod origin;
#[cfg(test)]
mod races;
mod records;
mod registry;
mod signed;
mod uploads;

pub mod front;

pub use content::ContentDigest;
pub use error::{Code, Error};
pub use garbage::{Garbage, Swept};
pub use lists::Page;
pub use manifest::Descriptor;
pub use names::{Reference, Repository, Tag};
pub use origin::{Found, Incoming, Origin};
pub use registry::{Blob, Limits, Manifest, Pushed, Registry};
pub use signed::Demand;
pub use uploads::{Upload, UploadId};
