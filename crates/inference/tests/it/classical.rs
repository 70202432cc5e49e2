//! Classical models: the native engine gives what the library that trained them gives, and what ONNX Runtime gives.

use std::path::PathBuf;

use avocet_inference::{Datatype, EngineChoice, LoadOptions, LoadedModel, Tensor, fuzzing};
use serde_json::Value;

use crate::support::discovered;

const OPTIONS: LoadOptions = LoadOptions { workers: 1, threads: 0, instances: 0 };

fn folder() -> PathBuf {
    PathBuf::from("tests/data/classical")
}

/// Models with answers: the file, and the name that its case has.
fn cases() -> Vec<(PathBuf, String)> {
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let end = path.extension().unwrap_or_default().to_owned();
        let case = path.with_extension("case");
        if ["onnx", "json", "ubj", "txt"].iter().any(|known| end == *known) && case.exists() {
            cases.push((path.clone(), path.file_stem().unwrap().to_str().unwrap().to_owned()));
        }
    }
    cases.sort();
    cases
}

fn tensor(described: &Value) -> Tensor {
    let name = described["name"].as_str().unwrap();
    let shape: Vec<usize> =
        described["shape"].as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as usize).collect();
    let data = described["data"].as_array().unwrap();
    let numbers = || data.iter().map(|x| x.as_f64().unwrap_or(f64::NAN));
    let tensor = match described["datatype"].as_str().unwrap().parse().unwrap() {
        Datatype::Fp32 => Tensor::from_vec(name, shape, numbers().map(|x| x as f32).collect()),
        Datatype::Fp64 => Tensor::from_vec(name, shape, numbers().collect::<Vec<f64>>()),
        Datatype::Int64 => Tensor::from_vec(name, shape, data.iter().map(|x| x.as_i64().unwrap()).collect()),
        Datatype::Bytes => Tensor::from_strings(name, shape, data.iter().map(|x| x.as_str().unwrap())),
        other => panic!("no {other} in cases"),
    };
    tensor.unwrap()
}

/// Inputs and expected outputs of a case.
fn case(name: &str) -> (Vec<Tensor>, Vec<Tensor>) {
    let text = std::fs::read_to_string(folder().join(format!("{name}.case"))).unwrap();
    let case: Value = serde_json::from_str(&text).unwrap();
    let list = |key: &str| case[key].as_array().unwrap().iter().map(tensor).collect();
    (list("inputs"), list("outputs"))
}

fn run(model: &dyn LoadedModel, inputs: &[Tensor]) -> Vec<Tensor> {
    let outputs: Vec<&str> = model.signature().outputs.iter().map(|spec| spec.name.as_str()).collect();
    model.run(inputs, &outputs).unwrap()
}

/// What differs, if anything: numbers agree within a share of the greatest of them, all else is the same.
fn difference(given: &Tensor, expected: &Tensor, within: f32) -> Option<String> {
    let shown = |tensor: &Tensor| format!("{} {:?}", tensor.datatype(), tensor.shape());
    if (given.datatype(), given.shape()) != (expected.datatype(), expected.shape()) {
        return Some(format!("`{}` is {}, not {}", given.name(), shown(given), shown(expected)));
    }
    if given.datatype() != Datatype::Fp32 {
        return (given.data() != expected.data()).then(|| format!("`{}` differs", given.name()));
    }
    let (numbers, expected) = (given.elements::<f32>().unwrap(), expected.elements::<f32>().unwrap());
    let scale = expected.iter().copied().map(f32::abs).fold(1.0, f32::max);
    let pairs = numbers.iter().zip(expected.iter());
    let apart =
        pairs.enumerate().find(|(_, (a, b))| (*a - *b).abs() > within * scale || a.is_nan() != b.is_nan());
    apart.map(|(at, (a, b))| format!("`{}` has {a} at {at}, not {b}", given.name()))
}

fn differences(given: &[Tensor], expected: &[Tensor], within: f32) -> Vec<String> {
    assert_eq!(given.len(), expected.len());
    given.iter().zip(expected).filter_map(|(given, expected)| difference(given, expected, within)).collect()
}

/// Cases that are refused, and what the refusal says.
const REFUSED: [(&str, &str); 2] =
    [("neighbours", "no operator Scan"), ("lgb_linear", "leaves are linear models")];

