//! The elements of a JSON tensor: text straight into a typed buffer.
//!
//! The text has passed a JSON parser already, so this only splits it into tokens; nothing recurses and nothing is
//! built in between. Numbers are parsed for their own type: exact for FP64 and INT64, no detour over f64 for FP32.

use half::{bf16, f16};
use inference::{Datatype, Element, Tensor, TensorError};

/// Deepest nesting of `data`; tensors of more dimensions can be sent flat.
const MAX_DEPTH: usize = 32;

/// What is wrong with `data`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DataError {
    #[error(
        "input `{name}` has {what} `{token}` at element {index}, which is no {datatype}; send {datatype} values"
    )]
    Element { name: String, datatype: Datatype, what: &'static str, token: String, index: usize },
    #[error("input `{name}` nests `data` deeper than {MAX_DEPTH} levels; send it flat")]
    Depth { name: String },
    #[error(
        "input `{name}` of shape {shape:?} needs {expected} elements but `data` has more; make them agree"
    )]
    TooMany { name: String, shape: Vec<usize>, expected: usize },
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// Reads the value of `data`: an array, flat or nested in row-major order, or a lone scalar.
///
/// # Errors
/// When an element is not of this datatype, or there are not as many as `shape` asks for.
pub(crate) fn read(name: &str, datatype: Datatype, shape: &[usize], json: &str) -> Result<Tensor, DataError> {
    let source = Source { name, datatype, shape, json };
    match datatype {
        Datatype::Bool => source.numbers(|token| match token {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        }),
        Datatype::Uint8 => source.numbers::<u8>(|token| token.parse().ok()),
        Datatype::Uint16 => source.numbers::<u16>(|token| token.parse().ok()),
        Datatype::Uint32 => source.numbers::<u32>(|token| token.parse().ok()),
        Datatype::Uint64 => source.numbers::<u64>(|token| token.parse().ok()),
        Datatype::Int8 => source.numbers::<i8>(|token| token.parse().ok()),
        Datatype::Int16 => source.numbers::<i16>(|token| token.parse().ok()),
        Datatype::Int32 => source.numbers::<i32>(|token| token.parse().ok()),
        Datatype::Int64 => source.numbers::<i64>(|token| token.parse().ok()),
        Datatype::Fp16 => source.numbers(|token| {
            float32(token).map(f16::from_f32).filter(|half| half.is_finite() || token == "null")
        }),
        Datatype::Bf16 => source.numbers(|token| {
            float32(token).map(bf16::from_f32).filter(|half| half.is_finite() || token == "null")
        }),
        Datatype::Fp32 => source.numbers_with(short_float32, float32),
        Datatype::Fp64 => source.numbers_with(short_decimal, |token| match token {
            "null" => Some(f64::NAN),
            _ => token.parse().ok().filter(|number: &f64| number.is_finite()),
        }),
        Datatype::Bytes => source.strings(),
    }
}

fn float32(token: &str) -> Option<f32> {
    match token {
        "null" => Some(f32::NAN),
        _ => token.parse().ok().filter(|number: &f32| number.is_finite()),
    }
}

/// Reads a decimal without exponent of at most 15 digits at the beginning of a text, and how long it is; `None` leaves
/// it to a parser of all numbers. Digits and power of ten are exact as FP64, so their quotient is rounded rightly
/// (W. D. Clinger, How to read floating point numbers accurately, 1990).
fn short_decimal(text: &[u8]) -> Option<(f64, usize)> {
    const POWERS: [f64; 16] =
        [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
    let is_negative = text.first() == Some(&b'-');
    let begin = usize::from(is_negative);
    let (mut at, mut digits, mut point) = (begin, 0_i64, None);
    while let Some(&byte) = text.get(at) {
        match byte {
            b'0'..=b'9' => digits = digits.wrapping_mul(10).wrapping_add(i64::from(byte - b'0')),
            b'.' if point.is_none() => point = Some(at),
            _ => break,
        }
        at += 1;
    }
    let fraction = point.map_or(0, |point| at - point - 1);
    let count = at - begin - usize::from(point.is_some());
    let ends = text.get(at).is_none_or(is_delimiter);
    if !ends || !(1..=15).contains(&count) || (point.is_some() && fraction == 0) || fraction == count {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "15 digits fit")]
    let value = digits as f64 / POWERS.get(fraction)?;
    Some((if is_negative { -value } else { value }, at))
}

