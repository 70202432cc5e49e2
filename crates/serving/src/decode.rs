//! A request body to tensors: JSON, JSON followed by binary tensors, or one raw tensor.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use inference::{Datatype, Limits, Request, Signature, Tensor, TensorSpec};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;

use crate::classify::Classes;
use crate::data;
use crate::error::ApiError;
use crate::parameters::Parameters;

/// A decoded request.
#[derive(Debug, PartialEq)]
pub(crate) struct Decoded {
    /// To be echoed.
    pub id: Option<String>,
    pub request: Request,
    pub binary: BinaryOutputs,
    pub classes: Classes,
    /// Whether the outputs are to be read as classes or boxes.
    pub reading: bool,
}

/// Which outputs go out as binary tensors.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct BinaryOutputs {
    /// Where an output doesn't say.
    pub default: bool,
    /// In the order of `Request::outputs`; empty when that is.
    pub each: Vec<Option<bool>>,
}

impl BinaryOutputs {
    pub fn wanted(&self, index: usize) -> bool {
        self.each.get(index).copied().flatten().unwrap_or(self.default)
    }
}

/// The length of the JSON part, from the header `Inference-Header-Content-Length`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderLength {
    /// No header: the body is JSON.
    Absent,
    /// 0: the body is the only input's bytes.
    Raw,
    Json(usize),
}

impl HeaderLength {
    /// Tells lengths apart, for a key.
    pub fn to_bytes(self) -> [u8; 8] {
        let number = match self {
            HeaderLength::Absent => u64::MAX,
            HeaderLength::Raw => 0,
            HeaderLength::Json(length) => length as u64,
        };
        number.to_le_bytes()
    }
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    parameters: Option<BodyParameters<'a>>,
    #[serde(borrow)]
    inputs: Vec<Input<'a>>,
    #[serde(borrow, default)]
    outputs: Option<Vec<Output<'a>>>,
}

/// As they stand there: whoever reads one names it if it is wrong.
#[derive(Default, Deserialize)]
struct BodyParameters<'a> {
    #[serde(borrow)]
    binary_data_output: Option<&'a RawValue>,
    #[serde(borrow)]
    priority: Option<&'a RawValue>,
    #[serde(borrow)]
    timeout: Option<&'a RawValue>,
    #[serde(borrow)]
    reading: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Input<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    shape: &'a RawValue,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    #[serde(borrow, default)]
    parameters: Option<InputParameters<'a>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct InputParameters<'a> {
    #[serde(borrow)]
    binary_data_size: Option<&'a RawValue>,
    shared_memory_region: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Output<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    parameters: Option<OutputParameters<'a>>,
}

#[derive(Default, Deserialize)]
struct OutputParameters<'a> {
    #[serde(borrow)]
    binary_data: Option<&'a RawValue>,
    #[serde(borrow)]
    classification: Option<&'a RawValue>,
    shared_memory_region: Option<IgnoredAny>,
}

/// Decodes a body without copying binary tensors out of it. `limits` are checked before elements are parsed.
///
/// # Errors
/// When it is not a request of the protocol, or its parts don't agree.
pub(crate) fn decode(
    body: &Bytes,
    length: HeaderLength,
    signature: &Signature,
    limits: Limits,
) -> Result<Decoded, ApiError> {
    let (json, binary) = match length {
        HeaderLength::Raw => return raw(body, signature),
        HeaderLength::Absent => (body.clone(), Bytes::new()),
        HeaderLength::Json(length) if length <= body.len() => (body.slice(..length), body.slice(length..)),
        HeaderLength::Json(length) => {
            let given = body.len();
            return Err(bad(format!(
                "Inference-Header-Content-Length is {length} but the body has {given} bytes; send the JSON part's length"
            )));
        }
    };
    let parsed: Body<'_> = serde_json::from_slice(&json).map_err(|error| {
        bad(format!("the body is no inference request: {error}; see the Open Inference Protocol v2"))
    })?;
    let mut binary = binary;
    let mut inputs = Vec::with_capacity(parsed.inputs.len());
    for input in parsed.inputs {
        inputs.push(tensor(input, &mut binary, limits)?);
    }
    if !binary.is_empty() {
        let over = binary.len();
        return Err(bad(format!("{over} bytes follow the last binary tensor; make `binary_data_size` fit")));
    }
    let parameters = parsed.parameters.unwrap_or_default();
    let flag = |value, name| read_parameter::<bool>(value, name, format_args!("of the request"), FLAG);
    let number = |value, name| read_parameter::<u64>(value, name, format_args!("of the request"), NUMBER);
    let default = flag(parameters.binary_data_output, "binary_data_output")? == Some(true);
    let mut outputs = BinaryOutputs { default, each: Vec::new() };
    let (mut names, mut classes) = (Vec::new(), Classes::default());
    for output in parsed.outputs.unwrap_or_default() {
        let parameters = output.parameters.unwrap_or_default();
        if parameters.shared_memory_region.is_some() {
            return Err(ApiError::no_shared_memory(&output.name));
        }
        let name = &output.name;
        let count = parameters.classification;
        let count = read_parameter(count, "classification", format_args!("of output `{name}`"), NUMBER)?;
        classes.push(count.unwrap_or(0));
        let binary = parameters.binary_data;
        outputs.each.push(read_parameter(binary, "binary_data", format_args!("of output `{name}`"), FLAG)?);
        names.push(output.name.into_owned());
    }
    let mut request = Request { inputs, outputs: names, ..Request::default() };
    let priority = number(parameters.priority, "priority")?.unwrap_or(0);
    let timeout = number(parameters.timeout, "timeout")?.unwrap_or(0);
    Parameters { priority, timeout }.apply(&mut request);
    let reading = flag(parameters.reading, "reading")? == Some(true);
    Ok(Decoded { id: parsed.id.map(Cow::into_owned), request, binary: outputs, classes, reading })
}

