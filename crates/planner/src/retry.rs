//! How often something that failed is tried again.

/// What comes after a failure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Retry {
    /// It is tried again.
    In {
        /// After so many seconds.
        seconds: f64,
        /// How often it may fail after that; -1 for as often as it likes.
        left: i64,
    },
    /// It is given up.
    Never,
}

/// What comes after a failure when it may fail so often (-1: for ever), with the same wait each time.
pub fn after_failure(left: i64, wait_seconds: f64) -> Retry {
    match left {
        0 => Retry::Never,
        left if left > 0 => Retry::In { seconds: wait_seconds, left: left - 1 },
        left => Retry::In { seconds: wait_seconds, left },
    }
}
