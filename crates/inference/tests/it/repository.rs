use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use avocet_inference::{
    EngineError, Error, InvalidInput, Limits, LoadError, LoadRequest, Options, Repository, Request, State,
};

use crate::support::{Fake, Gate, discovered, model, options, renamed, repository, x};

fn log_input() -> Request {
    Request::new([avocet_inference::Tensor::from_vec("x", [1], vec![2.0_f32]).unwrap()])
}

#[test]
fn a_loaded_model_answers_with_all_outputs_by_default() {
    let repository = repository(discovered());
    repository.load(LoadRequest::new("math", "1", model("add_sub"))).unwrap();
    let a = renamed(&x(1, &[1.0, 2.0, 3.0, 4.0]), "a");
    let request = Request::new([a.clone(), renamed(&a, "b")]);
    let answer = repository.get("math", None).unwrap().infer(request).unwrap().wait().unwrap();
    let names: Vec<_> = answer.outputs.iter().map(|tensor| tensor.name()).collect();
    assert_eq!(names, ["sum", "difference"]);
    let stats = repository.get("math", Some("1")).unwrap().stats();
    assert_eq!((stats.success.count, stats.execution_count, stats.inference_count), (1, 1, 1));
    assert!(stats.compute.nanoseconds > 0 && stats.last_inference > 0);
}

#[test]
fn a_batch_counts_its_samples_and_a_refusal_counts_as_a_failure() {
    let repository = repository(discovered());
    repository.load(LoadRequest::new("affine", "1", model("affine"))).unwrap();
    let affine = repository.get("affine", None).unwrap();
    affine.infer(Request::new([x(3, &[0.0; 12])])).unwrap().wait().unwrap();
    assert!(affine.infer(Request::new([])).is_err());
    let stats = affine.stats();
    assert_eq!((stats.inference_count, stats.execution_count, stats.fail.count), (3, 1, 1));
}

#[test]
fn names_and_versions_are_told_apart_in_errors() {
    let repository = repository(Fake::echo().engines());
    repository.load(LoadRequest::new("m", "1", model("log"))).unwrap();
    let unknown = repository.get("n", None).err().unwrap();
    assert_eq!(unknown.to_string(), "unknown model `n`; list the models to see what this site serves");
    let version = repository.get("m", Some("9")).err().unwrap();
    assert_eq!(version.to_string(), "model `m` has no version `9`; loaded: 1");
    for name in ["", "a b", "../x", ".hidden", &"x".repeat(129)] {
        let error = repository.load(LoadRequest::new(name, "1", model("log"))).unwrap_err();
        assert!(matches!(error, LoadError::Name { .. }));
    }
}

#[test]
fn the_default_follows_the_request_and_moves_when_it_is_unloaded() {
    let repository = repository(Fake::echo().engines());
    let load = |version: &str, default| {
        let request = LoadRequest { default, ..LoadRequest::new("m", version, model("log")) };
        repository.load(request).unwrap();
    };
    let default = || repository.get("m", None).unwrap().version().to_owned();
    load("1", false);
    assert_eq!(default(), "1", "the first one is the default whatever was asked");
    load("2", false);
    assert_eq!(default(), "1");
    load("3", true);
    assert_eq!(default(), "3");
    repository.set_default("m", "1").unwrap();
    assert_eq!(default(), "1");
    repository.unload("m", "1").unwrap();
    assert_eq!(default(), "3", "the version loaded last takes over");
    repository.unload("m", "3").unwrap();
    repository.unload("m", "2").unwrap();
    assert!(matches!(repository.get("m", None), Err(Error::UnknownModel { .. })));
    assert!(matches!(repository.unload("m", "2"), Err(Error::UnknownModel { .. })));
    assert!(repository.list().is_empty());
}

#[test]
fn loading_the_same_again_reads_nothing_and_may_promote() {
    let fake = Fake::echo();
    let loads = Arc::clone(&fake.loads);
    let repository = repository(fake.engines());
    for version in ["1", "2"] {
        repository.load(LoadRequest::new("m", version, model("log"))).unwrap();
    }
    let status = repository.load(LoadRequest::new("m", "1", model("log"))).unwrap();
    assert!(status.default);
    assert_eq!(loads.load(SeqCst), 2);
}

#[test]
fn equal_loads_at_once_load_once() {
    let fake = Fake::echo();
    let loads = Arc::clone(&fake.loads);
    let repository = repository(fake.engines());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| repository.load(LoadRequest::new("m", "1", model("log"))).unwrap());
        }
    });
    assert_eq!(loads.load(SeqCst), 1);
}

