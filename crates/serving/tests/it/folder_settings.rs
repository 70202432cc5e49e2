//! `avocet.yaml` and `config.pbtxt` of models on disk, and versions that change together.

use avocet_serving::{Control, ControlMode, LoadModel};
use inference::{Request, State, Tensor};
use types::{Batching, PredictionCache};

use crate::folder::{disk, line, write};
use crate::onnx::identity;

const ALL: &[u8] = b"version_policy { all {} }";

#[test]
fn of_several_versions_all_change_or_none() {
    let disk = disk(ControlMode::Poll);
    let place = disk.place.path();
    write(place, "m/config.pbtxt", ALL);
    for version in [1, 2, 3] {
        write(place, &format!("m/{version}/model.onnx"), &identity(1, &[version]));
    }
    disk.folder.poll();
    let before = [line("m", "1", &[1]), line("m", "2", &[2]), line("m", "3", &[3])];
    assert_eq!(disk.served(), before);
    write(place, "m/1/model.onnx", &identity(1, &[10]));
    write(place, "m/2/model.onnx", b"broken");
    std::fs::remove_dir_all(place.join("m/3")).unwrap();
    write(place, "m/4/model.onnx", &identity(1, &[40]));
    disk.folder.poll();
    assert_eq!(disk.served(), before, "a broken version changes nothing of the others");
    let status = disk.repository.list();
    let first = status.iter().find(|status| status.version == "1").unwrap();
    assert!(first.last_error.as_ref().unwrap().starts_with("version `2` can't be loaded: "), "{first:?}");
    write(place, "m/2/model.onnx", &identity(1, &[20]));
    disk.folder.poll();
    assert_eq!(disk.served(), [line("m", "1", &[10]), line("m", "2", &[20]), line("m", "4", &[40])]);
    assert_eq!(disk.repository.get("m", None).unwrap().version(), "4");
    assert_eq!(disk.repository.list().len(), 3, "what failed and is gone is not listed");
}

#[test]
fn avocet_yaml_says_how_a_model_is_served_and_is_followed() {
    let disk = disk(ControlMode::Poll);
    let place = disk.place.path();
    write(place, "m/2/model.onnx", &identity(1, &[-1]));
    write(place, "m/3/model.onnx", &identity(1, &[-1]));
    write(place, "m/config.pbtxt", b"max_batch_size: 8");
    let yaml = "
defaultVersion: '2'
aliases: {champion: '1'}
traffic: {split: [{version: '2', weight: 1}, {version: '3', weight: 1}]}
serving:
  cache: {ttlSeconds: 30}
  finiteInputs: true
";
    write(place, "m/avocet.yaml", yaml.as_bytes());
    disk.folder.poll();
    let model = disk.repository.get("m", Some("champion")).unwrap();
    assert_eq!(model.version(), "1");
    let serving = model.serving();
    assert_eq!(serving.cache, Some(PredictionCache { ttl_seconds: 30 }));
    assert!(serving.finite_inputs);
    assert_eq!(serving.batching, Some(Batching { max_size: 8, max_delay_microseconds: 0 }));
    let nan = Request::new([Tensor::from_vec("x", [1], vec![f32::NAN]).unwrap()]);
    assert!(model.infer(nan).is_err());
    let shares: Vec<Option<u32>> = disk.repository.list().iter().map(|status| status.share).collect();
    assert_eq!(shares, [None, Some(50), Some(50)]);
    assert!(disk.repository.list()[1].default);

    write(place, "m/avocet.yaml", b"serving: {finiteInput: true}");
    disk.folder.poll();
    assert!(
        disk.repository.get("m", Some("champion")).unwrap().serving().finite_inputs,
        "a mistake changes nothing"
    );
    write(place, "m/avocet.yaml", b"serving: {lazy: false}");
    disk.folder.poll();
    assert_eq!(disk.served().len(), 1, "the newest alone, as no other one is named");
    let model = disk.repository.get("m", None).unwrap();
    assert_eq!((model.version(), model.serving().finite_inputs), ("3", false));
}

