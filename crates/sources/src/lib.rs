//! Git repositories as sources of manifests.
//!
//! [`fetch`] brings a commit into a bare repository, by the real `git` with nothing that a stranger could make it run;
//! a [`Tree`] reads its files without ever writing them; [`build`] makes manifests of a folder: plain ones, overlays
//! like kustomize's, or a chart by the real `helm`. Nothing here knows a cluster.
#![warn(missing_docs)]

mod bring;
mod build;
mod error;
mod git;
mod helm;
mod kustomize;
mod program;
mod tree;
mod yaml;

pub use bring::{Brought, Delivery, Order, bring};
pub use build::{Manifest, Origin, build};
pub use error::{Error, REASONS};
pub use git::{Checkout, Credential, Options, Signers, Wanted, fetch, forget, forget_all_but};
pub use helm::Helm;
pub use tree::{Limits, Tree};
