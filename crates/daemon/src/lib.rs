//! What every long-running part needs: named tasks that end together, backoff with jitter, files that survive
//! `kill -9`, one clock for wall time, one set-up of logs, and how much
//! memory there is.

mod backoff;
mod clock;
mod errors;
mod files;
mod logs;
mod memory;
mod secrets;
mod tasks;
pub mod tls;

pub use backoff::Backoff;
pub use clock::now;
pub use errors::chain;
pub use files::{sync_folder, write_durably, write_private};
pub use logs::{Levels, Logs, start_logs};
pub use memory::{machine_memory, usable_memory};
pub use secrets::{fill_random, random_hex, same_secret};
pub use tasks::{Shutdown, Tasks, wait_for_signal};
