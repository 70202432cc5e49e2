//! Amounts of a resource, as Kubernetes writes them.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// An amount of a resource: `500m`, `4`, `8Gi`, `1e3`. Kept in the words it was written in.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(transparent, extend("x-kubernetes-int-or-string" = true, "maxLength" = 32,
    "pattern" = r"^[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+|Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E)?$"))]
pub struct Amount {
    #[schemars(with = "Value")]
    text: String,
    #[schemars(skip)]
    value: f64,
}

/// Suffixes with what they are worth: a power of two, or of ten.
const BINARY: [(&str, i32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
const DECIMAL: [(&str, i32); 10] =
    [("", 0), ("n", -9), ("u", -6), ("m", -3), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

/// The most that an amount with a binary suffix counts for in Kubernetes, whatever it says: 2^63 - 1.
const MOST_BINARY: f64 = i64::MAX as f64;

impl Amount {
    /// The amount in ones. One that is less than nothing is read, as Kubernetes reads it, and refused by the schema.
    pub fn value(&self) -> f64 {
        self.value
    }

    /// So many ones.
    pub fn of(count: u64) -> Self {
        Self { text: count.to_string(), value: count as f64 }
    }
}

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem = || format!("`{text}` is not an amount; write for example 500m, 4, 8Gi or 1e3");
        let (is_negative, unsigned) = match text.strip_prefix(['-', '+']) {
            Some(unsigned) => (text.starts_with('-'), unsigned),
            None => (false, text),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if text.len() > 32 || fraction.contains('.') {
            return Err(problem());
        }
        let digits: u128 = [whole, fraction].concat().parse().map_err(|_| problem())?;
        let shift = i32::try_from(fraction.len()).map_err(|_| problem())?;
        let value = match BINARY.iter().find(|(known, _)| *known == suffix) {
            Some((_, power)) if fraction.is_empty() => (digits as f64 * 2f64.powi(*power)).min(MOST_BINARY),
            // A fraction of a power of two is kept in billionths, rounded up, before it is approximated.
            Some((_, power)) => {
                let billionths =
                    digits.checked_mul(1 << power).and_then(|all| all.checked_mul(1_000_000_000));
                let billionths = billionths.and_then(|all| Some(all.div_ceil(ten_to(shift)?)));
                billionths.map_or(MOST_BINARY, |all| (all as f64 * power_of_ten(-9)).min(MOST_BINARY))
            }
            None => {
                let power = match DECIMAL.iter().find(|(known, _)| *known == suffix) {
                    Some((_, power)) => *power,
                    None => {
                        let exponent = suffix.strip_prefix(['e', 'E']).ok_or_else(problem)?;
                        exponent
                            .parse()
                            .ok()
                            .filter(|power| (-30..=30).contains(power))
                            .ok_or_else(problem)?
                    }
                };
                // Digits and exponent apart, as Kubernetes has them: their product is rounded once. Less than a billionth
                // counts as one.
                match power - shift {
                    exponent if exponent >= -9 => digits as f64 * power_of_ten(exponent),
                    exponent => {
                        let billionths = ten_to(-9 - exponent).map_or(1, |least| digits.div_ceil(least));
                        billionths.min(digits) as f64 * power_of_ten(-9)
                    }
                }
            }
        };
        Ok(Self { text: text.to_owned(), value: if is_negative { -value } else { value } })
    }
}

fn ten_to(exponent: i32) -> Option<u128> {
    10u128.checked_pow(u32::try_from(exponent).ok()?)
}

/// The nearest to a power of ten.
fn power_of_ten(exponent: i32) -> f64 {
    match exponent {
        0 => 1.0,
        _ => format!("1e{exponent}").parse().unwrap_or(f64::NAN),
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match Value::deserialize(deserializer)? {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            other => other.to_string(),
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_kubernetes_reads_them() {
        let read = |text: &str| text.parse::<Amount>().map(|amount| amount.value());
        for (text, value) in
            [("500m", 0.5), ("4", 4.0), ("1.5Gi", 1_610_612_736.0), ("1e3", 1000.0), ("2M", 2e6), ("0", 0.0)]
        {
            assert_eq!(read(text), Ok(value), "{text}");
        }
        for text in ["", "Mi", "1.2.3", "12Xi", "1e99", "1e", "abc", ".", "-", "+-1", "--1", "-.", "1-"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    /// As `resource.ParseQuantity` and `AsApproximateFloat64` have them.
    #[test]
    fn odd_amounts_are_read_as_kubernetes_reads_them() {
        let most = 9_223_372_036_854_775_807.0;
        for (text, value) in [
            // With a binary suffix no more than an int64 holds; with a decimal one more.
            ("8Ei", most),
            ("16Ei", most),
            ("99999999999999999999Ei", most),
            ("9999999999999999999.5Ei", most),
            ("7Ei", 7.0 * 2f64.powi(60)),
            ("16E", 16e18),
            ("99999999999999999999", 99_999_999_999_999_999_999.0),
            ("1e30", 1e30),
            // Signs, and numbers that begin or end with the point.
            ("-1", -1.0),
            ("-1.5Gi", -1_610_612_736.0),
            ("-16Ei", -most),
            ("+500m", 0.5),
            (".5", 0.5),
            ("5.", 5.0),
            ("1E", 1e18),
            // What is finer than a billionth is rounded away from nothing.
            ("0.1n", 1e-9),
            ("1e-12", 1e-9),
            ("-0.0000000001", -1e-9),
            ("1.0000000001", 1_000_000_001.0 * 1e-9),
            ("0e-30", 0.0),
        ] {
            assert_eq!(text.parse::<Amount>().map(|amount| amount.value()), Ok(value), "{text}");
        }
    }
}
