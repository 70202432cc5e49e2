//! `Source`: what a Git repository says is applied, with the rights of a service account.
//!
//! [`run`](run::run) finds out whose turn it is, [`work`] does one turn: fetch, build, [`apply`]. What is there is asked
//! and changed through a [`Cluster`], which checks every right as for any other client.

mod apply;
mod cluster;
mod compare;
mod desired;
mod errands;
mod report;
mod run;
mod schedule;
mod work;

pub use cluster::{Account, Ask, Cluster, MANAGER as SOURCE_MANAGER, Place, Refusal};
pub use errands::Errands;
pub use run::{SourceOptions, run_sources};
pub use schedule::SourceQueue;
pub use work::read_secret;
