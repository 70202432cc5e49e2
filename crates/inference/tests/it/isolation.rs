//! Promise 8: a crash or a hang of a model harms only itself.

use std::fs::File;
use std::path::PathBuf;

use avocet_inference::{
    Error, LoadError, LoadRequest, Model, Options, Pending, Repository, Request, Tensor, WorkerCommand,
};
use futures::FutureExt;
use types::{DeclaredTensor, Isolation, ModelSignature, Serving};

use crate::support::{Fake, model, options};

/// Examples are built beside the tests.
pub fn faulty_worker() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().unwrap().parent().unwrap().join("examples/faulty-worker")
}

fn repository() -> Repository {
    repository_of(options(2))
}

fn repository_of(options: Options) -> Repository {
    let worker = Some(WorkerCommand(vec![faulty_worker().into()]));
    Repository::new(Fake::echo().engines(), Options { worker, ..options }).unwrap()
}

fn isolated(name: &str, instances: u32) -> LoadRequest {
    let serving = Serving {
        isolation: Isolation::Process,
        run_timeout_milliseconds: 200,
        instances,
        ..Serving::default()
    };
    LoadRequest { serving, ..LoadRequest::new(name, "1", model("log")) }
}

fn load(repository: &Repository) -> Model {
    repository.load(isolated("m", 1)).unwrap();
    repository.get("m", None).unwrap()
}

fn request(value: f32) -> Request {
    Request::new([Tensor::from_vec("x", [1], vec![value]).unwrap()])
}

fn ask(model: &Model, value: f32) -> Result<f32, String> {
    let request = request(value);
    answer(model.infer(request).unwrap())
}

fn answer(pending: Pending) -> Result<f32, String> {
    match pending.wait() {
        Ok(answer) => Ok(answer.outputs[0].elements::<f32>().unwrap()[0]),
        Err(Error::Engine { source, .. }) => Err(source.to_string()),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_model_in_a_process_of_its_own_answers() {
    let repository = repository();
    let m = load(&repository);
    assert_eq!(ask(&m, 2.0), Ok(2.0));
    assert_eq!(ask(&m, 5.0), Err("the engine failed: the engine failed: five".into()));
    let status = repository.list().remove(0);
    assert!(status.why.ends_with("in a process of its own"), "{}", status.why);
}

#[test]
fn promise_8_a_crash_fails_its_request_and_the_next_one_finds_a_new_process() {
    let repository = repository();
    let m = load(&repository);
    assert_eq!(
        ask(&m, 13.0),
        Err("the engine failed: the model's process died of signal 6 (SIGABRT)".into())
    );
    assert_eq!(ask(&m, 2.0), Ok(2.0));
}

#[test]
fn promise_8_a_hang_is_stopped() {
    let repository = repository();
    let m = load(&repository);
    let stopped = "the engine failed: the model's process took longer than 200 ms and was stopped";
    assert_eq!(ask(&m, 7.0), Err(stopped.into()));
    assert_eq!(ask(&m, 2.0), Ok(2.0));
}

#[test]
fn a_process_that_dies_again_and_again_is_not_started_for_every_request() {
    let repository = repository();
    let m = load(&repository);
    let fates: Vec<String> = (0..20).map(|_| ask(&m, 13.0).unwrap_err()).collect();
    let last = &fates[19];
    assert!(last.ends_with("died several times and is started again in a moment"), "{last}");
}

#[test]
fn what_its_process_refuses_is_refused() {
    let repository = repository();
    let file = tempfile::NamedTempFile::with_suffix("damaged.onnx").unwrap();
    std::fs::write(file.path(), [0x3a, 0xff]).unwrap();
    let error = repository.load(LoadRequest { path: file.path().into(), ..isolated("m", 1) }).unwrap_err();
    assert!(matches!(&error, LoadError::Engine { reason, .. } if reason.contains("damaged.onnx")), "{error}");
    let error = repository.load(LoadRequest { path: model("missing"), ..isolated("m", 1) }).unwrap_err();
    assert!(matches!(&error, LoadError::Format { .. }), "{error}");
    let plain = Repository::new(Fake::echo().engines(), options(1)).unwrap();
    assert!(matches!(plain.load(isolated("m", 1)), Err(LoadError::NoIsolation)));
}

#[test]
fn a_process_of_its_own_has_the_threads_that_the_model_asks_for() {
    let repository = repository();
    assert_eq!(ask(&load(&repository), 33.0), Ok(0.0), "as many as the engine takes");
    let mut wanted = isolated("three", 1);
    wanted.serving.threads = 3;
    repository.load(wanted).unwrap();
    assert_eq!(ask(&repository.get("three", None).unwrap(), 33.0), Ok(3.0));
}

#[test]
fn a_process_of_its_own_is_told_what_the_model_is_declared_as() {
    let tensor = |name: &str| DeclaredTensor { name: name.to_owned(), datatype: None, shape: None };
    let signature = |name: &str| ModelSignature { inputs: vec![tensor(name)], ..ModelSignature::default() };
    let repository = repository();
    repository.load(LoadRequest { signature: Some(signature("x")), ..isolated("m", 1) }).unwrap();
    let error = repository.load(LoadRequest { signature: Some(signature("z")), ..isolated("m", 1) });
    let error = error.unwrap_err();
    assert!(
        matches!(&error, LoadError::Engine { engine: "isolated", .. }),
        "its process refuses it: {error}"
    );
}

#[test]
fn a_process_of_its_own_gets_archives_unpacked_because_it_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, seen) = (folder.path().join("model"), folder.path().join("seen"));
    let saved_model = model("keras3").with_file_name("tensorflow/keras3");
    artifacts::bundle::pack(&saved_model, &mut File::create(&archive).unwrap()).unwrap();
    let script = "ls \"$2\" >\"$0\"";
    let command = ["sh".into(), "-c".into(), script.into(), seen.clone().into()];
    let worker = Some(WorkerCommand(command.into()));
    let repository = Repository::new(Fake::echo().engines(), Options { worker, ..options(1) }).unwrap();
    repository.load(LoadRequest { path: archive, ..isolated("m", 1) }).unwrap_err();
    assert!(std::fs::read_to_string(seen).unwrap().contains("saved_model.pb"));
}

