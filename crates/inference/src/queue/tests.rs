use super::*;

const SINGLE: Policy =
    Policy { instances: 1, max_batch: 1, max_delay: Duration::ZERO, max_waiting: usize::MAX };
const BATCHED: Policy = Policy { max_batch: 4, max_delay: Duration::from_millis(10), ..SINGLE };

fn queue(entries: usize, weight: usize) -> Queue<&'static str> {
    Queue::new(Capacity { entries, weight })
}

fn entry<T>(key: u64, policy: Policy, item: T, now: Instant) -> Entry<T> {
    Entry { key, policy, priority: 16, arrived: now, deadline: None, bucket: 0, samples: 1, weight: 10, item }
}

fn take<T>(queue: &mut Queue<T>, now: Instant) -> Option<Vec<T>> {
    match queue.next(now) {
        Next::Run { batch, .. } => Some(batch),
        Next::Wait(_) => None,
    }
}

#[test]
fn a_busy_model_lets_others_pass_and_keeps_its_place() {
    let (mut queue, now) = (queue(9, 1000), Instant::now());
    for (key, item) in [(1, "a"), (1, "b"), (2, "c"), (1, "d")] {
        queue.push(entry(key, SINGLE, item, now)).unwrap();
    }
    assert_eq!(take(&mut queue, now), Some(vec!["a"]));
    assert_eq!(take(&mut queue, now), Some(vec!["c"]));
    assert_eq!(take(&mut queue, now), None);
    queue.finish(1);
    assert_eq!(take(&mut queue, now), Some(vec!["b"]));
    queue.finish(1);
    assert_eq!(take(&mut queue, now), Some(vec!["d"]));
    assert!(queue.is_empty());
}

#[test]
fn the_most_urgent_goes_first() {
    let (mut queue, now) = (queue(9, 1000), Instant::now());
    for (priority, item) in [(16, "b"), (32, "d"), (1, "a"), (16, "c")] {
        queue.push(Entry { priority, ..entry(priority.into(), SINGLE, item, now) }).unwrap();
    }
    let order: Vec<_> = std::iter::from_fn(|| take(&mut queue, now)).flatten().collect();
    assert_eq!(order, ["a", "b", "d"], "c shares the busy model of b");
    queue.finish(16);
    assert_eq!(take(&mut queue, now), Some(vec!["c"]));
}

#[test]
fn a_full_queue_refuses_by_count_by_weight_and_by_model() {
    let now = Instant::now();
    let mut by_count = queue(2, 1000);
    by_count.push(entry(1, SINGLE, "a", now)).unwrap();
    by_count.push(entry(1, SINGLE, "b", now)).unwrap();
    assert_eq!(by_count.push(entry(1, SINGLE, "c", now)), Err(Refused::Full { waiting: 2 }));
    let mut by_weight = queue(9, 5);
    by_weight.push(entry(1, SINGLE, "one may exceed it", now)).unwrap();
    assert_eq!(by_weight.push(entry(1, SINGLE, "c", now)), Err(Refused::Full { waiting: 1 }));
    take(&mut by_weight, now);
    by_weight.push(entry(1, SINGLE, "again", now)).unwrap();
    let (mut by_model, short) = (queue(9, 1000), Policy { max_waiting: 1, ..SINGLE });
    by_model.push(entry(1, short, "a", now)).unwrap();
    assert_eq!(by_model.push(entry(1, short, "b", now)), Err(Refused::Full { waiting: 1 }));
    by_model.push(entry(2, short, "c", now)).unwrap();
}

#[test]
fn what_nobody_waits_for_leaves_room() {
    let (mut queue, now) = (queue(2, 1000), Instant::now());
    queue.push(entry(1, SINGLE, "gone", now)).unwrap();
    queue.push(entry(2, SINGLE, "here", now)).unwrap();
    assert_eq!(queue.extract(|item| *item == "gone"), ["gone"]);
    queue.push(entry(1, SINGLE, "next", now)).unwrap();
    assert_eq!(take(&mut queue, now), Some(vec!["here"]));
    assert_eq!(take(&mut queue, now), Some(vec!["next"]));
}

