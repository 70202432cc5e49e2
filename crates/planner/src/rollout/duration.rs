//! Durations as Go writes them, which is how strategies of Open Cluster Management state them.

use std::time::Duration;

/// A text that is no duration; what the field then means all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidDuration {
    /// The text.
    pub text: String,
    /// The deadline that goes with the mistake; `None` is never.
    pub instead: Option<Duration>,
}

impl std::fmt::Display for InvalidDuration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` is no duration; write for example 90s, 10m or 2h", self.text)
    }
}

impl std::error::Error for InvalidDuration {}

/// A deadline: `None` and an empty text are never, else it begins with a whole number of hours, minutes or seconds.
///
/// # Errors
/// If the text is neither.
pub fn deadline(text: &str) -> Result<Option<Duration>, InvalidDuration> {
    if matches!(text, "" | "None") {
        return Ok(None);
    }
    let invalid = |instead| InvalidDuration { text: text.to_owned(), instead };
    // What the pattern of the field lets pass there: also a bar for a unit, and anything that ends with `None`.
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let is_number = unit.len() < text.len() && unit.starts_with(['h', 'm', 's', '|']);
    if !is_number && !text.ends_with("None") {
        return Err(invalid(None));
    }
    match go_duration(text) {
        Some(LARGEST) => Ok(None),
        Some(ends) => Ok(Some(ends)),
        None => Err(invalid(Some(Duration::ZERO))),
    }
}

/// The largest duration that Go has, which deadlines mean by never, in nanoseconds.
pub(super) const LARGEST: Duration = Duration::from_nanos(i64::MAX.unsigned_abs());

/// A duration in Go's words, such as `1h30m`, `1.5h` or `90s`; `None` if it isn't one. Negative ones are none.
pub fn go_duration(text: &str) -> Option<Duration> {
    let nanoseconds = schema::cel::go_duration(text)?;
    u64::try_from(nanoseconds).ok().map(Duration::from_nanos)
}
