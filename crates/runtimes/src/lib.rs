//! Runs functions as processes that can harm only themselves.
//!
//! ```text
//! agent ── Runtimes::run ──> shim (the agent's own executable) ──> handler ──> its children
//!                 stdin: what to run, then a lifeline; stdout: what became of it
//! ```
//!
//! The shim is a small process beside each invocation. It gives up every right that the handler must not have on
//! one of its threads, starts the handler from there, copies its output into the log, keeps the time, and kills
//! whatever is left at the end: of the handler's time, of the handler, or of the agent, whose death closes the
//! lifeline. The handler's descendants are found even if they left its process group, because orphans fall back
//! to the shim. Nothing here needs `unsafe`, root or a daemon.
#![warn(missing_docs)]

mod confinement;
mod outcome;
mod python;
mod run;
mod shim;

pub use confinement::{Level, confinement_available};
pub use outcome::{Exit, Outcome};
pub use run::{Options, Run, Runtimes};
pub use shim::{confine_this_process, shim_main};
