//! The wall clock, read in one place.

use types::Time;

/// Now, for timestamps that people read. Never used to measure how long something took.
pub fn now() -> Time {
    Time(jiff::Timestamp::now())
}
