//! Models of every format in a repository on disk.

use std::path::{Path, PathBuf};

use avocet_serving::{ControlMode, Folder};
use inference::{EngineOptions, Engines, Options, Repository, Request, State, Tensor};

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
