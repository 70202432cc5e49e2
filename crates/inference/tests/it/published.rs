//! `model check` on models that people publish, as far as packages carry them.

use std::path::PathBuf;

use avocet_inference::{EngineOptions, check};

#[test]
fn every_engine_that_takes_a_published_model_is_measured_on_inputs_that_are_made_up() {
    let Some(packages) = std::env::var_os("AVOCET_TEST_MODELS").map(PathBuf::from) else {
        println!("skipped: AVOCET_TEST_MODELS is not set");
        return;
    };
    for (path, operator) in [
        // Its state has the batch behind a fixed dimension.
        ("silero_vad/data/silero_vad.onnx", "LSTM"),
        // It takes pictures of one height.
        ("rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx", "Softmax"),
    ] {
        let checked = check(&packages.join(path), &EngineOptions::default()).unwrap();
        println!("{path}: {checked:#?}");
        assert!(checked.operators[operator] > 0 && checked.unsupported.is_empty());
        let serving = checked.engines.iter().filter(|engine| engine.refusal.is_none());
        let serving: Vec<_> = serving.collect();
        assert!(serving.iter().any(|engine| engine.engine == "rten"), "{path}: {:?}", checked.engines);
        for engine in serving {
            assert_eq!(engine.unmeasured, None, "{path} on {}", engine.engine);
            assert!(engine.best().is_some_and(|best| best.p50 <= best.p99), "{path}: {engine:?}");
        }
    }
}
