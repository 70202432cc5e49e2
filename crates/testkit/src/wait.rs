//! Waiting for what will be true soon.

use std::time::{Duration, Instant};

/// Long enough for the slowest machine that runs tests; nothing waits this long where all is well.
pub const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(40);

/// Looks until the closure answers `Ok`; its `Err` says how things stand, and the last one is told if the time is up.
///
/// # Panics
/// If the time is up.
#[track_caller]
pub fn wait_until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        let state = match look() {
            Ok(reached) => return reached,
            Err(state) => state,
        };
        assert!(started.elapsed() < limit, "waited {limit:?} until {what}; at last: {state}");
        std::thread::sleep(POLL);
    }
}
