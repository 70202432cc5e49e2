//! What is new is tried in a process of its own before it is loaded here.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use avocet_inference::{Engines, LoadError, LoadRequest, Options, Repository, State, WorkerCommand};
use store::Ledger;
use tempfile::TempDir;
use types::{DeclaredTensor, Isolation, ModelSignature, Serving};

use crate::isolation::faulty_worker;
use crate::support::{Fake, copy_of, options};

/// A folder for models, where each rehearsal leaves a mark.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rehearsals"), "").unwrap();
    folder
}

fn rehearsals(folder: &TempDir) -> usize {
    std::fs::read(folder.path().join("rehearsals")).unwrap().len()
}

fn careful() -> Options {
    Options { worker: Some(WorkerCommand(vec![faulty_worker().into()])), ..options(2) }
}

fn repository(options: Options) -> Repository {
    Repository::new(Fake::echo().engines(), options).unwrap()
}

fn load(repository: &Repository, name: &str, path: PathBuf) -> Result<(), String> {
    repository.load(LoadRequest::new(name, "1", path)).map(drop).map_err(|error| error.to_string())
}

#[test]
fn a_file_that_kills_its_process_is_refused_and_this_process_lives() {
    let (folder, engine) = (folder(), Fake::echo());
    let loads = Arc::clone(&engine.loads);
    let repository = Repository::new(engine.engines(), careful()).unwrap();
    let error = load(&repository, "crash", copy_of("log", &folder, "crash.onnx")).unwrap_err();
    let told = "it was tried in a process of its own first, which died of signal 6 (SIGABRT)";
    assert!(error.contains("engine `fake`") && error.contains(told), "{error}");
    let error = load(&repository, "refuse", copy_of("log", &folder, "refuse.onnx")).unwrap_err();
    assert!(error.contains("engine `rten` can't load the model: refused"), "the engine's own words: {error}");
    assert_eq!(loads.load(Ordering::SeqCst), 0, "nothing of it came here");
    let failed = |status: &avocet_inference::ModelStatus| matches!(status.state, State::Failed { .. });
    assert!(repository.list().iter().all(failed));
    load(&repository, "fine", copy_of("log", &folder, "fine.onnx")).unwrap();
}

#[test]
fn auto_goes_on_with_the_engines_that_withstood_it() {
    let folder = folder();
    let named = |name| Arc::new(Fake { name, ..Fake::echo() }) as Arc<dyn avocet_inference::Engine>;
    // The worker ends with the first, and the second gets another one, which ends, too.
    let engines = Engines::with(vec![named("fake"), named("rten")]);
    let repository = Repository::new(engines, careful()).unwrap();
    let error = load(&repository, "crash", copy_of("log", &folder, "crash.onnx")).unwrap_err();
    assert!(error.contains("engine `fake`") && error.contains("engine `rten`"), "{error}");
    assert_eq!(rehearsals(&folder), 2);
    load(&repository, "fine", copy_of("log", &folder, "fine.onnx")).unwrap();
    assert_eq!(rehearsals(&folder), 3, "both in one process");
}

#[test]
fn a_file_is_rehearsed_once_whatever_its_name_and_again_when_it_changed() {
    let folder = folder();
    let repository = repository(careful());
    load(&repository, "one", copy_of("log", &folder, "one.onnx")).unwrap();
    load(&repository, "two", copy_of("log", &folder, "two.onnx")).unwrap();
    assert_eq!(rehearsals(&folder), 1);
    load(&repository, "other", copy_of("affine", &folder, "other.onnx")).unwrap();
    assert_eq!(rehearsals(&folder), 2);
    std::fs::write(folder.path().join("one.onnx.data"), "weights").unwrap();
    let same = LoadRequest::new("again", "1", folder.path().join("one.onnx"));
    repository.load(same.clone()).unwrap();
    assert_eq!(rehearsals(&folder), 3, "its data are part of it");
    let tensor = DeclaredTensor { name: "x".into(), datatype: None, shape: None };
    let signature = Some(ModelSignature { inputs: vec![tensor], ..ModelSignature::default() });
    repository.load(LoadRequest { signature, name: "declared".into(), ..same }).unwrap();
    assert_eq!(rehearsals(&folder), 4, "what is declared says what is run");
}

#[test]
fn a_restart_remembers_what_was_rehearsed() {
    let folder = folder();
    let file = copy_of("log", &folder, "m.onnx");
    for _ in 0..2 {
        let ledger = Some(Ledger::open(&folder.path().join("server.db")).unwrap());
        load(&repository(Options { ledger, ..careful() }), "m", file.clone()).unwrap();
    }
    assert_eq!(rehearsals(&folder), 1);
    load(&repository(careful()), "m", file).unwrap();
    assert_eq!(rehearsals(&folder), 2, "without a ledger it is forgotten");
}

#[test]
fn trusted_files_and_isolated_models_are_not_rehearsed() {
    let folder = folder();
    load(&repository(Options { trust_models: true, ..careful() }), "m", copy_of("log", &folder, "a.onnx"))
        .unwrap();
    let serving = Serving { isolation: Isolation::Process, ..Serving::default() };
    let isolated = LoadRequest { serving, ..LoadRequest::new("i", "1", copy_of("log", &folder, "b.onnx")) };
    repository(careful()).load(isolated).unwrap();
    assert_eq!(rehearsals(&folder), 0);
}

#[test]
fn a_worker_that_can_not_be_started_is_told() {
    let folder = folder();
    let worker = Some(WorkerCommand(vec!["/nowhere/worker".into()]));
    let repository = repository(Options { worker, ..options(1) });
    let request = LoadRequest::new("m", "1", copy_of("log", &folder, "m.onnx"));
    let Err(LoadError::NoEngine { reasons }) = repository.load(request) else { panic!("it was loaded") };
    assert!(reasons.contains("can't start its process"), "{reasons}");
}
