//! `auto` compares engines before it chooses.

use std::sync::Arc;
use std::time::Duration;

use avocet_inference::{EngineChoice, EngineError, Engines, LoadOptions, Loaded, Tensor, Verdict};

use crate::support::{Fake, model, renamed};

/// Gives the input of the model `log` back, with something added, after a while.
fn engine(name: &'static str, added: f32, pause: Duration) -> Fake {
    let run = move |inputs: &[Tensor]| {
        std::thread::sleep(pause);
        let values = inputs[0].elements::<f32>().unwrap().iter().map(|value| value + added).collect();
        Ok(vec![Tensor::from_vec("y", inputs[0].shape(), values).unwrap()])
    };
    Fake { name, ..Fake::new(run) }
}

fn chosen(engines: Vec<Fake>) -> Loaded {
    let engines = engines.into_iter().map(|fake| Arc::new(fake) as Arc<dyn avocet_inference::Engine>);
    let options = LoadOptions { workers: 1, threads: 0, instances: 0 };
    Engines::with(engines.collect()).load(EngineChoice::Auto, &model("log"), &options).unwrap()
}

const SLOW: Duration = Duration::from_millis(20);
const FAST: Duration = Duration::ZERO;

#[test]
fn the_fastest_engine_that_agrees_is_chosen() {
    let loaded = chosen(vec![engine("slow", 0.0, SLOW), engine("fast", 1e-6, FAST)]);
    assert_eq!(loaded.engine, "fast", "{}", loaded.why);
    assert_eq!(loaded.tried.iter().map(|tried| tried.engine).collect::<Vec<_>>(), ["slow", "fast"]);
    assert!(loaded.tried.iter().all(|tried| tried.load.is_some() && tried.run.is_some()));
    let Verdict::Agrees(difference) = &loaded.tried[1].verdict else { panic!("{:?}", loaded.tried) };
    assert!(difference.absolute > 0.0);
    assert!(loaded.why.starts_with("the fastest that agrees: slow "), "{}", loaded.why);
}

#[test]
fn an_engine_with_other_answers_is_out_however_fast() {
    let loaded = chosen(vec![engine("right", 0.0, SLOW), engine("wrong", 0.1, FAST)]);
    assert_eq!(loaded.engine, "right");
    assert!(matches!(&loaded.tried[1].verdict, Verdict::Wrong(difference) if difference.absolute > 0.09));
    assert!(loaded.why.contains("wrong is out, differs by 1e-1"), "{}", loaded.why);
}

#[test]
fn an_engine_that_fails_or_panics_where_the_first_does_not_is_out() {
    let fails = Fake { name: "fails", ..Fake::new(|_| Err(EngineError::Failed("no such kernel".into()))) };
    let panics = Fake { name: "panics", ..Fake::new(|_| panic!("out of fuel")) };
    let loaded = chosen(vec![engine("right", 0.0, SLOW), fails, panics]);
    assert_eq!(loaded.engine, "right");
    assert!(loaded.why.contains("no such kernel") && loaded.why.contains("out of fuel"), "{}", loaded.why);
}

#[test]
fn where_the_first_can_not_run_a_made_up_input_it_is_kept_untested() {
    let picky = Fake { name: "picky", ..Fake::new(|_| Err(EngineError::Failed("wants a real face".into()))) };
    let loaded = chosen(vec![picky, engine("fast", 0.0, FAST)]);
    assert_eq!(loaded.engine, "picky");
    assert!(
        loaded.why.contains("not compared") && loaded.why.contains("wants a real face"),
        "{}",
        loaded.why
    );
}

#[test]
fn a_single_engine_is_not_tried() {
    let fake = Fake { name: "only", ..Fake::new(|_| panic!("must not run")) };
    let loaded = chosen(vec![fake]);
    assert_eq!((loaded.engine, loaded.why.as_str()), ("only", "the only engine here for it"));
    assert!(matches!(loaded.tried[0].verdict, Verdict::Untested(_)));
}