fn tensor(input: Input<'_>, binary: &mut Bytes, limits: Limits) -> Result<Tensor, ApiError> {
    let Input { name, shape, datatype, parameters, data } = input;
    let parameters = parameters.unwrap_or_default();
    if parameters.shared_memory_region.is_some() {
        return Err(ApiError::no_shared_memory(&name));
    }
    let datatype: Datatype = datatype.parse().map_err(|error| bad(format!("input `{name}`: {error}")))?;
    let shape = read_shape(&name, shape)?;
    limits.check_shape(&shape)?;
    let size = parameters.binary_data_size;
    let size = read_parameter(size, "binary_data_size", format_args!("of input `{name}`"), NUMBER)?;
    match (data, size) {
        (Some(json), None) => {
            data::read(&name, datatype, &shape, json.get()).map_err(|error| bad(error.to_string()))
        }
        (None, Some(size)) if size <= binary.len() => {
            Ok(Tensor::from_bytes(name, datatype, shape, binary.split_to(size))?)
        }
        (None, Some(size)) => {
            let left = binary.len();
            Err(bad(format!("input `{name}` has binary_data_size {size} but only {left} bytes are left")))
        }
        (None, None) => {
            Err(bad(format!("input `{name}` has neither `data` nor `binary_data_size`; send one")))
        }
        (Some(_), Some(_)) => {
            Err(bad(format!("input `{name}` has both `data` and `binary_data_size`; send one")))
        }
    }
}

/// What flags and numbers are to be.
const FLAG: &str = "true or false";
const NUMBER: &str = "a whole number from 0";

/// Longest part of a client's text in an error, in characters.
const SHOWN: usize = 64;

fn read_parameter<T: DeserializeOwned>(
    value: Option<&RawValue>,
    name: &str,
    of: fmt::Arguments<'_>,
    expected: &str,
) -> Result<Option<T>, ApiError> {
    let Some(value) = value else { return Ok(None) };
    let wrong = |_| {
        let given: String = value.get().chars().take(SHOWN).collect();
        bad(format!("parameter `{name}` {of} is {given}; send {expected}"))
    };
    serde_json::from_str(value.get()).map_err(wrong)
}

/// Sizes, as other fronts say it where they are none.
fn read_shape(name: &str, given: &RawValue) -> Result<Vec<usize>, ApiError> {
    if let Ok(shape) = serde_json::from_str(given.get()) {
        return Ok(shape);
    }
    let shown: String = given.get().chars().take(SHOWN).collect();
    Err(bad(match serde_json::from_str::<Vec<i64>>(given.get()) {
        Ok(shape) if shape.iter().any(|&size| size < 0) => {
            format!("input `{name}` has shape {shown}; sizes can't be negative: send those of the data")
        }
        _ => format!("input `{name}` has shape {shown}; send a list of whole numbers, such as [1, 4]"),
    }))
}

