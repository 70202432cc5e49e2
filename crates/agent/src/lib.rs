//! A site.
//!
//! The agent keeps on its own disk all that it needs: its membership, its Assignments, the artifacts they name,
//! its buckets, every invocation, and outputs that have yet to travel. So it starts, serves and works whether or
//! not its hub can be reached, and tells the hub when it can.
//!
//! ```text
//! hub ──assignments──▶ sync ─▶ prepare (artifacts, models, functions)
//! objects put ─▶ trigger ─▶ invocations ─▶ work (runtimes) ─▶ publish ─▶ own buckets
//!                          │                                       └──▶ outbox ─▶ hub ─▶ another site's inbox
//!                          └─▶ offload ─▶ hub ─▶ another site runs it ─▶ hub ─▶ publish
//! ```
//!
//! Each arrow ends in a durable record that names what comes next, so a crash between any two steps repeats the
//! step, and ids that are functions of the input make the repetition harmless.

mod assignments;
mod config;
mod facts;
mod front;
mod heartbeat;
mod identity;
mod images;
mod inbox;
mod invocations;
mod links;
mod membership;
mod offload;
mod outbox;
mod prepare;
mod publish;
mod report;
#[cfg(test)]
mod silence;
mod site;
mod sync;
mod tokens;
mod trigger;
mod verified;
mod work;

pub use config::{Access, Config};
pub use invocations::{Handover, Invocation, Output, State};
pub use membership::{JoinToken, Membership, join};
pub use site::{Error, start};
