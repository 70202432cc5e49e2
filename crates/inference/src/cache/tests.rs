use std::collections::BTreeMap;

use futures::FutureExt;
use proptest::prelude::*;

use super::*;

fn tensor(rows: usize, values: &[f32]) -> Tensor {
    Tensor::from_vec("x", [rows, values.len() / rows], values.to_vec()).unwrap()
}

fn outputs() -> Arc<[Tensor]> {
    Arc::new([tensor(1, &[1.0])])
}

async fn found(cache: &Cache, key: &RequestKey, now: Instant) -> bool {
    matches!(cache.outputs(key, now).await, Found::Outputs(_))
}

#[test]
fn whatever_can_change_the_answer_changes_the_key() {
    let cache = Cache::new(1 << 20);
    let x = tensor(1, &[1.0, 2.0, 3.0, 4.0]);
    let keys = [
        cache.request_key([1, 0], std::slice::from_ref(&x), &[]),
        cache.request_key([2, 0], std::slice::from_ref(&x), &[]),
        cache.request_key([1, 0], &[tensor(2, &[1.0, 2.0, 3.0, 4.0])], &[]),
        cache.request_key([1, 0], &[tensor(1, &[1.0, 2.0, 3.0, 5.0])], &[]),
        cache.request_key([1, 0], std::slice::from_ref(&x), &["y".into()]),
        cache.request_key([1, 0], std::slice::from_ref(&x), &["y".into(), "z".into()]),
        cache.request_key([1, 0], &[x], &["yz".into()]),
        cache.body_key([1, 0], &[b"a", b"bc"], &[b"d"]),
        cache.body_key([1, 0], &[b"ab", b"c"], &[b"d"]),
        cache.body_key([2, 0], &[b"ab", b"c"], &[b"d"]),
        cache.body_key([1, 0], &[b"ab", b"c"], &[b"e"]),
        cache.body_key([1, 0], &[b"ab"], &[b"cd"]),
    ];
    let different: std::collections::HashSet<_> = keys.iter().collect();
    assert_eq!(different.len(), keys.len());
    let body = vec![7_u8; 100];
    let (begin, end) = body.split_at(33);
    assert_eq!(
        cache.body_key([1, 0], &[], &[&body]),
        cache.body_key([1, 0], &[], &[begin, &[], end]),
        "however it came"
    );
    assert_ne!(
        Cache::new(1).body_key([1, 0], &[], &[b""]),
        Cache::new(1).body_key([1, 0], &[], &[b""]),
        "keys are this cache's own"
    );
}

#[tokio::test]
async fn an_answer_is_kept_until_it_is_too_old() {
    let (cache, now) = (Cache::new(1 << 20), Instant::now());
    let Found::Nothing(vacancy) = cache.outputs(&[1, 1], now).await else { panic!("it is empty") };
    vacancy.fill(outputs(), expiry(now, 5));
    assert!(found(&cache, &[1, 1], now + Duration::from_secs(4)).await);
    assert!(!found(&cache, &[1, 1], now + Duration::from_secs(5)).await);
    assert!(!found(&cache, &[1, 1], now).await, "what was too old is gone");
}

#[tokio::test]
async fn who_asks_for_what_is_being_computed_waits_for_it() {
    let (cache, now) = (Cache::new(1 << 20), Instant::now());
    let Found::Nothing(vacancy) = cache.outputs(&[1, 1], now).await else { panic!("it is empty") };
    let follower = async { found(&cache, &[1, 1], now).await };
    let leader = async {
        tokio::task::yield_now().await;
        vacancy.fill(outputs(), None);
    };
    assert!(tokio::join!(follower, leader).0);
}

#[tokio::test]
async fn when_the_one_who_computes_fails_all_who_waited_go_on_at_once() {
    let (cache, now) = (Cache::new(1 << 20), Instant::now());
    let Found::Nothing(vacancy) = cache.outputs(&[1, 1], now).await else { panic!("it is empty") };
    let follower = || async { matches!(cache.outputs(&[1, 1], now).await, Found::Failed) };
    let leader = async {
        tokio::task::yield_now().await;
        drop(vacancy);
    };
    assert_eq!(tokio::join!(follower(), follower(), leader), (true, true, ()));
    assert!(matches!(cache.outputs(&[1, 1], now).await, Found::Nothing(_)), "the next one tries anew");
}

#[tokio::test]
async fn bytes_bound_what_is_kept() {
    let (cache, now) = (Cache::new(64 << 10), Instant::now());
    for n in 0..100 {
        let Found::Nothing(vacancy) = cache.outputs(&[n, 0], now).await else { panic!("{n} is new") };
        vacancy.fill(Arc::new([tensor(1, &[0.0; 1024])]), None);
    }
    assert!(cache.entries.weight() <= 64 << 10);
    assert!(!cache.entries.is_empty());
}

