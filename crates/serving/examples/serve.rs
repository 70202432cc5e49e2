//! Serves model files over REST and gRPC, for measurements: `serve HTTP_PORT GRPC_PORT FILE…`.

#![allow(clippy::unwrap_used, reason = "it is run by hand")]

use std::path::PathBuf;

use avocet_serving::{ServerState, grpc, router};
use inference::{EngineOptions, Engines, LoadRequest, Options, Repository};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut port = || format!("127.0.0.1:{}", arguments.next().unwrap());
    let (http, grpc_port) = (port(), port());
    let onnxruntime = std::env::var_os("AVOCET_ONNXRUNTIME").map(PathBuf::from);
    let engines = Engines::discover(&EngineOptions { onnxruntime, ..EngineOptions::default() });
    let repository = Repository::new(engines, Options::default()).unwrap();
    for file in arguments.map(PathBuf::from) {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        repository.load(LoadRequest::new(name, "1", file)).unwrap();
    }
    let state = ServerState::new(repository);
    let tasks = daemon::Tasks::default();
    let listener = TcpListener::bind(grpc_port).await.unwrap();
    tasks.spawn("grpc", grpc::serve(listener, state.clone(), tasks.shutdown()));
    let listener = TcpListener::bind(http).await.unwrap();
    avocet_serving::serve(listener, router(state), tasks.shutdown()).await;
}
