//! Tensors to a response body: JSON, with the outputs that were asked for as binary behind it.

use std::borrow::Cow;
use std::io::Write;

use half::{bf16, f16};
use inference::steps::Reading;
use inference::{Body, Datatype, Element, Tensor};
use serde::Serialize;

use crate::decode::BinaryOutputs;
use crate::error::ApiError;

/// A response body; `json_length` is set when binary tensors follow the JSON.
#[derive(Debug, PartialEq)]
pub(crate) struct Encoded {
    pub body: Vec<u8>,
    pub json_length: Option<usize>,
}

impl Encoded {
    /// As it is sent and kept.
    pub fn body(self) -> Body {
        Body { bytes: self.body.into(), json_length: self.json_length }
    }
}

/// Writes `{"id", "model_name", "model_version", "outputs"}`, and behind them the reading's `"classes"` or `"boxes"`.
///
/// # Errors
/// When a BYTES output that goes out as JSON is not UTF-8.
pub(crate) fn encode(
    name: &str,
    version: &str,
    id: Option<&str>,
    outputs: &[Tensor],
    binary: &BinaryOutputs,
    reading: Option<&Reading>,
) -> Result<Encoded, ApiError> {
    let data: usize = outputs.iter().map(|tensor| tensor.data().len()).sum();
    let mut body = Vec::with_capacity(256 + data.saturating_mul(2));
    body.push(b'{');
    if let Some(id) = id {
        body.extend_from_slice(b"\"id\":");
        json(&mut body, id)?;
        body.push(b',');
    }
    body.extend_from_slice(b"\"model_name\":");
    json(&mut body, name)?;
    body.extend_from_slice(b",\"model_version\":");
    json(&mut body, version)?;
    body.extend_from_slice(b",\"outputs\":[");
    for (index, tensor) in outputs.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        write_tensor(&mut body, tensor, binary.wanted(index))?;
    }
    body.push(b']');
    match reading {
        Some(reading) => {
            // Its one member joins this object: a comma in the place of its opening brace.
            let begin = body.len();
            json(&mut body, reading)?;
            if let Some(brace) = body.get_mut(begin) {
                *brace = b',';
            }
        }
        None => body.push(b'}'),
    }
    let length = body.len();
    let mut any = false;
    for (_, tensor) in outputs.iter().enumerate().filter(|&(index, _)| binary.wanted(index)) {
        body.extend_from_slice(tensor.data());
        any = true;
    }
    Ok(Encoded { body, json_length: any.then_some(length) })
}

fn write_tensor(body: &mut Vec<u8>, tensor: &Tensor, binary: bool) -> Result<(), ApiError> {
    body.extend_from_slice(b"{\"name\":");
    json(body, tensor.name())?;
    body.extend_from_slice(b",\"datatype\":\"");
    body.extend_from_slice(tensor.datatype().name().as_bytes());
    body.extend_from_slice(b"\",\"shape\":");
    json(body, tensor.shape())?;
    if binary {
        let written = write!(body, ",\"parameters\":{{\"binary_data_size\":{}}}}}", tensor.data().len());
        return written.map_err(|error| ApiError::Answer(error.to_string()));
    }
    body.extend_from_slice(b",\"data\":");
    write_data(body, tensor)?;
    body.push(b'}');
    Ok(())
}

/// A flat array; NaN and infinities become `null`.
pub(crate) fn write_data(body: &mut Vec<u8>, tensor: &Tensor) -> Result<(), ApiError> {
    match tensor.datatype() {
        Datatype::Bool => json(body, &elements::<bool>(tensor)?),
        Datatype::Uint8 => json(body, &elements::<u8>(tensor)?),
        Datatype::Uint16 => json(body, &elements::<u16>(tensor)?),
        Datatype::Uint32 => json(body, &elements::<u32>(tensor)?),
        Datatype::Uint64 => json(body, &elements::<u64>(tensor)?),
        Datatype::Int8 => json(body, &elements::<i8>(tensor)?),
        Datatype::Int16 => json(body, &elements::<i16>(tensor)?),
        Datatype::Int32 => json(body, &elements::<i32>(tensor)?),
        Datatype::Int64 => json(body, &elements::<i64>(tensor)?),
        Datatype::Fp32 => json(body, &elements::<f32>(tensor)?),
        Datatype::Fp64 => json(body, &elements::<f64>(tensor)?),
        Datatype::Fp16 => {
            let wide: Vec<f32> = elements::<f16>(tensor)?.iter().map(|half| half.to_f32()).collect();
            json(body, &wide)
        }
        Datatype::Bf16 => {
            let wide: Vec<f32> = elements::<bf16>(tensor)?.iter().map(|half| half.to_f32()).collect();
            json(body, &wide)
        }
        Datatype::Bytes => {
            let texts: Result<Vec<&str>, _> = tensor.strings().map(std::str::from_utf8).collect();
            let texts = texts.map_err(|_| {
                let name = tensor.name();
                ApiError::BadRequest(format!(
                    "output `{name}` holds bytes that are not UTF-8; ask for it with `binary_data`"
                ))
            })?;
            json(body, &texts)
        }
    }
}

fn elements<T: Element>(tensor: &Tensor) -> Result<Cow<'_, [T]>, ApiError> {
    tensor.elements().map_err(|error| ApiError::Answer(error.to_string()))
}

fn json<T: Serialize + ?Sized>(body: &mut Vec<u8>, value: &T) -> Result<(), ApiError> {
    serde_json::to_writer(body, value).map_err(|error| ApiError::Answer(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(outputs: &[Tensor], binary: BinaryOutputs) -> Encoded {
        encode("m", "1", Some("a\"b"), outputs, &binary, None).unwrap()
    }

    #[test]
    fn numbers_are_short_and_what_json_lacks_is_null() {
        let values = vec![0.1_f32, 1e30, -0.0, f32::NAN, f32::INFINITY];
        let encoded = body(&[Tensor::from_vec("y", [5], values).unwrap()], BinaryOutputs::default());
        assert_eq!(encoded.json_length, None);
        assert_eq!(
            String::from_utf8(encoded.body).unwrap(),
            r#"{"id":"a\"b","model_name":"m","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[5],"data":[0.1,1e+30,-0.0,null,null]}]}"#
        );
    }

    #[test]
    fn json_and_binary_outputs_mix() {
        let outputs = [
            Tensor::from_vec("a", [2], vec![true, false]).unwrap(),
            Tensor::from_vec("b", [1], vec![258_u16]).unwrap(),
            Tensor::from_strings("c", [1], ["z"]).unwrap(),
        ];
        let binary = BinaryOutputs { default: true, each: vec![Some(false)] };
        let encoded = body(&outputs, binary);
        let (json, rest) = encoded.body.split_at(encoded.json_length.unwrap());
        let json: serde_json::Value = serde_json::from_slice(json).unwrap();
        assert_eq!(json["outputs"][0]["data"], serde_json::json!([true, false]));
        assert_eq!(json["outputs"][1]["parameters"]["binary_data_size"], 2);
        assert_eq!(rest, [2, 1, 1, 0, 0, 0, b'z']);
    }

    #[test]
    fn bytes_that_are_no_text_ask_for_binary() {
        let tensor = Tensor::from_strings("c", [1], [[0xff_u8]]).unwrap();
        let error = encode("m", "1", None, &[tensor], &BinaryOutputs::default(), None).unwrap_err();
        assert!(error.to_string().contains("ask for it with `binary_data`"));
    }
}
