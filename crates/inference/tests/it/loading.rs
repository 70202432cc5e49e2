//! Loads that go on at once: who waits for whom, and what they may take together.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use avocet_inference::{LoadRequest, Options, Repository, Request, State, Tensor};
use types::Serving;

use crate::support::{Fake, Gate, copy_of, model, options};

fn request(value: f32) -> Request {
    Request::new([Tensor::from_vec("x", [1], vec![value]).unwrap()])
}

fn lazy(name: &str, path: impl Into<std::path::PathBuf>) -> LoadRequest {
    let serving = Serving { lazy: true, ..Serving::default() };
    LoadRequest { serving, ..LoadRequest::new(name, "1", path) }
}

/// Loads of files that begin with `slow` wait for the gate.
fn gated() -> (Repository, Arc<Gate>, Fake) {
    let gate = Arc::<Gate>::default();
    let fake = Fake { load_gate: Some(Arc::clone(&gate)), gated: "slow", ..Fake::echo() };
    let seen = Fake { loads: Arc::clone(&fake.loads), alive: Arc::clone(&fake.alive), ..Fake::echo() };
    (Repository::new(fake.engines(), options(1)).unwrap(), gate, seen)
}

#[tokio::test]
async fn a_load_that_takes_long_keeps_no_other_model_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let (repository, gate, _) = gated();
    let slow = std::thread::spawn({
        let (repository, path) = (repository.clone(), copy_of("log", &folder, "slow.onnx"));
        move || repository.load(LoadRequest::new("slow", "1", path)).map(drop)
    });
    gate.wait_for(1);
    repository.load(LoadRequest::new("fast", "1", model("log"))).unwrap();
    repository.register(lazy("lazy", model("log"))).unwrap();
    let answer = repository.obtain("lazy", None).await.unwrap().answer(request(1.0)).await.unwrap();
    assert_eq!(*answer.outputs[0].elements::<f32>().unwrap(), [1.0]);
    assert_eq!(repository.list().iter().filter(|model| model.state == State::Loading).count(), 1);
    gate.open();
    slow.join().unwrap().unwrap();
}

#[tokio::test]
async fn only_a_few_models_are_loaded_at_once_and_who_gives_up_waiting_breaks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (repository, gate, seen) = gated();
    for name in ["a", "b", "c"] {
        repository.register(lazy(name, copy_of("log", &folder, &format!("slow-{name}.onnx")))).unwrap();
    }
    let mut first = Box::pin(repository.obtain("a", None));
    let mut second = Box::pin(repository.obtain("b", None));
    let mut impatient = Box::pin(repository.obtain("c", None));
    let mut patient = Box::pin(repository.obtain("c", None));
    for waiting in [&mut first, &mut second, &mut impatient, &mut patient] {
        assert!(futures::poll!(waiting.as_mut()).is_pending());
    }
    gate.wait_for(2);
    assert_eq!(seen.loads.load(SeqCst), 2, "the third waits for its turn");
    drop(impatient);
    gate.open();
    for waiting in [first, second, patient] {
        waiting.await.unwrap().answer(request(1.0)).await.unwrap();
    }
    assert_eq!(seen.loads.load(SeqCst), 3);
}

#[tokio::test]
async fn what_is_unloaded_while_it_waits_for_its_turn_is_not_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let (repository, gate, seen) = gated();
    for name in ["a", "b", "c"] {
        repository.register(lazy(name, copy_of("log", &folder, &format!("slow-{name}.onnx")))).unwrap();
    }
    let mut waiting: Vec<_> = ["a", "b", "c"].map(|name| Box::pin(repository.obtain(name, None))).into();
    for one in &mut waiting {
        assert!(futures::poll!(one.as_mut()).is_pending());
    }
    gate.wait_for(2);
    repository.unload("c", "1").unwrap();
    gate.open();
    let last = waiting.pop().unwrap().await.err().unwrap();
    assert!(last.to_string().contains("unloaded"), "{last}");
    for one in waiting {
        one.await.unwrap();
    }
    assert_eq!(seen.loads.load(SeqCst), 2);
    assert_eq!(repository.list().len(), 2, "and doesn't come back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_models_share_the_memory_of_fifty() {
    const MODELS: u64 = 5_000;
    const FITTING: u64 = 50;
    const ASKING: u64 = 8;
    let fake = Fake::echo();
    let (alive, loads) = (Arc::clone(&fake.alive), Arc::clone(&fake.loads));
    // Each counts at least as much as its file, which is larger than what the process grows by for a fake.
    let folder = tempfile::tempdir().unwrap();
    let path = copy_of("log", &folder, "padded.onnx");
    // The field 15 of 1 MiB: readers of models skip what they don't know.
    let padding: Vec<u8> = [0x7a, 0x80, 0x80, 0x40].into_iter().chain(vec![0; 1 << 20]).collect();
    std::fs::write(&path, [std::fs::read(&path).unwrap(), padding].concat()).unwrap();
    let size = path.metadata().unwrap().len();
    let options = Options { model_bytes: FITTING * size, ..options(2) };
    let repository = Repository::new(fake.engines(), options).unwrap();
    for number in 0..MODELS {
        repository.register(lazy(&format!("m{number}"), &path)).unwrap();
    }
    let asking = (0..ASKING).map(|seed| {
        let (repository, alive) = (repository.clone(), Arc::clone(&alive));
        async move {
            let (mut state, mut most) = (seed, 0);
            for turn in 0..150_u16 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let name = format!("m{}", (state >> 33) % MODELS);
                let model = repository.obtain(&name, None).await.unwrap();
                let answer = model.answer(request(turn.into())).await.unwrap();
                assert_eq!(*answer.outputs[0].elements::<f32>().unwrap(), [f32::from(turn)]);
                most = most.max(alive.load(SeqCst));
            }
            most
        }
    });
    let mut tasks = tokio::task::JoinSet::new();
    asking.for_each(|one| drop(tasks.spawn(one)));
    let most = tasks.join_all().await.into_iter().max().unwrap() as u64;
    // Beside what the catalog counts, each who asks may hold one that was taken out, and one is being loaded for them.
    assert!(most <= FITTING + 2 * ASKING, "{most} models at once");
    assert!(most >= FITTING / 2, "{most} models at once: memory is used");
    assert!(loads.load(SeqCst) as u64 >= FITTING * 2);
    let held: u64 = repository.list().iter().map(|model| model.memory).sum();
    assert!(held <= FITTING * size, "{held} bytes");
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while alive.load(SeqCst) as u64 > FITTING && std::time::Instant::now() < deadline {
        tokio::task::yield_now().await;
    }
    assert!(alive.load(SeqCst) as u64 <= FITTING);
}
