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
//! A hub that is itself a site of another hub has an [`Uplink`] beside: what it tells there of the sites below it, and
//! what it brings them from there.
//!
//! Each arrow ends in a durable record that names what comes next, so a crash between any two steps repeats the
//! step, and ids that are functions of the input make the repetition harmless.

mod assignments;
mod bundles;
mod config;
mod errands;
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
mod parts;
mod peers;
mod prepare;
mod publish;
mod report;
#[cfg(test)]
mod silence;
#[cfg(test)]
mod simulation;
mod site;
mod storage;
mod sync;
mod tally;
mod tokens;
mod trigger;
mod uplink;
mod usage;
mod verified;
mod work;

pub use config::{Access, Config};
pub use invocations::{Handover, Invocation, Output, State};
pub use membership::{JoinToken, Joining, Membership, join};
pub use site::{Error, start};
pub use uplink::{Uplink, start_uplink};
