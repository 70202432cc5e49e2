//! The protocol's routes but inference: health, metadata, statistics, the repository's index.

use axum::Router;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use inference::{Signature, State as ModelState, StatsSnapshot, TensorSpec, Timed};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::infer::{self, bad_path};
use crate::state::ServerState;

/// Every route of the protocol under `/v2`, with a JSON 404 and 405. Merge other routers into this one, not the
/// other way round: it brings the fallback.
pub fn router(state: ServerState) -> Router {
    let limit = state.body_limit;
    Router::new()
        .route("/v2", get(server))
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/stats", get(all_stats))
        .route("/v2/models/{name}", get(model))
        .route("/v2/models/{name}/ready", get(model_ready))
        .route("/v2/models/{name}/stats", get(model_stats))
        .route("/v2/models/{name}/infer", post(infer::default_version))
        .route("/v2/models/{name}/versions/{version}", get(version))
        .route("/v2/models/{name}/versions/{version}/ready", get(version_ready))
        .route("/v2/models/{name}/versions/{version}/stats", get(version_stats))
        .route("/v2/models/{name}/versions/{version}/infer", post(infer::one_version))
        .route("/v2/repository/index", post(index))
        .fallback(|| async { ApiError::NoRoute })
        .method_not_allowed_fallback(|| async { ApiError::Method })
        .layer(DefaultBodyLimit::max(limit))
        .with_state(state)
}

type Name = Result<Path<String>, PathRejection>;
type NameVersion = Result<Path<(String, String)>, PathRejection>;

fn answer(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

async fn server() -> Response {
    answer(&json!({
        "name": "avocet",
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": ["binary_tensor_data", "parameters", "statistics"],
    }))
}

async fn live() -> StatusCode {
    StatusCode::OK
}

async fn ready(State(state): State<ServerState>) -> Result<StatusCode, ApiError> {
    if (state.ready)() { Ok(StatusCode::OK) } else { Err(ApiError::NotReady { what: "the server" }) }
}

async fn model(State(state): State<ServerState>, name: Name) -> Result<Response, ApiError> {
    metadata(&state, &name.map_err(bad_path)?, None)
}

async fn version(State(state): State<ServerState>, path: NameVersion) -> Result<Response, ApiError> {
    let Path((name, version)) = path.map_err(bad_path)?;
    metadata(&state, &name, Some(&version))
}

fn metadata(state: &ServerState, name: &str, version: Option<&str>) -> Result<Response, ApiError> {
    let model = state.repository.get(name, version)?;
    let loaded = state.repository.list().into_iter();
    let versions: Vec<String> = match version {
        Some(version) => vec![version.into()],
        None => loaded
            .filter(|status| status.name == name && status.state == ModelState::Ready)
            .map(|status| status.version)
            .collect(),
    };
    let Signature { inputs, outputs } = model.signature();
    Ok(answer(&json!({
        "name": name,
        "versions": versions,
        "platform": format!("{}_onnx", model.engine()),
        "inputs": inputs.iter().map(tensor).collect::<Vec<_>>(),
        "outputs": outputs.iter().map(tensor).collect::<Vec<_>>(),
    })))
}

/// A tensor of open rank is shown as one open dimension, for want of a better form in the protocol.
fn tensor(spec: &TensorSpec) -> Value {
    let shape = spec.shape.as_deref().unwrap_or(&[-1]);
    json!({ "name": spec.name, "datatype": spec.datatype.name(), "shape": shape })
}

async fn model_ready(State(state): State<ServerState>, name: Name) -> Result<StatusCode, ApiError> {
    let Path(name) = name.map_err(bad_path)?;
    Ok(state.repository.get(&name, None).map(|_| StatusCode::OK)?)
}

async fn version_ready(State(state): State<ServerState>, path: NameVersion) -> Result<StatusCode, ApiError> {
    let Path((name, version)) = path.map_err(bad_path)?;
    Ok(state.repository.get(&name, Some(&version)).map(|_| StatusCode::OK)?)
}

async fn all_stats(State(state): State<ServerState>) -> Response {
    statistics(&state, |_, _| true)
}

/// Every version of the model, as Triton does.
async fn model_stats(State(state): State<ServerState>, name: Name) -> Result<Response, ApiError> {
    let Path(name) = name.map_err(bad_path)?;
    state.repository.get(&name, None)?;
    Ok(statistics(&state, |model, _| model == name))
}

async fn version_stats(State(state): State<ServerState>, path: NameVersion) -> Result<Response, ApiError> {
    let Path((name, version)) = path.map_err(bad_path)?;
    state.repository.get(&name, Some(&version))?;
    Ok(statistics(&state, |model, other| model == name && other == version))
}

fn statistics(state: &ServerState, wanted: impl Fn(&str, &str) -> bool) -> Response {
    let stats = state.repository.stats().into_iter();
    let lines: Vec<Value> = stats
        .filter(|(name, version, _)| wanted(name, version))
        .map(|(name, version, stats)| statistic(&name, &version, &stats))
        .collect();
    answer(&json!({ "model_stats": lines }))
}

fn statistic(name: &str, version: &str, stats: &StatsSnapshot) -> Value {
    let timed = |timed: Timed| json!({ "count": timed.count, "ns": timed.nanoseconds });
    json!({
        "name": name,
        "version": version,
        "last_inference": stats.last_inference,
        "inference_count": stats.inference_count,
        "execution_count": stats.execution_count,
        "inference_stats": {
            "success": timed(stats.success),
            "fail": timed(stats.fail),
            "queue": timed(stats.queue),
            "compute_input": timed(stats.compute_input),
            "compute_infer": timed(stats.compute),
            "compute_output": timed(stats.compute_output),
            "cache_hit": timed(stats.cache_hit),
            "cache_miss": timed(stats.cache_miss),
        },
        "response_stats": {},
        "batch_stats": [],
        "memory_usage": [],
    })
}

#[derive(Default, Deserialize)]
struct IndexRequest {
    #[serde(default)]
    ready: bool,
}

async fn index(
    State(state): State<ServerState>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let body = body.map_err(|rejection| infer::bad_body(&rejection, state.body_limit))?;
    let request: IndexRequest = match body.as_ref() {
        [] => IndexRequest::default(),
        body => serde_json::from_slice(body).map_err(|error| {
            ApiError::BadRequest(format!(
                "the body is no index request: {error}; send {{\"ready\": true}} or nothing"
            ))
        })?,
    };
    let all = state.repository.list().into_iter();
    let lines: Vec<Value> = all
        .filter(|status| !request.ready || status.state == ModelState::Ready)
        .map(|status| {
            let (state, reason) = match status.state {
                ModelState::Ready => ("READY", String::new()),
                ModelState::Idle => ("READY", "loaded by the first request for it".to_owned()),
                ModelState::Loading => ("LOADING", String::new()),
                ModelState::Failed { reason } => ("UNAVAILABLE", reason),
            };
            let mut line = json!({ "name": status.name, "version": status.version, "state": state });
            if let (false, Some(line)) = (reason.is_empty(), line.as_object_mut()) {
                line.insert("reason".into(), reason.into());
            }
            line
        })
        .collect();
    Ok(answer(&Value::from(lines)))
}
