//! Amounts of sites and spans of time, as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// So many, or a percentage of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Portion {
    /// So many.
    Number(u32),
    /// A percentage, such as `25%`.
    Percent(String),
}

impl JsonSchema for Portion {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Portion".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "minimum": 0,
            "maximum": u32::MAX,
            "maxLength": 8,
            "pattern": r"^[0-9]+(\.[0-9]+)?%$",
        })
    }
}

impl fmt::Display for Portion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Percent(text) => f.write_str(text),
        }
    }
}

/// A span of time: `90s`, `10m`, `1h30m`. Kept in the words it was written in.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(transparent, extend("pattern" = "^([0-9]+(ms|s|m|h|d))+$", "maxLength" = 32))]
pub struct Span {
    #[schemars(with = "String")]
    text: String,
    #[schemars(skip)]
    duration: Duration,
}

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl Span {
    /// So many minutes.
    pub fn minutes(minutes: u32) -> Self {
        let duration = Duration::from_secs(60 * u64::from(minutes));
        Self { text: format!("{minutes}m"), duration }
    }

    /// How long it is.
    pub fn duration(&self) -> Duration {
        self.duration
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("`{text}` is not a span of time; write for example 90s, 10m or 1h30m");
        let mut rest = text;
        let mut milliseconds = 0_u64;
        while !rest.is_empty() {
            let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?);
            let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
            let factor = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(invalid)?.1;
            let number: u64 = number.parse().map_err(|_| invalid())?;
            let part = number.checked_mul(factor).ok_or_else(invalid)?;
            milliseconds = milliseconds.checked_add(part).ok_or_else(invalid)?;
            rest = tail;
        }
        if text.is_empty() {
            return Err(invalid());
        }
        Ok(Self { text: text.to_owned(), duration: Duration::from_millis(milliseconds) })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_they_are_written() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172_800), ("0s", 0)] {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.duration().as_secs(), span.to_string()), (seconds, text.to_owned()));
        }
        for text in ["", "5", "m", "5 m", "-5m", "1.5h", "5x", "99999999999999999999s"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