#[test]
fn losers_of_the_trial_give_their_memory_back() {
    let (slow, fast) = (engine("slow", 0.0, SLOW), engine("fast", 0.0, FAST));
    let alive = [&slow, &fast].map(|fake| Arc::clone(&fake.alive));
    let loaded = chosen(vec![slow, fast]);
    let count = |at: usize| alive[at].load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!((loaded.engine, count(0), count(1)), ("fast", 0, 1));
}

#[test]
fn the_trial_gives_the_model_what_its_signature_declares() {
    let fake = |name| {
        let run = |inputs: &[Tensor]| {
            assert_eq!((inputs[0].name(), inputs[0].shape()), ("x", &[1][..]));
            Ok(vec![renamed(&inputs[0], "y")])
        };
        Fake { name, ..Fake::new(run) }
    };
    let loaded = chosen(vec![fake("one"), fake("two")]);
    assert!(
        loaded.tried.iter().all(|tried| matches!(tried.verdict, Verdict::Agrees(_))),
        "{:?}",
        loaded.tried
    );
}

#[test]
fn a_check_tells_what_each_engine_makes_of_a_model() {
    let options = avocet_inference::EngineOptions::default();
    let checked = avocet_inference::check(&model("affine"), &options).unwrap();
    assert_eq!(checked.operators, [("MatMul".to_owned(), 1), ("Add".to_owned(), 1)].into());
    let rten = checked.engines.iter().find(|found| found.engine == "rten").unwrap();
    assert!(rten.refusal.is_none() && rten.best().is_some_and(|best| best.p50 <= best.p99), "{rten:?}");
    let checked = avocet_inference::check(&model("celu"), &options).unwrap();
    let rten = checked.engines.iter().find(|found| found.engine == "rten").unwrap();
    assert!(rten.refusal.as_ref().unwrap().contains("Celu") && rten.runs.is_empty());
}

#[test]
fn operators_that_no_engine_here_has_are_told() {
    // Without ONNX Runtime, which has them all.
    let off = Some(std::path::PathBuf::from("off"));
    let options =
        avocet_inference::EngineOptions { onnxruntime: off, ..avocet_inference::EngineOptions::default() };
    let checked = avocet_inference::check(&model("celu"), &options).unwrap();
    assert_eq!(checked.unsupported, ["Celu"], "{:?}", checked.engines);
    let served = avocet_inference::check(&model("affine"), &options).unwrap();
    assert!(served.unsupported.is_empty());
    // ONNX Runtime itself lacks what isn't ONNX's.
    let mut foreign = std::fs::read(model("affine")).unwrap();
    let at = foreign.windows(6).position(|part| part == b"MatMul").unwrap();
    foreign[at..at + 6].copy_from_slice(b"Blubbs");
    let file = tempfile::NamedTempFile::with_suffix(".onnx").unwrap();
    std::fs::write(file.path(), foreign).unwrap();
    let checked = avocet_inference::check(file.path(), &avocet_inference::EngineOptions::default()).unwrap();
    assert_eq!(checked.unsupported, ["Blubbs"], "Add is there: {:?}", checked.engines);
}

#[test]
fn an_engine_that_narrows_the_declared_types_never_wins_over_one_that_does_not() {
    let engines = crate::support::discovered();
    let options = LoadOptions { workers: 1, threads: 0, instances: 0 };
    let loaded = engines.load(EngineChoice::Auto, &model("int64"), &options).unwrap();
    if !engines.list().iter().any(|engine| engine.name == "onnxruntime" && engine.available) {
        assert_eq!(loaded.engine, "rten");
        return;
    }
    assert_eq!(loaded.engine, "onnxruntime");
    assert!(loaded.why.contains("rten is out, it computes INT64 in 32 bits"), "{}", loaded.why);
}