#[test]
fn a_batch_runs_when_it_is_full_or_its_delay_is_over() {
    let (mut queue, start) = (queue(9, 1000), Instant::now());
    queue.push(entry(1, BATCHED, "a", start)).unwrap();
    queue.push(Entry { samples: 2, ..entry(1, BATCHED, "b", start) }).unwrap();
    let due = start + Duration::from_millis(10);
    assert!(matches!(queue.next(start), Next::Wait(Some(at)) if at == due));
    queue.push(entry(1, BATCHED, "c", start)).unwrap();
    assert_eq!(take(&mut queue, start), Some(vec!["a", "b", "c"]));
    queue.finish(1);
    queue.push(entry(1, BATCHED, "late", start)).unwrap();
    assert_eq!(take(&mut queue, start), None);
    assert_eq!(take(&mut queue, due), Some(vec!["late"]));
}

#[test]
fn a_request_with_little_time_waits_at_most_half_of_it_for_others() {
    let (mut queue, start) = (queue(9, 1000), Instant::now());
    let deadline = Some(start + Duration::from_millis(6));
    queue.push(Entry { deadline, ..entry(1, BATCHED, "hurried", start) }).unwrap();
    let due = start + Duration::from_millis(3);
    assert!(matches!(queue.next(start), Next::Wait(Some(at)) if at == due));
}

#[test]
fn the_most_hurried_of_a_batch_says_when_it_starts() {
    let (mut queue, start) = (queue(9, 1000), Instant::now());
    let later = start + Duration::from_millis(1);
    queue.push(entry(1, BATCHED, "patient", start)).unwrap();
    let deadline = Some(later + Duration::from_millis(4));
    queue.push(Entry { deadline, ..entry(1, BATCHED, "hurried", later) }).unwrap();
    let due = later + Duration::from_millis(2);
    assert!(matches!(queue.next(later), Next::Wait(Some(at)) if at == due));
    assert_eq!(take(&mut queue, due), Some(vec!["patient", "hurried"]));
}

#[test]
fn a_full_batch_does_not_wait_behind_another_shape() {
    let (mut queue, now) = (queue(9, 1000), Instant::now());
    queue.push(entry(1, BATCHED, "lonely", now)).unwrap();
    for item in ["a", "b", "c", "d"] {
        queue.push(Entry { bucket: 1, ..entry(1, BATCHED, item, now) }).unwrap();
    }
    assert_eq!(take(&mut queue, now), Some(vec!["a", "b", "c", "d"]));
    queue.finish(1);
    assert_eq!(take(&mut queue, now), None);
    assert_eq!(take(&mut queue, now + Duration::from_millis(10)), Some(vec!["lonely"]));
}

#[test]
fn what_nobody_asked_for_gets_an_eighth_of_the_room() {
    let (mut queue, now) = (queue(16, 1000), Instant::now());
    for item in ["a", "b"] {
        let entry = entry(1, SINGLE, item, now);
        assert!(queue.has_room_to_spare(&entry));
        queue.push(entry).unwrap();
    }
    assert!(!queue.has_room_to_spare(&entry(1, SINGLE, "c", now)));
    let heavy = Entry { weight: 126, ..entry(2, SINGLE, "heavy", now) };
    take(&mut queue, now);
    assert!(!queue.has_room_to_spare(&heavy));
}

#[test]
fn other_shapes_and_what_is_too_much_stay_for_the_next_batch() {
    let (mut queue, now) = (queue(9, 1000), Instant::now());
    let eager = Policy { max_delay: Duration::ZERO, ..BATCHED };
    for (bucket, samples, item) in [(0, 2, "a"), (1, 1, "other"), (0, 3, "too much"), (0, 2, "b")] {
        queue.push(Entry { bucket, samples, ..entry(1, eager, item, now) }).unwrap();
    }
    for expected in [vec!["a", "b"], vec!["other"], vec!["too much"]] {
        assert_eq!(take(&mut queue, now), Some(expected));
        queue.finish(1);
    }
    queue.push(Entry { samples: 9, ..entry(1, eager, "larger than a batch", now) }).unwrap();
    assert_eq!(take(&mut queue, now), Some(vec!["larger than a batch"]));
}

