//! Versions: shares, trials, shadows, aliases, and what is loaded on request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use avocet_inference::{
    EngineError, Error, LoadRequest, Options, Repository, Request, Routing, State, Tensor,
};
use types::{Rollback, Serving, Shadow, Share, Traffic};

use crate::support::{Fake, Gate, copy_of, model, options, renamed};

fn request(value: f32) -> Request {
    Request::new([Tensor::from_vec("x", [1], vec![value]).unwrap()])
}

/// Versions 1 and 2 of `m`; both give `x` back, but 2 fails on a five and gives -3 for a three.
fn two_versions(folder: &tempfile::TempDir) -> Repository {
    let plain = |inputs: &[Tensor]| Ok(vec![renamed(&inputs[0], "y")]);
    let fake = Fake::by_file(move |file, inputs| {
        let value = inputs[0].elements::<f32>().unwrap()[0];
        match (file, value) {
            ("2.onnx", 5.0) => Err(EngineError::Failed("five".into())),
            ("2.onnx", 3.0) => Ok(vec![Tensor::from_vec("y", [1], vec![-3.0_f32]).unwrap()]),
            _ => plain(inputs),
        }
    });
    versions_of(fake, folder)
}

/// Versions 1 and 2 of `m`, of files with these names.
fn versions_of(fake: Fake, folder: &tempfile::TempDir) -> Repository {
    let repository = Repository::new(fake.engines(), options(1)).unwrap();
    for version in ["1", "2"] {
        let path = copy_of("log", folder, &format!("{version}.onnx"));
        let default = version == "1";
        repository.load(LoadRequest { default, ..LoadRequest::new("m", version, path) }).unwrap();
    }
    repository
}

fn split(repository: &Repository, rollback: Option<Rollback>) {
    let share = |version: &str, weight| Share { version: version.into(), weight };
    let traffic = Traffic { split: vec![share("1", 75), share("2", 25)], rollback, ..Traffic::default() };
    repository.set_routing("m", Routing { traffic: Some(traffic), ..Routing::default() }).unwrap();
}

#[test]
fn shares_and_aliases_choose_the_version() {
    let folder = tempfile::tempdir().unwrap();
    let repository = two_versions(&folder);
    split(&repository, None);
    let versions: Vec<_> =
        (0..100).map(|_| repository.get("m", None).unwrap().version().to_owned()).collect();
    assert!((23..=27).contains(&versions.iter().filter(|version| *version == "2").count()));
    let aliases = [("champion".to_owned(), "2".to_owned())].into();
    repository.set_routing("m", Routing { aliases, traffic: None }).unwrap();
    assert_eq!(repository.get("m", Some("champion")).unwrap().version(), "2");
    assert_eq!(repository.get("m", None).unwrap().version(), "1");
    assert_eq!(repository.list()[1].aliases, ["champion"]);
    let stranger = Routing { aliases: [("a".to_owned(), "9".to_owned())].into(), traffic: None };
    let error = repository.set_routing("m", stranger).unwrap_err();
    assert_eq!(error.to_string(), "model `m` has no version `9`; loaded: 1, 2");
}

#[tokio::test]
async fn promise_4_a_version_that_fails_loses_its_share_and_only_that() {
    let folder = tempfile::tempdir().unwrap();
    let repository = two_versions(&folder);
    let bounds = Rollback { max_error_percent: Some(10), min_requests: 5, ..Rollback::default() };
    split(&repository, Some(bounds));
    let mut failures = 0;
    for _ in 0..100 {
        let answer = repository.get("m", None).unwrap().answer(request(5.0)).await;
        failures += usize::from(answer.is_err());
    }
    assert_eq!(failures, 5, "one for each request that it takes to judge");
    let status = &repository.list()[1];
    assert_eq!(status.rolled_back.as_deref(), Some("5 of 5 requests failed; at most 10% may"));
    assert_eq!(repository.get("m", Some("2")).unwrap().version(), "2", "by its name it still answers");
}