#[test]
fn each_instance_is_a_process() {
    let repository = repository();
    repository.load(isolated("m", 2)).unwrap();
    let m = repository.get("m", None).unwrap();
    std::thread::scope(|scope| {
        let hanging = scope.spawn(|| ask(&m, 7.0));
        for value in 0..5_u8 {
            assert_eq!(ask(&m, value.into()), Ok(value.into()));
        }
        assert!(hanging.join().unwrap().is_err());
    });
}

#[test]
fn promise_8_who_waits_for_a_hanging_process_keeps_no_other_model_waiting() {
    let repository = repository_of(Options { queue: 4, ..options(1) });
    let mut hanging = isolated("hanging", 1);
    hanging.serving.run_timeout_milliseconds = 5_000;
    repository.load(hanging).unwrap();
    repository.load(isolated("fine", 1)).unwrap();
    repository.load(LoadRequest::new("plain", "1", model("log"))).unwrap();
    let [hanging, fine, plain] = ["hanging", "fine", "plain"].map(|name| repository.get(name, None).unwrap());
    let mut hangs = hanging.infer(request(7.0)).unwrap();
    let waiting = || repository.observe().into_iter().find(|one| one.name == "hanging").unwrap().waiting;
    while waiting() > 0 {
        std::thread::yield_now();
    }
    let behind: Vec<Pending> = (0..4).map(|_| hanging.infer(request(1.0)).unwrap()).collect();
    assert!(matches!(hanging.infer(request(1.0)), Err(Error::Overloaded { waiting: 4 })));
    for value in 0..5_u8 {
        assert_eq!(ask(&fine, value.into()), Ok(value.into()));
        assert_eq!(ask(&plain, value.into()), Ok(value.into()));
    }
    assert!((&mut hangs).now_or_never().is_none(), "it hangs still");
    // Who stops the server isn't kept waiting either.
    drop((hanging, fine, plain));
    drop(repository);
    for pending in behind {
        assert!(matches!(pending.wait(), Err(Error::Stopped)));
    }
    assert!(answer(hangs).unwrap_err().contains("took longer than 5000 ms"));
}
