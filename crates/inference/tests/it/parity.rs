//! Both engines give the same answers on the committed models, within 1e-4.

use std::sync::Arc;

use avocet_inference::{Datatype, EngineChoice, Engines, LoadOptions, LoadedModel, Tensor};

use crate::support::{discovered, model, renamed, x};

fn load(engines: &Engines, choice: EngineChoice, name: &str) -> Arc<dyn LoadedModel> {
    engines.load(choice, &model(name), &LoadOptions { workers: 1, threads: 0, instances: 0 }).unwrap().model
}

/// Engines to compare: always rten, ONNX Runtime where its library is found.
pub fn choices(engines: &Engines) -> Vec<EngineChoice> {
    if engines.list()[1].available {
        return vec![EngineChoice::Rten, EngineChoice::OnnxRuntime];
    }
    assert!(
        std::env::var_os("AVOCET_ONNXRUNTIME").is_none_or(|path| path == "off"),
        "AVOCET_ONNXRUNTIME is set but unusable: {}",
        engines.list()[1].reason
    );
    println!("skipped: parity with ONNX Runtime; {}", engines.list()[1].reason);
    vec![EngineChoice::Rten]
}

fn assert_close(name: &str, given: &Tensor, expected: &[f32]) {
    let given = given.elements::<f32>().unwrap();
    assert_eq!(given.len(), expected.len(), "{name}");
    for (given, expected) in given.iter().zip(expected) {
        assert!((given - expected).abs() <= 1e-4, "{name}: {given} is not {expected}");
    }
}

#[test]
fn affine_gives_the_numbers_that_arithmetic_gives() {
    let engines = discovered();
    for choice in choices(&engines) {
        let affine = load(&engines, choice, "affine");
        let given = affine.run(&[x(2, &[1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0])], &["y"]).unwrap();
        assert_eq!(given[0].shape(), [2, 3]);
        assert_close("affine", &given[0], &[1.0, 2.1, 3.2, 2.8, 4.2, 5.6]);
    }
}

#[test]
fn outputs_come_in_the_order_asked_for() {
    let engines = discovered();
    let a = renamed(&x(1, &[5.0, 6.0, 7.0, 8.0]), "a");
    let b = renamed(&x(1, &[1.0, 2.0, 3.0, 4.0]), "b");
    for choice in choices(&engines) {
        let add_sub = load(&engines, choice, "add_sub");
        let both = add_sub.run(&[b.clone(), a.clone()], &["difference", "sum"]).unwrap();
        assert_close("difference", &both[0], &[4.0, 4.0, 4.0, 4.0]);
        assert_close("sum", &both[1], &[6.0, 8.0, 10.0, 12.0]);
        let one = add_sub.run(&[a.clone(), b.clone()], &["sum"]).unwrap();
        assert_eq!((one.len(), one[0].name()), (1, "sum"));
    }
}

#[test]
fn narrow_and_wide_types_keep_their_declared_datatype() {
    let engines = discovered();
    let half = half_tensor("half", &[0.5, -2.0]);
    for choice in choices(&engines) {
        let small = load(&engines, choice, "small_types");
        let inputs = [
            Tensor::from_vec("flag", [2], vec![true, false]).unwrap(),
            Tensor::from_vec("byte", [2], vec![0_u8, 255]).unwrap(),
            half.clone(),
            Tensor::from_vec("double", [2], vec![0.25_f64, -8.0]).unwrap(),
        ];
        let given = small.run(&inputs, &["not_flag", "same_byte", "minus_half", "minus_double"]).unwrap();
        assert_eq!(*given[0].elements::<bool>().unwrap(), [false, true]);
        assert_eq!(*given[1].elements::<u8>().unwrap(), [0, 255]);
        assert_eq!(given[2].data(), half_tensor("h", &[-0.5, 2.0]).data());
        assert_eq!(*given[3].elements::<f64>().unwrap(), [-0.25, 8.0]);
    }
}

