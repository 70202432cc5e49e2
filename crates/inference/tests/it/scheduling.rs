//! Batches, priorities, time limits, the cache: what happens between a request and the engine.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use avocet_inference::{EngineError, Error, LoadRequest, Model, Options, Repository, Request, State, Tensor};
use types::{Batching, PredictionCache, QueuePolicy, Serving};

use crate::support::{Fake, Gate, copy_of, model, options, x};

const WAIT: Duration = Duration::from_secs(60);

/// Adds each row's values up, into `y` of three equal columns; a row of sevens is refused.
fn sums(inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
    let rows = inputs[0].shape()[0];
    let values = inputs[0].elements::<f32>().unwrap();
    if values.chunks(4).any(|row| row == [7.0; 4]) {
        return Err(EngineError::Failed("sevens".into()));
    }
    let y = values.chunks(4).flat_map(|row| [row.iter().sum::<f32>(); 3]).collect();
    Ok(vec![Tensor::from_vec("y", [rows, 3], y).unwrap()])
}

fn row(value: f32) -> Request {
    Request::new([x(1, &[value; 4])])
}

/// One thread, one model, whose runs with a value below zero in front wait for the gate; what ran is noted by the
/// first value of each row.
struct Bench {
    model: Model,
    repository: Repository,
    gate: Arc<Gate>,
    runs: Arc<Mutex<Vec<Vec<f32>>>>,
}

fn bench(serving: Serving) -> Bench {
    let (gate, runs) = (Arc::<Gate>::default(), Arc::new(Mutex::new(Vec::new())));
    let (inside, noted) = (Arc::clone(&gate), Arc::clone(&runs));
    let fake = Fake::new(move |inputs| {
        let values = inputs[0].elements::<f32>().unwrap();
        noted.lock().unwrap().push(values.chunks(4).map(|row| row[0]).collect());
        if values.first().is_some_and(|&first| first < 0.0) {
            inside.pass();
        }
        sums(inputs)
    });
    // Slower than what is run on the caller's thread.
    let fake = Fake { on_caller: false, ..fake };
    let repository = Repository::new(fake.engines(), options(1)).unwrap();
    let request = LoadRequest { serving, ..LoadRequest::new("m", "1", model("affine")) };
    repository.load(request).unwrap();
    runs.lock().unwrap().clear();
    Bench { model: repository.get("m", None).unwrap(), repository, gate, runs }
}

fn batched(max_size: u32) -> Serving {
    Serving { batching: Some(Batching { max_size, max_delay_microseconds: 0 }), ..Serving::default() }
}

fn first(tensors: &[Tensor]) -> f32 {
    tensors[0].elements::<f32>().unwrap()[0]
}

#[test]
fn what_waits_runs_in_one_batch_and_everyone_gets_their_own_rows() {
    let bench = bench(batched(4));
    let blocker = bench.model.infer(row(-1.0)).unwrap();
    bench.gate.wait_for(1);
    let waiting: Vec<_> =
        [1.0, 2.0, 3.0, 4.0, 5.0].map(|value| bench.model.infer(row(value)).unwrap()).into();
    bench.gate.open();
    blocker.wait().unwrap();
    let answers: Vec<f32> =
        waiting.into_iter().map(|pending| first(&pending.wait().unwrap().outputs)).collect();
    assert_eq!(answers, [4.0, 8.0, 12.0, 16.0, 20.0]);
    assert_eq!(*bench.runs.lock().unwrap(), [vec![-1.0], vec![1.0, 2.0, 3.0, 4.0], vec![5.0]]);
    let stats = bench.model.stats();
    assert_eq!((stats.success.count, stats.inference_count, stats.execution_count), (6, 6, 3));
    assert_eq!(stats.batches[&4].compute.count, 1);
}

#[test]
fn a_request_of_more_samples_than_a_batch_may_have_is_refused() {
    let bench = bench(batched(2));
    let rows = |count| Request::new([x(count, &vec![1.0; 4 * count])]);
    bench.model.infer(rows(2)).unwrap().wait().unwrap();
    let error = bench.model.infer(rows(5)).err().unwrap();
    assert_eq!(
        error.to_string(),
        "model `m`: a batch of 5 samples is over this model's `max_batch_size` of 2; send at most 2 at once"
    );
    assert_eq!(bench.model.stats().failures.invalid, 1);
    assert_eq!(bench.runs.lock().unwrap().len(), 1, "it isn't run");
}

#[test]
fn a_model_with_fewer_instances_than_asked_for_says_so() {
    let repository = Repository::new(Fake { instances: 2, ..Fake::echo() }.engines(), options(1)).unwrap();
    let serving = Serving { instances: 5, ..Serving::default() };
    let status =
        repository.load(LoadRequest { serving, ..LoadRequest::new("m", "1", model("log")) }).unwrap();
    let told = "; in 2 of 5 instances: more would only wait for each other";
    assert!(status.why.ends_with(told), "{}", status.why);
}