#[tokio::test]
async fn promise_4_a_version_that_is_slower_than_its_callers_wait_loses_its_share() {
    let (begun, mut asked) = (Arc::<AtomicUsize>::default(), 0);
    let inside = Arc::clone(&begun);
    let fake = Fake::by_file(move |file, inputs| {
        if file == "2.onnx" {
            inside.fetch_add(1, SeqCst);
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(vec![renamed(&inputs[0], "y")])
    });
    let folder = tempfile::tempdir().unwrap();
    let repository = versions_of(Fake { on_caller: false, ..fake }, &folder);
    let bounds = Rollback { max_latency_milliseconds: Some(5), min_requests: 5, ..Rollback::default() };
    split(&repository, Some(bounds));
    for _ in 0..40 {
        let model = repository.get("m", None).unwrap();
        let mut answer = Box::pin(model.answer(request(1.0)));
        if model.version() == "2" {
            assert!(futures::poll!(answer.as_mut()).is_pending());
            asked += 1;
            while begun.load(SeqCst) < asked {
                std::thread::yield_now();
            }
            // The caller's deadline is over.
            drop(answer);
        } else {
            answer.await.unwrap();
        }
    }
    let status = repository.list().remove(1);
    let verdict = status.rolled_back.unwrap();
    assert!(
        verdict.starts_with("99% of requests took up to") && verdict.ends_with("the bound is 5 ms"),
        "{verdict}"
    );
    assert!((5..=7).contains(&begun.load(SeqCst)), "it gets no more requests");
}

#[tokio::test]
async fn a_shadow_sees_copies_and_its_answers_are_only_compared() {
    let folder = tempfile::tempdir().unwrap();
    let repository = two_versions(&folder);
    let shadow = Some(Shadow { version: "2".into(), percent: 100 });
    let traffic = Some(Traffic { shadow, ..Traffic::default() });
    repository.set_routing("m", Routing { traffic, ..Routing::default() }).unwrap();
    for value in [1.0, 3.0, 4.0] {
        let answer = repository.get("m", None).unwrap().answer(request(value)).await.unwrap();
        assert_eq!(*answer.outputs[0].elements::<f32>().unwrap(), [value]);
    }
    let compared = || repository.get("m", Some("2")).unwrap().stats();
    while compared().shadow_agreed + compared().shadow_differed < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!((compared().shadow_agreed, compared().shadow_differed), (2, 1));
}

fn lazy(name: &str) -> LoadRequest {
    let serving = Serving { lazy: true, ..Serving::default() };
    LoadRequest { serving, ..LoadRequest::new(name, "1", model("log")) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_requests_load_a_model_once() {
    let fake = Fake::echo();
    let loads = Arc::clone(&fake.loads);
    let repository = Repository::new(fake.engines(), Options::default()).unwrap();
    repository.register(lazy("m")).unwrap();
    assert_eq!(repository.list()[0].state, State::Idle);
    assert_eq!(loads.load(SeqCst), 0);
    let asked = (0..8).map(|_| {
        let repository = repository.clone();
        async move { repository.obtain("m", None).await.unwrap().answer(request(1.0)).await.unwrap() }
    });
    for answer in futures_join(asked).await {
        assert_eq!(*answer.outputs[0].elements::<f32>().unwrap(), [1.0]);
    }
    assert_eq!(loads.load(SeqCst), 1);
}

async fn futures_join<T: Send + 'static>(
    all: impl Iterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let mut tasks = tokio::task::JoinSet::new();
    all.for_each(|one| drop(tasks.spawn(one)));
    tasks.join_all().await
}

#[tokio::test]
async fn what_was_not_used_for_longest_makes_room_and_is_loaded_again() {
    let fake = Fake::echo();
    let alive = Arc::clone(&fake.alive);
    let options = Options { model_bytes: 0, ..Options::default() };
    let repository = Repository::new(fake.engines(), options).unwrap();
    for name in ["a", "b"] {
        repository.register(lazy(name)).unwrap();
    }
    for name in ["a", "b", "a"] {
        // The budget holds nothing, but who asked is answered.
        match repository.obtain(name, None).await {
            Ok(model) => drop(model.answer(request(1.0)).await.unwrap()),
            Err(error) => panic!("{error}"),
        }
        // Who loaded it lets go of it in a moment.
        while alive.load(SeqCst) != 0 {
            tokio::task::yield_now().await;
        }
    }
    repository.load(LoadRequest::new("kept", "1", model("log"))).unwrap();
    assert_eq!(alive.load(SeqCst), 1, "what is loaded for good stays");
}

#[tokio::test]
async fn a_failed_load_is_told_to_who_asked_and_the_next_ones() {
    let repository = Repository::new(Fake::echo().engines(), Options::default()).unwrap();
    repository.register(LoadRequest { path: model("missing"), ..lazy("m") }).unwrap();
    for _ in 0..2 {
        let error = repository.obtain("m", None).await.err().unwrap();
        assert!(
            matches!(&error, Error::NotReady { reason, .. } if reason.contains("missing.onnx")),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_during_a_load_that_fails_shares_its_failure() {
    let gate = Arc::new(Gate::default());
    let fake = Fake { refuse: Some("no"), load_gate: Some(Arc::clone(&gate)), ..Fake::echo() };
    let loads = Arc::clone(&fake.loads);
    let repository = Repository::new(fake.engines(), options(1)).unwrap();
    repository.register(lazy("m")).unwrap();
    let asked = (0..8).map(|_| {
        let repository = repository.clone();
        async move { repository.obtain("m", None).await.err().unwrap().to_string() }
    });
    let opener = std::thread::spawn(move || {
        gate.wait_for(1);
        gate.open();
    });
    for error in futures_join(asked).await {
        assert!(error.contains("loading failed: "), "{error}");
    }
    opener.join().unwrap();
    assert_eq!(loads.load(SeqCst), 1, "nobody tries again at once");
}

#[test]
fn what_is_unloaded_while_it_is_loaded_stays_away() {
    let gate = Arc::new(Gate::default());
    let fake = Fake { load_gate: Some(Arc::clone(&gate)), ..Fake::echo() };
    let alive = Arc::clone(&fake.alive);
    let repository = Repository::new(fake.engines(), options(1)).unwrap();
    let loading = std::thread::spawn({
        let repository = repository.clone();
        move || repository.load(LoadRequest::new("m", "1", model("log")))
    });
    gate.wait_for(1);
    repository.unload("m", "1").unwrap();
    gate.open();
    let error = loading.join().unwrap().unwrap_err();
    assert!(error.to_string().contains("unloaded while it was loaded"), "{error}");
    assert_eq!(repository.list(), []);
    assert_eq!(alive.load(SeqCst), 0);
}

#[test]
fn who_chooses_a_default_during_a_load_has_the_last_word() {
    let gate = Arc::new(Gate::default());
    let fake = Fake { load_gate: Some(Arc::clone(&gate)), ..Fake::echo() };
    let repository = Repository::new(fake.engines(), options(1)).unwrap();
    let load = |version: &'static str| {
        let repository = repository.clone();
        std::thread::spawn(move || repository.load(LoadRequest::new("m", version, model("log"))).map(drop))
    };
    let first = load("1");
    gate.wait_for(1);
    let second = load("2");
    gate.open();
    first.join().unwrap().unwrap();
    second.join().unwrap().unwrap();
    repository.set_default("m", "1").unwrap();
    assert_eq!(repository.get("m", None).unwrap().version(), "1");
    let aliases = [("champion".to_owned(), "2".to_owned())].into();
    repository.set_routing("m", Routing { aliases, traffic: None }).unwrap();
    repository.set_default("m", "champion").unwrap();
    assert_eq!(repository.get("m", None).unwrap().version(), "2", "an alias stands for its version");
}

#[tokio::test]
async fn a_shadow_that_is_too_slow_takes_nothing_from_requests() {
    let gate = Arc::new(Gate::default());
    let held = Arc::clone(&gate);
    let fake = Fake::by_file(move |file, inputs| {
        if file == "2.onnx" {
            held.pass();
        }
        Ok(vec![renamed(&inputs[0], "y")])
    });
    let fake = Fake { on_caller: false, instances: 1, ..fake };
    let folder = tempfile::tempdir().unwrap();
    let options = Options { queue: 16, ..options(2) };
    let repository = Repository::new(fake.engines(), options).unwrap();
    for version in ["1", "2"] {
        let path = copy_of("log", &folder, &format!("{version}.onnx"));
        let default = version == "1";
        repository.load(LoadRequest { default, ..LoadRequest::new("m", version, path) }).unwrap();
    }
    let shadow = Some(Shadow { version: "2".into(), percent: 100 });
    let traffic = Some(Traffic { shadow, ..Traffic::default() });
    repository.set_routing("m", Routing { traffic, ..Routing::default() }).unwrap();
    for _ in 0..64 {
        repository.get("m", None).unwrap().answer(request(1.0)).await.unwrap();
    }
    gate.open();
}