/// The whole body as the model's only input; one open dimension is worked out from the length.
fn raw(body: &Bytes, signature: &Signature) -> Result<Decoded, ApiError> {
    let [spec] = signature.inputs.as_slice() else {
        let count = signature.inputs.len();
        return Err(bad(format!("a raw body needs a model with one input, this one has {count}; send JSON")));
    };
    let shape = raw_shape(spec, body.len()).ok_or_else(|| {
        let (given, datatype, shape) = (body.len(), spec.datatype, spec.shape.as_deref().unwrap_or_default());
        bad(format!(
            "{given} raw bytes don't fit input `{}` of datatype {datatype} and shape {shape:?}; send JSON with a shape",
            spec.name
        ))
    })?;
    let tensor = Tensor::from_bytes(spec.name.as_str(), spec.datatype, shape, body.clone())?;
    let binary = BinaryOutputs { default: true, each: Vec::new() };
    let (request, classes) = (Request::new([tensor]), Classes::default());
    Ok(Decoded { id: None, request, binary, classes, reading: false })
}

fn raw_shape(spec: &TensorSpec, bytes: usize) -> Option<Vec<usize>> {
    let declared = spec.shape.as_ref()?;
    let fixed: Vec<Option<usize>> = declared.iter().map(|&size| usize::try_from(size).ok()).collect();
    let known = fixed.iter().flatten().try_fold(1_usize, |product, &size| product.checked_mul(size))?;
    let open = fixed.iter().filter(|size| size.is_none()).count();
    let Some(size) = spec.datatype.size() else {
        return (known == 1).then(|| vec![1; declared.len()]);
    };
    let rest = match open {
        0 => 1,
        1 => bytes.checked_div(known.checked_mul(size)?)?,
        _ => return None,
    };
    Some(fixed.into_iter().map(|size| size.unwrap_or(rest)).collect())
}

