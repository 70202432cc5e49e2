use std::sync::mpsc;
use std::time::Duration;

use objects::{Objects, PutOptions};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::assignments::Assignments;
use crate::outbox::{Outbox, Parcel};
use crate::trigger::look;

/// A site with a bucket `letters`, whose components work on all that is put there.
struct Site {
    folder: TempDir,
    ledger: Ledger,
    objects: Objects,
    assignments: Assignments,
    invocations: Invocations,
}

fn assignment(uid: &str) -> Assignment {
    let artifact = json!({"digest": Digest::of(b"code"), "size": 1});
    let function = json!({"name": "f", "spec": {"runtime": "shell", "handler": "h", "artifact": artifact}});
    serde_json::from_value(json!({
        "apiVersion": types::API_VERSION, "kind": "Assignment",
        "metadata": {"name": "c.app.default", "namespace": "edge", "uid": format!("{uid}-1"), "generation": 1},
        "spec": {"applicationNamespace": "default", "application": "app", "applicationUid": uid,
            "component": "c", "function": function, "inputs": [{"path": "letters/in"}]},
    }))
    .unwrap()
}

impl Site {
    async fn new() -> Self {
        let (folder, ledger) = (tempfile::tempdir().unwrap(), Ledger::memory().unwrap());
        let objects = Objects::open(&folder.path().join("objects"), ledger.clone()).unwrap();
        objects.create_bucket("letters").await.unwrap();
        Self {
            assignments: Assignments::load(ledger.clone()).unwrap(),
            invocations: Invocations::load(ledger.clone(), folder.path().to_owned()).unwrap(),
            folder,
            ledger,
            objects,
        }
    }

    /// The same after the agent ended and came back.
    fn restart(&mut self) {
        self.assignments = Assignments::load(self.ledger.clone()).unwrap();
        self.invocations = Invocations::load(self.ledger.clone(), self.folder.path().to_owned()).unwrap();
    }

    async fn put(&self, name: &str) {
        let key = format!("in/{name}");
        self.objects.put_bytes("letters", &key, name.to_owned(), PutOptions::default()).await.unwrap();
    }

    async fn look(&self) {
        look(&self.objects, &self.assignments, &self.invocations).await.unwrap();
    }

    async fn come(&self, uid: &str) {
        self.assignments.put(assignment(uid)).await.unwrap();
    }

    async fn leave(&self) {
        self.assignments.remove("c.app.default").await.unwrap();
    }

    /// What the worker does with what waits for nobody.
    async fn dismiss(&self) {
        let names = self.assignments.all().iter().map(|known| known.assignment.name().to_owned()).collect();
        for (_, ids) in self.invocations.take_others(&names) {
            assert!(self.invocations.dismiss(ids).await.unwrap().is_empty());
        }
    }

    /// Brings all that waits to this end; answers the keys.
    async fn run(&self, state: State) -> Vec<String> {
        let mut ran = Vec::new();
        while let Some(id) = self.invocations.take_waiting("c.app.default") {
            let mut invocation = self.invocations.get(&id).unwrap().unwrap();
            assert_eq!(invocation.state, State::Pending);
            invocation.state = state;
            invocation.changed = daemon::now();
            self.invocations.update(&invocation).await.unwrap();
            ran.push(invocation.key);
        }
        ran
    }

    fn counts(&self, uid: &str) -> (u64, u64, u64) {
        let counts = self.invocations.counts(&assignment(uid)).unwrap();
        (counts.pending, counts.succeeded, counts.failed)
    }

    fn all(&self) -> Vec<Invocation> {
        self.invocations.list(usize::MAX).unwrap()
    }
}

#[tokio::test]
async fn what_came_while_a_component_was_away_runs_when_it_is_back_and_nothing_that_ran_before() {
    let mut site = Site::new().await;
    site.come("u").await;
    site.put("a").await;
    site.look().await;
    assert_eq!(site.run(State::Succeeded).await, ["in/a"]);
    // However long ago that was: nothing of it is remembered.
    let bounds = Bounds { succeeded: 0, ..Bounds::default() };
    site.invocations.forget_oldest(bounds).await.unwrap();
    assert_eq!(site.all(), []);
    site.leave().await;
    site.put("b").await;
    site.look().await;
    site.restart();
    site.put("c").await;
    site.look().await;
    assert_eq!(site.all(), []);
    site.come("u").await;
    site.look().await;
    assert_eq!(site.run(State::Succeeded).await, ["in/b", "in/c"]);
    site.look().await;
    site.restart();
    site.look().await;
    assert_eq!(site.run(State::Succeeded).await, [] as [String; 0]);
}