/// The same for FP32. Rounding twice is right unless the first stops in the middle between two.
fn short_float32(text: &[u8]) -> Option<(f32, usize)> {
    const BELOW: u64 = (1 << 29) - 1;
    const MIDDLE: u64 = 1 << 28;
    let (value, length) = short_decimal(text)?;
    #[expect(clippy::cast_possible_truncation, reason = "15 digits are in range")]
    (value.to_bits() & BELOW != MIDDLE).then_some((value as f32, length))
}

struct Source<'a> {
    name: &'a str,
    datatype: Datatype,
    shape: &'a [usize],
    json: &'a str,
}

impl Source<'_> {
    fn numbers<T: Element>(&self, parse: impl Fn(&str) -> Option<T>) -> Result<Tensor, DataError> {
        self.numbers_with(|_| None, parse)
    }

    /// `quick` reads the most frequent forms at the beginning of a text, and tells their length.
    fn numbers_with<T: Element>(
        &self,
        quick: impl Fn(&[u8]) -> Option<(T, usize)>,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Tensor, DataError> {
        let expected = self.expected();
        // Two bytes of text an element, so that a claimed shape alone reserves nothing.
        let mut elements = Vec::with_capacity(expected.min(self.json.len() / 2 + 1));
        self.tokens(|rest, index| {
            let (element, length) = match quick(rest.as_bytes()) {
                Some(read) => read,
                None => {
                    let token = token(rest);
                    let what = if token.starts_with('"') { "the string" } else { "the value" };
                    let element = parse(token).ok_or_else(|| self.not_an_element(what, token, index))?;
                    (element, token.len())
                }
            };
            elements.push(element);
            Ok(length)
        })?;
        Ok(Tensor::from_vec(self.name, self.shape, elements)?)
    }

    fn strings(&self) -> Result<Tensor, DataError> {
        let mut strings: Vec<std::borrow::Cow<'_, str>> = Vec::new();
        self.tokens(|rest, index| {
            let text = token(rest);
            if !text.starts_with('"') {
                return Err(self.not_an_element("the value", text, index));
            }
            let plain = text.get(1..text.len().saturating_sub(1)).filter(|inner| !inner.contains('\\'));
            strings.push(match plain {
                Some(plain) => plain.into(),
                None => serde_json::from_str::<String>(text)
                    .map_err(|_| self.not_an_element("the string", text, index))?
                    .into(),
            });
            Ok(text.len())
        })?;
        Ok(Tensor::from_strings(self.name, self.shape, strings.iter().map(|text| text.as_bytes()))?)
    }

    fn expected(&self) -> usize {
        self.shape.iter().fold(1_usize, |product, &size| product.saturating_mul(size))
    }

    /// Calls `visit` with the text from each scalar on and its index; it answers the scalar's length.
    fn tokens<'a>(
        &'a self,
        mut visit: impl FnMut(&'a str, usize) -> Result<usize, DataError>,
    ) -> Result<(), DataError> {
        let (expected, bytes) = (self.expected(), self.json.as_bytes());
        let (mut at, mut depth, mut index) = (0, 0_usize, 0);
        while let Some(&byte) = bytes.get(at) {
            match byte {
                b'[' => {
                    depth += 1;
                    if depth > MAX_DEPTH {
                        return Err(DataError::Depth { name: self.name.into() });
                    }
                    at += 1;
                    continue;
                }
                b']' => {
                    depth = depth.saturating_sub(1);
                    at += 1;
                    continue;
                }
                b',' | b' ' | b'\t' | b'\n' | b'\r' => {
                    at += 1;
                    continue;
                }
                b'{' => return Err(self.not_an_element("the object", "{", index)),
                _ => {}
            }
            if index >= expected {
                let (name, shape) = (self.name.into(), self.shape.to_vec());
                return Err(DataError::TooMany { name, shape, expected });
            }
            at += visit(self.json.get(at..).unwrap_or_default(), index)?.max(1);
            index += 1;
        }
        Ok(())
    }

    fn not_an_element(&self, what: &'static str, token: &str, index: usize) -> DataError {
        let token = token.chars().take(40).collect();
        DataError::Element { name: self.name.into(), datatype: self.datatype, what, token, index }
    }
}