fn bad(message: String) -> ApiError {
    ApiError::BadRequest(message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
        TensorSpec { name: name.into(), datatype, shape: Some(shape.to_vec()) }
    }

    fn signature() -> Signature {
        Signature {
            inputs: vec![spec("x", Datatype::Fp32, &[-1, 2])],
            outputs: vec![spec("y", Datatype::Fp32, &[-1])],
        }
    }

    fn read(body: impl Into<Bytes>, length: HeaderLength) -> Result<Decoded, ApiError> {
        decode(&body.into(), length, &signature(), Limits::default())
    }

    fn message(body: impl Into<Bytes>, length: HeaderLength) -> String {
        read(body, length).unwrap_err().to_string()
    }

    #[test]
    fn members_may_come_in_any_order_and_strangers_are_ignored() {
        let json = r#"{"outputs":[{"parameters":{"binary_data":true},"name":"y"}],"later":[{}],
            "inputs":[{"data":[[1,2]],"datatype":"FP32","shape":[1,2],"name":"x"}],
            "parameters":{"priority":1,"timeout":1500,"sequence_id":"s","binary_data_output":false},"id":"42"}"#;
        let decoded = read(json, HeaderLength::Absent).unwrap();
        assert_eq!(decoded.id.as_deref(), Some("42"));
        assert_eq!(*decoded.request.inputs[0].elements::<f32>().unwrap(), [1.0, 2.0]);
        assert_eq!(decoded.request.outputs, ["y"]);
        assert!(decoded.binary.wanted(0) && !decoded.binary.wanted(1));
        assert_eq!(decoded.request.priority, 1);
        assert_eq!(decoded.request.timeout, Some(std::time::Duration::from_micros(1500)));
    }

    #[test]
    fn binary_tensors_follow_the_json_in_order() {
        let json = r#"{"inputs":[
            {"name":"x","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}},
            {"name":"s","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":6}}]}"#;
        let mut body = json.as_bytes().to_vec();
        body.extend([0, 0, 128, 63, 0, 0, 0, 64, 2, 0, 0, 0, b'h', b'i']);
        let inputs = read(body, HeaderLength::Json(json.len())).unwrap().request.inputs;
        assert_eq!(*inputs[0].elements::<f32>().unwrap(), [1.0, 2.0]);
        assert_eq!(inputs[1].strings().collect::<Vec<_>>(), [b"hi"]);
    }

    #[test]
    fn a_raw_body_gets_its_shape_from_the_model() {
        let decoded = read(vec![0; 24], HeaderLength::Raw).unwrap();
        assert_eq!(decoded.request.inputs[0].shape(), [3, 2]);
        assert!(decoded.binary.wanted(0));
        assert!(message(vec![0; 23], HeaderLength::Raw).contains("needs 16 bytes but has 23"));
    }

    #[test]
    fn parts_that_do_not_agree_are_named() {
        let input =
            |rest: &str| format!(r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"FP32"{rest}}}]}}"#);
        let absent = HeaderLength::Absent;
        for (body, expected) in [
            (input(""), "input `x` has neither `data` nor `binary_data_size`"),
            (input(r#","data":[1],"parameters":{"binary_data_size":4}"#), "has both"),
            (input(r#","parameters":{"binary_data_size":4}"#), "only 0 bytes are left"),
            (input(r#","parameters":{"shared_memory_region":"r"}"#), "`shared_memory_region`"),
            ("{bad".into(), "the body is no inference request: key must be a string at line 1 column 2"),
            (String::new(), "the body is no inference request: EOF"),
            ("{}".into(), "missing field `inputs`"),
            (r#"{"inputs":[{"name":"x","shape":[-1],"datatype":"FP32","data":[]}]}"#.into(), "-1"),
            (
                r#"{"inputs":[{"name":"x","shape":[-1, 4],"datatype":"FP32","data":[]}]}"#.into(),
                "input `x` has shape [-1, 4]; sizes can't be negative",
            ),
            (
                r#"{"inputs":[{"name":"x","shape":[1.5],"datatype":"FP32","data":[]}]}"#.into(),
                "input `x` has shape [1.5]; send a list of whole numbers",
            ),
            (
                r#"{"inputs":[],"parameters":{"priority":"1"}}"#.into(),
                "parameter `priority` of the request is \"1\"; send a whole number from 0",
            ),
            (
                r#"{"inputs":[],"parameters":{"binary_data_output":1}}"#.into(),
                "parameter `binary_data_output` of the request is 1; send true or false",
            ),
            (
                r#"{"inputs":[],"outputs":[{"name":"y","parameters":{"classification":"2"}}]}"#.into(),
                "parameter `classification` of output `y` is \"2\"",
            ),
            (input(r#","parameters":{"binary_data_size":"4"}"#), "parameter `binary_data_size` of input `x`"),
            (r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP33","data":[1]}]}"#.into(), "`FP33`"),
            (r#"{"inputs":[],"outputs":[{"name":"y","parameters":{"classification":-3}}]}"#.into(), "-3"),
            (r#"{"inputs":[],"parameters":{"priority":"high"}}"#.into(), "high"),
            (r#"{"inputs":[],"parameters":{"timeout":-1}}"#.into(), "-1"),
        ] {
            let message = message(body.clone(), absent);
            assert!(message.contains(expected), "{body}: {message}");
        }
        assert!(message("{}", HeaderLength::Json(3)).contains("is 3 but the body has 2 bytes"));
        let extra = format!("{}zz", r#"{"inputs":[]}"#);
        assert!(message(extra, HeaderLength::Json(13)).contains("2 bytes follow the last binary tensor"));
    }

    #[test]
    fn a_huge_claimed_shape_is_refused_before_its_data_is_read() {
        let body = r#"{"inputs":[{"name":"x","shape":[1000000,1000000],"datatype":"FP32","data":[1]}]}"#;
        assert!(matches!(
            read(body, HeaderLength::Absent),
            Err(ApiError::Inference(inference::Error::TooLarge { .. }))
        ));
    }

    #[test]
    fn deep_json_anywhere_is_refused_or_skipped_without_recursion() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        for body in [
            deep.clone(),
            format!(r#"{{"inputs":[],"stranger":{deep}}}"#),
            format!(r#"{{"inputs":[],"parameters":{{"a":{deep}}}}}"#),
            format!(r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"FP32","data":{deep}}}]}}"#),
            format!(r#"{{"id":{deep},"inputs":[]}}"#),
        ] {
            let _ = read(body, HeaderLength::Absent);
        }
    }

    fn lengths() -> impl Strategy<Value = HeaderLength> {
        prop_oneof![
            Just(HeaderLength::Absent),
            Just(HeaderLength::Raw),
            (0_usize..300).prop_map(HeaderLength::Json),
        ]
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200), length in lengths()) {
            let _ = read(body, length);
        }

        #[test]
        fn a_damaged_request_never_panics(at in 0_usize..200, byte in any::<u8>(), length in lengths()) {
            let json = r#"{"id":"1","inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[[1,-2.5e1]]},
                {"name":"b","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":8}}]}"#;
            let mut body = json.as_bytes().to_vec();
            let at = at % body.len();
            body[at] = byte;
            let _ = read(body, length);
        }
    }
}