#[test]
fn native_gives_what_the_training_library_gives() {
    let engines = discovered();
    let cases = cases();
    assert!(cases.len() > 60, "only {} cases", cases.len());
    let mut problems = Vec::new();
    for (path, name) in cases {
        let loaded = engines.load(EngineChoice::Native, &path, &OPTIONS);
        let refusal = REFUSED.iter().find(|(refused, _)| *refused == name).map(|(_, reason)| reason);
        match (loaded, refusal) {
            (Ok(loaded), None) => {
                let (inputs, expected) = case(&name);
                let found = differences(&run(loaded.model.as_ref(), &inputs), &expected, 2e-6);
                problems.extend(found.into_iter().map(|found| format!("{name}: {found}")));
            }
            (Ok(_), Some(_)) => problems.push(format!("{name} is not refused")),
            (Err(error), Some(reason)) if error.to_string().contains(reason) => {}
            (Err(error), _) => problems.push(format!("{name}: {error}")),
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Rows that no case has: on the values of the training data, beside them, and far away.
fn strangers(model: &dyn LoadedModel, rows: usize) -> Option<Vec<Tensor>> {
    let inputs = model.signature().inputs.iter().map(|spec| {
        let width = *spec.shape.as_ref()?.get(1)? as usize;
        let numbers =
            (0..rows * width).map(|at| ((at * 7919 % 1009) as f32 - 300.0) / [100.0, 1000.0, 7.0][at % 3]);
        let data = match spec.datatype {
            Datatype::Fp32 => Tensor::from_vec(spec.name.as_str(), [rows, width], numbers.collect()),
            Datatype::Fp64 => {
                Tensor::from_vec(spec.name.as_str(), [rows, width], numbers.map(f64::from).collect())
            }
            Datatype::Int64 => {
                Tensor::from_vec(spec.name.as_str(), [rows, width], numbers.map(|x| x as i64).collect())
            }
            _ => return None,
        };
        data.ok()
    });
    inputs.collect()
}

#[test]
fn native_gives_what_onnx_runtime_gives() {
    let engines = discovered();
    if !engines.list()[1].available {
        println!("skipped: {}", engines.list()[1].reason);
        return;
    }
    let mut problems = Vec::new();
    for (path, name) in cases() {
        let refused = REFUSED.iter().any(|(refused, _)| *refused == name);
        if refused || path.extension().unwrap() != "onnx" {
            continue;
        }
        let native = engines.load(EngineChoice::Native, &path, &OPTIONS).unwrap().model;
        let other = engines.load(EngineChoice::OnnxRuntime, &path, &OPTIONS).unwrap().model;
        // ONNX Runtime's outputs are those that are tensors.
        let outputs: Vec<&str> = other.signature().outputs.iter().map(|spec| spec.name.as_str()).collect();
        let batches = [1, 7, 8, 9, 300].map(|rows| strangers(native.as_ref(), rows));
        for inputs in batches.into_iter().flatten().chain([case(&name).0]) {
            let (given, expected) =
                (native.run(&inputs, &outputs).unwrap(), other.run(&inputs, &outputs).unwrap());
            // Where large numbers cancel out, the order of additions shows.
            let cancels = name == "bayes" || name.starts_with("svc");
            let found = differences(&given, &expected, if cancels { 5e-5 } else { 1e-6 });
            problems.extend(
                found.into_iter().map(|found| format!("{name}, {} rows: {found}", inputs[0].shape()[0])),
            );
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Numbers that look random and are the same each time.
fn scrambled(seed: u64) -> impl Iterator<Item = usize> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize
    })
}

#[test]
fn broken_model_files_are_refused_or_run_without_panic_or_absurd_memory() {
    let engines = discovered();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("model");
    for (seed, (path, _)) in cases().into_iter().enumerate() {
        let whole = std::fs::read(path).unwrap();
        let mut random = scrambled(seed as u64 + 1);
        let mut next = |below: usize| random.next().unwrap() % below.max(1);
        for round in 0..24 {
            let mut bytes = whole.clone();
            // Bytes next to the beginning hold the structure; the rest is mostly numbers.
            let reach = if round % 2 == 0 { 400.min(bytes.len()) } else { bytes.len() };
            for _ in 0..=next(4) {
                let at = next(reach);
                match next(4) {
                    0 => bytes[at] ^= 1 << next(8),
                    1 => bytes[at] = [0, 0xff, b'9', b'-', b'[', b'{', 0x80][next(7)],
                    2 => bytes.truncate(at.max(1)),
                    _ => drop(bytes.splice(at..at, whole[at..].iter().copied().take(next(64))).count()),
                }
                if bytes.len() < reach {
                    break;
                }
            }
            fuzzing::models(&engines, &place, &bytes);
        }
    }
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(peak < 1 << 20, "{peak} kB at the peak");
    }
}

#[test]
fn deep_nesting_and_great_promises_are_refused() {
    let engines = discovered();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("model");
    let deep = [b"{L\0\0\0\0\0\0\0\x01a".to_vec(), vec![b'['; 1 << 20]].concat();
    let long = b"{L\0\0\0\0\0\0\0\x07learner{U\x0aattributes[$L#L\x7f\xff\xff\xff\xff\xff\xff\xff".to_vec();
    let empty = b"{U\x01a[$N#L\x7f\xff\xff\xff\xff\xff\xff\xff".to_vec();
    let json = [b"{\"a\":".to_vec(), vec![b'['; 1 << 20]].concat();
    let text = b"tree\nnum_tree_per_iteration=99999999999\nmax_feature_idx=18446744073709551615\n".to_vec();
    for bytes in [deep, long, empty, json, text] {
        std::fs::write(&place, &bytes).unwrap();
        for choice in [EngineChoice::Native, EngineChoice::Auto] {
            let error = engines.load(choice, &place, &OPTIONS).err().unwrap().to_string();
            assert!(error.contains("`native`") && !error.contains("panicked"), "{error}");
        }
    }
}

#[test]
fn sets_of_categories_that_overlap_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |name: &str, change: &dyn Fn(String) -> String| {
        let model = std::fs::read_to_string(self::folder().join(name)).unwrap();
        let place = folder.path().join(name);
        std::fs::write(&place, change(model)).unwrap();
        discovered().load(EngineChoice::Native, &place, &OPTIONS).err().map(|error| error.to_string())
    };
    assert_eq!(refused("lgb_categories.txt", &|model| model), None);
    let error =
        refused("lgb_categories.txt", &|model| model.replace("cat_boundaries=0 ", "cat_boundaries=9 0 "));
    assert!(error.unwrap().contains("sets of categories"));
    assert_eq!(refused("xgb_one_category.json", &|model| model), None);
    let twice = |model: String| {
        let mut model: Value = serde_json::from_str(&model).unwrap();
        for tree in model["learner"]["gradient_booster"]["model"]["trees"].as_array_mut().unwrap() {
            let all = tree["categories"].as_array().unwrap().len();
            for (list, value) in [("categories_segments", 0), ("categories_sizes", all)] {
                tree[list].as_array_mut().unwrap().iter_mut().for_each(|x| *x = value.into());
            }
        }
        model.to_string()
    };
    assert!(refused("xgb_one_category.json", &twice).unwrap().contains("categories are out of range"));
}

#[test]
fn other_engines_refuse_what_only_native_reads() {
    let error =
        discovered().load(EngineChoice::Rten, &folder().join("xgb_binary.json"), &OPTIONS).err().unwrap();
    assert!(error.to_string().contains("can't load"), "{error}");
}

#[test]
fn labels_of_classes_are_known_where_the_file_names_them() {
    let engines = discovered();
    let labels = |name: &str, output: &str| {
        let loaded = engines.load(EngineChoice::Auto, &folder().join(name), &OPTIONS).unwrap();
        assert_eq!(loaded.engine, "native");
        loaded.model.labels(output).map(<[String]>::to_vec)
    };
    let named = labels("iris_forest_names.onnx", "output_probability").unwrap();
    assert_eq!(named, ["setosa", "versicolor", "virginica"]);
    assert_eq!(labels("iris_forest_table.onnx", "probabilities").unwrap(), ["0", "1", "2"]);
    assert_eq!(labels("iris_forest.onnx", "output_label"), None);
    assert_eq!(labels("xgb_multi.json", "probabilities"), None);
}

#[test]
fn models_that_are_not_classical_are_left_to_other_engines() {
    let engines = discovered();
    for (name, reason) in [("affine", "no operator of ai.onnx.ml"), ("convolution", "no operator Conv")] {
        let error = engines.load(EngineChoice::Native, &crate::support::model(name), &OPTIONS).err().unwrap();
        assert!(error.to_string().contains(reason), "{error}");
        let loaded = engines.load(EngineChoice::Auto, &crate::support::model(name), &OPTIONS).unwrap();
        assert!(loaded.engine != "native" && loaded.why.contains(reason), "{}", loaded.why);
    }
}

#[test]
fn rows_of_another_width_are_refused_with_both_numbers() {
    let engines = discovered();
    let model =
        engines.load(EngineChoice::Native, &folder().join("iris_forest.onnx"), &OPTIONS).unwrap().model;
    let narrow = Tensor::from_vec("X", [1, 2], vec![1.0_f32, 2.0]).unwrap();
    let error = model.run(&[narrow], &["output_label"]).unwrap_err().to_string();
    assert!(error.contains("`X` has 2 features where 4 are asked for"), "{error}");
    let empty = Tensor::from_vec("X", [0, 4], Vec::<f32>::new()).unwrap();
    let given = model.run(&[empty], &["output_probability"]).unwrap();
    assert_eq!(given[0].shape(), [0, 3]);
}