#[tokio::test]
async fn what_waited_when_its_component_left_is_told_as_failed_and_runs_once_when_it_is_back() {
    let mut site = Site::new().await;
    site.come("u").await;
    site.look().await;
    for name in ["bad", "b", "a"] {
        site.put(name).await;
    }
    site.look().await;
    let bad = site.invocations.take_waiting("c.app.default").unwrap();
    let mut bad = site.invocations.get(&bad).unwrap().unwrap();
    (bad.state, bad.reason) = (State::Failed, "ExitedWithError".to_owned());
    site.invocations.update(&bad).await.unwrap();
    assert_eq!(site.counts("u"), (2, 0, 1));
    site.leave().await;
    site.dismiss().await;
    assert_eq!(site.counts("u"), (0, 0, 3));
    let unassigned = |site: &Site| {
        let all = site.all();
        all.iter().filter(|one| one.state == State::Failed && one.reason == "Unassigned").count()
    };
    assert_eq!(unassigned(&site), 2);
    assert!(site.all()[0].message.contains("left the site before it ran"), "{:?}", site.all()[0]);
    site.restart();
    assert!(!site.invocations.has_waiting("c.app.default"));
    site.come("u").await;
    site.look().await;
    assert_eq!((site.counts("u"), unassigned(&site)), ((2, 0, 1), 0));
    // In the order of the events, and without what had failed by itself.
    assert_eq!(site.run(State::Succeeded).await, ["in/b", "in/a"]);
    site.look().await;
    site.restart();
    site.look().await;
    assert_eq!((site.run(State::Succeeded).await, site.counts("u")), (vec![], (0, 2, 1)));
}

#[tokio::test]
async fn a_component_that_is_back_at_once_goes_on_with_what_waits() {
    let site = Site::new().await;
    site.come("u").await;
    site.put("a").await;
    site.look().await;
    let names = BTreeSet::new();
    let taken = site.invocations.take_others(&names);
    site.leave().await;
    site.come("u").await;
    site.look().await;
    for (_, ids) in taken {
        site.invocations.dismiss(ids).await.unwrap();
    }
    assert_eq!(site.counts("u"), (1, 0, 0));
    assert_eq!(site.run(State::Succeeded).await, ["in/a"]);
    assert_eq!(site.all().len(), 1);
}

#[tokio::test]
async fn an_event_of_a_component_that_just_left_waits_for_its_return() {
    let site = Site::new().await;
    site.come("u").await;
    site.look().await;
    site.put("a").await;
    let info = site.objects.head("letters", "in/a").await.unwrap();
    let input = Input { bucket: info.bucket, key: info.key, etag: info.etag };
    let event = Invocation::new(&assignment("u"), input, daemon::now()).unwrap();
    site.leave().await;
    site.invocations.admit(vec![event], Mark::Cursor(info.sequence)).await.unwrap();
    // Nor is a trigger armed whose component left while what lies there was looked at.
    site.invocations.admit(vec![], Mark::armed(&assignment("u"))).await.unwrap();
    assert_eq!(site.all(), []);
    site.come("u").await;
    site.look().await;
    assert_eq!(site.run(State::Succeeded).await, ["in/a"]);
}

#[tokio::test]
async fn an_application_of_the_same_name_runs_nothing_of_the_one_before_and_each_input_once() {
    let site = Site::new().await;
    site.come("before").await;
    site.put("a").await;
    site.look().await;
    // The agent was away while one was deleted and the other applied.
    site.come("after").await;
    site.look().await;
    let mut waiting = site.invocations.last_waiting("c.app.default", 10);
    assert_eq!(waiting.len(), 2);
    waiting.iter().for_each(|id| assert!(site.invocations.withdraw("c.app.default", id)));
    waiting.sort();
    site.invocations.dismiss(waiting).await.unwrap();
    assert_eq!(site.run(State::Succeeded).await, ["in/a"]);
    assert_eq!(site.counts("after"), (0, 1, 0));
    let mut uids: Vec<_> = site.all().into_iter().map(|one| (one.application_uid, one.reason)).collect();
    uids.sort();
    assert_eq!(uids, [("after".into(), String::new()), ("before".into(), "Unassigned".into())]);
    // To replay the old one does nothing: nobody would run it as what it is.
    let old = site.all().into_iter().find(|one| one.application_uid == "before").unwrap();
    let replayed = site.invocations.replay(&old.id).await.unwrap().unwrap();
    assert_eq!(replayed, old);
}

#[tokio::test]
async fn triggers_that_an_older_version_left_armed_see_what_comes_from_now_on() {
    let site = Site::new().await;
    site.come("u").await;
    site.look().await;
    // As before there were notes of departures.
    site.ledger.write(|tables| tables.delete("assignments", "c.app.default")).await.unwrap();
    let assignments = Assignments::load(site.ledger.clone()).unwrap();
    site.invocations.disarm_others(vec![]).await.unwrap();
    let site = Site { assignments, ..site };
    site.put("a").await;
    site.look().await;
    site.come("u").await;
    site.look().await;
    assert_eq!(site.run(State::Succeeded).await, ["in/a"]);
}

