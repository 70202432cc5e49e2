//! `serve`: models from disk, without a hub or a site.

mod kept;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use daemon::Tasks;
use inference::{EngineOptions, Engines, ModelStatus, Options, Repository, State};
use serving::{ControlMode, Folder, PayloadLog, ServerState, Tracer};
use tokio::net::TcpListener;
use types::Payloads;

use crate::cli::{ModelControl, ServeOptions};
use crate::{up, worker};

/// How long open requests get to end.
const PATIENCE: Duration = Duration::from_secs(10);

pub async fn serve(options: ServeOptions) -> anyhow::Result<()> {
    let logs = daemon::start_logs(&options.log);
    if !options.host.is_loopback() && !options.insecure_plain_http {
        bail!(
            "{} can be reached from other machines, and models are served neither encrypted nor behind a password; \
             listen on 127.0.0.1 (and put a proxy before it), or pass --insecure-plain-http on a network that you trust",
            options.host
        );
    }
    let traces = up::traces(options.otlp_endpoint.as_deref())?;
    let tasks = Tasks::default();
    let http = listen(options.host, options.http_port).await?;
    let grpc = listen(options.host, options.grpc_port).await?;
    let metrics = match options.metrics_port {
        Some(port) => Some(listen(options.host, port).await?),
        None => None,
    };
    let repository = repository(&options)?;
    let mode = match options.model_control {
        ModelControl::None => ControlMode::None,
        ModelControl::Explicit => ControlMode::Explicit,
        ModelControl::Poll => ControlMode::Poll,
    };
    let folder = Folder::open(options.paths.clone(), repository.clone(), mode)
        .context("can't read the models; name model files, or folders of models")?;
    let folder = Arc::new(folder);
    load(&folder, &options).await?;
    let limit = options.max_message_mib.saturating_mul(1 << 20);
    let mut state = ServerState::new(repository.clone()).body_limit(limit).control(folder.clone()).logs(logs);
    if let Some(settings) = traces {
        state = state.traces(Tracer::start(settings, &tasks)?);
    }
    if let Some(file) = options.payload_log.clone() {
        let payloads = Payloads { percent: options.payload_percent, ..Payloads::default() };
        state = state.payloads(PayloadLog::start(file, Some(payloads), &tasks));
    }
    let router = match &options.data {
        Some(data) => kept::router(data, &options, state.clone(), &folder, &tasks)?,
        None => serving::router(state.clone()),
    };
    println!("REST at http://{}, gRPC at {}", http.local_addr()?, grpc.local_addr()?);
    repository.list().iter().for_each(describe);
    if let Some(metrics) = metrics {
        println!("metrics at http://{}/metrics", metrics.local_addr()?);
        tasks.spawn("metrics-front", serving::serve_metrics(metrics, state.clone(), tasks.shutdown()));
    }
    tasks.spawn("rest-front", serving::serve(http, router, tasks.shutdown()));
    tasks.spawn("grpc-front", serving::grpc::serve(grpc, state, tasks.shutdown()));
    let every = Duration::from_secs(options.poll_seconds.max(1));
    tasks.spawn("models", folder.follow(every, tasks.shutdown()));
    daemon::wait_for_signal().await?;
    println!("ending");
    if !tasks.end(PATIENCE).await {
        eprintln!("some requests did not end within {} s", PATIENCE.as_secs());
    }
    Ok(())
}

async fn listen(host: IpAddr, port: u16) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::new(host, port);
    TcpListener::bind(address).await.with_context(|| {
        format!("can't listen on {address}; is it taken? Another port, or 0 for a free one, can be given")
    })
}

fn repository(options: &ServeOptions) -> anyhow::Result<Repository> {
    let engines = Engines::discover(&EngineOptions {
        onnxruntime: options.onnxruntime.clone(),
        tensorflow: options.tensorflow.clone(),
        ..EngineOptions::default()
    });
    let defaults = Options::default();
    let workers = options.workers.unwrap_or(defaults.workers).max(1);
    let worker = Some(worker::command(options.allow_unconfined).with_libraries(&engines));
    Repository::new(engines, Options { workers, worker, ..defaults }).context("inference can't start")
}

/// Loads what is wanted from the start. A model that can't be loaded is told; only where none can the server ends.
async fn load(folder: &Arc<Folder>, options: &ServeOptions) -> anyhow::Result<()> {
    let explicit = options.model_control == ModelControl::Explicit;
    let wanted = match explicit && !options.load_models.iter().any(|name| name == "*") {
        true => options.load_models.clone(),
        false => folder.names(),
    };
    if wanted.is_empty() && options.data.is_none() && !explicit {
        bail!("there is no model in what was named; a folder holds NAME.onnx or NAME/1/model.onnx");
    }
    let (loader, names) = (folder.clone(), wanted.clone());
    let problems = tokio::task::spawn_blocking(move || loader.load_all(&names)).await?;
    problems.iter().for_each(|problem| eprintln!("error: {problem}"));
    if !wanted.is_empty() && problems.len() == wanted.len() && options.model_control == ModelControl::None {
        bail!("no model could be loaded");
    }
    Ok(())
}

fn describe(model: &ModelStatus) {
    let ModelStatus { name, version, default, .. } = model;
    let default = if *default { ", answers where no version is named" } else { "" };
    match (&model.state, model.engine) {
        (State::Failed { .. }, _) | (_, None) => {}
        (_, Some(engine)) => println!("model {name} version {version}: {engine}{default}"),
    }
}
