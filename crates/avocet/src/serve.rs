//! `serve`: models from disk, without a hub or a site.

mod kept;
mod options;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use daemon::{Tasks, tls};
use inference::{Engines, Limits, ModelStatus, Options, Repository, State};
use serving::{ControlMode, Door, Folder, PayloadLog, ServerState, Tokens, Tracer};
use tokio::net::TcpListener;
use types::{Payloads, Quantity};

use crate::settle::settle;
use crate::{up, worker};
use kept::Data;
use options::ModelControl;
pub use options::ServeOptions;

/// How long open requests get to end.
const PATIENCE: Duration = Duration::from_secs(10);

pub async fn serve(options: ServeOptions) -> anyhow::Result<()> {
    let logs = daemon::start_logs(&options.log);
    let is_guarded = options.tls_cert.is_some() && options.token_file.is_some();
    if !options.host.is_loopback() && !is_guarded && !options.insecure_plain_http {
        bail!(
            "{} can be reached from other machines: give --tls-cert, --tls-key and --token-file, listen on 127.0.0.1 \
             (and put a proxy before it), or pass --insecure-plain-http on a network that you trust",
            options.host
        );
    }
    let traces = up::traces(options.otlp_endpoint.as_deref())?;
    let tasks = Tasks::default();
    let door = door(&options, &tasks)?;
    let http = listen(options.host, options.http_port).await?;
    let grpc = listen(options.host, options.grpc_port).await?;
    let metrics = match options.metrics_port {
        Some(port) => Some(listen(options.host, port).await?),
        None => None,
    };
    let data = options.data.as_deref().map(Data::open).transpose()?;
    let repository = repository(&options, data.as_ref())?;
    let mode = match options.model_control {
        ModelControl::None => ControlMode::None,
        ModelControl::Explicit => ControlMode::Explicit,
        ModelControl::Poll => ControlMode::Poll,
    };
    let folder = Folder::open(options.paths.clone(), repository.clone(), mode)
        .context("can't read the models; name model files, or folders of models")?;
    let folder = Arc::new(folder.lazy(options.lazy));
    load(&folder, &options).await?;
    let limit = message_limit(&options);
    let mut state = ServerState::new(repository.clone()).body_limit(limit).control(folder.clone()).logs(logs);
    if let Some(settings) = traces {
        state = state.traces(Tracer::start(settings, &tasks)?);
    }
    if let Some(file) = options.payload_log.clone() {
        let payloads = Payloads { percent: options.payload_percent, ..Payloads::default() };
        let log = PayloadLog::start(file, Some(payloads), &tasks);
        state = state.payloads(log.redact(options.payload_redact.clone()));
    } else {
        tell_of_unlogged(&repository);
    }
    let router = match data {
        Some(data) => kept::router(data, &options, state.clone(), &folder, &tasks)?,
        None => serving::router(state.clone()),
    };
    let scheme = if options.tls_cert.is_some() { "https" } else { "http" };
    println!("REST at {scheme}://{}, gRPC at {}", http.local_addr()?, grpc.local_addr()?);
    repository.list().iter().for_each(describe);
    if let Some(metrics) = metrics {
        println!("metrics at {scheme}://{}/metrics", metrics.local_addr()?);
        let front = serving::serve_metrics(door.clone(), metrics, state.clone(), tasks.shutdown());
        tasks.spawn("metrics-front", front);
    }
    tasks.spawn("rest-front", serving::serve_behind(door.clone(), http, router, tasks.shutdown()));
    tasks.spawn("grpc-front", serving::grpc::serve_behind(door, grpc, state, tasks.shutdown()));
    let every = Duration::from_secs(options.poll_seconds.max(1));
    tasks.spawn("models", folder.follow(every, tasks.shutdown()));
    settle(&tasks);
    daemon::wait_for_signal().await?;
    println!("ending");
    if !tasks.end(PATIENCE).await {
        eprintln!("some requests did not end within {} s", PATIENCE.as_secs());
    }
    Ok(())
}

/// Who is let in.
fn door(options: &ServeOptions, tasks: &Tasks) -> anyhow::Result<Door> {
    let mut door = Door::default().refuse_foreign_pages();
    if let (Some(certificate), Some(key)) = (&options.tls_cert, &options.tls_key) {
        let source = tls::Source::Files { certificate: certificate.clone(), key: key.clone() };
        let served =
            tls::Served::open(source, daemon::now()).context("the server's certificate can't be used")?;
        door = door.tls(Arc::clone(&served));
        let shutdown = tasks.shutdown();
        tasks.spawn("certificate", async move { served.keep_fresh(shutdown).await });
    }
    if let Some(file) = &options.token_file {
        let tokens = Tokens::open(file).context("--token-file can't be used")?;
        door = door.tokens(Arc::clone(&tokens));
        tasks.spawn("tokens", tokens.keep_fresh(tasks.shutdown()));
    }
    Ok(door)
}

