//! Numbers as Go reads them from texts (`strconv`), where that differs from Rust.

/// `strconv.ParseUint`: a sign is none of it.
pub fn uint(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| !text.starts_with('+'))
}

/// `strconv.ParseFloat`: hexadecimal, too, and nothing that is too large.
pub fn double(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if unsigned.starts_with("0x") || unsigned.starts_with("0X") {
        let number = hexadecimal(unsigned.get(2..)?)?;
        return Some(if text.starts_with('-') { -number } else { number });
    }
    let number: f64 = text.parse().ok()?;
    let is_named = unsigned.starts_with(['i', 'I']) || (number.is_nan() && unsigned.len() == text.len());
    (number.is_finite() || is_named).then_some(number)
}

/// `1.8p-3`, after the `0x`: an exponent of two must be there, underscores may stand between digits.
fn hexadecimal(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once(['p', 'P'])?;
    let digit = |exponent: &str| {
        exponent.strip_prefix(['+', '-']).unwrap_or(exponent).starts_with(|c: char| c.is_ascii_digit())
    };
    if !digit(exponent) || !exponent.bytes().skip(1).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_parted = |part: &str| !part.contains("__") && !part.ends_with('_');
    if !is_parted(whole) || !is_parted(fraction) || fraction.starts_with('_') {
        return None;
    }
    // More digits than a double holds only say on which side of the middle between two it is.
    let (mut bits, mut shift, mut count) = (0_u128, 0_i64, 0);
    let digits = |part: &str| part.chars().filter(|c| *c != '_').map(|c| c.to_digit(16)).collect::<Vec<_>>();
    for (is_fraction, digit) in digits(whole)
        .into_iter()
        .map(|digit| (false, digit))
        .chain(digits(fraction).into_iter().map(|digit| (true, digit)))
    {
        let digit = u128::from(digit?);
        count += 1;
        if bits >> 100 == 0 {
            bits = bits << 4 | digit;
            shift -= if is_fraction { 4 } else { 0 };
        } else {
            bits |= u128::from(digit != 0);
            shift += if is_fraction { 0 } else { 4 };
        }
    }
    if count == 0 {
        return None;
    }
    // An exponent that no number holds is as good as the largest that one does.
    let exponent: i64 =
        exponent.parse().unwrap_or(if exponent.starts_with('-') { -100_000 } else { 100_000 });
    let number = scaled(bits, exponent.clamp(-100_000, 100_000) + shift);
    number.is_finite().then_some(number)
}

/// So many times a power of two, rounded once.
fn scaled(bits: u128, exponent: i64) -> f64 {
    if bits == 0 {
        return 0.0;
    }
    let length = 128 - i64::from(bits.leading_zeros());
    // The exponent of the last bit that a double of this size keeps.
    let last = (length + exponent - 53).max(-1074);
    let lost = last - exponent;
    let kept = match u32::try_from(lost) {
        Ok(lost @ 1..=127) => {
            let (kept, rest, half) = (bits >> lost, bits & ((1 << lost) - 1), 1_u128 << (lost - 1));
            kept + u128::from(rest > half || (rest == half && kept & 1 == 1))
        }
        Ok(0) => bits,
        Ok(_) => 0,
        Err(_) => return if last > 971 { f64::INFINITY } else { bits as f64 * two_to(exponent) },
    };
    if last > 971 { f64::INFINITY } else { kept as f64 * two_to(last) }
}

/// A power of two that a double holds.
fn two_to(exponent: i64) -> f64 {
    let biased = u64::try_from(exponent + 1023).unwrap_or(0);
    match u32::try_from(exponent + 1074) {
        Ok(place) if biased == 0 || exponent < -1022 => f64::from_bits(1_u64.checked_shl(place).unwrap_or(0)),
        _ => f64::from_bits(biased << 52),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `strconv.ParseFloat(text, 64)` has them.
    #[test]
    fn doubles_are_read_as_go_reads_them() {
        for (text, number) in [
            ("0x1p-2", 0.25),
            ("0X1.8P+3", 12.0),
            ("-0x.8p0", -0.5),
            ("0xAp0", 10.0),
            ("0x_1_0p0", 16.0),
            ("0x1p-1074", f64::from_bits(1)),
            ("0x1.8p-1074", f64::from_bits(2)),
            ("0x1p-1022", f64::MIN_POSITIVE),
            ("0x0.8p-1074", 0.0),
            ("0x1.fffffffffffffp1023", f64::MAX),
            ("0x1fffffffffffff8p0", 144_115_188_075_855_864.0),
            ("0x1.00000000000008p0", 1.0),
            ("0x1.000000000000080000000000000000000001p0", 1.000_000_000_000_000_2),
            ("0x0p99999999999999999999", 0.0),
            ("1.", 1.0),
            (".5", 0.5),
            ("1e-999", 0.0),
            ("+1E3", 1000.0),
            ("inf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
        ] {
            assert_eq!(double(text), Some(number), "{text}");
        }
        assert!(double("nan").is_some_and(f64::is_nan));
        for text in [
            "",
            "x",
            "1e999",
            "-1e999",
            "+nan",
            "-nan",
            "0x1",
            "0xp0",
            "0x1p",
            "0x1p+",
            "0x1p1024",
            "0x1p99999999999",
            "0x1.fffffffffffff8p1023",
            "0x1__0p0",
            "0x1_p0",
            "0x1._8p0",
            "1_000",
            "0xgp0",
            "0x1p1_0",
            "--0x1p0",
            "0x1.1.1p0",
        ] {
            assert_eq!(double(text), None, "{text}");
        }
    }

    #[test]
    fn unsigned_numbers_have_no_sign() {
        assert_eq!(uint("18446744073709551615"), Some(u64::MAX));
        for text in ["+5", "-5", "", "18446744073709551616", "0x5", "1_0"] {
            assert_eq!(uint(text), None, "{text}");
        }
    }
}
