//! Triton's own clients against a server as `avocet serve` sets one up.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use avocet_serving::{ControlMode, Folder, ServerState, grpc, router, serve};
use inference::{EngineOptions, Engines, Options, Repository};
use tokio::net::TcpListener;

use crate::onnx::{TYPES, identity};
use crate::support::model;

/// A repository in Triton's form: a model of each datatype, two with files of their own, a classifier with labels.
fn models(engine: &str) -> tempfile::TempDir {
    let backend = format!("backend: \"{engine}\"");
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, content: &[u8]| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    for (name, element) in TYPES {
        let folder = format!("id_{}", name.to_lowercase());
        write(&format!("{folder}/1/model.onnx"), &identity(element, &[-1]));
        write(&format!("{folder}/config.pbtxt"), backend.as_bytes());
    }
    let affine = std::fs::read(model("affine")).unwrap();
    for version in ["1", "2"] {
        write(&format!("affine/{version}/model.onnx"), &affine);
    }
    write("affine/config.pbtxt", format!("{backend} version_policy {{ all {{}} }}").as_bytes());
    write("add_sub.onnx", &std::fs::read(model("add_sub")).unwrap());
    write("classes/1/model.onnx", &identity(1, &[-1, 4]));
    let config = "max_batch_size: 8 output { name: \"y\" dims: 4 label_filename: \"labels.txt\" } \
                  dynamic_batching { max_queue_delay_microseconds: 100 }";
    write("classes/config.pbtxt", format!("{backend} {config}").as_bytes());
    write("classes/labels.txt", b"ant\nbee\ncat\n");
    folder
}

/// Set AVOCET_TEST_PYTHON to a Python that has `tritonclient[http,grpc]` and `numpy`.
async fn run_client(engine: &str, onnxruntime: Option<PathBuf>, datatypes: usize) {
    let Some(python) = std::env::var_os("AVOCET_TEST_PYTHON") else {
        println!("skipped: tritonclient; AVOCET_TEST_PYTHON is not set");
        return;
    };
    let folder = models(engine);
    let engine = engine.to_owned();
    let engines = Engines::discover(&EngineOptions { onnxruntime, ..EngineOptions::default() });
    let repository = Repository::new(engines, Options { workers: 2, ..Options::default() }).unwrap();
    let control =
        Folder::open(vec![folder.path().into()], repository.clone(), ControlMode::Explicit).unwrap();
    let control = Arc::new(control);
    let unservable = control.load_all(&control.names());
    assert_eq!(TYPES.len() - unservable.len(), datatypes, "{unservable:?}");
    let state = ServerState::new(repository).control(control).logs(daemon::start_logs("warn"));
    let tasks = daemon::Tasks::default();
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = [&http, &rpc].map(|listener| listener.local_addr().unwrap().to_string());
    tasks.spawn("rest", serve(http, router(state.clone()), tasks.shutdown()));
    tasks.spawn("grpc", grpc::serve(rpc, state, tasks.shutdown()));
    let script = Path::new("tests/clients/tritonclient_all.py");
    let client = tokio::task::spawn_blocking(move || {
        Command::new(python).arg(script).args(addresses).arg(model("int64")).arg(engine).output().unwrap()
    });
    let output = client.await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert_eq!(out.matches("ok: ").count(), 24, "{out}");
    assert!(tasks.end(std::time::Duration::from_secs(10)).await, "connections end with the server");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_works_unchanged_on_the_built_in_engine() {
    run_client("rten", None, RTEN_TYPES).await;
}

/// What rten takes of the 14 datatypes.
const RTEN_TYPES: usize = 8;

/// Set AVOCET_ONNXRUNTIME to its shared library.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_works_unchanged_on_onnx_runtime_with_all_datatypes() {
    let Some(library) = std::env::var_os("AVOCET_ONNXRUNTIME") else {
        println!("skipped: ONNX Runtime; AVOCET_ONNXRUNTIME is not set");
        return;
    };
    run_client("onnxruntime", Some(library.into()), TYPES.len()).await;
}