/// Largest request in bytes.
fn message_limit(options: &ServeOptions) -> usize {
    usize::try_from(options.max_message_mib << 20).unwrap_or(usize::MAX)
}

/// A model may ask for a log that this server doesn't write.
fn tell_of_unlogged(repository: &Repository) {
    let asks = |status: &ModelStatus| {
        let model = repository.get(&status.name, Some(&status.version));
        model.is_ok_and(|model| model.serving().payloads.is_some())
    };
    for ModelStatus { name, .. } in repository.list().iter().filter(|status| asks(status)) {
        eprintln!(
            "warning: model {name} asks for its requests to be logged; say where with --payload-log FILE"
        );
    }
}

async fn listen(host: IpAddr, port: u16) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::new(host, port);
    TcpListener::bind(address).await.with_context(|| {
        format!("can't listen on {address}; is it taken? Another port, or 0 for a free one, can be given")
    })
}

fn repository(options: &ServeOptions, data: Option<&Data<'_>>) -> anyhow::Result<Repository> {
    let engines = Engines::discover(&options.libraries.options());
    let worker = Some(worker::command(options.allow_unconfined).with_libraries(&engines));
    let ledger = data.map(|data| data.ledger.clone());
    let trust_models = options.trust_models;
    let options = Options { worker, trust_models, ledger, ..sizes(options, Options::default()) };
    Repository::new(engines, options).context("inference can't start")
}

/// How much at once.
fn sizes(options: &ServeOptions, defaults: Options) -> Options {
    // Digits become up to four times as many bytes.
    let message = message_limit(options);
    let limits = Limits { elements: message, bytes: message.saturating_mul(4), ..defaults.limits };
    Options {
        workers: options.workers.unwrap_or(defaults.workers).max(1),
        queue: usize::try_from(options.queue).unwrap_or(usize::MAX),
        queue_bytes: limits.bytes.saturating_mul(2),
        cache_bytes: options.cache_mib << 20,
        model_bytes: options.model_memory.as_ref().map_or(defaults.model_bytes, Quantity::bytes),
        limits,
        ..defaults
    }
}

/// Loads what is wanted from the start. A model that can't be loaded is told; only where none can the server ends.
async fn load(folder: &Arc<Folder>, options: &ServeOptions) -> anyhow::Result<()> {
    let explicit = options.model_control == ModelControl::Explicit;
    let wanted = match explicit && !options.load_models.iter().any(|name| name == "*") {
        true => options.load_models.clone(),
        false => folder.names(),
    };
    folder.skipped().iter().for_each(|skipped| eprintln!("skipped {skipped}"));
    if wanted.is_empty() && options.data.is_none() && !explicit {
        bail!(
            "there is no model in what was named; a folder holds NAME.onnx, NAME/1/model.onnx or another format's file \
             in its place: see `avocet serve --help`"
        );
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
        (State::Idle, _) => println!("model {name} version {version}: loaded when it is asked for{default}"),
        (State::Failed { .. }, _) | (_, None) => {}
        (_, Some(engine)) => println!("model {name} version {version}: {engine}{default}"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: ServeOptions,
    }

    fn sized(arguments: &[&str]) -> Options {
        let line = Line::parse_from([&["serve", "m.onnx"], arguments].concat());
        sizes(&line.options, Options::default())
    }

    #[test]
    fn the_bounds_of_requests_follow_the_largest_message() {
        let (plain, defaults) = (sized(&[]), Options::default());
        assert_eq!((plain.limits, plain.queue_bytes), (defaults.limits, defaults.queue_bytes));
        assert_eq!((plain.queue, plain.cache_bytes), (defaults.queue, defaults.cache_bytes));
        assert_eq!(plain.model_bytes, defaults.model_bytes);
        let large = sized(&["--max-message-mib", "512"]);
        assert_eq!((large.limits.bytes, large.limits.elements), (2 << 30, 512 << 20));
        assert_eq!(large.queue_bytes, 4 << 30);
        let said = sized(&["--queue", "7", "--cache-mib", "0", "--model-memory", "1Gi", "--workers", "3"]);
        assert_eq!((said.queue, said.cache_bytes, said.model_bytes, said.workers), (7, 0, 1 << 30, 3));
    }
}
