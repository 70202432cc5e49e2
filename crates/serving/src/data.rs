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
        Datatype::Fp32 => source.numbers(float32),
        Datatype::Fp64 => source.numbers(|token| match token {
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

struct Source<'a> {
    name: &'a str,
    datatype: Datatype,
    shape: &'a [usize],
    json: &'a str,
}

enum Token<'a> {
    /// A number, `true`, `false` or `null`.
    Scalar(&'a str),
    /// A string with its quotes.
    String(&'a str),
}

impl Source<'_> {
    fn numbers<T: Element>(&self, parse: impl Fn(&str) -> Option<T>) -> Result<Tensor, DataError> {
        let expected = self.expected();
        // Two bytes of text an element, so that a claimed shape alone reserves nothing.
        let mut elements = Vec::with_capacity(expected.min(self.json.len() / 2 + 1));
        self.tokens(|token, index| {
            let element = match token {
                Token::Scalar(text) => {
                    parse(text).ok_or_else(|| self.not_an_element("the value", text, index))?
                }
                Token::String(text) => return Err(self.not_an_element("the string", text, index)),
            };
            elements.push(element);
            Ok(())
        })?;
        Ok(Tensor::from_vec(self.name, self.shape, elements)?)
    }

    fn strings(&self) -> Result<Tensor, DataError> {
        let mut strings: Vec<std::borrow::Cow<'_, str>> = Vec::new();
        self.tokens(|token, index| {
            let text = match token {
                Token::String(text) => text,
                Token::Scalar(text) => return Err(self.not_an_element("the value", text, index)),
            };
            let plain = text.get(1..text.len().saturating_sub(1)).filter(|inner| !inner.contains('\\'));
            strings.push(match plain {
                Some(plain) => plain.into(),
                None => serde_json::from_str::<String>(text)
                    .map_err(|_| self.not_an_element("the string", text, index))?
                    .into(),
            });
            Ok(())
        })?;
        Ok(Tensor::from_strings(self.name, self.shape, strings.iter().map(|text| text.as_bytes()))?)
    }

    fn expected(&self) -> usize {
        self.shape.iter().fold(1_usize, |product, &size| product.saturating_mul(size))
    }

    /// Calls `visit` with each scalar and its index.
    fn tokens<'a>(
        &'a self,
        mut visit: impl FnMut(Token<'a>, usize) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        let (expected, bytes) = (self.expected(), self.json.as_bytes());
        let (mut at, mut depth, mut index) = (0, 0_usize, 0);
        while let Some(&byte) = bytes.get(at) {
            let end = match byte {
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
                b'"' => end_of_string(bytes, at),
                b'{' => return Err(self.not_an_element("the object", "{", index)),
                _ => end_of_scalar(bytes, at),
            };
            if index >= expected {
                let (name, shape) = (self.name.into(), self.shape.to_vec());
                return Err(DataError::TooMany { name, shape, expected });
            }
            let text = self.json.get(at..end).unwrap_or_default();
            visit(if byte == b'"' { Token::String(text) } else { Token::Scalar(text) }, index)?;
            index += 1;
            at = end;
        }
        Ok(())
    }

    fn not_an_element(&self, what: &'static str, token: &str, index: usize) -> DataError {
        let token = token.chars().take(40).collect();
        DataError::Element { name: self.name.into(), datatype: self.datatype, what, token, index }
    }
}

pub(crate) fn end_of_scalar(bytes: &[u8], start: usize) -> usize {
    let rest = bytes.get(start + 1..).unwrap_or_default();
    let delimiter = |byte: &u8| matches!(byte, b',' | b']' | b' ' | b'\t' | b'\n' | b'\r');
    start + 1 + rest.iter().position(delimiter).unwrap_or(rest.len())
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
