//! Ensembles: several models that answer as one.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};

use avocet_inference::{
    EngineError, Error, LoadRequest, Options, Repository, Request, Routing, State, Tensor,
};
use types::{
    Batching, Ensemble, EnsembleStep, Isolation, PredictionCache, QueuePolicy, Rollback, Serving, Share,
    Traffic,
};

use crate::support::{Fake, Gate, copy_of, options, renamed};

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, tensor)| ((*name).to_owned(), (*tensor).to_owned())).collect()
}

/// Runs a model from `x` to `y`.
fn step(model: &str, from: &str, to: &str) -> EnsembleStep {
    let (inputs, outputs) = (pairs(&[("x", from)]), pairs(&[("y", to)]));
    EnsembleStep { name: format!("{model}-step"), model: model.into(), version: None, inputs, outputs }
}

fn ensemble(steps: &[EnsembleStep], outputs: &[&str]) -> LoadRequest {
    let outputs = outputs.iter().map(|output| (*output).to_owned()).collect();
    let ensemble = Ensemble { inputs: vec!["in".into()], steps: steps.to_vec(), outputs };
    LoadRequest { ensemble: Some(ensemble), ..LoadRequest::new("pipe", "1", "") }
}

fn request(value: f32) -> Request {
    Request::new([Tensor::from_vec("in", [1], vec![value]).unwrap()])
}

fn value(tensor: &Tensor) -> f32 {
    tensor.elements::<f32>().unwrap()[0]
}

/// Models from `x` to `y` of one number: `double`, `plus` (one more), and `gate`, which waits for it; a seven is
/// refused by `plus`.
struct Bench {
    repository: Repository,
    gate: Arc<Gate>,
    runs: Arc<Mutex<Vec<String>>>,
    alive: Arc<std::sync::atomic::AtomicUsize>,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new(options: Options, serving: &Serving) -> Bench {
        let (gate, runs) = (Arc::<Gate>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (inside, noted) = (Arc::clone(&gate), Arc::clone(&runs));
        let fake = Fake::by_file(move |file, inputs| {
            noted.lock().unwrap().push(file.trim_end_matches(".onnx").to_owned());
            let values = inputs[0].elements::<f32>().unwrap().into_owned();
            let each = |change: fn(f32) -> f32| {
                let changed: Vec<f32> = values.iter().copied().map(change).collect();
                Ok(vec![Tensor::from_vec("y", [changed.len()], changed).unwrap()])
            };
            match file {
                "double.onnx" => each(|value| value * 2.0),
                "plus.onnx" if values.contains(&7.0) => Err(EngineError::Failed("a seven".into())),
                "plus.onnx" => each(|value| value + 1.0),
                _ => {
                    inside.pass();
                    Ok(vec![renamed(&inputs[0], "y")])
                }
            }
        });
        let fake = Fake { on_caller: false, ..fake };
        let alive = Arc::clone(&fake.alive);
        let repository = Repository::new(fake.engines(), options).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for name in ["double", "plus", "gate"] {
            let path = copy_of("log", &folder, &format!("{name}.onnx"));
            let request = LoadRequest { serving: serving.clone(), ..LoadRequest::new(name, "1", path) };
            match serving.lazy {
                true => repository.register(request).unwrap(),
                false => repository.load(request).unwrap(),
            };
        }
        Bench { repository, gate, runs, alive, _folder: folder }
    }

    fn plain() -> Bench {
        Bench::new(options(2), &Serving::default())
    }

    async fn ask(&self, request: Request) -> Result<avocet_inference::Answer, Error> {
        self.repository.obtain("pipe", None).await?.answer(request).await
    }

    fn refusal(&self, request: LoadRequest) -> String {
        self.repository.load(request).unwrap_err().to_string()
    }
}

#[tokio::test]
async fn steps_take_what_others_give_and_each_model_counts_its_own_runs() {
    let bench = Bench::plain();
    let steps = [step("plus", "mid", "out"), step("double", "in", "mid")];
    let loaded = bench.repository.load(ensemble(&steps, &["out", "mid"])).unwrap();
    assert_eq!((loaded.state, loaded.engine), (State::Ready, Some("ensemble")));
    let answer = bench.ask(request(3.0)).await.unwrap();
    let named: Vec<_> = answer.outputs.iter().map(|tensor| (tensor.name(), value(tensor))).collect();
    assert_eq!(named, [("out", 7.0), ("mid", 6.0)]);
    let steps: Vec<_> = answer.timing.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(steps, ["double-step", "plus-step"]);
    let stats: BTreeMap<String, u64> =
        bench.repository.stats().into_iter().map(|(name, _, stats)| (name, stats.success.count)).collect();
    assert_eq!((stats["pipe"], stats["double"], stats["plus"], stats["gate"]), (1, 1, 1, 0));
}

#[tokio::test]
async fn what_nobody_asks_for_is_not_computed() {
    let bench = Bench::plain();
    let steps = [step("plus", "mid", "out"), step("double", "in", "mid")];
    bench.repository.load(ensemble(&steps, &["out", "mid"])).unwrap();
    bench.runs.lock().unwrap().clear();
    let answer = bench.ask(Request { outputs: vec!["mid".into()], ..request(3.0) }).await.unwrap();
    assert_eq!(value(&answer.outputs[0]), 6.0);
    assert_eq!(*bench.runs.lock().unwrap(), ["double"]);
}

/// The gate opens only when the other step has run: one after the other they would wait for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_that_do_not_need_each_other_run_at_once() {
    let bench = Bench::plain();
    let steps = [step("gate", "in", "slow"), step("double", "in", "fast"), step("plus", "fast", "last")];
    bench.repository.load(ensemble(&steps, &["slow", "last"])).unwrap();
    bench.runs.lock().unwrap().clear();
    let model = bench.repository.obtain("pipe", None).await.unwrap();
    let has_run = |model: &str| bench.runs.lock().unwrap().iter().any(|run| run == model);
    let opened = async {
        while !has_run("plus") {
            tokio::task::yield_now().await;
        }
        bench.gate.open();
    };
    let (answer, ()) = tokio::join!(model.answer(request(3.0)), opened);
    let outputs = answer.unwrap().outputs;
    assert_eq!((value(&outputs[0]), value(&outputs[1])), (3.0, 7.0));
}

