//! The methods of the service.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use bytes::Bytes;
use futures::StreamExt;
use serde_json::Value;
use tonic::{Request, Response, Status, Streaming};
use wire::inference::grpc_inference_service_server::GrpcInferenceService;
use wire::inference::infer_parameter::ParameterChoice;
use wire::inference::log_setting_value::ParameterChoice as LogChoice;
use wire::inference::model_repository_parameter::ParameterChoice as LoadChoice;
use wire::inference::*;

use super::front::Large;
use super::infer::{deadline, infer};
use super::messages::Stream;
use crate::aside;
use crate::control::LoadModel;
use crate::error::ApiError;
use crate::infer::LARGE;
use crate::management::{self, UNLOAD_DEPENDENTS};
use crate::model_config::{self, ModelConfig as LoadConfig};
use crate::state::ServerState;
use crate::{settings, views};

/// Requests of one stream that are worked on at once; their answers keep the order of the requests.
const AHEAD: usize = 16;

#[derive(Clone)]
pub(super) struct Methods(pub ServerState);

type Answer<T> = Result<Response<T>, Status>;
type InferStream = Pin<Box<dyn futures::Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

/// No version, as messages say it.
fn named(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn not_offered<T>() -> Answer<T> {
    Err(Status::unimplemented("shared memory is not offered here; send the tensors themselves"))
}

#[tonic::async_trait]
impl GrpcInferenceService for Methods {
    type ModelStreamInferStream = InferStream;

    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Answer<ServerLiveResponse> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Answer<ServerReadyResponse> {
        Ok(Response::new(ServerReadyResponse { ready: (self.0.ready)() }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Answer<ModelReadyResponse> {
        let ModelReadyRequest { name, version } = request.into_inner();
        let ready = views::ready(&self.0, &name, named(&version)).is_ok();
        Ok(Response::new(ModelReadyResponse { ready }))
    }

    async fn server_metadata(&self, _: Request<ServerMetadataRequest>) -> Answer<ServerMetadataResponse> {
        Ok(Response::new(ServerMetadataResponse {
            name: views::NAME.into(),
            version: views::VERSION.into(),
            extensions: views::EXTENSIONS.map(str::to_owned).into(),
        }))
    }

    async fn model_metadata(&self, request: Request<ModelMetadataRequest>) -> Answer<ModelMetadataResponse> {
        let ModelMetadataRequest { name, version } = request.into_inner();
        Ok(Response::new(views::metadata(&self.0, &name, named(&version)).await?))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Answer<ModelInferResponse> {
        let deadline = deadline(request.metadata());
        let (metadata, _, message) = request.into_parts();
        let answer = infer(&self.0, message, deadline, metadata.as_ref()).await?;
        let bytes: usize = answer.raw_output_contents.iter().map(Bytes::len).sum();
        let mut answer = Response::new(answer);
        if bytes > LARGE {
            answer.extensions_mut().insert(Large);
        }
        Ok(answer)
    }

    /// What is wrong with one request is told in its own answer, and the stream goes on.
    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Answer<Self::ModelStreamInferStream> {
        let deadline = deadline(request.metadata()).map(|patience| tokio::time::Instant::now() + patience);
        let state = self.0.clone();
        let (metadata, extensions, messages) = request.into_parts();
        let headers = Arc::new(metadata.into_headers());
        let held = extensions.get::<Arc<Stream>>().cloned();
        let answers = messages.map(move |message| {
            let (state, headers) = (state.clone(), Arc::clone(&headers));
            let part = held.as_ref().filter(|_| message.is_ok()).map(Stream::part);
            async move {
                let _until_answered = part;
                let left = deadline.map(|end| end.saturating_duration_since(tokio::time::Instant::now()));
                Ok(stream_infer(&state, message?, left, &headers).await)
            }
        });
        Ok(Response::new(Box::pin(answers.buffered(AHEAD))))
    }

    async fn model_config(&self, request: Request<ModelConfigRequest>) -> Answer<ModelConfigResponse> {
        let ModelConfigRequest { name, version } = request.into_inner();
        let model = self.0.repository.obtain(&name, named(&version)).await.map_err(ApiError::from)?;
        Ok(Response::new(ModelConfigResponse { config: Some(model_config::show(&self.0, &model)) }))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Answer<ModelStatisticsResponse> {
        let ModelStatisticsRequest { name, version } = request.into_inner();
        let model_stats = views::statistics(&self.0, named(&name), named(&version))?;
        Ok(Response::new(ModelStatisticsResponse { model_stats }))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Answer<RepositoryIndexResponse> {
        let models = views::index(&self.0, request.into_inner().ready);
        Ok(Response::new(RepositoryIndexResponse { models }))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Answer<RepositoryModelLoadResponse> {
        let RepositoryModelLoadRequest { model_name, parameters, .. } = request.into_inner();
        let wanted = read_load(parameters)?;
        let control = self.0.control.clone();
        aside(move || Ok(control.load(&model_name, wanted)?)).await?;
        Ok(Response::new(RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Answer<RepositoryModelUnloadResponse> {
        let RepositoryModelUnloadRequest { model_name, parameters, .. } = request.into_inner();
        let dependents = match parameters.get(UNLOAD_DEPENDENTS).map(|value| &value.parameter_choice) {
            None => false,
            Some(Some(LoadChoice::BoolParam(dependents))) => *dependents,
            Some(_) => return Err(management::no_flag().into()),
        };
        let state = self.0.clone();
        aside(move || management::unload_model(&state, &model_name, dependents)).await?;
        Ok(Response::new(RepositoryModelUnloadResponse {}))
    }

    async fn system_shared_memory_status(
        &self,
        _: Request<SystemSharedMemoryStatusRequest>,
    ) -> Answer<SystemSharedMemoryStatusResponse> {
        Ok(Response::new(SystemSharedMemoryStatusResponse {}))
    }

    async fn system_shared_memory_register(
        &self,
        _: Request<SystemSharedMemoryRegisterRequest>,
    ) -> Answer<SystemSharedMemoryRegisterResponse> {
        not_offered()
    }

    async fn system_shared_memory_unregister(
        &self,
        _: Request<SystemSharedMemoryUnregisterRequest>,
    ) -> Answer<SystemSharedMemoryUnregisterResponse> {
        Ok(Response::new(SystemSharedMemoryUnregisterResponse {}))
    }

    async fn cuda_shared_memory_status(
        &self,
        _: Request<CudaSharedMemoryStatusRequest>,
    ) -> Answer<CudaSharedMemoryStatusResponse> {
        Ok(Response::new(CudaSharedMemoryStatusResponse {}))
    }

    async fn cuda_shared_memory_register(
        &self,
        _: Request<CudaSharedMemoryRegisterRequest>,
    ) -> Answer<CudaSharedMemoryRegisterResponse> {
        not_offered()
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<CudaSharedMemoryUnregisterRequest>,
    ) -> Answer<CudaSharedMemoryUnregisterResponse> {
        Ok(Response::new(CudaSharedMemoryUnregisterResponse {}))
    }

    async fn trace_setting(&self, request: Request<TraceSettingRequest>) -> Answer<TraceSettingResponse> {
        let TraceSettingRequest { settings: changes, model_name } = request.into_inner();
        if !model_name.is_empty() {
            management::check_model_trace(&self.0, &model_name, !changes.is_empty())?;
        } else if !changes.is_empty() {
            let changes = changes.into_iter().map(|(name, setting)| (name, setting.value)).collect();
            self.0.may_control()?.settings.change_trace(changes)?;
        }
        let settings = self.0.settings.trace().into_iter();
        let settings = settings.map(|(name, value)| (name.to_owned(), TraceSettingValue { value })).collect();
        Ok(Response::new(TraceSettingResponse { settings }))
    }

    async fn log_settings(&self, request: Request<LogSettingsRequest>) -> Answer<LogSettingsResponse> {
        let changes = request.into_inner().settings;
        if !changes.is_empty() {
            let changes = changes.into_iter().map(|(name, setting)| (name, log_value(setting))).collect();
            settings::change_log(self.0.may_control()?.logs.as_ref(), changes)?;
        }
        let settings = settings::log(self.0.logs.as_ref()).into_iter();
        let settings = settings.map(|(name, value)| (name.to_owned(), log_setting(&value))).collect();
        Ok(Response::new(LogSettingsResponse { settings }))
    }
}

/// With the parameter `triton_enable_empty_final_response` the answer says that it is the last of its request, as it
/// always is.
async fn stream_infer(
    state: &ServerState,
    message: ModelInferRequest,
    deadline: Option<Duration>,
    headers: &HeaderMap,
) -> ModelStreamInferResponse {
    let flag =
        |parameter: &InferParameter| parameter.parameter_choice == Some(ParameterChoice::BoolParam(true));
    let says_final = message.parameters.get("triton_enable_empty_final_response").is_some_and(flag);
    let id = message.id.clone();
    match infer(state, message, deadline, headers).await {
        Ok(mut answer) => {
            if says_final {
                let yes = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
                answer.parameters.insert("triton_final_response".into(), yes);
            }
            ModelStreamInferResponse { error_message: String::new(), infer_response: Some(answer) }
        }
        Err(error) => {
            // The id tells the client which request it was.
            let answer = ModelInferResponse { id, ..ModelInferResponse::default() };
            ModelStreamInferResponse { error_message: error.message(), infer_response: Some(answer) }
        }
    }
}

fn read_load(parameters: BTreeMap<String, ModelRepositoryParameter>) -> Result<LoadModel, ApiError> {
    let mut wanted = LoadModel::default();
    for (name, parameter) in parameters {
        match (name.strip_prefix("file:"), name.as_str(), parameter.parameter_choice) {
            (Some(file), _, Some(LoadChoice::BytesParam(content))) => {
                wanted.files.insert(file.to_owned(), content);
            }
            (None, "config", Some(LoadChoice::StringParam(config))) => {
                wanted.config = Some(LoadConfig::from_json(config.as_bytes())?);
            }
            _ => return Err(LoadModel::unknown_parameter(&name)),
        }
    }
    Ok(wanted)
}

fn log_value(setting: LogSettingValue) -> Value {
    match setting.parameter_choice {
        Some(LogChoice::BoolParam(flag)) => flag.into(),
        Some(LogChoice::Uint32Param(number)) => number.into(),
        Some(LogChoice::StringParam(text)) => text.into(),
        None => Value::Null,
    }
}

fn log_setting(value: &Value) -> LogSettingValue {
    let choice = match value {
        Value::Bool(flag) => LogChoice::BoolParam(*flag),
        Value::Number(number) => {
            LogChoice::Uint32Param(number.as_u64().and_then(|number| u32::try_from(number).ok()).unwrap_or(0))
        }
        other => LogChoice::StringParam(other.as_str().unwrap_or_default().to_owned()),
    };
    LogSettingValue { parameter_choice: Some(choice) }
}
