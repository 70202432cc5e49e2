//! TensorFlow's models answer as TensorFlow itself does; `expected.json` was written by it.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use avocet_inference::{EngineChoice, Engines, Format, FormatError, LoadError, LoadOptions, Source, Tensor};
use serde_json::Value;
use types::{DeclaredTensor, ElementType, ModelSignature};

use crate::support::discovered;

const OPTIONS: LoadOptions = LoadOptions { workers: 1, threads: 0, instances: 0 };

fn data(name: &str) -> PathBuf {
    std::path::absolute(Path::new("tests/data/tensorflow").join(name)).unwrap()
}

/// The engines, if TensorFlow is among them.
fn with_tensorflow() -> Option<Engines> {
    let engines = discovered();
    let status = engines.list().into_iter().find(|engine| engine.name == "tensorflow").unwrap();
    if !status.available {
        assert!(
            std::env::var_os("AVOCET_TENSORFLOW").is_none_or(|path| path == "off"),
            "AVOCET_TENSORFLOW is set but unusable: {}",
            status.reason
        );
        println!("skipped: {}", status.reason);
        return None;
    }
    Some(engines)
}

/// A tensor of `[datatype, shape, values]`.
fn tensor(name: &str, value: &Value) -> Tensor {
    let shape: Vec<usize> =
        value[1].as_array().unwrap().iter().map(|size| size.as_u64().unwrap() as usize).collect();
    let values = value[2].as_array().unwrap();
    let float = |value: &Value| value.as_f64().unwrap();
    let whole = |value: &Value| value.as_i64().unwrap();
    let made = match value[0].as_str().unwrap() {
        "float32" => Tensor::from_vec(name, shape, values.iter().map(|v| float(v) as f32).collect()),
        "int64" => Tensor::from_vec(name, shape, values.iter().map(whole).collect()),
        "int32" => Tensor::from_vec(name, shape, values.iter().map(|v| whole(v) as i32).collect()),
        "int8" => Tensor::from_vec(name, shape, values.iter().map(|v| whole(v) as i8).collect()),
        "bytes" => Tensor::from_strings(name, shape, values.iter().map(|v| v.as_str().unwrap())),
        other => panic!("{other}"),
    };
    made.unwrap()
}

fn assert_same(given: &Tensor, expected: &Tensor) {
    assert_eq!(
        (given.datatype(), given.shape()),
        (expected.datatype(), expected.shape()),
        "{}",
        given.name()
    );
    if let (Ok(steps), Ok(wanted)) = (given.elements::<i8>(), expected.elements::<i8>()) {
        assert!(
            steps.iter().zip(wanted.iter()).all(|(a, b)| a.abs_diff(*b) <= 1),
            "{steps:?} is not {wanted:?}"
        );
        return;
    }
    let (Ok(numbers), Ok(wanted)) = (given.elements::<f32>(), expected.elements::<f32>()) else {
        assert_eq!(given.data(), expected.data(), "{}", given.name());
        return;
    };
    for (given, wanted) in numbers.iter().zip(wanted.iter()) {
        assert!((given - wanted).abs() < 1e-5, "{given} is not {wanted}");
    }
}

/// Loads the model from a path and asks what `expected.json` has for it.
fn assert_answers(engines: &Engines, path: &Path, case: &str) {
    assert_answers_on(engines, EngineChoice::Auto, path, case);
}

fn assert_answers_on(engines: &Engines, choice: EngineChoice, path: &Path, case: &str) {
    let expected: Value = serde_json::from_reader(File::open(data("expected.json")).unwrap()).unwrap();
    let tensors = |side: &str| -> Vec<Tensor> {
        expected[case][side].as_object().unwrap().iter().map(|(name, value)| tensor(name, value)).collect()
    };
    let loaded = engines.load(choice, path, &OPTIONS).unwrap();
    let (inputs, outputs) = (tensors("inputs"), tensors("outputs"));
    loaded.model.signature().check(&inputs, &outputs.iter().map(Tensor::name).collect::<Vec<_>>()).unwrap();
    let names: Vec<&str> = outputs.iter().map(Tensor::name).collect();
    let given = loaded.model.run(&inputs, &names).unwrap();
    assert_eq!(given.len(), outputs.len());
    given.iter().zip(&outputs).for_each(|(given, expected)| assert_same(given, expected));
}

