//! Models of every format in a repository on disk.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use avocet_serving::{ControlMode, Folder, ServerState, grpc, router, serve};
use inference::{EngineOptions, Engines, Options, Repository, Request, State, Tensor};
use tokio::net::TcpListener;

use crate::folder::write;
use crate::onnx::identity;

fn data(file: &str) -> PathBuf {
    Path::new("../inference/tests/data").join(file)
}

/// Puts a file or folder of the tests' data into a repository.
fn put(place: &Path, from: &str, to: &str) {
    let (from, to) = (data(from), place.join(to));
    if !from.is_dir() {
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
        return;
    }
    for entry in walk(&from) {
        let target = to.join(entry.strip_prefix(&from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(&entry, target).unwrap();
    }
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

fn engines() -> Engines {
    let tensorflow = std::env::var_os("AVOCET_TENSORFLOW").map(PathBuf::from);
    Engines::discover(&EngineOptions { tensorflow, ..EngineOptions::default() })
}

fn open(paths: Vec<PathBuf>, engines: &Engines) -> (Repository, Folder) {
    let options = Options { workers: 1, ..Options::default() };
    let repository = Repository::new(engines.clone(), options).unwrap();
    let folder = Folder::open(paths, repository.clone(), ControlMode::None).unwrap();
    (repository, folder)
}

fn ready(repository: &Repository) -> Vec<String> {
    let ready = repository.list().into_iter().filter(|status| status.state == State::Ready);
    ready.map(|status| format!("{}:{}", status.name, status.version)).collect()
}

#[test]
fn lone_files_and_version_folders_of_classical_and_lite_models_are_served() {
    let place = tempfile::tempdir().unwrap();
    for (from, to) in [
        ("classical/lgb_binary.txt", "lone.txt"),
        ("classical/lgb_binary.txt", "lgb/1/model.txt"),
        ("classical/xgb_binary.json", "boosted/2/xgboost.json"),
        ("classical/xgb_binary.json", "fil/1/model.json"),
        ("classical/xgb_binary_ubj.ubj", "binary/1/model.ubj"),
        ("classical/xgb_binary_ubj.ubj", "loose.ubj"),
        ("tensorflow/float.tflite", "lite/1/model.tflite"),
        ("tensorflow/float.tflite", "flat.tflite"),
        ("affine.onnx", "plain/model.onnx"),
        ("external/affine", "weights/3"),
    ] {
        put(place.path(), from, to);
    }
    write(place.path(), "fil/config.pbtxt", b"backend: \"fil\"");
    let (repository, folder) = open(vec![place.path().into()], &engines());
    assert_eq!(folder.load_all(&folder.names()), []);
    let served = [
        "binary:1",
        "boosted:2",
        "fil:1",
        "flat:1",
        "lgb:1",
        "lite:1",
        "lone:1",
        "loose:1",
        "plain:1",
        "weights:3",
    ];
    assert_eq!(ready(&repository), served);
    assert_eq!(folder.skipped(), [""; 0]);
}

#[test]
fn lone_and_versioned_models_of_tensorflow_are_served() {
    let engines = engines();
    if !engines.list().iter().any(|engine| engine.name == "tensorflow" && engine.available) {
        println!("skipped: TensorFlow; AVOCET_TENSORFLOW is not set");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    for (from, to) in [
        ("tensorflow/keras3", "keras3"),
        ("tensorflow/keras3", "serving/4"),
        ("tensorflow/keras3", "triton/1/model.savedmodel"),
        ("tensorflow/frozen.pb", "frozen/1/model.graphdef"),
        ("tensorflow/frozen.pb", "lone.pb"),
    ] {
        put(place.path(), from, to);
    }
    write(place.path(), "triton/config.pbtxt", b"platform: \"tensorflow_savedmodel\"");
    write(place.path(), "frozen/config.pbtxt", b"platform: \"tensorflow_graphdef\"");
    let (repository, folder) = open(vec![place.path().into()], &engines);
    assert_eq!(folder.load_all(&folder.names()), []);
    assert_eq!(ready(&repository), ["frozen:1", "keras3:1", "lone:1", "serving:4", "triton:1"]);
    // The folder of one model may be named itself.
    let (repository, folder) = open(vec![data("tensorflow/keras3")], &engines);
    assert_eq!(folder.load_all(&folder.names()), []);
    assert_eq!(ready(&repository), ["keras3:1"]);
    let signature = repository.list().remove(0).signature.unwrap();
    let inputs = signature.inputs.iter().map(|spec| {
        let shape: Vec<usize> =
            spec.shape.iter().flatten().map(|&size| usize::try_from(size).unwrap_or(1)).collect();
        let zeros = vec![0_f32; shape.iter().product()];
        Tensor::from_vec(&spec.name, shape, zeros).unwrap()
    });
    let request = Request::new(inputs.collect::<Vec<_>>());
    assert!(repository.get("keras3", None).unwrap().infer(request).unwrap().wait().is_ok());
}

#[test]
fn what_is_no_model_is_skipped_with_a_reason_and_told_once() {
    let place = tempfile::tempdir().unwrap();
    for (path, content) in [
        ("good.onnx", identity(1, &[-1])),
        ("good.onnx.data", b"weights".to_vec()),
        ("notes.md", b"# Notes".to_vec()),
        ("keras.h5", b"\x89HDF\r\n\x1a\n".to_vec()),
        ("torch/1/model.pt", b"PK".to_vec()),
        ("nothing/readme", b"".to_vec()),
        ("some/1/model.onnx", identity(1, &[-1])),
        ("some/2/weights.bin", b"x".to_vec()),
    ] {
        write(place.path(), path, &content);
    }
    let (repository, folder) = open(vec![place.path().into()], &engines());
    assert_eq!(folder.load_all(&folder.names()), []);
    assert_eq!(ready(&repository), ["good:1", "some:1"]);
    let told = folder.skipped();
    for (path, why) in [
        ("keras.h5", "model.export(folder)"),
        ("notes.md", "neither its name nor its beginning"),
        ("nothing", "holds no model"),
        ("some/2", "holds no model"),
        ("torch/1", "torch.onnx.export"),
    ] {
        let is_it = |line: &&String| line.starts_with(&format!("{}: ", place.path().join(path).display()));
        let line = told.iter().find(is_it).unwrap_or_else(|| panic!("{path}: {told:?}"));
        assert!(line.contains(why), "{line}");
    }
    assert_eq!(told.len(), 5, "{told:?}");
    assert_eq!(folder.skipped(), [""; 0]);
}

/// A repository as people have it for Triton's backend `fil`.
fn fil_repository() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let model = |name: &str, width: u32, parameters: &str| {
        put(place.path(), "classical/xgb_binary.json", &format!("{name}/1/xgboost.json"));
        let config = format!(
            r#"name: "{name}" backend: "fil" max_batch_size: 8192
               input [ {{ name: "input__0" data_type: TYPE_FP32 dims: [ 5 ] }} ]
               output [ {{ name: "output__0" data_type: TYPE_FP32 dims: [ {width} ] }} ]
               instance_group [ {{ kind: KIND_AUTO }} ]
               parameters [
                 {{ key: "model_type" value: {{ string_value: "xgboost_json" }} }},
                 {{ key: "storage_type" value: {{ string_value: "AUTO" }} }}{parameters}
               ]"#
        );
        write(place.path(), &format!("{name}/config.pbtxt"), config.as_bytes());
    };
    let said =
        |key: &str, value: &str| format!(r#", {{ key: "{key}" value: {{ string_value: "{value}" }} }}"#);
    model("classes", 1, &said("output_class", "true"));
    model("strict", 1, &format!("{}{}", said("output_class", "true"), said("threshold", "0.9")));
    model("shares", 2, &said("predict_proba", "true"));
    model("scores", 1, "");
    place
}

/// Set AVOCET_TEST_PYTHON to a Python that has `tritonclient[http,grpc]` and `numpy`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tritons_clients_ask_boosted_trees_by_the_names_of_the_backend_fil() {
    let place = fil_repository();
    let (repository, folder) = open(vec![place.path().into()], &engines());
    assert_eq!(folder.load_all(&folder.names()), []);
    let Some(python) = std::env::var_os("AVOCET_TEST_PYTHON") else {
        println!("skipped: tritonclient; AVOCET_TEST_PYTHON is not set");
        return;
    };
    let state = ServerState::new(repository).control(Arc::new(folder));
    let tasks = daemon::Tasks::default();
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = [&http, &rpc].map(|listener| listener.local_addr().unwrap().to_string());
    tasks.spawn("rest", serve(http, router(state.clone()), tasks.shutdown()));
    tasks.spawn("grpc", grpc::serve(rpc, state, tasks.shutdown()));
    let client = tokio::task::spawn_blocking(move || {
        let script = Path::new("tests/clients/fil.py");
        let case = data("classical/xgb_binary.case");
        Command::new(python).arg(script).args(addresses).arg(case).output().unwrap()
    });
    let output = client.await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("ok: fil"), "{out}{err}");
}

#[test]
fn names_of_the_backend_fil_stand_for_every_boosted_model_and_for_no_other() {
    let place = tempfile::tempdir().unwrap();
    let config = |extra: &str| {
        format!(
            r#"backend: "fil" input {{ name: "input__0" }} output {{ name: "output__0" }}
               parameters {{ key: "output_class" value {{ string_value: "true" }} }} {extra}"#
        )
    };
    for (name, from, file) in [
        ("classes", "classical/lgb_multi.txt", "model.txt"),
        ("numbers", "classical/lgb_regression.txt", "model.txt"),
        ("targets", "classical/xgb_targets.ubj", "xgboost.ubj"),
        ("picture", "convolution.onnx", "model.onnx"),
    ] {
        put(place.path(), from, &format!("{name}/1/{file}"));
        write(place.path(), &format!("{name}/config.pbtxt"), config("").as_bytes());
    }
    put(place.path(), "classical/lgb_multi.txt", "wide/1/model.txt");
    let wide = r#"output { name: "output__1" }"#;
    write(place.path(), "wide/config.pbtxt", config(wide).as_bytes());
    let (repository, folder) = open(vec![place.path().into()], &engines());
    let problems: Vec<String> = folder.load_all(&folder.names()).iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("picture") && problems[0].contains("one FP32 table"), "{problems:?}");
    assert!(problems[1].contains("wide") && problems[1].contains("output__1"), "{problems:?}");
    let shape = |name: &str| {
        let model = repository.get(name, None).unwrap();
        let signature = model.signature().clone();
        assert_eq!(
            (signature.inputs[0].name.as_str(), signature.outputs[0].name.as_str()),
            ("input__0", "output__0")
        );
        let features = usize::try_from(signature.inputs[0].shape.as_ref().unwrap()[1]).unwrap();
        let input = Tensor::from_vec("input__0", [3, features], vec![0.5_f32; 3 * features]).unwrap();
        let answer = model.infer(Request::new([input])).unwrap().wait().unwrap();
        answer.outputs[0].shape().to_vec()
    };
    assert_eq!(["classes", "numbers"].map(shape), [vec![3, 1], vec![3, 1]]);
    assert!(shape("targets")[1] > 1, "what predicts no classes gives all of its predictions");
}