/// FP16 bytes of numbers that are exact in it, without the crate `half`: sign, exponent, fraction.
fn half_tensor(name: &str, values: &[f32]) -> Tensor {
    let bits = |value: &f32| {
        let bits = value.to_bits();
        let exponent = ((bits >> 23) & 0xff) + 15 - 127;
        u16::try_from((bits >> 16) & 0x8000 | (exponent << 10) | ((bits >> 13) & 0x3ff)).unwrap()
    };
    let data: Vec<u8> = values.iter().flat_map(|value| bits(value).to_le_bytes()).collect();
    Tensor::from_bytes(name, Datatype::Fp16, [values.len()], data.into()).unwrap()
}

#[test]
fn a_small_image_model_agrees_between_the_engines() {
    let engines = discovered();
    let image: Vec<f32> = (0..2 * 3 * 8 * 8).map(|i| ((i * 37 % 101) as f32) / 101.0).collect();
    let image = Tensor::from_vec("image", [2, 3, 8, 8], image).unwrap();
    let mut answers = Vec::new();
    for choice in choices(&engines) {
        let model = load(&engines, choice, "convolution");
        let scores = model.run(std::slice::from_ref(&image), &["scores"]).unwrap().remove(0);
        assert_eq!(scores.shape(), [2, 5]);
        let row: f32 = scores.elements::<f32>().unwrap()[..5].iter().sum();
        assert!((row - 1.0).abs() < 1e-4);
        answers.push(scores);
    }
    let first = answers[0].elements::<f32>().unwrap().into_owned();
    answers.iter().for_each(|scores| assert_close("convolution", scores, &first));
}

#[test]
fn infinities_and_nan_pass_through() {
    let engines = discovered();
    for choice in choices(&engines) {
        let log = load(&engines, choice, "log");
        let input = Tensor::from_vec("x", [3], vec![1.0_f32, 0.0, -1.0]).unwrap();
        let given = log.run(&[input], &["y"]).unwrap();
        let given = given[0].elements::<f32>().unwrap();
        assert_eq!((given[0], given[1], given[2].is_nan()), (0.0, f32::NEG_INFINITY, true));
    }
}

#[test]
fn an_output_that_is_no_tensor_is_left_out() {
    let engines = discovered();
    for choice in choices(&engines) {
        let sequence = load(&engines, choice, "sequence");
        let names: Vec<_> = sequence.signature().outputs.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(names, ["y"]);
        let input = Tensor::from_vec("x", [1], vec![3.0_f32]).unwrap();
        assert_close("sequence", &sequence.run(&[input], &["y"]).unwrap()[0], &[3.0]);
    }
}

#[test]
fn strings_pass_through_where_the_engine_has_them() {
    let engines = discovered();
    let error = engines
        .load(EngineChoice::Rten, &model("strings"), &LoadOptions { workers: 1, threads: 0, instances: 0 })
        .err()
        .unwrap();
    assert!(error.to_string().contains("`text` is BYTES, which rten lacks"), "{error}");
    if choices(&engines).contains(&EngineChoice::OnnxRuntime) {
        let strings = load(&engines, EngineChoice::OnnxRuntime, "strings");
        let text = Tensor::from_strings("text", [2], ["", "gr\u{fc}n"]).unwrap();
        let same = strings.run(&[text], &["same"]).unwrap();
        assert_eq!(same[0].strings().collect::<Vec<_>>(), [&b""[..], "gr\u{fc}n".as_bytes()]);
    }
}

#[test]
fn an_empty_batch_is_answered_or_refused_without_harm() {
    let engines = discovered();
    for choice in choices(&engines) {
        let affine = load(&engines, choice, "affine");
        let empty = Tensor::from_vec("x", [0, 4], Vec::<f32>::new()).unwrap();
        if let Ok(given) = affine.run(&[empty], &["y"]) {
            assert_eq!(given[0].shape(), [0, 3]);
        }
    }
}
