//! The routes that list and change: the repository, settings, and the shared memory that there isn't.

use std::collections::{BTreeMap, BTreeSet};

use axum::Router;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use inference::ModelStatus;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::aside;
use crate::control::{ControlError, LoadModel};
use crate::error::ApiError;
use crate::infer::{bad_body, bad_path};
use crate::model_config::ModelConfig;
use crate::routes::{Name, answer};
use crate::state::ServerState;
use crate::{settings, views};

pub(crate) fn routes() -> Router<ServerState> {
    let mut router = Router::new()
        .route("/v2/repository/index", post(index))
        .route("/v2/repository/models/{name}/load", post(load))
        .route("/v2/repository/models/{name}/unload", post(unload))
        .route("/v2/logging", get(log).post(change_log))
        .route("/v2/trace/setting", get(trace).post(change_trace))
        .route("/v2/models/{name}/trace/setting", get(model_trace).post(change_model_trace));
    for kind in ["system", "cuda"] {
        let path = format!("/v2/{kind}sharedmemory");
        router = router
            .route(&format!("{path}/status"), get(no_regions))
            .route(&format!("{path}/region/{{name}}/status"), get(no_region))
            .route(&format!("{path}/region/{{name}}/register"), post(no_shared_memory))
            .route(&format!("{path}/unregister"), post(nothing_to_do))
            .route(&format!("{path}/region/{{name}}/unregister"), post(nothing_to_do));
    }
    router
}

type Body = Result<Bytes, BytesRejection>;

/// A JSON body; an empty one stands for the default.
fn read<T: DeserializeOwned + Default>(
    state: &ServerState,
    body: Body,
    example: &str,
) -> Result<T, ApiError> {
    let body = body.map_err(|rejection| bad_body(&rejection, state.body_limit))?;
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&body).map_err(|error| {
        ApiError::BadRequest(format!("the body can't be read: {error}; send {example} or nothing"))
    })
}

#[derive(Default, Deserialize)]
struct IndexRequest {
    #[serde(default)]
    ready: bool,
}

async fn index(State(state): State<ServerState>, body: Body) -> Result<Response, ApiError> {
    let request: IndexRequest = read(&state, body, r#"{"ready": true}"#)?;
    let lines = views::index(&state, request.ready).into_iter().map(|line| {
        let members =
            [("name", line.name), ("version", line.version), ("state", line.state), ("reason", line.reason)];
        let given = members.into_iter().filter(|(_, value)| !value.is_empty());
        Value::Object(given.map(|(name, value)| (name.to_owned(), value.into())).collect())
    });
    Ok(answer(&lines.collect()))
}

#[derive(Default, Deserialize)]
struct LoadRequest {
    #[serde(default)]
    parameters: Map<String, Value>,
}

/// Done, with nothing to tell.
fn done() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], "").into_response()
}