#[tokio::test]
async fn a_failing_step_is_named_and_counts_against_the_ensemble() {
    let bench = Bench::plain();
    bench.repository.load(ensemble(&[step("plus", "in", "out")], &["out"])).unwrap();
    let error = bench.ask(request(7.0)).await.unwrap_err();
    let expected =
        "model `pipe`: step `plus-step`: model `plus` version `1` failed: the engine failed: a seven";
    assert_eq!(error.to_string(), expected);
    let stats = bench.repository.get("pipe", None).unwrap().stats();
    assert_eq!((stats.fail.count, stats.failures.engine), (1, 1));
}

#[tokio::test]
async fn models_of_steps_are_loaded_when_they_are_needed_and_stay_while_it_runs() {
    let lazy = Serving { lazy: true, ..Serving::default() };
    let bench = Bench::new(Options { model_bytes: 0, ..options(2) }, &lazy);
    assert_eq!(bench.alive.load(SeqCst), 0);
    let steps = [step("double", "in", "mid"), step("plus", "mid", "out")];
    let request_to_load = LoadRequest { serving: lazy, ..ensemble(&steps, &["out"]) };
    bench.repository.register(request_to_load).unwrap();
    // Nothing may stay in memory, and yet it is answered.
    for _ in 0..2 {
        assert_eq!(value(&bench.ask(request(3.0)).await.unwrap().outputs[0]), 7.0);
    }
}

#[tokio::test]
async fn the_time_that_a_request_allows_is_for_all_of_its_steps() {
    let bench = Bench::new(options(1), &Serving::default());
    let steps = [step("double", "in", "mid"), step("plus", "mid", "out")];
    let queue = QueuePolicy { timeout_milliseconds: 20, ..QueuePolicy::default() };
    let serving = Serving { queue, ..Serving::default() };
    bench.repository.load(LoadRequest { serving, ..ensemble(&steps, &["out"]) }).unwrap();
    let gate = bench.repository.get("gate", None).unwrap();
    // It holds the only thread.
    let held = gate.infer(Request::new([Tensor::from_vec("x", [1], vec![0.0_f32]).unwrap()])).unwrap();
    let error = bench.ask(request(3.0)).await.unwrap_err();
    assert!(error.to_string().contains("had no free thread within"), "{error}");
    assert_eq!(bench.repository.get("pipe", None).unwrap().stats().failures.rejected, 1);
    bench.gate.open();
    held.await.unwrap();
    assert!(!bench.runs.lock().unwrap().contains(&"plus".to_owned()), "the second step never began");
}

#[tokio::test]
async fn equal_requests_are_answered_from_the_ensembles_own_cache_or_its_models() {
    let kept = Serving { cache: Some(PredictionCache::default()), ..Serving::default() };
    let bench = Bench::new(options(2), &kept);
    let steps = [step("double", "in", "mid"), step("plus", "mid", "out")];
    bench.repository.load(ensemble(&steps, &["out"])).unwrap();
    bench.ask(request(3.0)).await.unwrap();
    let again = bench.ask(request(3.0)).await.unwrap();
    assert!(!again.timing.cached && again.timing.steps.iter().all(|step| step.timing.cached));
    bench.repository.load(LoadRequest { serving: kept, ..ensemble(&steps, &["out"]) }).unwrap();
    bench.ask(request(3.0)).await.unwrap();
    assert!(bench.ask(request(3.0)).await.unwrap().timing.cached);
}

