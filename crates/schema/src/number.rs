//! Numbers in messages, as Go prints them.

use serde_json::Number;

/// A floating-point number, shortest form, with an exponent where Go writes one.
pub fn go_float(number: f64) -> String {
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    let size = number.abs();
    if number == 0.0 || (1e-4..1e21).contains(&size) || number.is_nan() {
        return number.to_string();
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let sign = if exponent.starts_with('-') { '-' } else { '+' };
    format!("{digits}e{sign}{:0>2}", exponent.trim_start_matches('-'))
}

/// A JSON number.
pub fn go_number(number: &Number) -> String {
    match number.as_i64() {
        Some(whole) => whole.to_string(),
        None => go_float(number.as_f64().unwrap_or(f64::NAN)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_go_prints_them() {
        for (number, text) in [
            (1.5, "1.5"),
            (2.0, "2"),
            (1e21, "1e+21"),
            (1e-7, "1e-07"),
            (-0.25, "-0.25"),
            (1e20, "100000000000000000000"),
        ] {
            assert_eq!(go_float(number), text);
        }
    }
}