async fn load(State(state): State<ServerState>, name: Name, body: Body) -> Result<Response, ApiError> {
    let Path(name) = name.map_err(bad_path)?;
    state.may_control()?;
    aside(move || {
        let request: LoadRequest = read(&state, body, r#"{"parameters": {"config": "{…}"}}"#)?;
        Ok(state.control.load(&name, read_load(request)?)?)
    })
    .await?;
    Ok(done())
}

fn read_load(request: LoadRequest) -> Result<LoadModel, ApiError> {
    let mut wanted = LoadModel::default();
    for (name, value) in request.parameters {
        match (name.strip_prefix("file:"), name.as_str(), value) {
            (Some(file), _, Value::String(content)) => {
                let content = STANDARD.decode(content).map_err(|error| {
                    ApiError::BadRequest(format!("the content of '{file}' is not base64: {error}"))
                })?;
                wanted.files.insert(file.to_owned(), content.into());
            }
            (None, "config", Value::String(config)) => {
                wanted.config = Some(ModelConfig::from_json(config.as_bytes())?);
            }
            _ => return Err(LoadModel::unknown_parameter(&name)),
        }
    }
    Ok(wanted)
}

#[derive(Default, Deserialize)]
struct UnloadRequest {
    #[serde(default)]
    parameters: Map<String, Value>,
}

async fn unload(State(state): State<ServerState>, name: Name, body: Body) -> Result<Response, ApiError> {
    let Path(name) = name.map_err(bad_path)?;
    let request: UnloadRequest = read(&state, body, r#"{"parameters": {"unload_dependents": true}}"#)?;
    let dependents = match request.parameters.get(UNLOAD_DEPENDENTS) {
        None => false,
        Some(value) => value.as_bool().ok_or_else(no_flag)?,
    };
    aside(move || unload_model(&state, &name, dependents)).await?;
    Ok(done())
}

pub(crate) const UNLOAD_DEPENDENTS: &str = "unload_dependents";

pub(crate) fn no_flag() -> ApiError {
    ApiError::BadRequest(format!("parameter `{UNLOAD_DEPENDENTS}` is neither true nor false"))
}

/// Unloads a model, and with it, where `dependents` are meant, the models that it is made of; those stay that another
/// ensemble needs, or that were not loaded from the repository. Blocks.
///
/// # Errors
/// When it can't be unloaded.
pub(crate) fn unload_model(state: &ServerState, name: &str, dependents: bool) -> Result<(), ApiError> {
    let mut going = vec![name.to_owned()];
    if dependents {
        let ensembles = ensembles(state);
        add_members(&ensembles, &mut going);
        let mut staying: Vec<String> =
            ensembles.keys().filter(|name| !going.contains(name)).cloned().collect();
        add_members(&ensembles, &mut staying);
        going.retain(|member| member == name || !staying.contains(member));
    }
    state.control.unload(name)?;
    for member in going.iter().skip(1) {
        match state.control.unload(member) {
            Ok(()) | Err(ControlError::Unknown { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The models of each ensemble that is loaded.
fn ensembles(state: &ServerState) -> BTreeMap<String, Vec<String>> {
    let mut ensembles: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for ModelStatus { name, version, .. } in state.repository.list() {
        let Ok(model) = state.repository.get(&name, Some(&version)) else { continue };
        let Some(ensemble) = model.ensemble() else { continue };
        ensembles.entry(name).or_default().extend(ensemble.steps.iter().map(|step| step.model.clone()));
    }
    ensembles
}

/// Adds the models of the ensembles in a list, and those of ensembles among them.
fn add_members(ensembles: &BTreeMap<String, Vec<String>>, names: &mut Vec<String>) {
    let mut looked = 0;
    while let Some(name) = names.get(looked) {
        let members = ensembles.get(name).into_iter().flatten();
        let new: BTreeSet<String> = members.filter(|member| !names.contains(member)).cloned().collect();
        names.extend(new);
        looked += 1;
    }
}

async fn log(State(state): State<ServerState>) -> Response {
    let settings = settings::log(state.logs.as_ref()).into_iter();
    answer(&Value::Object(settings.map(|(name, value)| (name.to_owned(), value)).collect()))
}

async fn change_log(State(state): State<ServerState>, body: Body) -> Result<Response, ApiError> {
    let changes: BTreeMap<String, Value> = read(&state, body, r#"{"log_verbose_level": 1}"#)?;
    settings::change_log(state.may_control()?.logs.as_ref(), changes)?;
    Ok(log(State(state)).await)
}

async fn trace(State(state): State<ServerState>) -> Response {
    let settings = state.settings.trace().into_iter().map(|(name, values)| {
        // The level alone is a list.
        let value = match name {
            "trace_level" => json!(values),
            _ => json!(values.first().map_or("", String::as_str)),
        };
        (name.to_owned(), value)
    });
    answer(&Value::Object(settings.collect()))
}

fn read_trace(state: &ServerState, body: Body) -> Result<BTreeMap<String, Value>, ApiError> {
    read(state, body, r#"{"trace_rate": "1000"}"#)
}

async fn change_trace(State(state): State<ServerState>, body: Body) -> Result<Response, ApiError> {
    let changes = read_trace(&state, body)?;
    let values = |(name, value)| {
        let values = match value {
            Value::Null => Vec::new(),
            Value::String(text) => vec![text],
            Value::Array(list) => {
                list.iter().map(|value| value.as_str().unwrap_or_default().to_owned()).collect()
            }
            other => vec![other.to_string()],
        };
        (name, values)
    };
    state.may_control()?.settings.change_trace(changes.into_iter().map(values).collect())?;
    Ok(trace(State(state)).await)
}

async fn model_trace(State(state): State<ServerState>, name: Name) -> Result<Response, ApiError> {
    let Path(name) = name.map_err(bad_path)?;
    check_model_trace(&state, &name, false)?;
    Ok(trace(State(state)).await)
}

async fn change_model_trace(
    State(state): State<ServerState>,
    name: Name,
    body: Body,
) -> Result<Response, ApiError> {
    let Path(name) = name.map_err(bad_path)?;
    check_model_trace(&state, &name, !read_trace(&state, body)?.is_empty())?;
    Ok(trace(State(state)).await)
}

/// Models have the server's settings and none of their own.
///
/// # Errors
/// When there is no such model, or something is to be changed for it.
pub(crate) fn check_model_trace(state: &ServerState, name: &str, changes: bool) -> Result<(), ApiError> {
    views::ready(state, name, None)?;
    match changes {
        true => {
            Err(ApiError::BadRequest("models have no trace settings of their own; set the server's".into()))
        }
        false => Ok(()),
    }
}

async fn no_regions() -> Response {
    answer(&json!([]))
}

async fn no_region(name: Name) -> Result<Response, ApiError> {
    let Path(name) = name.map_err(bad_path)?;
    let name: String = name.chars().take(64).collect();
    Err(ApiError::NotFound(format!("Unable to find shared memory region: '{name}'")))
}

async fn no_shared_memory() -> ApiError {
    ApiError::NotOffered("shared memory is not offered here; send the tensors themselves".into())
}

/// Without regions all of them are unregistered already.
async fn nothing_to_do() -> Response {
    done()
}