#[test]
fn a_closed_queue_hands_back_what_waited() {
    let (mut queue, now) = (queue(9, 1000), Instant::now());
    queue.push(entry(2, SINGLE, "a", now)).unwrap();
    queue.push(entry(1, SINGLE, "b", now)).unwrap();
    assert_eq!(queue.close(), ["a", "b"]);
    assert_eq!(queue.push(entry(1, SINGLE, "c", now)), Err(Refused::Closed));
    assert_eq!(take(&mut queue, now), None);
}

#[derive(Debug, Clone)]
enum Step {
    Push { key: u64, priority: u32, bucket: u64, samples: usize, patience: Option<u64> },
    Take,
    Finish,
    Pass { milliseconds: u64 },
}

fn step() -> impl proptest::strategy::Strategy<Value = Step> {
    use proptest::prelude::*;
    prop_oneof![
        3 => (0_u64..3, 1_u32..4, 0_u64..2, 1_usize..4, proptest::option::of(0_u64..20)).prop_map(
            |(key, priority, bucket, samples, patience)| Step::Push { key, priority, bucket, samples, patience }
        ),
        2 => Just(Step::Take),
        2 => Just(Step::Finish),
        1 => (1_u64..12).prop_map(|milliseconds| Step::Pass { milliseconds }),
    ]
}

proptest::proptest! {
    /// Nothing is lost or run twice, no model runs more than its instances, no batch mixes buckets or is too large,
    /// and when a thread is told to wait, no batch was due.
    #[test]
    fn every_entry_runs_once_in_an_honest_batch(steps in proptest::collection::vec(step(), 0..300)) {
        let mut queue = Queue::new(Capacity { entries: 64, weight: usize::MAX });
        let policy = |key: u64| Policy {
            instances: key as usize + 1,
            max_batch: 1 + 3 * key as usize,
            max_delay: Duration::from_millis(5 * key),
            max_waiting: 16,
        };
        let mut now = Instant::now();
        let (mut pushed, mut taken) = (Vec::new(), std::collections::HashSet::new());
        let mut running: Vec<u64> = Vec::new();
        for step in steps {
            match step {
                Step::Push { key, priority, bucket, samples, patience } => {
                    let deadline = patience.map(|patience| now + Duration::from_millis(patience));
                    let item = (pushed.len(), bucket, samples);
                    let entry = Entry { priority, bucket, samples, deadline, ..entry(key, policy(key), item, now) };
                    if queue.push(entry).is_ok() {
                        pushed.push(item);
                    }
                }
                Step::Take => match queue.next(now) {
                    Next::Run { key, batch } => {
                        running.push(key);
                        proptest::prop_assert!(running.iter().filter(|&&other| other == key).count() <= policy(key).instances);
                        let total: usize = batch.iter().map(|(_, _, samples)| samples).sum();
                        proptest::prop_assert!(batch.len() == 1 || total <= policy(key).max_batch);
                        for &(id, bucket, _) in &batch {
                            proptest::prop_assert_eq!(bucket, batch[0].1);
                            proptest::prop_assert!(taken.insert(id), "{} ran twice", id);
                        }
                    }
                    Next::Wait(Some(at)) => proptest::prop_assert!(at > now),
                    Next::Wait(None) => {}
                },
                Step::Finish => {
                    if let Some(key) = running.pop() {
                        queue.finish(key);
                    }
                }
                Step::Pass { milliseconds } => now += Duration::from_millis(milliseconds),
            }
        }
        now += Duration::from_secs(1);
        loop {
            match queue.next(now) {
                Next::Run { key, batch } => {
                    queue.finish(key);
                    for (id, _, _) in batch {
                        proptest::prop_assert!(taken.insert(id), "{} ran twice", id);
                    }
                }
                Next::Wait(_) => match running.pop() {
                    Some(key) => queue.finish(key),
                    None => break,
                },
            }
        }
        proptest::prop_assert_eq!(taken.len(), pushed.len());
        proptest::prop_assert!(queue.is_empty());
    }
}
