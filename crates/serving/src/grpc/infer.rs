//! One inference over gRPC: the message to tensors, the answer to a message.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::HeaderMap;
use bytes::Bytes;
use inference::{Limits, Model, Request, Tensor};
use tonic::metadata::MetadataMap;
use wire::inference::infer_parameter::ParameterChoice;
use wire::inference::{
    InferInputTensor, InferOutputTensor, InferParameter, InferRequestedOutputTensor, ModelInferRequest,
    ModelInferResponse,
};

use super::contents;
use crate::classify::Classes;
use crate::error::ApiError;
use crate::parameters::Parameters;
use crate::state::ServerState;
use crate::trace::{Call, Trace, TraceParent};
use crate::watch::Watch;

type Given = BTreeMap<String, InferParameter>;

const CALL: Call = Call {
    name: "inference.GRPCInferenceService/ModelInfer",
    attributes: &[
        ("rpc.system", "grpc"),
        ("rpc.service", "inference.GRPCInferenceService"),
        ("rpc.method", "ModelInfer"),
    ],
};

/// Runs one request.
///
/// # Errors
/// When it doesn't fit its model, can't be run, or isn't done by the client's deadline.
pub(super) async fn infer(
    state: &ServerState,
    message: ModelInferRequest,
    deadline: Option<Duration>,
    headers: &HeaderMap,
) -> Result<ModelInferResponse, ApiError> {
    let mut trace = Trace::begin(state.tracer.as_ref(), headers, &CALL);
    let answer = answer(state, message, TraceParent::of(headers), &mut trace);
    let answer = match deadline {
        None => answer.await,
        Some(deadline) => tokio::time::timeout(deadline, answer).await.unwrap_or(Err(ApiError::Deadline)),
    };
    trace.end(answer.as_ref());
    answer
}

async fn answer(
    state: &ServerState,
    message: ModelInferRequest,
    parent: Option<TraceParent>,
    trace: &mut Trace,
) -> Result<ModelInferResponse, ApiError> {
    let begun = trace.now();
    let version = (!message.model_version.is_empty()).then_some(message.model_version.as_str());
    let model = state.repository.obtain(&message.model_name, version).await?;
    trace.step("obtain", begun);
    trace.model(&model);
    let begun = trace.now();
    let Decoded { id, request, classes } = decode(message, &model.limits())?;
    trace.step("decode", begun);
    let answer = Watch::begin(state, &model, parent).answer(&model, request, trace).await?;
    let begun = trace.now();
    let outputs = classes.apply(state, &model, answer.outputs)?;
    let encoded = encode(&model, id, outputs);
    trace.step("encode", begun);
    Ok(encoded)
}

/// A decoded message.
pub(crate) struct Decoded {
    id: String,
    request: Request,
    classes: Classes,
}

/// Decodes a message; raw contents are not copied out of it.
///
/// # Errors
/// When its parts don't agree, or are over the limits.
pub(crate) fn decode(message: ModelInferRequest, limits: &Limits) -> Result<Decoded, ApiError> {
    let ModelInferRequest { id, parameters, inputs, outputs, raw_input_contents, .. } = message;
    if !raw_input_contents.is_empty() && raw_input_contents.len() != inputs.len() {
        let (given, expected) = (raw_input_contents.len(), inputs.len());
        return Err(bad(format!(
            "expected {expected} raw_input_contents, one for each of `inputs`, but got {given}"
        )));
    }
    let mut raw = raw_input_contents.into_iter();
    let inputs: Result<Vec<Tensor>, _> =
        inputs.into_iter().map(|input| tensor(input, raw.next(), limits)).collect();
    let mut classes = Classes::default();
    let mut names = Vec::with_capacity(outputs.len());
    for InferRequestedOutputTensor { name, parameters } in outputs {
        refuse_shared_memory(&name, &parameters)?;
        classes.push(unsigned(&parameters, "classification")?.unwrap_or(0));
        names.push(name);
    }
    let mut request = Request { inputs: inputs?, outputs: names, ..Request::default() };
    let priority = unsigned(&parameters, "priority")?.unwrap_or(0);
    let timeout = unsigned(&parameters, "timeout")?.unwrap_or(0);
    Parameters { priority, timeout }.apply(&mut request);
    Ok(Decoded { id, request, classes })
}