/// What may happen to the cache.
#[derive(Clone, Debug)]
enum Event {
    /// Asks for a key's outputs; who has to compute them answers, or gives up, after as many others asked for the same.
    Ask {
        key: u64,
        others: usize,
        answers: bool,
        ttl: u32,
    },
    KeepBody {
        key: u64,
        ttl: u32,
    },
    AskBody {
        key: u64,
    },
    Pass {
        seconds: u64,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let (key, ttl) = (0_u64..8, 0_u32..6);
    prop_oneof![
        4 => (key.clone(), 0_usize..3, prop::bool::weighted(0.8), ttl.clone())
            .prop_map(|(key, others, answers, ttl)| Event::Ask { key, others, answers, ttl }),
        2 => (key.clone(), ttl).prop_map(|(key, ttl)| Event::KeepBody { key, ttl }),
        2 => key.prop_map(|key| Event::AskBody { key }),
        1 => (1_u64..4).prop_map(|seconds| Event::Pass { seconds }),
    ]
}

/// What was kept under each key last: its value, and when it gets too old.
#[derive(Default)]
struct Known {
    outputs: BTreeMap<u64, (f32, Option<Instant>)>,
    bodies: BTreeMap<u64, (u64, Option<Instant>)>,
}

fn fresh<T: Copy>(kept: Option<&(T, Option<Instant>)>, now: Instant) -> Option<T> {
    kept.filter(|(_, expires)| expires.is_none_or(|expires| now < expires)).map(|(value, _)| *value)
}

fn first_value(found: &Found<'_>) -> Option<f32> {
    match found {
        Found::Outputs(outputs) => Some(outputs[0].elements::<f32>().unwrap()[0]),
        Found::Nothing(_) | Found::Failed => None,
    }
}

/// Drives a cache through events and compares what it gives with what was put in. One with room for everything gives
/// all that isn't too old; a small one may have forgotten, but gives nothing else.
fn agrees(events: &[Event], bytes: u64, forgets: bool) -> Result<(), TestCaseError> {
    let (cache, mut now) = (Cache::new(bytes), Instant::now());
    let mut kept = Known::default();
    for (number, event) in (0_u16..).zip(events) {
        match *event {
            Event::Pass { seconds } => now += Duration::from_secs(seconds),
            Event::Ask { key, others, answers, ttl } => {
                let place = [key, 1];
                let found = cache.outputs(&place, now).now_or_never();
                let found = found.ok_or_else(|| TestCaseError::fail("nobody computes it"))?;
                let expected = fresh(kept.outputs.get(&key), now);
                let Found::Nothing(vacancy) = found else {
                    prop_assert_eq!(first_value(&found), expected);
                    continue;
                };
                prop_assert!(expected.is_none() || forgets, "{:?} is forgotten", key);
                kept.outputs.remove(&key);
                let mut waiting: Vec<_> = (0..others).map(|_| Box::pin(cache.outputs(&place, now))).collect();
                for other in &mut waiting {
                    prop_assert!(other.as_mut().now_or_never().is_none(), "it is being computed");
                }
                let (value, expires) = (f32::from(number), expiry(now, ttl));
                if answers {
                    vacancy.fill(Arc::new([tensor(1, &[value; 64])]), expires);
                    kept.outputs.insert(key, (value, expires));
                } else {
                    drop(vacancy);
                }
                // They are told one after the other, in whatever order.
                let mut told = Vec::new();
                for _ in 0..others {
                    waiting.retain_mut(|other| {
                        let found = other.as_mut().now_or_never();
                        told.extend(found.as_ref().map(first_value));
                        found.is_none()
                    });
                }
                prop_assert_eq!(told, vec![answers.then_some(value); others]);
            }
            Event::KeepBody { key, ttl } => {
                let (value, expires) = (u64::from(number), expiry(now, ttl));
                let body = Body { bytes: value.to_le_bytes().repeat(32).into(), json_length: None };
                cache.keep_body([key, 2], body, expires);
                kept.bodies.insert(key, (value, expires));
            }
            Event::AskBody { key } => {
                let found = cache.body(&[key, 2], now);
                let value = found.map(|body| u64::from_le_bytes(body.bytes[..8].try_into().unwrap()));
                let expected = fresh(kept.bodies.get(&key), now);
                prop_assert!(value == expected || (forgets && value.is_none()), "{value:?} {expected:?}");
            }
        }
        prop_assert!(cache.entries.weight() <= bytes);
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_was_kept_is_given_back_until_it_is_too_old(events in prop::collection::vec(event(), 1..200)) {
        agrees(&events, 1 << 20, false)?;
    }

    #[test]
    fn a_small_cache_forgets_but_gives_nothing_else(events in prop::collection::vec(event(), 1..200)) {
        agrees(&events, 1_500, true)?;
    }
}
