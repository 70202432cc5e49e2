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
    go_duration(text).map(Some).ok_or_else(|| invalid(Some(Duration::ZERO)))
}

/// The largest duration that Go has, in nanoseconds.
const LARGEST: f64 = 9_223_372_036_854_775_807.0;

/// A duration in Go's words, such as `1h30m`, `1.5h` or `90s`; `None` if it isn't one. Negative ones are none.
pub fn go_duration(text: &str) -> Option<Duration> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanoseconds = 0.0;
    loop {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(unit_at);
        let number: f64 = number.parse().ok()?;
        let unit_ends = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_ends);
        let factor = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        nanoseconds += number * factor;
        if nanoseconds >= LARGEST {
            return None;
        }
        if tail.is_empty() {
            return Some(Duration::from_nanos(nanoseconds as u64));
        }
        rest = tail;
    }
}
