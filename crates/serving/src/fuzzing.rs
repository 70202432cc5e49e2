//! Entry points for fuzzers: each hands bytes to the parsers of one sort of input, and looks at nothing but that they
//! come back. See `fuzz/` at the top of the repository.

use bytes::Bytes;
use inference::{Datatype, Limits, Signature, TensorSpec};
use prost::Message;
use wire::inference::ModelInferRequest;

use crate::decode::{HeaderLength, decode};
use crate::grpc::infer;
use crate::model_config::ModelConfig;
use crate::{folder, form, mlbuffet};

/// REST bodies: the first two bytes say how long the JSON part is.
pub fn bodies(bytes: &[u8]) {
    let Some((length, body)) = bytes.split_first_chunk::<2>() else { return };
    let body = Bytes::copy_from_slice(body);
    let spec = |name: &str, datatype| TensorSpec { name: name.into(), datatype, shape: Some(vec![-1, 2]) };
    let length = HeaderLength::Json(u16::from_le_bytes(*length).into());
    for datatype in Datatype::ALL {
        let signature = Signature { inputs: vec![spec("x", datatype)], outputs: vec![spec("y", datatype)] };
        for length in [HeaderLength::Absent, HeaderLength::Raw, length] {
            let _ = decode(&body, length, &signature, Limits::default());
        }
    }
}

/// gRPC messages, as they come after the check of their counts.
pub fn messages(bytes: &[u8]) {
    if wire::codec::check(bytes).is_err() {
        return;
    }
    if let Ok(message) = ModelInferRequest::decode(bytes) {
        let _ = infer::decode(message, &Limits::default());
    }
}

/// Configurations: `config.pbtxt`, JSON, and `avocet.yaml`.
pub fn configurations(bytes: &[u8]) {
    for config in [ModelConfig::from_text(bytes), ModelConfig::from_json(bytes)].into_iter().flatten() {
        let no_file = |_: &str| Err("there is none".to_owned());
        let _ = (config.serving(), config.engine(), config.warm_up(no_file));
    }
    folder::check_declared(bytes);
}

/// Forms with a file, and the type of content that announces them: what comes before the first line's end.
pub fn forms(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let (Some(head), Some(body)) = (parts.next(), parts.next()) else { return };
    let head = String::from_utf8_lossy(head);
    for boundary in [form::boundary(&head).ok(), Some("b")].into_iter().flatten() {
        let _ = form::only_file(body, boundary);
    }
}

/// MLBuffet's `values`, for models with one input and with two.
pub fn values(bytes: &[u8]) {
    let Ok(json) = std::str::from_utf8(bytes) else { return };
    let spec = |name: &str, datatype| TensorSpec { name: name.into(), datatype, shape: Some(vec![-1, 2]) };
    for datatype in Datatype::ALL {
        let one = vec![spec("x", datatype)];
        for inputs in [one.clone(), [one, vec![spec("y", Datatype::Fp32)]].concat()] {
            mlbuffet::read_values(json, &Signature { inputs, outputs: vec![] }, Limits::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wire::inference::{InferInputTensor, InferRequestedOutputTensor, InferTensorContents};

    use super::*;

    /// A message with something in every field that is read.
    fn message() -> Vec<u8> {
        let contents = InferTensorContents {
            int_contents: vec![1, -1, 300],
            fp32_contents: vec![0.5; 3],
            bytes_contents: vec!["a".into(), Bytes::new(), "b".into()],
            ..InferTensorContents::default()
        };
        let input = |datatype: &str| InferInputTensor {
            name: "x".into(),
            datatype: datatype.into(),
            shape: vec![3],
            contents: Some(contents.clone()),
            ..InferInputTensor::default()
        };
        let output = InferRequestedOutputTensor { name: "y".into(), ..InferRequestedOutputTensor::default() };
        ModelInferRequest {
            inputs: vec![input("INT8"), input("FP32"), input("BYTES")],
            outputs: vec![output],
            raw_input_contents: vec![Bytes::from_static(&[0; 3])],
            ..ModelInferRequest::default()
        }
        .encode_to_vec()
    }

    const BODY: &[u8] = br#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[[1,-2.5e1]]},
        {"name":"b","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":8}}],
        "outputs":[{"name":"y","parameters":{"classification":2,"binary_data":true}}],
        "parameters":{"priority":1,"timeout":10}}"#;
    const CONFIG: &[u8] = br#"max_batch_size: 8 input [ { name: "x" dims: [ 3 ] } ] # c
        dynamic_batching { default_queue_policy { max_queue_size: 0x40 } }
        parameters { key: "k" value { string_value: "\x41\n" } }"#;

    const DECLARED: &[u8] =
        b"aliases: {champion: '1'}\ntraffic: {shadow: {version: '1', percent: 5}}\nserving:\n  \
        cache: {ttlSeconds: 5}\n  payloads: {redact: [x]}\n";
    const FORM: &[u8] =
        b"multipart/form-data; boundary=b\n--b\r\nContent-Disposition: form-data; name=\"path\"; \
        filename=\"a\"\r\nContent-Type: image/png\r\n\r\ncontent\r\n--b--\r\n";
    const VALUES: &[u8] = br#"{"x": [[1, "2"], [-3.5e1, true]], "y": [1, 2]}"#;

    fn damaged(mut bytes: Vec<u8>, damage: &[(usize, u8)]) -> Vec<u8> {
        for (at, byte) in damage {
            let length = bytes.len();
            if let Some(place) = bytes.get_mut(at % length) {
                *place = *byte;
            }
        }
        bytes
    }

    proptest! {
        #[test]
        fn promise_6_no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            bodies(&bytes);
            messages(&bytes);
            configurations(&bytes);
            forms(&bytes);
            values(&bytes);
        }

        #[test]
        fn promise_6_no_damaged_input_makes_one_panic(
            damage in prop::collection::vec((0_usize..1000, any::<u8>()), 0..6),
        ) {
            bodies(&damaged([&[40, 1], BODY].concat(), &damage));
            messages(&damaged(message(), &damage));
            configurations(&damaged(CONFIG.to_vec(), &damage));
            configurations(&damaged(DECLARED.to_vec(), &damage));
            forms(&damaged(FORM.to_vec(), &damage));
            values(&damaged(VALUES.to_vec(), &damage));
        }
    }
}