#[test]
fn a_failed_load_is_listed_and_a_failed_replacement_leaves_the_old_one_serving() {
    let repository = repository(Fake::echo().engines());
    let missing = model("missing");
    assert!(repository.load(LoadRequest::new("m", "1", &missing)).is_err());
    let status = repository.list().remove(0);
    assert!(matches!(&status.state, State::Failed { reason } if reason.contains("missing.onnx")));
    assert!(matches!(repository.get("m", None), Err(Error::NotReady { .. })));

    repository.load(LoadRequest::new("m", "1", model("log"))).unwrap();
    assert!(repository.load(LoadRequest::new("m", "1", &missing)).is_err());
    let status = repository.list().remove(0);
    assert_eq!((status.state, status.path), (State::Ready, model("log")));
    assert!(status.last_error.unwrap().contains("missing.onnx"));
    repository.get("m", None).unwrap().infer(log_input()).unwrap().wait().unwrap();
}

#[test]
fn an_unloaded_model_finishes_its_requests_and_then_gives_its_memory_back() {
    let gate = Arc::new(Gate::default());
    let inside = Arc::clone(&gate);
    let fake = Fake::new(move |inputs| {
        inside.pass();
        Ok(vec![renamed(&inputs[0], "y")])
    });
    let alive = Arc::clone(&fake.alive);
    let repository = repository(fake.engines());
    repository.load(LoadRequest::new("m", "1", model("log"))).unwrap();
    let running = repository.get("m", None).unwrap().infer(log_input()).unwrap();
    gate.wait_for(1);
    repository.unload("m", "1").unwrap();
    assert_eq!(alive.load(SeqCst), 1, "a request still runs on it");
    gate.open();
    running.wait().unwrap();
    while alive.load(SeqCst) > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn too_many_waiting_requests_are_refused_as_overload() {
    let gate = Arc::new(Gate::default());
    let inside = Arc::clone(&gate);
    let fake = Fake::new(move |inputs| {
        inside.pass();
        Ok(vec![renamed(&inputs[0], "y")])
    });
    let options = Options { queue: 2, ..options(1) };
    let repository = Repository::new(fake.engines(), options).unwrap();
    repository.load(LoadRequest::new("m", "1", model("log"))).unwrap();
    let m = repository.get("m", None).unwrap();
    let running = m.infer(log_input()).unwrap();
    gate.wait_for(1);
    let waiting = [m.infer(log_input()).unwrap(), m.infer(log_input()).unwrap()];
    let error = m.infer(log_input()).err().unwrap();
    assert_eq!(error.to_string(), "2 requests are waiting already; try again in a moment");
    gate.open();
    running.wait().unwrap();
    for pending in waiting {
        pending.wait().unwrap();
    }
}

#[test]
fn a_request_whose_caller_left_is_not_run() {
    let gate = Arc::new(Gate::default());
    let (inside, runs) = (Arc::clone(&gate), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let counted = Arc::clone(&runs);
    let fake = Fake::new(move |inputs| {
        counted.fetch_add(1, SeqCst);
        inside.pass();
        Ok(vec![renamed(&inputs[0], "y")])
    });
    let repository = Repository::new(fake.engines(), options(1)).unwrap();
    repository.load(LoadRequest::new("m", "1", model("log"))).unwrap();
    let m = repository.get("m", None).unwrap();
    let running = m.infer(log_input()).unwrap();
    gate.wait_for(1);
    drop(m.infer(log_input()).unwrap());
    let last = m.infer(log_input()).unwrap();
    gate.open();
    running.wait().unwrap();
    last.wait().unwrap();
    assert_eq!(runs.load(SeqCst), 2);
}

#[test]
fn a_slow_model_with_one_instance_leaves_threads_to_the_others() {
    let gate = Arc::new(Gate::default());
    let inside = Arc::clone(&gate);
    let slow = Fake {
        instances: 1,
        ..Fake::new(move |inputs| {
            if *inputs[0].elements::<f32>().unwrap() == [2.0] {
                inside.pass();
            }
            Ok(vec![renamed(&inputs[0], "y")])
        })
    };
    let repository = repository(slow.engines());
    repository.load(LoadRequest::new("slow", "1", model("log"))).unwrap();
    repository.load(LoadRequest::new("fast", "1", model("affine"))).unwrap();
    let slow = repository.get("slow", None).unwrap();
    let first = slow.infer(log_input()).unwrap();
    gate.wait_for(1);
    let second = slow.infer(log_input()).unwrap();
    let fast = repository.get("fast", None).unwrap().infer(Request::new([x(1, &[0.0; 4])])).unwrap();
    fast.wait().unwrap();
    gate.open();
    first.wait().unwrap();
    second.wait().unwrap();
}

#[test]
fn a_panic_in_an_engine_fails_its_request_and_nothing_else() {
    let fake = Fake::new(|inputs| {
        assert!(*inputs[0].elements::<f32>().unwrap() != [2.0], "two is too much");
        Ok(vec![renamed(&inputs[0], "y")])
    });
    let repository = Repository::new(fake.engines(), options(1)).unwrap();
    repository.load(LoadRequest::new("m", "1", model("log"))).unwrap();
    let m = repository.get("m", None).unwrap();
    for _ in 0..3 {
        match m.infer(log_input()).unwrap().wait() {
            Err(Error::Engine { source, .. }) => {
                assert!(matches!(*source, EngineError::Panicked(text) if text.contains("two is too much")));
            }
            other => panic!("{other:?}"),
        }
    }
    let fine = avocet_inference::Tensor::from_vec("x", [1], vec![1.0_f32]).unwrap();
    m.infer(Request::new([fine])).unwrap().wait().unwrap();
    assert_eq!(m.stats().fail.count, 3);
}

#[test]
fn limits_are_checked_before_anything_is_queued() {
    let options = Options { limits: Limits { elements: 8, bytes: 24, rank: 3 }, ..options(1) };
    let repository = Repository::new(discovered(), options).unwrap();
    repository.load(LoadRequest::new("a", "1", model("affine"))).unwrap();
    let a = repository.get("a", None).unwrap();
    let error = a.infer(Request::new([x(3, &[0.0; 12])])).err().unwrap();
    assert_eq!(error.to_string(), "a tensor's element count of 12 is over the limit of 8; send less at once");
    let error = a.infer(Request::new([x(2, &[0.0; 8])])).err().unwrap();
    assert!(matches!(error, Error::TooLarge { given: 32, limit: 24, .. }));
    // Of nothing there can be too much, too: an engine makes room for the other dimensions.
    let empty = |shape: &[usize]| {
        Request::new([avocet_inference::Tensor::from_vec::<f32>("x", shape, vec![]).unwrap()])
    };
    let error = a.infer(empty(&[1 << 40, 0])).err().unwrap();
    assert!(matches!(error, Error::TooLarge { given, limit: 8, .. } if given == 1 << 40));
    let error = a.infer(empty(&[1, 1, 1, 0])).err().unwrap();
    assert_eq!(
        error.to_string(),
        "a tensor's number of dimensions of 4 is over the limit of 3; send less at once"
    );
    a.infer(Request::new([x(1, &[0.0; 4])])).unwrap().wait().unwrap();
}

#[test]
fn a_request_that_does_not_fit_names_the_model_and_the_problem() {
    let repository = repository(discovered());
    repository.load(LoadRequest::new("a", "1", model("affine"))).unwrap();
    let request = Request { inputs: vec![x(1, &[0.0; 5])], ..Request::default() };
    let error = repository.get("a", None).unwrap().infer(request).err().unwrap();
    assert_eq!(
        error.to_string(),
        "model `a`: input `x` has shape [1, 5] but the model takes [-1, 4]; -1 stands for any size"
    );
    assert!(matches!(error, Error::Invalid { source: InvalidInput::Shape { .. }, .. }));
}

#[test]
fn dropping_the_repository_gives_waiting_requests_up() {
    let gate = Arc::new(Gate::default());
    let inside = Arc::clone(&gate);
    let fake = Fake::new(move |inputs| {
        inside.pass();
        Ok(vec![renamed(&inputs[0], "y")])
    });
    let repository = Repository::new(fake.engines(), options(1)).unwrap();
    repository.load(LoadRequest::new("m", "1", model("log"))).unwrap();
    let m = repository.get("m", None).unwrap();
    let running = m.infer(log_input()).unwrap();
    gate.wait_for(1);
    let waiting = m.infer(log_input()).unwrap();
    drop((m, repository));
    assert!(matches!(waiting.wait(), Err(Error::Stopped)));
    gate.open();
    running.wait().unwrap();
}

#[test]
fn swapping_under_load_loses_no_request() {
    let repository = repository(discovered());
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("copy.onnx");
    std::fs::copy(model("affine"), &other).unwrap();
    repository.load(LoadRequest::new("a", "1", model("affine"))).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let request = Request::new([x(1, &[1.0; 4])]);
                    let answer = repository.get("a", None).unwrap().infer(request).unwrap().wait();
                    assert_eq!(answer.unwrap().outputs[0].shape(), [1, 3]);
                }
            });
        }
        for round in 0..20 {
            let path = if round % 2 == 0 { other.clone() } else { model("affine") };
            repository.load(LoadRequest::new("a", "1", path)).unwrap();
        }
    });
    assert_eq!(repository.list().len(), 1);
}
