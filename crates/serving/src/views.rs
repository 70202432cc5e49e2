//! What both fronts tell of the server and its models, in the protocol's words.

use inference::{Error, Format, Model, Signature, State as ModelState, StatsSnapshot, TensorSpec, Timed};
use wire::inference::{
    InferBatchStatistics, InferStatistics, ModelIndex, ModelMetadataResponse, ModelStatistics,
    StatisticDuration, TensorMetadata,
};

use crate::error::ApiError;
use crate::state::ServerState;

pub(crate) const NAME: &str = "avocet";
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What is offered beyond the protocol's core.
pub(crate) const EXTENSIONS: [&str; 8] = [
    "binary_tensor_data",
    "classification",
    "logging",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
];

/// Whether requests are answered: what is loaded by the first of them is ready, too. Gives the version that would
/// answer, where an alias or none was asked for.
///
/// # Errors
/// When they aren't, with the reason.
pub(crate) fn ready(state: &ServerState, name: &str, version: Option<&str>) -> Result<String, ApiError> {
    match state.repository.get(name, version) {
        Ok(model) => Ok(model.version().to_owned()),
        Err(Error::NotReady { version, .. }) if is_idle(state, name, &version) => Ok(version),
        Err(error) => Err(error.into()),
    }
}

fn is_idle(state: &ServerState, name: &str, version: &str) -> bool {
    let all = state.repository.list().into_iter();
    all.filter(|status| status.name == name && status.version == version)
        .any(|status| status.state == ModelState::Idle)
}

/// What a model takes and gives, and which of its versions are there.
///
/// # Errors
/// When it isn't ready.
pub(crate) async fn metadata(
    state: &ServerState,
    name: &str,
    version: Option<&str>,
) -> Result<ModelMetadataResponse, ApiError> {
    let model = state.repository.obtain(name, version).await?;
    let versions = match version {
        Some(_) => vec![model.version().to_owned()],
        None => (state.repository.list().into_iter())
            .filter(|status| {
                status.name == name && matches!(status.state, ModelState::Ready | ModelState::Idle)
            })
            .map(|status| status.version)
            .collect(),
    };
    let Signature { inputs, outputs } = model.signature();
    Ok(ModelMetadataResponse {
        name: name.to_owned(),
        versions,
        platform: platform(&model),
        inputs: inputs.iter().map(tensor).collect(),
        outputs: outputs.iter().map(tensor).collect(),
    })
}

/// What a model is and what runs it, by Triton's names where Triton has one.
pub(crate) fn platform(model: &Model) -> String {
    if model.ensemble().is_some() {
        return "ensemble".to_owned();
    }
    let format = match (Format::at(model.path()), model.engine()) {
        (Some(format), _) => format,
        // An archive: of what TensorFlow runs, that is how a folder comes in one file.
        (None, "tensorflow") => Format::SavedModel,
        (None, _) => Format::Onnx,
    };
    let kind = match format {
        Format::Onnx => "onnx",
        Format::SavedModel => "savedmodel",
        Format::FrozenGraph => "graphdef",
        Format::TfLite => "tflite",
        Format::XgboostJson | Format::XgboostUbj => "xgboost",
        Format::Lightgbm => "lightgbm",
    };
    format!("{}_{kind}", model.engine())
}

/// A tensor of open rank is shown as one open dimension, for want of a better form in the protocol.
fn tensor(spec: &TensorSpec) -> TensorMetadata {
    TensorMetadata {
        name: spec.name.clone(),
        datatype: spec.datatype.name().to_owned(),
        shape: spec.shape.clone().unwrap_or_else(|| vec![-1]),
    }
}

/// The counters of all models, of one, or of one version.
///
/// # Errors
/// When there is no such model or version.
pub(crate) fn statistics(
    state: &ServerState,
    name: Option<&str>,
    version: Option<&str>,
) -> Result<Vec<ModelStatistics>, ApiError> {
    let answering = name.map(|name| ready(state, name, version)).transpose()?;
    let version = version.and(answering);
    let wanted = |model: &str, other: &str| {
        name.is_none_or(|name| name == model) && version.as_ref().is_none_or(|version| version == other)
    };
    let all = state.repository.stats().into_iter();
    Ok(all
        .filter(|(name, version, _)| wanted(name, version))
        .map(|(name, version, stats)| counters(name, version, &stats))
        .collect())
}

fn counters(name: String, version: String, stats: &StatsSnapshot) -> ModelStatistics {
    ModelStatistics {
        name,
        version,
        last_inference: stats.last_inference,
        inference_count: stats.inference_count,
        execution_count: stats.execution_count,
        inference_stats: Some(InferStatistics {
            success: timed(stats.success),
            fail: timed(stats.fail),
            queue: timed(stats.queue),
            compute_input: timed(stats.compute_input),
            compute_infer: timed(stats.compute),
            compute_output: timed(stats.compute_output),
            cache_hit: timed(stats.cache_hit),
            cache_miss: timed(stats.cache_miss),
        }),
        batch_stats: (stats.batches.iter())
            .map(|(size, batch)| InferBatchStatistics {
                batch_size: *size,
                compute_input: timed(batch.compute_input),
                compute_infer: timed(batch.compute),
                compute_output: timed(batch.compute_output),
            })
            .collect(),
    }
}

fn timed(timed: Timed) -> Option<StatisticDuration> {
    Some(StatisticDuration { count: timed.count, ns: timed.nanoseconds })
}

/// Every version that is loaded, loading or failed, and the models that could be loaded.
pub(crate) fn index(state: &ServerState, only_ready: bool) -> Vec<ModelIndex> {
    let all = state.repository.list().into_iter();
    let mut lines: Vec<ModelIndex> = all
        .filter(|status| !only_ready || matches!(status.state, ModelState::Ready | ModelState::Idle))
        .map(|status| {
            let (state, reason) = match status.state {
                ModelState::Ready => ("READY", String::new()),
                ModelState::Idle => ("READY", "loaded by the first request for it".to_owned()),
                ModelState::Loading => ("LOADING", String::new()),
                ModelState::Failed { reason } => ("UNAVAILABLE", reason),
            };
            ModelIndex { name: status.name, version: status.version, state: state.into(), reason }
        })
        .collect();
    if !only_ready {
        let known = |name: &String| lines.iter().any(|line| line.name == *name);
        let names: Vec<String> = state.control.available().into_iter().filter(|name| !known(name)).collect();
        lines.extend(names.into_iter().map(|name| ModelIndex { name, ..ModelIndex::default() }));
        lines.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    }
    lines
}