#[tokio::test]
async fn an_ensemble_may_be_a_step_but_never_of_itself() {
    let bench = Bench::plain();
    bench.repository.load(ensemble(&[step("double", "in", "out")], &["out"])).unwrap();
    let outer = EnsembleStep {
        inputs: pairs(&[("in", "a")]),
        outputs: pairs(&[("out", "b")]),
        ..step("pipe", "", "")
    };
    let two = Ensemble {
        inputs: vec!["a".into()],
        steps: vec![outer, step("plus", "b", "c")],
        outputs: vec!["c".into()],
    };
    let two = LoadRequest { ensemble: Some(two), ..LoadRequest::new("two", "1", "") };
    bench.repository.load(two.clone()).unwrap();
    let asked = Request::new([Tensor::from_vec("a", [1], vec![3.0_f32]).unwrap()]);
    let model = bench.repository.obtain("two", None).await.unwrap();
    let answer = model.answer(asked).await.unwrap();
    assert_eq!(value(&answer.outputs[0]), 7.0);
    assert_eq!(answer.timing.steps[0].timing.steps[0].model, "double");
    // `two` uses `pipe`, which is to use `two`.
    let inner = EnsembleStep {
        inputs: pairs(&[("a", "in")]),
        outputs: pairs(&[("c", "out")]),
        ..step("two", "", "")
    };
    let refusal = bench.refusal(ensemble(&[inner], &["out"]));
    assert_eq!(refusal, "ensembles can't use each other in a circle: pipe → two → pipe");
    assert_eq!(value(&bench.ask(request(1.0)).await.unwrap().outputs[0]), 2.0, "the old one serves on");
}

#[test]
fn what_does_not_fit_is_refused_before_it_serves() {
    let bench = Bench::plain();
    assert_eq!(
        bench.refusal(ensemble(&[step("nope", "in", "out")], &["out"])),
        "step `nope-step`: unknown model `nope`; list the models to see what this site serves"
    );
    let vain = |serving: Serving| LoadRequest { serving, ..ensemble(&[step("plus", "in", "out")], &["out"]) };
    let batching = Some(Batching { max_size: 4, max_delay_microseconds: 0 });
    for serving in [
        Serving { batching, ..Serving::default() },
        Serving { instances: 2, ..Serving::default() },
        Serving { isolation: Isolation::Process, ..Serving::default() },
    ] {
        assert!(bench.refusal(vain(serving)).contains("set it on the models of its steps"));
    }
}

/// `pipe` in version 1, which doubles, and on trial in version 2, which runs another model.
fn on_trial(model: &str, bounds: Rollback) -> Bench {
    let bench = Bench::new(options(4), &Serving::default());
    bench.repository.load(ensemble(&[step("double", "in", "out")], &["out"])).unwrap();
    let second = ensemble(&[step(model, "in", "out")], &["out"]);
    let second = LoadRequest { version: "2".into(), default: false, ..second };
    bench.repository.load(second).unwrap();
    let split = ["1", "2"].map(|version| Share { version: version.into(), weight: 1 }).into();
    let traffic = Some(Traffic { split, rollback: Some(bounds), ..Traffic::default() });
    bench.repository.set_routing("pipe", Routing { traffic, ..Routing::default() }).unwrap();
    bench
}

fn verdict(bench: &Bench) -> Option<String> {
    let models = bench.repository.list();
    models.into_iter().find(|model| model.name == "pipe" && model.version == "2").unwrap().rolled_back
}

#[tokio::test]
async fn an_ensemble_on_trial_whose_step_fails_loses_its_share() {
    let bounds = Rollback { max_error_percent: Some(10), min_requests: 3, ..Rollback::default() };
    let bench = on_trial("plus", bounds);
    let mut failures = 0;
    for _ in 0..20 {
        let answer = bench.repository.get("pipe", None).unwrap().answer(request(7.0)).await;
        failures += usize::from(answer.is_err());
    }
    assert_eq!(failures, 3, "one for each request that it takes to judge");
    assert_eq!(verdict(&bench).as_deref(), Some("3 of 3 requests failed; at most 10% may"));
}

#[tokio::test]
async fn an_ensemble_on_trial_that_nobody_waits_for_loses_its_share() {
    let bounds = Rollback { max_latency_milliseconds: Some(5), min_requests: 3, ..Rollback::default() };
    let bench = on_trial("gate", bounds);
    let mut given_up = 0;
    while verdict(&bench).is_none() && given_up < 10 {
        let model = bench.repository.get("pipe", None).unwrap();
        let is_on_trial = model.version() == "2";
        let answer = tokio::time::timeout(std::time::Duration::from_millis(20), model.answer(request(1.0)));
        // On a busy machine the other version may be late, too.
        given_up += usize::from(answer.await.is_err() && is_on_trial);
    }
    assert_eq!(given_up, 3);
    bench.gate.open();
}
