//! The elements of a JSON tensor: text straight into a typed buffer.
//!
//! The text has passed a JSON parser already, so this only splits it into tokens; nothing recurses and nothing is
//! built in between. Numbers are parsed for their own type: exact for FP64 and INT64, no detour over f64 for FP32.

use std::str::FromStr;

use fast_float2::FastFloat;
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
        Datatype::Bool => source.numbers(
            |_| None,
            |token| match token {
                "true" | "1" => Some(true),
                "false" | "0" => Some(false),
                _ => None,
            },
        ),
        Datatype::Uint8 => source.integers::<u8>(),
        Datatype::Uint16 => source.integers::<u16>(),
        Datatype::Uint32 => source.integers::<u32>(),
        Datatype::Uint64 => source.integers::<u64>(),
        Datatype::Int8 => source.integers::<i8>(),
        Datatype::Int16 => source.integers::<i16>(),
        Datatype::Int32 => source.integers::<i32>(),
        Datatype::Int64 => source.integers::<i64>(),
        Datatype::Fp16 => source.floats(f16::from_f32, |half| half.is_finite()),
        Datatype::Bf16 => source.floats(bf16::from_f32, |half| half.is_finite()),
        Datatype::Fp32 => source.floats::<f32, f32>(|single| single, |single| single.is_finite()),
        Datatype::Fp64 => source.floats::<f64, f64>(|double| double, |double| double.is_finite()),
        Datatype::Bytes => source.strings(),
    }
}

/// The whole number of up to 18 digits that a text begins with, and its length.
fn short_integer(text: &[u8]) -> Option<(i64, usize)> {
    const DIGITS: usize = 18;
    let is_negative = text.first() == Some(&b'-');
    let begin = usize::from(is_negative);
    let (mut at, mut value) = (begin, 0_i64);
    while let Some(digit) = text.get(at).filter(|byte| byte.is_ascii_digit()) {
        if at - begin == DIGITS {
            return None;
        }
        value = value * 10 + i64::from(digit - b'0');
        at += 1;
    }
    let is_whole = at > begin && text.get(at).is_none_or(is_delimiter);
    is_whole.then_some((if is_negative { -value } else { value }, at))
}

struct Source<'a> {
    name: &'a str,
    datatype: Datatype,
    shape: &'a [usize],
    json: &'a str,
}

impl Source<'_> {
    fn integers<T: Element + FromStr + TryFrom<i64>>(&self) -> Result<Tensor, DataError> {
        self.numbers(
            |rest| short_integer(rest).and_then(|(value, length)| Some((T::try_from(value).ok()?, length))),
            |token| token.parse().ok(),
        )
    }

    /// Numbers are read as `P`, with one rounding, and `narrow` makes elements of them; `null` is no number (NaN).
    fn floats<P: FastFloat + From<f32>, T: Element>(
        &self,
        narrow: impl Fn(P) -> T,
        is_finite: impl Fn(&T) -> bool,
    ) -> Result<Tensor, DataError> {
        self.numbers(
            |rest| {
                let (parsed, length) = fast_float2::parse_partial::<P, _>(rest).ok()?;
                let ends = rest.get(length).is_none_or(is_delimiter);
                Some((narrow(parsed), length)).filter(|(element, _)| ends && is_finite(element))
            },
            |token| (token == "null").then(|| narrow(P::from(f32::NAN))),
        )
    }

    /// `quick` reads most elements where a text begins with them, and tells their length; `parse` gets the tokens of
    /// the others.
    fn numbers<T: Element>(
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
        fn numbers_are_rounded_once(
            negative: bool, digits in 0_u64..1_000_000_000_000_000_000, fraction in 0_usize..19, single: f32, integer: i64
        ) {
            let digits = digits.to_string();
            let point = digits.len().saturating_sub(fraction);
            let text = if point == 0 || point == digits.len() {
                digits.clone()
            } else {
                format!("{}.{}", &digits[..point], &digits[point..])
            };
            let sign = if negative { "-" } else { "" };
            for text in [format!("{sign}{text}"), format!("{single}"), format!("{single:e}"), format!("{}", f64::from(single))] {
                let wide = read("x", Datatype::Fp64, &[1], &text).ok().map(|read| read.elements::<f64>().unwrap()[0].to_bits());
                let narrow = fp32(&[1], &text).ok().map(|read| read[0].to_bits());
                let finite = |number: f64| number.is_finite();
                prop_assert_eq!(wide, text.parse().ok().filter(|&number: &f64| finite(number)).map(f64::to_bits));
                prop_assert_eq!(narrow, text.parse().ok().filter(|number: &f32| number.is_finite()).map(f32::to_bits));
            }
            let whole = read("x", Datatype::Int64, &[1], &integer.to_string()).unwrap();
            prop_assert_eq!(whole.elements::<i64>().unwrap()[0], integer);
            let byte = read("x", Datatype::Uint8, &[1], &integer.to_string()).ok();
            prop_assert_eq!(byte.map(|byte| byte.elements::<u8>().unwrap()[0]), u8::try_from(integer).ok());
        }
    }

    #[test]
    fn a_number_ends_at_a_delimiter() {
        for text in ["-", "1x", "1.2.3", "0x10", "inf", "NaN", "Infinity", "-inf", "1e", "1_000"] {
            assert!(fp32(&[1], text).is_err(), "{text}");
            assert!(read("x", Datatype::Int32, &[1], text).is_err(), "{text}");
        }
        assert_eq!(fp32(&[2], "[-0,0.25]").unwrap(), [-0.0, 0.25]);
        // In the middle between two of FP32, as FP64: 1 + 2^-24.
        assert_eq!(fp32(&[1], "1.00000005960464").unwrap(), [1.0]);
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
