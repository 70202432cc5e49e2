//! Ensembles as Triton's repository and clients know them.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use avocet_serving::{ControlMode, Folder, ServerState, grpc, router, serve};
use axum::Router;
use axum::http::StatusCode;
use inference::{EngineOptions, Engines, Options, Repository};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::onnx::identity;
use crate::support::{get, model, post};

const PIPE: &str = r#"
    platform: "ensemble"
    max_batch_size: 8
    input [ { name: "IN" data_type: TYPE_FP32 dims: [ 4 ] } ]
    output [ { name: "SCORES" data_type: TYPE_FP32 dims: [ 3 ] }, { name: "SAME" data_type: TYPE_FP32 dims: [ 4 ] } ]
    ensemble_scheduling { step [
        { model_name: "scores" model_version: -1
          input_map { key: "x" value: "IN" } output_map { key: "y" value: "raw" } },
        { model_name: "pass" model_version: -1
          input_map { key: "x" value: "raw" } output_map { key: "y" value: "SCORES" } },
        { model_name: "keep" model_version: 1
          input_map { key: "x" value: "IN" } output_map { key: "y" value: "SAME" } }
    ] }
"#;

/// `pipe` (before its models in the alphabet: `scores`, `pass`, `keep`), whose scores have labels.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, content: &[u8]| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    write("a_pipe/config.pbtxt", PIPE.as_bytes());
    write("scores/1/model.onnx", &std::fs::read(model("affine")).unwrap());
    write("pass/1/model.onnx", &identity(1, &[-1, 3]));
    write("keep/1/model.onnx", &identity(1, &[-1, 4]));
    for name in ["scores", "pass", "keep"] {
        write(&format!("{name}/config.pbtxt"), b"backend: \"rten\" max_batch_size: 8");
    }
    folder
}

struct Bench {
    app: Router,
    state: ServerState,
    folder: TempDir,
    problems: Vec<String>,
}

fn bench(change: impl FnOnce(&Path), mode: ControlMode) -> Bench {
    let folder = folder();
    change(folder.path());
    let engines = Engines::discover(&EngineOptions { onnxruntime: Some("off".into()), ..Default::default() });
    let repository = Repository::new(engines, Options { workers: 2, ..Options::default() }).unwrap();
    let control = Folder::open(vec![folder.path().into()], repository.clone(), mode).unwrap();
    let control = Arc::new(control);
    let wanted = if mode == ControlMode::Explicit { vec![] } else { control.names() };
    let problems = control.load_all(&wanted).iter().map(ToString::to_string).collect();
    let state = ServerState::new(repository).control(control);
    Bench { app: router(state.clone()), state, folder, problems }
}

const ASK: &str =
    r#"{"inputs": [{"name": "IN", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}"#;

#[tokio::test]
async fn an_ensemble_answers_like_a_model_and_its_models_count_their_part() {
    let bench = bench(|_| {}, ControlMode::None);
    assert!(bench.problems.is_empty(), "{:?}", bench.problems);
    let reply = post(&bench.app, "/v2/models/a_pipe/infer", ASK).await;
    assert_eq!(reply.status, StatusCode::OK, "{:?}", reply.body);
    let direct = ASK.replace("IN", "x");
    let direct = post(&bench.app, "/v2/models/scores/infer", direct).await.json();
    assert_eq!(reply.json()["outputs"][0]["data"], direct["outputs"][0]["data"]);
    assert_eq!(reply.json()["outputs"][1]["data"], json!([1.0, 2.0, 3.0, 4.0]));
    let metadata = get(&bench.app, "/v2/models/a_pipe").await.json();
    assert_eq!(metadata["inputs"], json!([{"name": "IN", "datatype": "FP32", "shape": [-1, 4]}]));
    let text = String::from_utf8(get(&bench.app, "/metrics").await.body.to_vec()).unwrap();
    for line in [
        r#"nv_inference_request_success{model="a_pipe",version="1"} 1"#,
        r#"nv_inference_exec_count{model="a_pipe",version="1"} 1"#,
        r#"nv_inference_request_success{model="scores",version="1"} 2"#,
        r#"nv_inference_request_success{model="pass",version="1"} 1"#,
    ] {
        assert!(text.contains(line), "{line}");
    }
}

#[tokio::test]
async fn loading_an_ensemble_loads_its_models() {
    let bench = bench(|_| {}, ControlMode::Explicit);
    let reply = post(&bench.app, "/v2/repository/models/a_pipe/load", "{}").await;
    assert_eq!(reply.status, StatusCode::OK, "{:?}", reply.body);
    for name in ["a_pipe", "scores", "pass", "keep"] {
        assert_eq!(
            get(&bench.app, &format!("/v2/models/{name}/ready")).await.status,
            StatusCode::OK,
            "{name}"
        );
    }
    // Without one of its models it isn't ready to answer, and says which.
    post(&bench.app, "/v2/repository/models/pass/unload", "{}").await;
    let reply = post(&bench.app, "/v2/models/a_pipe/infer", ASK).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(reply.error().contains("step `pass`"), "{}", reply.error());
}

