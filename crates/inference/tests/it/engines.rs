use std::sync::Arc;

use avocet_inference::{
    EngineChoice, EngineOptions, Engines, LoadError, LoadOptions, LoadRequest, Request, State, Tensor,
};

use crate::support::{Fake, copy_of, discovered, model, repository, x};

const OPTIONS: LoadOptions = LoadOptions { workers: 2, threads: 0, instances: 0 };

#[test]
fn native_and_rten_are_always_there_and_every_engine_says_why() {
    let list = discovered().list();
    let names: Vec<_> = list.iter().map(|engine| engine.name).collect();
    assert_eq!(names, ["native", "onnxruntime", "rten", "tensorflow"]);
    assert!(list[0].available && list[0].preferred && list[2].available);
    assert_eq!(list.iter().filter(|engine| engine.preferred).count(), 1);
    assert!(list.iter().all(|engine| !engine.reason.is_empty()));
    assert_eq!(list[1].available, list[1].path.is_some());
    if list[1].available {
        assert!(!list[1].version.is_empty(), "{:?}", list[1]);
    }
}

#[test]
fn a_library_that_is_not_there_is_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        EngineOptions { onnxruntime: Some(folder.path().join("none.so")), ..EngineOptions::default() };
    let engines = Engines::discover(&options);
    let list = engines.list();
    assert!(!list[1].available && list[1].reason.contains("none.so"), "{list:?}");
    let error = engines.load(EngineChoice::OnnxRuntime, &model("affine"), &OPTIONS).err().unwrap();
    assert!(matches!(error, LoadError::EngineUnavailable { .. }));
}

#[test]
fn a_file_that_is_no_library_is_passed_over_when_a_model_needs_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libonnxruntime.so");
    std::fs::write(&path, "not a library").unwrap();
    for place in [path.clone(), folder.path().to_path_buf()] {
        let engines =
            Engines::discover(&EngineOptions { onnxruntime: Some(place), ..EngineOptions::default() });
        assert!(engines.list()[1].available, "found, and not opened yet");
        let loaded = engines.load(EngineChoice::Auto, &model("affine"), &OPTIONS).unwrap();
        assert_eq!(loaded.engine, "rten");
        assert!(loaded.why.contains("onnxruntime is not available"), "{}", loaded.why);
        let list = engines.list();
        assert!(!list[1].available && !list[1].reason.is_empty(), "{list:?}");
        let error = engines.load(EngineChoice::OnnxRuntime, &model("affine"), &OPTIONS).err().unwrap();
        assert!(matches!(error, LoadError::EngineUnavailable { .. }));
    }
}

#[test]
fn auto_falls_back_when_the_preferred_engine_refuses_and_keeps_the_reason() {
    for refuse in ["operator Foo is unknown", "panic"] {
        let first = Fake { name: "first", refuse: Some(refuse), ..Fake::echo() };
        let second = Fake { name: "second", ..Fake::echo() };
        let engines = Engines::with(vec![Arc::new(first), Arc::new(second)]);
        let repository = repository(engines);
        let status = repository.load(LoadRequest::new("m", "1", model("log"))).unwrap();
        assert_eq!((status.engine, status.state), (Some("second"), State::Ready));
        let said = if refuse == "panic" { "it panicked: cannot read this" } else { refuse };
        assert!(status.why.contains("`first`") && status.why.contains(said), "{}", status.why);
        let tried: Vec<_> = status.tried.iter().map(|tried| (tried.engine, tried.load.is_some())).collect();
        assert_eq!(tried, [("first", false), ("second", true)]);
    }
}

#[test]
fn an_operator_that_rten_lacks_is_named() {
    let engines = discovered();
    let error = engines.load(EngineChoice::Rten, &model("celu"), &OPTIONS).err().unwrap();
    assert!(error.to_string().contains("Celu"), "{error}");
    let auto = engines.load(EngineChoice::Auto, &model("celu"), &OPTIONS);
    if engines.list()[1].available {
        assert_eq!(auto.unwrap().engine, "onnxruntime");
    } else {
        let reasons = auto.err().unwrap().to_string();
        assert!(reasons.contains("Celu") && reasons.contains("onnxruntime is not available"), "{reasons}");
    }
}

#[test]
fn files_that_are_no_models_are_refused_before_any_engine_sees_them() {
    let folder = tempfile::tempdir().unwrap();
    let garbage = folder.path().join("garbage.onnx");
    std::fs::write(&garbage, vec![0x3a; 5000]).unwrap();
    let whole = std::fs::read(model("convolution")).unwrap();
    let cut = folder.path().join("cut.onnx");
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    for path in [garbage, cut, folder.path().join("missing.onnx"), folder.path().to_path_buf()] {
        let error = discovered().load(EngineChoice::Auto, &path, &OPTIONS).err().unwrap();
        assert!(matches!(error, LoadError::Format { .. }), "{error}");
    }
}

#[test]
fn models_with_flipped_bytes_never_take_the_process_down() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(model("affine")).unwrap();
    let path = folder.path().join("flipped.onnx");
    let engines = discovered();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x15;
        std::fs::write(&path, bytes).unwrap();
        if let Ok(loaded) = engines.load(EngineChoice::Rten, &path, &OPTIONS) {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                loaded.model.run(&[x(1, &[1.0; 4])], &["y"])
            }));
        }
    }
}

#[test]
fn rten_refuses_int64_values_that_it_would_wrap() {
    let repository = repository(discovered());
    let request = LoadRequest { engine: EngineChoice::Rten, ..LoadRequest::new("i", "1", model("int64")) };
    repository.load(request).unwrap();
    let infer = |value: i64| {
        let input = Tensor::from_vec("x", [1], vec![value]).unwrap();
        repository.get("i", None).unwrap().infer(Request::new([input])).unwrap().wait()
    };
    assert_eq!(*infer(-7).unwrap().outputs[0].elements::<i64>().unwrap(), [-14]);
    let error = infer(1 << 40).unwrap_err().to_string();
    assert!(error.contains("holds 1099511627776") && error.contains("engine `onnxruntime`"), "{error}");
}

#[test]
fn onnx_runtime_has_as_many_instances_as_are_asked_for_however_large_the_model_is() {
    let engines = discovered();
    if !engines.list().iter().any(|engine| engine.name == "onnxruntime" && engine.available) {
        println!("skipped: ONNX Runtime; it is not here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = copy_of("affine", &folder, "large.onnx");
    // The field 15 of 40 MiB: readers of models skip what they don't know.
    let padding = [0x7a, 0x80, 0x80, 0x80, 0x14].into_iter().chain(vec![0; 40 << 20]).collect();
    std::fs::write(&path, [std::fs::read(&path).unwrap(), padding].concat()).unwrap();
    let instances = |instances| {
        let options = LoadOptions { workers: 4, threads: 0, instances };
        engines.load(EngineChoice::OnnxRuntime, &path, &options).unwrap().model.instances()
    };
    assert_eq!([0, 3, 9].map(instances), [1, 3, 4]);
}