#[test]
fn one_bad_request_fails_alone() {
    let bench = bench(batched(8));
    let blocker = bench.model.infer(row(-1.0)).unwrap();
    bench.gate.wait_for(1);
    let [good, bad, fine] = [1.0, 7.0, 2.0].map(|value| bench.model.infer(row(value)).unwrap());
    bench.gate.open();
    blocker.wait().unwrap();
    assert_eq!(first(&good.wait().unwrap().outputs), 4.0);
    assert!(matches!(bad.wait(), Err(Error::Engine { .. })));
    assert_eq!(first(&fine.wait().unwrap().outputs), 8.0);
}

#[test]
fn urgent_requests_overtake() {
    let bench = bench(Serving::default());
    let blocker = bench.model.infer(row(-1.0)).unwrap();
    bench.gate.wait_for(1);
    let submit = |value, priority| bench.model.infer(Request { priority, ..row(value) }).unwrap();
    let waiting = [submit(1.0, 0), submit(2.0, 32), submit(3.0, 1), submit(4.0, 0)];
    bench.gate.open();
    blocker.wait().unwrap();
    for pending in waiting {
        pending.wait().unwrap();
    }
    assert_eq!(bench.runs.lock().unwrap().concat(), [-1.0, 3.0, 1.0, 4.0, 2.0]);
}

#[tokio::test]
async fn a_request_that_waited_too_long_is_told_so_and_not_run() {
    let bench = bench(Serving::default());
    let blocker = bench.model.infer(row(-1.0)).unwrap();
    bench.gate.wait_for(1);
    let hurried = Request { timeout: Some(Duration::from_millis(5)), ..row(1.0) };
    let error = bench.model.answer(hurried).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "model `m` had no free thread within the request's time; try again, or allow more time"
    );
    bench.gate.open();
    blocker.await.unwrap();
    let patient = Request { timeout: Some(WAIT), ..row(2.0) };
    assert_eq!(first(&bench.model.answer(patient).await.unwrap().outputs), 8.0);
    assert_eq!(bench.runs.lock().unwrap().concat(), [-1.0, 2.0]);
    assert_eq!(bench.model.stats().fail.count, 1);
}

#[tokio::test]
async fn a_model_says_how_long_and_how_many_may_wait() {
    let queue = QueuePolicy { max_requests: 1, timeout_milliseconds: 5, ..QueuePolicy::default() };
    let bench = bench(Serving { queue, ..Serving::default() });
    let blocker = bench.model.infer(row(-1.0)).unwrap();
    bench.gate.wait_for(1);
    let waiting = bench.model.infer(row(1.0)).unwrap();
    assert!(matches!(bench.model.answer(row(2.0)).await, Err(Error::Overloaded { waiting: 1 })));
    drop(waiting);
    assert!(matches!(bench.model.answer(row(3.0)).await, Err(Error::Late { .. })), "who left makes room");
    bench.gate.open();
    blocker.await.unwrap();
}

#[tokio::test]
async fn equal_requests_are_computed_once_even_at_the_same_time() {
    let bench = bench(Serving { cache: Some(PredictionCache::default()), ..Serving::default() });
    let (one, two) = (bench.model.answer(row(-1.0)), bench.model.answer(row(-1.0)));
    let open = async { bench.gate.open() };
    let (one, two, ()) = tokio::join!(one, two, open);
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!((one.timing.cached, two.timing.cached), (false, true));
    assert_eq!(one.outputs, two.outputs);
    assert!(!bench.model.answer(row(3.0)).await.unwrap().timing.cached);
    assert_eq!(bench.runs.lock().unwrap().concat(), [-1.0, 3.0]);
    let stats = bench.model.stats();
    assert_eq!((stats.cache_hit.count, stats.cache_miss.count, stats.success.count), (1, 2, 3));
}

#[tokio::test]
async fn failures_are_not_kept_and_a_new_version_starts_with_nothing_kept() {
    let serving = Serving { cache: Some(PredictionCache::default()), ..Serving::default() };
    let bench = bench(serving.clone());
    for _ in 0..2 {
        assert!(matches!(bench.model.answer(row(7.0)).await, Err(Error::Engine { .. })));
    }
    bench.model.answer(row(1.0)).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.onnx");
    std::fs::copy(model("affine"), &other).unwrap();
    bench.repository.load(LoadRequest { serving, ..LoadRequest::new("m", "1", other) }).unwrap();
    let reloaded = bench.repository.get("m", None).unwrap();
    assert!(!reloaded.answer(row(1.0)).await.unwrap().timing.cached);
}