fn tensor(input: InferInputTensor, raw: Option<Bytes>, limits: &Limits) -> Result<Tensor, ApiError> {
    let InferInputTensor { name, datatype, shape, parameters, contents } = input;
    refuse_shared_memory(&name, &parameters)?;
    let datatype = datatype.parse().map_err(|error| bad(format!("input '{name}': {error}")))?;
    let sizes: Option<Vec<usize>> = shape.iter().map(|&size| usize::try_from(size).ok()).collect();
    let shape =
        sizes.ok_or_else(|| bad(format!("input '{name}' has shape {shape:?}; sizes can't be negative")))?;
    limits.check_shape(&shape)?;
    match (contents, raw) {
        (Some(_), Some(_)) => Err(bad(format!(
            "contents field must not be specified when using raw_input_contents for '{name}'"
        ))),
        (None, Some(raw)) => Ok(Tensor::from_bytes(name, datatype, shape, raw)?),
        (contents, None) => contents::tensor(&name, datatype, shape, contents.unwrap_or_default()),
    }
}

fn refuse_shared_memory(name: &str, parameters: &Given) -> Result<(), ApiError> {
    match parameters.contains_key("shared_memory_region") {
        true => Err(ApiError::no_shared_memory(name)),
        false => Ok(()),
    }
}

/// A parameter that counts something. Clients send it signed or unsigned.
fn unsigned(parameters: &Given, name: &str) -> Result<Option<u64>, ApiError> {
    let Some(parameter) = parameters.get(name) else { return Ok(None) };
    let number = match parameter.parameter_choice {
        Some(ParameterChoice::Uint64Param(number)) => Some(number),
        Some(ParameterChoice::Int64Param(number)) => u64::try_from(number).ok(),
        _ => None,
    };
    let number = number.ok_or_else(|| bad(format!("parameter '{name}' is no whole number from 0")))?;
    Ok(Some(number))
}

fn encode(model: &Model, id: String, outputs: Vec<Tensor>) -> ModelInferResponse {
    let size = |&size: &usize| i64::try_from(size).unwrap_or(i64::MAX);
    ModelInferResponse {
        model_name: model.name().to_owned(),
        model_version: model.version().to_owned(),
        id,
        parameters: BTreeMap::new(),
        raw_output_contents: outputs.iter().map(|tensor| tensor.data().clone()).collect(),
        outputs: (outputs.iter())
            .map(|tensor| InferOutputTensor {
                name: tensor.name().to_owned(),
                datatype: tensor.datatype().name().to_owned(),
                shape: tensor.shape().iter().map(size).collect(),
            })
            .collect(),
    }
}

/// How long the client waits, as the header `grpc-timeout` says it; nonsense is no deadline.
pub(super) fn deadline(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.len() > 8 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

fn bad(message: String) -> ApiError {
    ApiError::BadRequest(message)
}

#[cfg(test)]
mod tests {
    use inference::{EngineOptions, Engines, LoadRequest, Options, Repository};

    use super::*;

    #[tokio::test]
    async fn a_deadline_holds_while_the_model_is_loaded_too() {
        let engines = Engines::discover(&EngineOptions::default());
        let repository = Repository::new(engines, Options { workers: 1, ..Options::default() }).unwrap();
        let file = "tests/data/label.onnx";
        repository.register(LoadRequest::new("m", "1", file)).unwrap();
        let message = ModelInferRequest { model_name: "m".into(), ..ModelInferRequest::default() };
        let answer =
            infer(&ServerState::new(repository), message, Some(Duration::ZERO), &HeaderMap::new()).await;
        assert!(matches!(answer, Err(ApiError::Deadline)), "{answer:?}");
    }

    #[test]
    fn deadlines_are_read_in_every_unit_and_nonsense_is_none() {
        let read = |text: &'static str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            deadline(&metadata)
        };
        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(read("3M"), Some(Duration::from_secs(180)));
        assert_eq!(read("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("7u"), Some(Duration::from_micros(7)));
        assert_eq!(read("9n"), Some(Duration::from_nanos(9)));
        for nonsense in ["", "m", "-1m", "123456789m", "5", "5x", "5 m"] {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
    }
}
