//! Deadlines, overload and clients that go away, as Triton's clients see them.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use avocet_serving::{ServerState, grpc, router, serve};
use inference::{
    Engine, EngineError, EngineInfo, Engines, LoadError, LoadOptions, LoadRequest, LoadedModel, Options,
    Repository, Signature, Tensor, read_signature,
};
use tokio::net::TcpListener;

use crate::support::model;

/// Each run waits until it is let go.
#[derive(Clone)]
struct Held {
    let_go: Arc<Mutex<Receiver<()>>>,
    begun: Arc<AtomicU64>,
}

struct HeldModel(Signature, Held);

impl Engine for Held {
    fn info(&self) -> EngineInfo {
        EngineInfo { name: "held", version: "1".into(), path: None }
    }

    fn load(&self, path: &Path, _: &LoadOptions) -> Result<Arc<dyn LoadedModel>, LoadError> {
        Ok(Arc::new(HeldModel(read_signature(path).unwrap(), self.clone())))
    }
}

impl LoadedModel for HeldModel {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn instances(&self) -> usize {
        1
    }

    fn runs_on_caller(&self) -> bool {
        false
    }

    fn run(&self, inputs: &[Tensor], _: &[&str]) -> Result<Vec<Tensor>, EngineError> {
        self.1.begun.fetch_add(1, Relaxed);
        self.1.let_go.lock().unwrap().recv().map_err(|_| EngineError::Failed("nobody lets it go".into()))?;
        let values = inputs[0].elements::<f32>().unwrap().into_owned();
        Ok(vec![Tensor::from_vec("y", [1], values).unwrap()])
    }
}

/// Set AVOCET_TEST_PYTHON to a Python that has `tritonclient[http,grpc]` and `numpy`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadlines_overload_and_hang_ups_are_what_tritons_clients_expect() {
    let Some(python) = std::env::var_os("AVOCET_TEST_PYTHON") else {
        println!("skipped: tritonclient; AVOCET_TEST_PYTHON is not set");
        return;
    };
    let (let_go, wait) = channel();
    let held = Held { let_go: Arc::new(Mutex::new(wait)), begun: Arc::default() };
    let begun = Arc::clone(&held.begun);
    let options = Options { workers: 1, queue: 1, warm_up: false, ..Options::default() };
    let repository = Repository::new(Engines::with(vec![Arc::new(held)]), options).unwrap();
    repository.load(LoadRequest::new("log", "1", model("log"))).unwrap();
    let told = move || format!("runs_begun {}\n", begun.load(Relaxed));
    let state = ServerState::new(repository)
        .ready_when(move || let_go.send(()).is_ok())
        .further_metrics(Arc::new(told));
    let tasks = daemon::Tasks::default();
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = [&http, &rpc].map(|listener| listener.local_addr().unwrap().to_string());
    tasks.spawn("rest", serve(http, router(state.clone()), tasks.shutdown()));
    tasks.spawn("grpc", grpc::serve(rpc, state, tasks.shutdown()));
    let script = Path::new("tests/clients/limits.py");
    let client = tokio::task::spawn_blocking(move || {
        Command::new(python).arg(script).args(addresses).output().unwrap()
    });
    let output = client.await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert_eq!(out.matches("ok: ").count(), 9, "{out}");
    assert!(tasks.end(Duration::from_secs(10)).await, "connections end with the server");
}
