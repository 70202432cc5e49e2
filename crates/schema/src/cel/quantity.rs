//! Amounts as Kubernetes writes them: `1.5Gi`, `200m`, `1e3`.

/// An amount, exact to a billionth, up to about 10^29.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(i128);

/// Billionths in one.
const UNIT: i128 = 1_000_000_000;

/// The suffix and its factor, in billionths.
const SUFFIXES: [(&str, i128); 15] = [
    ("Ki", UNIT << 10),
    ("Mi", UNIT << 20),
    ("Gi", UNIT << 30),
    ("Ti", UNIT << 40),
    ("Pi", UNIT << 50),
    ("Ei", UNIT << 60),
    ("n", 1),
    ("u", 1_000),
    ("m", 1_000_000),
    ("k", UNIT * 1_000),
    ("M", UNIT * 1_000_000),
    ("G", UNIT * 1_000_000_000),
    ("T", UNIT * 1_000_000_000_000),
    ("P", UNIT * 1_000_000_000_000_000),
    ("E", UNIT * 1_000_000_000_000_000_000),
];

/// What amounts are written in, each 1024 times the one before.
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
/// What amounts are written in, each 1000 times the one before.
const DECIMAL: [&str; 8] = ["m", "", "k", "M", "G", "T", "P", "E"];

/// Divides as often as it comes out even, at most so often; and how often that was. Nothing is nothing, in ones.
fn shorten(mut count: i128, base: i128, most: usize) -> (i128, usize) {
    if count == 0 {
        return (0, 1);
    }
    let mut steps = 0;
    while steps < most && count % base == 0 {
        count /= base;
        steps += 1;
    }
    (count, steps)
}

/// The most that an amount with a binary suffix counts for.
const MOST_BINARY: i128 = i64::MAX as i128 * UNIT;

/// So many times a factor; none if that is more than can be counted.
fn count(whole: &str, fraction: &str, factor: i128) -> Option<i128> {
    let whole = if whole.is_empty() { 0 } else { whole.parse::<i128>().ok()?.checked_mul(factor)? };
    if fraction.is_empty() {
        return Some(whole);
    }
    let scale = 10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let scaled = fraction.parse::<i128>().ok()?.checked_mul(factor)?;
    // What is smaller than a billionth is rounded up, as Kubernetes does.
    whole.checked_add(scaled.checked_add(scale - 1)? / scale)
}

impl Quantity {
    /// The amount that a text states, if it states one.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.trim_start_matches(['+', '-']);
        if text.len() - digits.len() > 1 || text.len() > 64 {
            return None;
        }
        let end = digits.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(digits.len());
        let (number, suffix) = digits.split_at_checked(end)?;
        let factor = match SUFFIXES.iter().find(|(known, _)| *known == suffix) {
            Some((_, factor)) => *factor,
            None if suffix.is_empty() => UNIT,
            None => Self::power_of_ten(suffix.strip_prefix(['e', 'E'])?.parse().ok()?)?,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let amount = match count(whole, fraction, factor) {
            // Kubernetes keeps no more than an int64 of what is written with such a suffix.
            amount if suffix.ends_with('i') => amount.unwrap_or(MOST_BINARY).min(MOST_BINARY),
            amount => amount?,
        };
        Some(Self(if text.starts_with('-') { -amount } else { amount }))
    }

    /// An amount in the one form that Kubernetes keeps of it: rounded up to thousandths, without a fraction, with the
    /// largest suffix of its family that allows it.
    pub fn canonical(text: &str) -> Option<String> {
        let Self(amount) = Self::parse(text)?;
        let thousandths = amount.div_euclid(UNIT / 1000) + i128::from(amount.rem_euclid(UNIT / 1000) > 0);
        let is_whole = thousandths % 1000 == 0;
        let suffix = text.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
        if suffix.ends_with('i') && is_whole && thousandths.abs() >= 1_024_000 {
            let (count, step) = shorten(thousandths / 1000, 1024, BINARY.len() - 1);
            return Some(format!("{count}{}", BINARY.get(step)?));
        }
        let (count, step) = shorten(thousandths, 1000, DECIMAL.len() - 1);
        let is_power = suffix.starts_with(['e', 'E']) && suffix.len() > 1 && count != 0;
        Some(match step {
            1 => count.to_string(),
            step if is_power => format!("{count}e{}", 3 * i64::try_from(step).ok()? - 3),
            step => format!("{count}{}", DECIMAL.get(step)?),
        })
    }

    fn power_of_ten(exponent: i32) -> Option<i128> {
        let power = u32::try_from(exponent.checked_add(9)?).ok()?;
        10i128.checked_pow(power)
    }

    /// So many ones.
    pub fn of(number: i64) -> Self {
        Self(i128::from(number) * UNIT)
    }

    /// The amount, rounded to what a double holds.
    pub fn approximate(self) -> f64 {
        self.0 as f64 / UNIT as f64
    }

    /// The amount, if it is a whole number of 64 bits.
    pub fn integer(self) -> Option<i64> {
        if self.0 % UNIT == 0 { i64::try_from(self.0 / UNIT).ok() } else { None }
    }

    /// -1, 0 or 1.
    pub fn sign(self) -> i64 {
        self.0.signum() as i64
    }

    /// The sum, unless it is too large.
    pub fn plus(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference, unless it is too large.
    pub fn minus(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_kept_in_one_form() {
        for (text, kept) in [
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            ("1000", "1k"),
            ("0", "0"),
            ("0Mi", "0"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("100Mi", "100Mi"),
            ("0.5Ki", "512"),
            ("2e3", "2e3"),
            ("20e2", "2e3"),
            ("1E", "1E"),
            ("1u", "1m"),
            ("-1000m", "-1"),
            ("4Ei", "4Ei"),
            ("8Ei", "9223372036854775807"),
            ("9999999999999999.5Ei", "9223372036854775807"),
            ("-99999999999999999999999999999Ei", "-9223372036854775807"),
            ("16E", "16E"),
        ] {
            assert_eq!(Quantity::canonical(text).as_deref(), Some(kept), "{text}");
        }
    }

    #[test]
    fn amounts_are_read_as_kubernetes_reads_them() {
        for (text, same) in
            [("1Ki", "1024"), ("1.5G", "1500000000"), ("200m", "0.2"), ("1e3", "1k"), ("-1", "-1000m")]
        {
            assert_eq!(Quantity::parse(text), Quantity::parse(same), "{text}");
            assert!(Quantity::parse(text).is_some(), "{text}");
        }
        for text in [
            "",
            "Mi",
            "200K",
            "Three",
            "1,3G",
            "1.2.3",
            "--1",
            "1e",
            ".",
            "99999999999999999999999999999999E",
        ] {
            assert_eq!(Quantity::parse(text), None, "{text}");
        }
    }
}
