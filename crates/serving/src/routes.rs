//! The protocol's routes but inference: health, metadata, configuration, statistics.

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use wire::inference::{ModelStatistics, StatisticDuration, TensorMetadata};

use crate::bodies::Bodies;
use crate::error::ApiError;
use crate::infer::{self, bad_path};
use crate::state::ServerState;
use crate::{management, metrics, model_config, views};

/// Every route of the protocol under `/v2`, and `/metrics`, with a JSON 404 and 405. Merge other routers into this one, not the
/// other way round: it brings the fallback.
pub fn router(state: ServerState) -> Router {
    let limit = state.body_limit;
    let one = "/v2/models/{name}";
    let version = "/v2/models/{name}/versions/{version}";
    Router::new()
        .route("/v2", get(server))
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/stats", get(all_stats))
        .route(one, get(model))
        .route(&format!("{one}/ready"), get(model_ready))
        .route(&format!("{one}/config"), get(model_configuration))
        .route(&format!("{one}/stats"), get(model_stats))
        .route(&format!("{one}/infer"), post(infer::default_version))
        .route(version, get(model_version))
        .route(&format!("{version}/ready"), get(version_ready))
        .route(&format!("{version}/config"), get(version_configuration))
        .route(&format!("{version}/stats"), get(version_stats))
        .route(&format!("{version}/infer"), post(infer::one_version))
        .merge(management::routes())
        .merge(metrics::routes())
        .fallback(|| async { ApiError::NoRoute })
        .method_not_allowed_fallback(|| async { ApiError::Method })
        .layer(DefaultBodyLimit::max(limit))
        .layer(from_fn_with_state(state.bodies.clone(), bounded))
        .with_state(state)
}

async fn bounded(State(bodies): State<Bodies>, request: Request, next: Next) -> Result<Response, ApiError> {
    bodies.answer(request, next).await
}

pub(crate) type Name = Result<Path<String>, PathRejection>;
pub(crate) type NameVersion = Result<Path<(String, String)>, PathRejection>;

pub(crate) fn answer(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

async fn server() -> Response {
    answer(&json!({ "name": views::NAME, "version": views::VERSION, "extensions": views::EXTENSIONS }))
}

async fn live() -> StatusCode {
    StatusCode::OK
}

async fn ready(State(state): State<ServerState>) -> Result<StatusCode, ApiError> {
    if (state.ready)() { Ok(StatusCode::OK) } else { Err(ApiError::NotReady { what: "the server" }) }
}

async fn model(State(state): State<ServerState>, name: Name) -> Result<Response, ApiError> {
    metadata(&state, &name.map_err(bad_path)?, None).await
}

async fn model_version(State(state): State<ServerState>, path: NameVersion) -> Result<Response, ApiError> {
    let Path((name, version)) = path.map_err(bad_path)?;
    metadata(&state, &name, Some(&version)).await
}

async fn metadata(state: &ServerState, name: &str, version: Option<&str>) -> Result<Response, ApiError> {
    let shown = views::metadata(state, name, version).await?;
    let tensor = |tensor: &TensorMetadata| json!({ "name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape });
    Ok(answer(&json!({
        "name": shown.name,
        "versions": shown.versions,
        "platform": shown.platform,
        "inputs": shown.inputs.iter().map(tensor).collect::<Vec<_>>(),
        "outputs": shown.outputs.iter().map(tensor).collect::<Vec<_>>(),
    })))
}

async fn model_ready(State(state): State<ServerState>, name: Name) -> Result<StatusCode, ApiError> {
    let Path(name) = name.map_err(bad_path)?;
    views::ready(&state, &name, None).map(|_| StatusCode::OK)
}

async fn version_ready(State(state): State<ServerState>, path: NameVersion) -> Result<StatusCode, ApiError> {
    let Path((name, version)) = path.map_err(bad_path)?;
    views::ready(&state, &name, Some(&version)).map(|_| StatusCode::OK)
}

async fn model_configuration(State(state): State<ServerState>, name: Name) -> Result<Response, ApiError> {
    let Path(name) = name.map_err(bad_path)?;
    Ok(answer(&model_config::show_json(&state, &state.repository.obtain(&name, None).await?)))
}

async fn version_configuration(
    State(state): State<ServerState>,
    path: NameVersion,
) -> Result<Response, ApiError> {
    let Path((name, version)) = path.map_err(bad_path)?;
    Ok(answer(&model_config::show_json(&state, &state.repository.obtain(&name, Some(&version)).await?)))
}

async fn all_stats(State(state): State<ServerState>) -> Result<Response, ApiError> {
    statistics(&state, None, None)
}

/// Every version of the model, as Triton does.
async fn model_stats(State(state): State<ServerState>, name: Name) -> Result<Response, ApiError> {
    let Path(name) = name.map_err(bad_path)?;
    statistics(&state, Some(&name), None)
}

async fn version_stats(State(state): State<ServerState>, path: NameVersion) -> Result<Response, ApiError> {
    let Path((name, version)) = path.map_err(bad_path)?;
    statistics(&state, Some(&name), Some(&version))
}

fn statistics(state: &ServerState, name: Option<&str>, version: Option<&str>) -> Result<Response, ApiError> {
    let lines: Vec<Value> = views::statistics(state, name, version)?.into_iter().map(statistic).collect();
    Ok(answer(&json!({ "model_stats": lines })))
}

fn statistic(stats: ModelStatistics) -> Value {
    let timed = |timed: Option<StatisticDuration>| {
        let timed = timed.unwrap_or_default();
        json!({ "count": timed.count, "ns": timed.ns })
    };
    let of = stats.inference_stats.unwrap_or_default();
    let batches = stats.batch_stats.into_iter().map(|batch| {
        json!({
            "batch_size": batch.batch_size,
            "compute_input": timed(batch.compute_input),
            "compute_infer": timed(batch.compute_infer),
            "compute_output": timed(batch.compute_output),
        })
    });
    json!({
        "name": stats.name,
        "version": stats.version,
        "last_inference": stats.last_inference,
        "inference_count": stats.inference_count,
        "execution_count": stats.execution_count,
        "inference_stats": {
            "success": timed(of.success),
            "fail": timed(of.fail),
            "queue": timed(of.queue),
            "compute_input": timed(of.compute_input),
            "compute_infer": timed(of.compute_infer),
            "compute_output": timed(of.compute_output),
            "cache_hit": timed(of.cache_hit),
            "cache_miss": timed(of.cache_miss),
        },
        "response_stats": {},
        "batch_stats": batches.collect::<Vec<_>>(),
        "memory_usage": [],
    })
}
