//! Points in time and time spans.

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

use super::eval::{Outcome, failed, no_overload};
use super::value::Value;
use crate::format;

const SECOND: i64 = 1_000_000_000;

/// A time span as Go writes them: `1h30m`, `-1.5s`.
pub fn duration(text: &str) -> Option<i64> {
    let (is_negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut sum = 0i128;
    loop {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(unit_at)?;
        let unit_ends = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(unit_ends)?;
        let factor = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => SECOND,
            "m" => 60 * SECOND,
            "h" => 3600 * SECOND,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let digits = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<i128>().ok() };
        // Digits that stand for less than a billionth of a billionth change nothing.
        let fraction = fraction.get(..fraction.len().min(18))?;
        let scale = 10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        sum = sum.checked_add(digits(whole)?.checked_mul(factor.into())?)?;
        sum = sum.checked_add(digits(fraction)?.checked_mul(factor.into())? / scale)?;
        if tail.is_empty() {
            return i64::try_from(if is_negative { -sum } else { sum }).ok();
        }
        rest = tail;
    }
}

/// A time span in seconds, as `string()` has it.
pub fn duration_text(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let size = nanoseconds.unsigned_abs();
    let second = SECOND.unsigned_abs();
    let fraction = format!("{:09}", size % second);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{}{point}{fraction}s", size / second)
}

pub fn timestamp(text: &str) -> Option<Timestamp> {
    if format::is_date_time(text) { text.parse().ok() } else { None }
}

/// Fields of a point in time, in UTC or another zone, and whole hours, minutes, seconds and milliseconds of a span.
pub fn field<'a>(function: &str, of: &Value<'a>, rest: &[Value<'a>]) -> Outcome<'a> {
    match (of, rest) {
        (Value::Timestamp(at), []) => field_in(function, *at, TimeZone::UTC),
        (Value::Timestamp(at), [Value::String(zone)]) => match zone_named(zone.as_str()) {
            Some(zone) => field_in(function, *at, zone),
            None => failed(format!("unknown time zone {}", zone.as_str())),
        },
        (Value::Duration(span), []) => match function {
            "getHours" => Ok(Value::Int(span / (3600 * SECOND))),
            "getMinutes" => Ok(Value::Int(span / (60 * SECOND))),
            "getSeconds" => Ok(Value::Int(span / SECOND)),
            "getMilliseconds" => Ok(Value::Int(span / 1_000_000)),
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

fn field_in<'a>(function: &str, at: Timestamp, zone: TimeZone) -> Outcome<'a> {
    let at = at.to_zoned(zone);
    // Months and days count from 0; only getDate counts from 1.
    Ok(Value::Int(match function {
        "getFullYear" => at.year().into(),
        "getMonth" => i64::from(at.month()) - 1,
        "getDayOfYear" => i64::from(at.day_of_year()) - 1,
        "getDayOfMonth" => i64::from(at.day()) - 1,
        "getDate" => at.day().into(),
        "getDayOfWeek" => at.weekday().to_sunday_zero_offset().into(),
        "getHours" => at.hour().into(),
        "getMinutes" => at.minute().into(),
        "getSeconds" => at.second().into(),
        "getMilliseconds" => at.millisecond().into(),
        _ => return no_overload(),
    }))
}

/// By name, or as an offset such as `-08:00`.
fn zone_named(name: &str) -> Option<TimeZone> {
    let Some((hours, minutes)) = name.split_once(':') else { return TimeZone::get(name).ok() };
    let is_west = hours.starts_with('-');
    let hours: i32 = hours.trim_start_matches(['+', '-']).parse().ok()?;
    let minutes: i32 = minutes.parse().ok()?;
    let seconds = hours.checked_mul(3600)?.checked_add(minutes.checked_mul(60)?)?;
    Some(TimeZone::fixed(Offset::from_seconds(if is_west { -seconds } else { seconds }).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_go_reads_them() {
        for (text, nanoseconds) in [
            ("1h30m", 5400 * SECOND),
            ("-1.5s", -3 * SECOND / 2),
            ("0", 0),
            (".5ms", 500_000),
            ("1us2ns", 1_002),
            ("2562047h47m16.854775807s", i64::MAX),
        ] {
            assert_eq!(duration(text), Some(nanoseconds), "{text}");
        }
        for text in ["", "1", "-", "1 h", "1d", ".s", "1.2.3s", "2562047h47m16.854775808s", "é"] {
            assert_eq!(duration(text), None, "{text}");
        }
        assert_eq!(duration_text(-1_500_000_000), "-1.5s");
        assert_eq!(duration_text(3600 * SECOND), "3600s");
    }
}
