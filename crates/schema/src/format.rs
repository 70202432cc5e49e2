//! The formats of texts that Kubernetes checks and people use; others are not checked.

use std::net::{Ipv4Addr, Ipv6Addr};

use regex::Regex;

use crate::pattern;

/// A format, by the name that the schema has for it.
#[derive(Debug)]
pub struct Format {
    name: String,
    check: Check,
}

#[derive(Debug)]
enum Check {
    Pattern(Regex),
    DateTime,
    Date,
    Ipv4,
    Ipv6,
    Cidr,
    Uri,
}

const PATTERNS: [(&str, &str); 11] = [
    ("uuid", "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$"),
    ("uuid3", "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$"),
    ("uuid4", "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"),
    ("uuid5", "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"),
    ("byte", "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"),
    ("mac", "(?i)^(?:[0-9a-f]{2}[:-]){5}(?:[0-9a-f]{2}|[0-9a-f]{2}[:-][0-9a-f]{2}[:-][0-9a-f]{2})$"),
    (
        "hostname",
        r"^[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$",
    ),
    ("email", r"^[^\s@<>]+@[^\s@<>]+$"),
    ("hexcolor", "^#?(?:[0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"),
    ("duration", r"^[+-]?(?:0|(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|ms|s|m|h))+)$"),
    ("ssn", r"^\d{3}[- ]?\d{2}[- ]?\d{4}$"),
];

impl Format {
    /// The format of that name, if it is checked.
    pub fn named(name: &str) -> Option<Self> {
        let check = match name.replace('-', "").as_str() {
            "datetime" => Check::DateTime,
            "date" => Check::Date,
            "ipv4" => Check::Ipv4,
            "ipv6" => Check::Ipv6,
            "cidr" => Check::Cidr,
            "uri" => Check::Uri,
            known => {
                let (_, pattern) = PATTERNS.iter().find(|(name, _)| *name == known)?;
                Check::Pattern(pattern::compile(pattern).ok()?)
            }
        };
        Some(Self { name: name.to_owned(), check })
    }

    /// As the schema has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a text has the format.
    pub fn takes(&self, text: &str) -> bool {
        match &self.check {
            Check::Pattern(regex) => regex.is_match(text),
            Check::DateTime => is_date_time(text),
            Check::Date => is_date(text),
            Check::Ipv4 => text.parse::<Ipv4Addr>().is_ok(),
            Check::Ipv6 => text.parse::<Ipv6Addr>().is_ok(),
            Check::Cidr => is_cidr(text),
            Check::Uri => is_uri(text),
        }
    }
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let bits = bits.parse::<u8>().ok().filter(|_| !bits.starts_with('+'));
    let most = if address.parse::<Ipv4Addr>().is_ok() {
        32
    } else if address.parse::<Ipv6Addr>().is_ok() {
        128
    } else {
        return false;
    };
    bits.is_some_and(|bits| bits <= most)
}

/// An absolute URI, or an absolute path.
fn is_uri(text: &str) -> bool {
    if text.is_empty() || text.chars().any(|c| c.is_ascii_control() || c == ' ') {
        return false;
    }
    let scheme = text.split_once(':').map(|(scheme, _)| scheme);
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    };
    text.starts_with('/') || scheme.is_some_and(is_scheme)
}

/// Numbers of a fixed width with a separator between them.
fn numbers(text: &str, separator: char, widths: &[usize]) -> Option<Vec<u32>> {
    let parts: Vec<&str> = text.split(separator).collect();
    let is_number = |(part, width): (&&str, &usize)| {
        part.len() == *width && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    if parts.len() != widths.len() || !parts.iter().zip(widths).all(is_number) {
        return None;
    }
    parts.iter().map(|part| part.parse().ok()).collect()
}

fn is_date(text: &str) -> bool {
    let Some(parts) = numbers(text, '-', &[4, 2, 2]) else { return false };
    let [year, month, day] = parts.as_slice() else { return false };
    let is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let days = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return false,
    };
    (1..=days).contains(day)
}

pub fn is_date_time(text: &str) -> bool {
    let Some((date, time)) = text.split_once(['T', 't']) else { return false };
    let Some(at) = time.find(['Z', 'z', '+', '-']) else { return false };
    let (clock, zone) = time.split_at(at);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let is_clock = numbers(clock, ':', &[2, 2, 2])
        .is_some_and(|parts| parts.iter().zip([23, 59, 59]).all(|(part, most)| *part <= most));
    let is_fraction = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let is_zone =
        matches!(zone, "Z" | "z") || zone.get(1..).is_some_and(|zone| numbers(zone, ':', &[2, 2]).is_some());
    is_date(date) && is_clock && is_fraction && is_zone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_take_what_they_should() {
        for (name, good, bad) in [
            ("date-time", "2024-02-29T12:00:00.5+02:00", "2023-02-29T12:00:00Z"),
            ("date", "2024-12-31", "2024-13-01"),
            ("ipv4", "10.0.0.1", "10.0.0.256"),
            ("ipv6", "::1", "1::2::3"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("uri", "https://avocet.dev/x", "not a uri"),
            ("uuid", "7d444840-9dc0-11d1-b245-5ffdce74fad2", "7d444840"),
            ("byte", "aGk=", "aGk"),
            ("hostname", "edge-1.example", "-edge"),
            ("email", "a@b.example", "a"),
            ("mac", "01:02:03:04:05:06", "01:02"),
            ("duration", "1h30m", "1 day"),
        ] {
            let format = Format::named(name).unwrap();
            assert!(format.takes(good), "{name} {good}");
            assert!(!format.takes(bad), "{name} {bad}");
        }
        assert!(Format::named("int32").is_none());
    }
}