/// The scalar that a text begins with: a number, `true`, `false`, `null`, or a string with its quotes.
fn token(text: &str) -> &str {
    let bytes = text.as_bytes();
    let end = if bytes.first() == Some(&b'"') { end_of_string(bytes, 0) } else { end_of_scalar(bytes, 0) };
    text.get(..end).unwrap_or_default()
}

fn is_delimiter(byte: &u8) -> bool {
    matches!(byte, b',' | b']' | b' ' | b'\t' | b'\n' | b'\r')
}

pub(crate) fn end_of_scalar(bytes: &[u8], start: usize) -> usize {
    let rest = bytes.get(start + 1..).unwrap_or_default();
    start + 1 + rest.iter().position(is_delimiter).unwrap_or(rest.len())
}

pub(crate) fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn fp32(shape: &[usize], json: &str) -> Result<Vec<f32>, String> {
        let tensor = read("x", Datatype::Fp32, shape, json).map_err(|error| error.to_string())?;
        Ok(tensor.elements::<f32>().unwrap().into_owned())
    }

    #[test]
    fn nested_and_flat_data_read_the_same() {
        let flat = fp32(&[2, 2], "[1, 2.5 ,-3e2,\n4]").unwrap();
        assert_eq!(flat, [1.0, 2.5, -300.0, 4.0]);
        assert_eq!(fp32(&[2, 2], "[[1,2.5],[-3e2,4]]").unwrap(), flat);
        assert_eq!(fp32(&[], "7").unwrap(), [7.0]);
        assert_eq!(fp32(&[0], "[]").unwrap(), [0.0; 0]);
    }

    proptest! {
        #[test]
        fn short_decimals_are_read_as_the_parser_of_all_numbers_reads_them(
            negative: bool, digits in 0_u64..1_000_000_000_000_000, fraction in 0_usize..16, single: f32
        ) {
            let digits = digits.to_string();
            let point = digits.len().saturating_sub(fraction);
            let text = if point == 0 || point == digits.len() {
                digits.clone()
            } else {
                format!("{}.{}", &digits[..point], &digits[point..])
            };
            let sign = if negative { "-" } else { "" };
            for text in [format!("{sign}{text}"), format!("{single}")] {
                let wide: f64 = text.parse().unwrap();
                let narrow: f32 = text.parse().unwrap();
                if let Some((read, length)) = short_decimal(text.as_bytes()) {
                    prop_assert_eq!((read.to_bits(), length), (wide.to_bits(), text.len()));
                }
                if let Some((read, _)) = short_float32(text.as_bytes()) {
                    prop_assert_eq!(read.to_bits(), narrow.to_bits());
                }
            }
        }
    }

    #[test]
    fn what_is_no_short_decimal_is_left_to_the_parser() {
        for text in ["", "-", ".5", "5.", "1e3", "1.2.3", "1234567890123456", "1x", "+1", "-.5"] {
            assert_eq!(short_decimal(text.as_bytes()), None, "{text}");
        }
        assert_eq!(short_decimal(b"-0]"), Some((-0.0, 2)));
        assert_eq!(short_decimal(b"0.25,1"), Some((0.25, 4)));
        // In the middle between two of FP32, as FP64: 1 + 2^-24.
        assert_eq!(short_float32(b"1.00000005960464"), Some((1.0, 16)));
    }

    #[test]
    fn wide_integers_and_doubles_are_exact() {
        let json = "[9223372036854775807,-9223372036854775808,9007199254740993]";
        let wide = read("x", Datatype::Int64, &[3], json).unwrap();
        assert_eq!(*wide.elements::<i64>().unwrap(), [i64::MAX, i64::MIN, 9_007_199_254_740_993]);
        let double = read("x", Datatype::Fp64, &[1], "[0.1234567890123456789]").unwrap();
        assert_eq!(*double.elements::<f64>().unwrap(), [0.123_456_789_012_345_68]);
    }

    #[test]
    fn what_does_not_belong_is_named_with_its_place() {
        for (datatype, json, message) in [
            (Datatype::Int32, "[1, 2.5]", "the value `2.5` at element 1, which is no INT32"),
            (Datatype::Uint8, "[256]", "the value `256` at element 0, which is no UINT8"),
            (Datatype::Fp32, "[1e39]", "the value `1e39` at element 0, which is no FP32"),
            (Datatype::Fp16, "[65520]", "the value `65520` at element 0, which is no FP16"),
            (Datatype::Fp32, "[\"1\"]", "the string `\"1\"` at element 0, which is no FP32"),
            (Datatype::Fp32, "[{\"a\":1}]", "the object `{` at element 0, which is no FP32"),
            (Datatype::Bytes, "[1]", "the value `1` at element 0, which is no BYTES"),
            (Datatype::Bool, "[2]", "the value `2` at element 0, which is no BOOL"),
        ] {
            let error = read("x", datatype, &[2], json).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        assert!(fp32(&[2], "[1,2,3]").unwrap_err().contains("needs 2 elements but `data` has more"));
        assert!(fp32(&[3], "[1,2]").unwrap_err().contains("needs 3 elements but has 2"));
        assert!(fp32(&[usize::MAX, 9], "[1]").unwrap_err().contains("overflows"));
    }

    #[test]
    fn deep_nesting_is_refused_without_recursion() {
        let json = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(fp32(&[1], &json).unwrap_err().contains("deeper than 32 levels"));
        let json = format!("{}1{}", "[".repeat(32), "]".repeat(32));
        assert_eq!(fp32(&[1], &json).unwrap(), [1.0]);
    }

    #[test]
    fn strings_are_unescaped() {
        let json = r#"["", "a\"b\\", "gr\u00fcn", "grün"]"#;
        let tensor = read("x", Datatype::Bytes, &[4], json).unwrap();
        let expected: [&[u8]; 4] = [b"", b"a\"b\\", "grün".as_bytes(), "grün".as_bytes()];
        assert_eq!(tensor.strings().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn null_is_nan_in_floating_point_only() {
        assert!(fp32(&[1], "[null]").unwrap()[0].is_nan());
        assert!(read("x", Datatype::Int8, &[1], "[null]").is_err());
    }

    fn flatten<'a>(value: &'a Value, into: &mut Vec<&'a Value>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| flatten(item, into)),
            other => into.push(other),
        }
    }

    fn numbers() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<i32>().prop_map(Value::from),
            (-1e30_f64..1e30).prop_map(Value::from),
            any::<i16>().prop_map(|n| Value::from(f64::from(n) / 8.0)),
        ];
        let inner =
            leaf.prop_recursive(4, 64, 6, |item| prop::collection::vec(item, 0..6).prop_map(Value::from));
        prop::collection::vec(inner, 0..6).prop_map(Value::from)
    }

    proptest! {
        #[test]
        fn numbers_read_as_a_reference_parser_reads_them(value in numbers(), pretty in any::<bool>()) {
            let mut leaves = Vec::new();
            flatten(&value, &mut leaves);
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = text.unwrap();
            let expected: Vec<f64> = leaves.iter().map(|leaf| leaf.to_string().parse().unwrap()).collect();
            let given = read("x", Datatype::Fp64, &[leaves.len()], &text).unwrap();
            prop_assert_eq!(given.elements::<f64>().unwrap().into_owned(), expected);
            let narrow: Vec<f32> = leaves.iter().map(|leaf| leaf.to_string().parse().unwrap()).collect();
            prop_assert_eq!(fp32(&[leaves.len()], &text).unwrap(), narrow);
            prop_assert!(read("x", Datatype::Fp64, &[leaves.len() + 1], &text).is_err());
        }

        #[test]
        fn strings_read_as_a_reference_parser_reads_them(strings in prop::collection::vec(any::<String>(), 0..8)) {
            let text = serde_json::to_string(&strings).unwrap();
            let tensor = read("x", Datatype::Bytes, &[strings.len()], &text).unwrap();
            let given: Vec<_> = tensor.strings().map(<[u8]>::to_vec).collect();
            prop_assert_eq!(given, strings.into_iter().map(String::into_bytes).collect::<Vec<_>>());
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>(), which in 0_usize..14, size in 0_usize..4) {
            let _ = read("x", Datatype::ALL[which], &[size], &text);
        }
    }
}