#[test]
fn saved_models_of_keras_3_and_of_tensorflow_1_and_2_answer_as_tensorflow_does() {
    let Some(engines) = with_tensorflow() else { return };
    for case in ["keras3", "several", "shout", "tf1"] {
        assert_answers(&engines, &data(case), case);
    }
}

#[test]
fn a_frozen_graph_answers_by_its_placeholders_and_ends() {
    let Some(engines) = with_tensorflow() else { return };
    assert_answers(&engines, &data("frozen.pb"), "frozen.pb");
}

#[test]
fn a_graph_that_does_not_tell_its_outputs_is_served_with_declared_ones() {
    let Some(engines) = with_tensorflow() else { return };
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("graph.pb");
    // A node that does nothing uses `y`, so that nothing is left over.
    let end = b"\x0a\x0f\x0a\x03end\x12\x04NoOp\x1a\x02^y";
    std::fs::write(&graph, [std::fs::read(data("frozen.pb")).unwrap(), end.to_vec()].concat()).unwrap();
    let load = |declared: &ModelSignature| {
        let loaded = engines.load_declared(EngineChoice::Tensorflow, &graph, &OPTIONS, declared);
        loaded.map(|loaded| loaded.model).map_err(|error| error.to_string())
    };
    let refused = load(&ModelSignature::default()).err().unwrap();
    assert!(refused.contains("name inputs and outputs in the model's `signature`"), "{refused}");
    let tensor = |name: &str, datatype, shape: &[i64]| DeclaredTensor {
        name: name.into(),
        datatype: Some(datatype),
        shape: Some(shape.to_vec()),
    };
    let declared = |output: &str, datatype| ModelSignature {
        inputs: vec![tensor("x", ElementType::Fp32, &[2, 4])],
        outputs: vec![tensor(output, datatype, &[-1, -1])],
    };
    let model = load(&declared("MatMul", ElementType::Fp32)).unwrap();
    let signature = model.signature();
    assert_eq!(signature.inputs[0].shape, Some(vec![2, 4]), "what is declared is more than the graph tells");
    assert_eq!(signature.outputs[0].name, "MatMul");
    let zeros = Tensor::from_vec("x", [2, 4], vec![0.0_f32; 8]).unwrap();
    let given = model.run(&[zeros], &["MatMul"]).unwrap();
    assert!(given[0].elements::<f32>().unwrap().iter().all(|value| *value == 0.0));
    let wrong = load(&declared("MatMul", ElementType::Int64)).err().unwrap();
    assert!(
        wrong.contains("output `MatMul`: it is declared as INT64 [-1, -1] but the model has FP32"),
        "{wrong}"
    );
    assert!(load(&declared("nowhere", ElementType::Fp32)).err().unwrap().contains("nowhere"));
}

#[test]
fn tflite_models_answer_on_every_engine_as_tflite_does() {
    let engines = discovered();
    let translating = ["onnxruntime", "rten"];
    for engine in
        engines.list().into_iter().filter(|engine| engine.available && translating.contains(&engine.name))
    {
        for case in ["float.tflite", "int8.tflite"] {
            assert_answers_on(&engines, engine.name.parse().unwrap(), &data(case), case);
        }
    }
    if engines.list()[1].available {
        assert_answers(&engines, &data("two.tflite"), "two.tflite");
    }
}

#[test]
fn wrong_shapes_are_errors_of_tensorflow_and_not_crashes() {
    let Some(engines) = with_tensorflow() else { return };
    let model = engines.load(EngineChoice::Tensorflow, &data("tf1"), &OPTIONS).unwrap().model;
    let short = Tensor::from_vec("x", [1, 3], vec![1.0_f32; 3]).unwrap();
    let error = model.run(&[short], &["y"]).unwrap_err().to_string();
    assert!(error.contains("the engine failed"), "{error}");
    let empty = Tensor::from_vec("x", [0, 4], Vec::<f32>::new()).unwrap();
    assert_eq!(model.run(&[empty], &["y"]).unwrap()[0].shape(), [0, 3]);
}

