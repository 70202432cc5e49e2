//! Real `avocet` processes for tests.
//!
//! ```text
//! let tree = Tree::new(env!("CARGO_BIN_EXE_avocet"));
//! let hub = tree.hub("cloud");                          // avocet up
//! let mut edge = tree.site(&hub, "edge", &[]);          // avocet agent --join
//! edge.kill_9();
//! edge.restart();
//! hub.cli(&["get", "sites"]).ok();
//! ```
//!
//! Nothing here is a fake: processes are started, killed and asked as people would. Each tree has a folder of its
//! own and free ports, so any number of tests may run at once; what is left of it is killed and removed when it is
//! dropped, and a failing test prints what its processes said.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "only tests use this crate, and there a panic with a message is the result"
)]

mod network;
mod process;
mod tree;
mod wait;

pub use network::Network;
pub use process::Process;
pub use tree::{Hub, Ran, Site, Tree};
pub use wait::{LIMIT, wait_until};