#[tokio::test]
async fn unloading_an_ensemble_with_its_dependents_leaves_what_another_one_needs() {
    let second = PIPE.replace("a_pipe", "b_pipe");
    let add = |folder: &Path| {
        std::fs::create_dir_all(folder.join("b_pipe/1")).unwrap();
        std::fs::write(folder.join("b_pipe/config.pbtxt"), second).unwrap();
    };
    let bench = bench(add, ControlMode::Explicit);
    let ready = async |name: &str| get(&bench.app, &format!("/v2/models/{name}/ready")).await.status == 200;
    let unload = async |name: &str, body: &'static str| {
        post(&bench.app, &format!("/v2/repository/models/{name}/unload"), body).await.status.as_u16()
    };
    for name in ["a_pipe", "b_pipe"] {
        post(&bench.app, &format!("/v2/repository/models/{name}/load"), "{}").await;
        assert!(ready(name).await);
    }
    let with = r#"{"parameters": {"unload_dependents": true}}"#;
    assert_eq!(unload("a_pipe", r#"{"parameters": {"unload_dependents": "yes"}}"#).await, 400);
    assert_eq!(unload("a_pipe", with).await, 200);
    assert!(!ready("a_pipe").await && ready("b_pipe").await && ready("scores").await);
    assert_eq!(post(&bench.app, "/v2/models/b_pipe/infer", ASK).await.status, StatusCode::OK);
    assert_eq!(unload("b_pipe", r#"{"parameters": {"unload_dependents": false}}"#).await, 200);
    assert!(ready("scores").await);
    post(&bench.app, "/v2/repository/models/b_pipe/load", "{}").await;
    assert_eq!(unload("b_pipe", with).await, 200);
    for name in ["scores", "pass", "keep"] {
        assert!(!ready(name).await, "{name}");
    }
}

#[tokio::test]
async fn what_does_not_fit_is_told_and_not_served() {
    let with = |from: &'static str, to: &'static str| {
        let change = move |folder: &Path| {
            std::fs::write(folder.join("a_pipe/config.pbtxt"), PIPE.replace(from, to)).unwrap()
        };
        bench(change, ControlMode::None).problems.join("\n")
    };
    for (from, to, told) in [
        ("\"scores\"", "\"gone\"", "step `gone`: unknown model `gone`"),
        ("value: \"raw\" } output", "value: \"rwa\" } output", "takes tensor `rwa`, which is neither"),
        ("key: \"y\" value: \"raw\"", "key: \"z\" value: \"raw\"", "model `scores` has no output `z`"),
        ("dims: [ 3 ]", "dims: [ 5 ]", "declared as FP32 [-1, 5] but the model has FP32 [-1, 3]"),
        (
            "name: \"IN\" data_type: TYPE_FP32",
            "name: \"IN\" data_type: TYPE_INT64",
            "declared as INT64 [-1, 4]",
        ),
        (
            "value: \"IN\" } output_map { key: \"y\" value: \"raw\"",
            "value: \"SCORES\" } output_map { key: \"y\" value: \"raw\"",
            "wait for each other",
        ),
    ] {
        let problems = with(from, to);
        assert!(problems.contains(told), "{told} is not in {problems}");
    }
}

#[tokio::test]
async fn a_model_has_to_have_what_its_configuration_says() {
    let with = |config: &'static str| {
        let change = move |folder: &Path| std::fs::write(folder.join("keep/config.pbtxt"), config).unwrap();
        bench(change, ControlMode::None).problems.join("\n")
    };
    let wrong = with(r#"backend: "rten" input { name: "x" data_type: TYPE_INT64 dims: [ -1, 4 ] }"#);
    assert!(
        wrong.contains("input `x`: it is declared as INT64 [-1, 4] but the model has FP32 [-1, 4]"),
        "{wrong}"
    );
    let wrong = with(r#"backend: "rten" output { name: "out" dims: [ -1, 4 ] }"#);
    assert!(wrong.contains("output `out`: the model has no such output; it has `y`"), "{wrong}");
    assert_eq!(
        with(r#"backend: "rten" max_batch_size: 4 input { name: "x" data_type: TYPE_FP32 dims: 4 }"#),
        ""
    );
}

/// Set AVOCET_TEST_PYTHON to a Python that has `tritonclient[http,grpc]` and `numpy`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tritons_clients_use_an_ensemble_as_they_do_with_triton() {
    let Some(python) = std::env::var_os("AVOCET_TEST_PYTHON") else {
        println!("skipped: tritonclient; AVOCET_TEST_PYTHON is not set");
        return;
    };
    let Bench { state, folder, .. } = bench(|_| {}, ControlMode::Explicit);
    let tasks = daemon::Tasks::default();
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = [&http, &rpc].map(|listener| listener.local_addr().unwrap().to_string());
    tasks.spawn("rest", serve(http, router(state.clone()), tasks.shutdown()));
    tasks.spawn("grpc", grpc::serve(rpc, state, tasks.shutdown()));
    let script = Path::new("tests/clients/ensemble.py");
    let client = tokio::task::spawn_blocking(move || {
        Command::new(python).arg(script).args(addresses).output().unwrap()
    });
    let output = client.await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("ok: ensemble"), "{out}{err}");
    drop(folder);
}
