//! Amounts of bytes, as people write them.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An amount of bytes: `512Mi`, `2G`, `1048576`. Kept in the words it was written in.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(transparent, extend("pattern" = "^[0-9]+(Ki|Mi|Gi|Ti|k|M|G|T)?$", "maxLength" = 22))]
pub struct Quantity {
    #[schemars(with = "String")]
    text: String,
    #[schemars(skip)]
    bytes: u64,
}

const UNITS: [(&str, u64); 10] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("K", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("", 1),
];

impl Quantity {
    /// The amount in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// So many mebibytes.
    pub fn mebibytes(count: u32) -> Self {
        Self { text: format!("{count}Mi"), bytes: u64::from(count) << 20 }
    }
}

impl FromStr for Quantity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        UNITS
            .iter()
            .find_map(|(unit, factor)| {
                let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
                Some(Self { text: text.to_owned(), bytes: number.checked_mul(*factor)? })
            })
            .ok_or_else(|| {
                format!("`{text}` is not an amount of bytes; write for example 512Mi, 2Gi or 1048576")
            })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_as_kubernetes_reads_them() {
        for (text, bytes) in [("512Mi", 512 << 20), ("2G", 2_000_000_000), ("7", 7), ("1k", 1000)] {
            assert_eq!(text.parse::<Quantity>().map(|quantity| quantity.bytes()), Ok(bytes), "{text}");
        }
        for text in ["", "Mi", "-1Mi", "1.5Gi", "12Xi", "99999999999999Ti"] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }
}