#[tokio::test]
async fn successes_push_no_failures_out_and_failures_that_are_forgotten_are_counted() {
    let site = Site::new().await;
    site.come("u").await;
    for number in 0..3 {
        site.put(&format!("bad-{number}")).await;
    }
    site.look().await;
    site.run(State::Failed).await;
    for number in 0..6 {
        site.put(&format!("good-{number}")).await;
    }
    site.look().await;
    site.run(State::Succeeded).await;
    let log = site.invocations.log_file(&site.all().last().unwrap().id);
    std::fs::write(&log, "it is bad").unwrap();
    // Older versions noted all that had ended in one table.
    let move_one = |tables: &Tables| {
        let (key, id): (String, String) = tables.range("failed-invocations", "", "", 1)?.remove(0);
        tables.delete("failed-invocations", &key)?;
        tables.put("ended-invocations", &format!("0{key}"), &id)
    };
    site.ledger.write(move_one).await.unwrap();
    let bounds = Bounds { succeeded: 2, failed: 3, unassigned: 0 };
    for _ in 0..3 {
        site.invocations.forget_oldest(bounds).await.unwrap();
    }
    let left = |state| site.all().iter().filter(|one| one.state == state).count();
    assert_eq!((left(State::Succeeded), left(State::Failed)), (2, 3));
    assert!(log.exists());
    assert_eq!(site.invocations.counts(&assignment("u")).unwrap().forgotten, 0);
    site.invocations.forget_oldest(Bounds { failed: 0, ..bounds }).await.unwrap();
    assert_eq!((left(State::Succeeded), left(State::Failed)), (2, 0));
    assert!(!log.exists());
    let counts = site.invocations.counts(&assignment("u")).unwrap();
    assert_eq!((counts.forgotten, counts.failed, counts.succeeded), (3, 3, 6));
    let told = site.invocations.text();
    assert!(told.contains("avocet_forgotten_failures_total 3\n"), "{told}");
}

#[tokio::test]
async fn what_is_open_is_counted_as_it_changes_and_again_after_a_start() {
    let mut site = Site::new().await;
    site.come("u").await;
    let event = |number: u32| {
        let input = Input { bucket: "letters".into(), key: number.to_string(), etag: String::new() };
        Invocation::new(&assignment("u"), input, daemon::now()).unwrap()
    };
    let events: Vec<_> = (0..10_000).map(event).collect();
    site.invocations.admit(events.clone(), Mark::None).await.unwrap();
    site.invocations.admit(events, Mark::None).await.unwrap();
    let mut one = event(7);
    one.state = State::Failed;
    for _ in 0..2 {
        site.invocations.update(&one).await.unwrap();
    }
    assert_eq!(site.counts("u").0, 9_999);
    site.invocations.replay(&one.id).await.unwrap();
    assert_eq!(site.counts("u").0, 10_000);
    site.restart();
    assert_eq!(site.counts("u").0, 10_000);
}

#[tokio::test]
async fn what_is_undelivered_is_counted_while_others_read() {
    let (folder, ledger) = (tempfile::tempdir().unwrap(), Ledger::memory().unwrap());
    let open = || Outbox::open(ledger.clone(), folder.path().to_owned()).unwrap();
    let parcel = |id: &str, assignment: &str| Parcel {
        id: id.to_owned(),
        assignment: assignment.to_owned(),
        site: "cloud".to_owned(),
        bucket: "b".to_owned(),
        key: "k".to_owned(),
        digest: Digest::of(b""),
        size: 0,
        result: None,
    };
    let outbox = open();
    for _ in 0..2 {
        outbox.add(vec![parcel("1", "x"), parcel("2", "x"), parcel("3", "y")]).await.unwrap();
    }
    let (ended, end) = mpsc::channel::<()>();
    let (began, begin) = mpsc::channel();
    let reading = ledger.clone();
    let reader = std::thread::spawn(move || {
        reading.read(|_| {
            began.send(()).unwrap();
            end.recv().unwrap();
            Ok::<_, ledger::Error>(())
        })
    });
    begin.recv().unwrap();
    let (answer, answered) = mpsc::channel();
    let counting = outbox.clone();
    std::thread::spawn(move || answer.send((counting.count("x"), counting.count("y"), counting.count("z"))));
    let counted = answered.recv_timeout(Duration::from_secs(10));
    ended.send(()).unwrap();
    reader.join().unwrap().unwrap();
    assert_eq!(counted.unwrap(), (2, 1, 0));
    assert_eq!((open().count("x"), open().count("y")), (2, 1));
}

#[test]
fn an_invocation_of_an_older_version_is_taken_to_be_of_what_has_its_name() {
    let input = Input { bucket: "b".into(), key: "k".into(), etag: String::new() };
    let invocation = Invocation::new(&assignment("u"), input, daemon::now()).unwrap();
    let old = Invocation { application_uid: String::new(), ..invocation.clone() };
    assert!(invocation.is_of(&assignment("u")) && old.is_of(&assignment("u")));
    assert!(!invocation.is_of(&assignment("other")) && old.is_of(&assignment("other")));
    let mut elsewhere = assignment("u");
    elsewhere.metadata.name = "d.app.default".to_owned();
    assert!(!invocation.is_of(&elsewhere));
}