#[test]
fn many_threads_share_one_session() {
    let Some(engines) = with_tensorflow() else { return };
    let model = engines.load(EngineChoice::Tensorflow, &data("several"), &OPTIONS).unwrap().model;
    std::thread::scope(|scope| {
        for number in 0..8_i64 {
            let model = &model;
            scope.spawn(move || {
                for _ in 0..50 {
                    let inputs = ["a", "b"].map(|name| Tensor::from_vec(name, [1], vec![number]).unwrap());
                    let given = model.run(&inputs, &["sum"]).unwrap();
                    assert_eq!(*given[0].elements::<i64>().unwrap(), [2 * number]);
                }
            });
        }
    });
}

#[test]
fn archives_of_a_saved_model_are_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    for (packed, arguments) in [
        ("plain.tar", "tar cf plain.tar -C DATA keras3"),
        ("small.tar.gz", "tar czf small.tar.gz -C DATA/keras3 ."),
        ("model.zip", "python3 -m zipfile -c model.zip DATA/keras3/."),
    ] {
        let command = arguments.replace("DATA", data("").to_str().unwrap());
        let made =
            std::process::Command::new("sh").args(["-c", &command]).current_dir(folder.path()).status();
        if !made.is_ok_and(|status| status.success()) {
            println!("skipped: {packed} can't be made here");
            continue;
        }
        let path = folder.path().join(packed);
        let source = Source::open(&path).unwrap();
        assert_eq!(source.format, Format::SavedModel);
        assert!(source.path.join("variables/variables.index").is_file(), "{packed}");
        if let Some(engines) = with_tensorflow() {
            assert_answers(&engines, &path, "keras3");
        }
    }
}

#[test]
fn a_zip_that_leads_out_of_its_folder_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("evil.zip");
    let name = b"../escaped";
    let mut zip = b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\x02\0\0\0\x0a\0\0\0".to_vec();
    zip.extend(name);
    zip.extend(b"hi");
    let directory = zip.len() as u32;
    zip.extend(b"PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\x02\0\0\0\x0a\0\0\0\0\0\0\0\0\0");
    zip.extend([0; 8]);
    zip.extend(name);
    let size = zip.len() as u32 - directory;
    zip.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
    zip.extend(size.to_le_bytes());
    zip.extend(directory.to_le_bytes());
    zip.extend([0, 0]);
    File::create(&path).unwrap().write_all(&zip).unwrap();
    let error = Source::open(&path).unwrap_err();
    assert!(matches!(&error, FormatError::Archive(problem) if problem.contains("../escaped")), "{error}");
}

#[test]
fn formats_that_are_not_served_say_how_to_export() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let lone = std::fs::read(data("keras3/saved_model.pb")).unwrap();
    for (path, advice) in [
        (write("model.h5", b"\x89HDF\r\n\x1a\nrest"), "model.export(folder)"),
        (write("saved_model.bin", &lone), "give the whole folder"),
        (folder.path().join("empty"), "saved_model.save"),
    ] {
        if !path.exists() {
            std::fs::create_dir(&path).unwrap();
        }
        let error = discovered().load(EngineChoice::Auto, &path, &OPTIONS).err().unwrap();
        let LoadError::Format { source, .. } = error else { panic!("{error}") };
        assert!(source.to_string().contains(advice), "{source}");
    }
}

#[test]
fn without_tensorflow_a_saved_model_says_what_to_install() {
    let options = avocet_inference::EngineOptions {
        tensorflow: Some("/nonexistent".into()),
        ..avocet_inference::EngineOptions::default()
    };
    let error =
        Engines::discover(&options).load(EngineChoice::Auto, &data("keras3"), &OPTIONS).err().unwrap();
    let text = error.to_string();
    assert!(text.contains("tensorflow is not available") && !text.contains("onnxruntime"), "{text}");
}