#[test]
fn mistakes_in_avocet_yaml_are_told_to_who_loads() {
    let disk = disk(ControlMode::Explicit);
    write(disk.place.path(), "m/avocet.yaml", b"serving: {threads: -1, drfit: {}}");
    let error = disk.folder.load("m", LoadModel::default()).unwrap_err().to_string();
    assert!(
        error.starts_with("failed to load 'm': avocet.yaml: serving.drfit: there is no such field"),
        "{error}"
    );
    assert!(error.contains("; serving.threads: Invalid value: -1"), "{error}");
}

#[test]
fn an_ensemble_may_be_declared_in_avocet_yaml_alone() {
    let disk = disk(ControlMode::None);
    let yaml = "
ensemble:
  inputs: [IN]
  outputs: [OUT]
  steps:
    - {name: first, model: m, inputs: {x: IN}, outputs: {y: OUT}}
";
    write(disk.place.path(), "pipe/avocet.yaml", yaml.as_bytes());
    assert_eq!(disk.folder.load_all(&disk.folder.names()), []);
    let model = disk.repository.get("pipe", None).unwrap();
    let names = |specs: &[inference::TensorSpec]| specs[0].name.clone();
    assert_eq!(
        (names(&model.signature().inputs), names(&model.signature().outputs)),
        ("IN".into(), "OUT".into())
    );
}

#[test]
fn lazy_models_are_known_and_loaded_when_they_are_asked_for() {
    let mut disk = disk(ControlMode::Poll);
    disk.folder = disk.folder.lazy(true);
    let place = disk.place.path();
    disk.folder.poll();
    assert_eq!(disk.repository.list()[0].state, State::Idle);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let loaded = runtime.block_on(disk.repository.obtain("m", None)).unwrap();
    assert_eq!(loaded.version(), "1");
    assert_eq!(disk.served(), [line("m", "1", &[-1])]);
    write(place, "m/1/model.onnx", b"broken");
    disk.folder.poll();
    assert_eq!(disk.served(), [line("m", "1", &[-1])], "what serves is not replaced by what can't");
    write(place, "m/1/model.onnx", &identity(1, &[7]));
    disk.folder.poll();
    assert_eq!(disk.served(), [line("m", "1", &[7])]);
}

#[test]
fn a_client_that_loads_a_lazy_model_has_it_loaded() {
    let mut disk = disk(ControlMode::Explicit);
    disk.folder = disk.folder.lazy(true);
    assert_eq!(disk.folder.load_all(&["m".into()]), []);
    assert_eq!(disk.repository.list()[0].state, State::Idle);
    disk.folder.load("m", LoadModel::default()).unwrap();
    assert_eq!(disk.served(), [line("m", "1", &[-1])]);
    write(disk.place.path(), "m/1/model.onnx", b"broken");
    assert!(disk.folder.load("m", LoadModel::default()).is_err());
    assert_eq!(disk.served(), [line("m", "1", &[-1])]);
}

#[test]
fn a_version_answers_its_warm_up_before_anybody_else() {
    let disk = disk(ControlMode::Poll);
    let place = disk.place.path();
    let config = |input: &str| {
        format!("model_warmup {{ name: \"w\" inputs {{ key: \"x\" value {{ {input} }} }} }}").into_bytes()
    };
    write(place, "m/warmup/two", &[0; 8]);
    write(place, "m/config.pbtxt", &config("data_type: TYPE_FP32 dims: [ 2 ] input_data_file: \"two\""));
    disk.folder.poll();
    assert_eq!(disk.served(), [line("m", "1", &[-1])]);
    for (input, told) in [
        ("data_type: TYPE_INT32 dims: [ 2 ] zero_data: true", "warm-up request `w`"),
        ("data_type: TYPE_FP32 dims: [ 2 ] input_data_file: \"../1/model.onnx\"", "not the name of a file"),
        ("data_type: TYPE_FP32 dims: [ 2 ] input_data_file: \"gone\"", "file `gone`"),
    ] {
        let other = crate::folder::disk(ControlMode::Explicit);
        write(other.place.path(), "m/config.pbtxt", &config(input));
        let error = other.folder.load("m", LoadModel::default()).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
        assert_eq!(other.served(), []);
    }
}