#[tokio::test]
async fn answers_outlive_a_model_that_is_unloaded_and_loaded_again_as_it_was() {
    let serving = Serving { cache: Some(PredictionCache::default()), lazy: true, ..Serving::default() };
    // Nothing of what is loaded on request stays.
    let repository =
        Repository::new(Fake::new(sums).engines(), Options { model_bytes: 0, ..options(1) }).unwrap();
    let request = LoadRequest { serving, ..LoadRequest::new("m", "1", model("affine")) };
    repository.register(request.clone()).unwrap();
    let ask = async || {
        let answer = repository.obtain("m", None).await.unwrap().answer(row(1.0)).await.unwrap();
        (first(&answer.outputs), answer.timing.cached)
    };
    assert_eq!(ask().await, (4.0, false));
    assert_eq!(repository.list()[0].state, State::Idle, "it was unloaded");
    assert_eq!(ask().await, (4.0, true));
    repository.unload("m", "1").unwrap();
    let finite = Serving { finite_inputs: true, ..request.serving.clone() };
    repository.register(LoadRequest { serving: finite, ..request.clone() }).unwrap();
    assert_eq!(ask().await, (4.0, false), "it is run otherwise");
    repository.unload("m", "1").unwrap();
    repository.register(request).unwrap();
    assert_eq!(ask().await, (4.0, true));
}

#[tokio::test]
async fn a_file_that_is_changed_in_its_place_never_gets_the_answers_of_the_one_before() {
    // The sum of a row and the length of the model's file.
    let folder = tempfile::tempdir().unwrap();
    let path = copy_of("affine", &folder, "m.onnx");
    let file = path.clone();
    let fake = Fake::new(move |inputs| {
        let length = std::fs::metadata(&file).unwrap().len() as f32;
        let y = vec![inputs[0].elements::<f32>().unwrap().iter().sum::<f32>() + length; 3];
        Ok(vec![Tensor::from_vec("y", [1, 3], y).unwrap()])
    });
    let serving = Serving { cache: Some(PredictionCache::default()), lazy: true, ..Serving::default() };
    let repository = Repository::new(fake.engines(), Options { model_bytes: 0, ..options(1) }).unwrap();
    repository.register(LoadRequest { serving, ..LoadRequest::new("m", "1", &path) }).unwrap();
    for _ in 0..3 {
        let answer = repository.obtain("m", None).await.unwrap().answer(row(1.0)).await.unwrap();
        let length = path.metadata().unwrap().len() as f32;
        assert_eq!(first(&answer.outputs), 4.0 + length);
        let longer = [std::fs::read(&path).unwrap(), vec![0x7a, 1, 0]].concat();
        std::fs::write(&path, longer).unwrap();
    }
}

#[tokio::test]
async fn what_is_watched_for_drift_goes_on_when_its_model_is_loaded_again() {
    let drift = Some(types::Drift { baseline_values: 10, window_values: 10 });
    let serving = Serving { drift, lazy: true, ..Serving::default() };
    let repository =
        Repository::new(Fake::new(sums).engines(), Options { model_bytes: 0, ..options(1) }).unwrap();
    repository.register(LoadRequest { serving, ..LoadRequest::new("m", "1", model("affine")) }).unwrap();
    let mut report = Vec::new();
    for n in 10..30_u8 {
        let m = repository.obtain("m", None).await.unwrap();
        m.answer(row(n.into())).await.unwrap();
        report = m.drift();
    }
    assert!(report[3].psi.unwrap() > 1.0, "the second ten are all larger than the first");
}

#[test]
fn a_short_run_is_done_where_it_is_asked_for() {
    let elsewhere = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&elsewhere);
    let here = std::thread::current().id();
    let fake = Fake::new(move |inputs| {
        if std::thread::current().id() != here {
            counted.fetch_add(1, SeqCst);
        }
        sums(inputs)
    });
    let repository = Repository::new(fake.engines(), Options::default()).unwrap();
    repository.load(LoadRequest::new("m", "1", model("affine"))).unwrap();
    let m = repository.get("m", None).unwrap();
    assert_eq!(first(&m.infer(row(1.0)).unwrap().wait().unwrap().outputs), 4.0);
    assert_eq!(elsewhere.load(SeqCst), 0);
}

#[tokio::test]
async fn a_model_may_refuse_what_is_not_finite_and_watch_its_inputs_drift() {
    let drift = Some(types::Drift { baseline_values: 10, window_values: 10 });
    let bench = bench(Serving { finite_inputs: true, drift, ..Serving::default() });
    let error = bench.model.answer(row(f32::NAN)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "model `m`: input `x` holds a NaN or an infinity at element 0; this model takes finite numbers only"
    );
    for n in 10..30_u8 {
        bench.model.answer(row(n.into())).await.unwrap();
    }
    let report = bench.model.drift();
    assert_eq!(report.len(), 4);
    assert!(report[3].psi.unwrap() > 1.0, "the second ten are all larger than the first");
}
