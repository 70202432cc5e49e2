//! Answers kept for equal requests: bounded in bytes, dropped by age, computed once however many ask at once.
//!
//! Keys are 128 bits of HighwayHash under a key of this process, so that nobody can make two requests collide.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use highway::{HighwayHash, HighwayHasher, Key};
use quick_cache::Weighter;
use quick_cache::sync::{Cache as Entries, DefaultLifecycle, GuardResult, PlaceholderGuard};

use crate::Tensor;

/// A request's identity: model version and input.
pub(crate) type RequestKey = [u64; 2];

/// A response body as a front sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    pub bytes: Bytes,
    /// Bytes of JSON before the binary tensors; `None` where all is JSON.
    pub json_length: Option<usize>,
}

#[derive(Clone)]
pub(crate) struct Kept {
    value: Value,
    expires: Option<Instant>,
}

#[derive(Clone)]
enum Value {
    Outputs(Arc<[Tensor]>),
    Body(Body),
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<RequestKey, Kept> for ByBytes {
    fn weight(&self, _: &RequestKey, kept: &Kept) -> u64 {
        const ENTRY: usize = 128;
        let bytes = match &kept.value {
            Value::Outputs(tensors) => tensors.iter().map(|tensor| tensor.data().len() + ENTRY).sum(),
            Value::Body(body) => body.bytes.len(),
        };
        (bytes + ENTRY) as u64
    }
}

type Guard<'a> =
    PlaceholderGuard<'a, RequestKey, Kept, ByBytes, RandomState, DefaultLifecycle<RequestKey, Kept>>;

pub(crate) struct Cache {
    entries: Entries<RequestKey, Kept, ByBytes, RandomState>,
    key: [u64; 4],
}

/// What a look into the cache found.
pub(crate) enum Found<'a> {
    Outputs(Arc<[Tensor]>),
    /// Compute it; others who ask for the same wait until this is filled or dropped.
    Nothing(Vacancy<'a>),
    /// Who computed it meanwhile got no answer: compute it alone, and keep nothing.
    Failed,
}

/// The right and duty to compute an answer.
pub(crate) struct Vacancy<'a>(Guard<'a>);

impl Cache {
    /// Keeps up to this many bytes of answers.
    pub fn new(bytes: u64) -> Cache {
        let random = RandomState::new();
        let key = [0_u8, 1, 2, 3].map(|part| random.hash_one(part));
        let estimated = usize::try_from(bytes / 1024).unwrap_or(usize::MAX).clamp(64, 1 << 20);
        let lifecycle = DefaultLifecycle::default();
        let entries = Entries::with(estimated, bytes, ByBytes, RandomState::new(), lifecycle);
        Cache { entries, key }
    }

    /// The key of a front's request body, in pieces; `parts` are whatever else makes its answer what it is.
    pub fn body_key(&self, model: u64, parts: &[&[u8]], body: &[impl AsRef<[u8]>]) -> RequestKey {
        let mut hasher = HighwayHasher::new(Key(self.key));
        hasher.append(b"body");
        hasher.append(&model.to_le_bytes());
        hasher.append(&parts.len().to_le_bytes());
        for part in parts {
            hasher.append(&part.len().to_le_bytes());
            hasher.append(part);
        }
        // Nothing comes after it, so that it needs no length.
        for piece in body {
            hasher.append(piece.as_ref());
        }
        hasher.finalize128()
    }

    /// The key of checked inputs in the signature's order.
    pub fn request_key(&self, model: u64, inputs: &[Tensor], outputs: &[String]) -> RequestKey {
        let mut hasher = HighwayHasher::new(Key(self.key));
        hasher.append(b"tensors");
        hasher.append(&model.to_le_bytes());
        for tensor in inputs {
            hasher.append(&tensor.shape().len().to_le_bytes());
            for size in tensor.shape() {
                hasher.append(&size.to_le_bytes());
            }
            hasher.append(&tensor.data().len().to_le_bytes());
            hasher.append(tensor.data());
        }
        for output in outputs {
            hasher.append(&output.len().to_le_bytes());
            hasher.append(output.as_bytes());
        }
        hasher.finalize128()
    }

    pub fn body(&self, key: &RequestKey, now: Instant) -> Option<Body> {
        match self.entries.get(key)?.fresh(now)? {
            Value::Body(body) => Some(body),
            Value::Outputs(_) => None,
        }
    }

    pub fn keep_body(&self, key: RequestKey, body: Body, expires: Option<Instant>) {
        self.entries.insert(key, Kept { value: Value::Body(body), expires });
    }

    /// The outputs for a key, once somebody who computes them already is done.
    pub async fn outputs(&self, key: &RequestKey, now: Instant) -> Found<'_> {
        loop {
            let found = match self.entries.get_value_or_guard(key, Some(Duration::ZERO)) {
                GuardResult::Value(kept) => kept,
                GuardResult::Guard(guard) => return Found::Nothing(Vacancy(guard)),
                GuardResult::Timeout => match self.entries.get_value_or_guard_async(key).await {
                    Ok(kept) => kept,
                    Err(_guard) => return Found::Failed,
                },
            };
            match found.fresh(now) {
                Some(Value::Outputs(outputs)) => return Found::Outputs(outputs),
                _ => drop(self.entries.remove_if(key, |kept| kept.fresh(now).is_none())),
            }
        }
    }
}

impl Vacancy<'_> {
    pub fn fill(self, outputs: Arc<[Tensor]>, expires: Option<Instant>) {
        // A refusal says that the entry was taken away meanwhile: then it is not kept.
        let _ = self.0.insert(Kept { value: Value::Outputs(outputs), expires });
    }
}

impl Kept {
    fn fresh(&self, now: Instant) -> Option<Value> {
        self.expires.is_none_or(|expires| now < expires).then(|| self.value.clone())
    }
}

/// When an answer of now gets too old; 0 seconds is never.
pub(crate) fn expiry(now: Instant, ttl_seconds: u32) -> Option<Instant> {
    (ttl_seconds > 0).then(|| now + Duration::from_secs(ttl_seconds.into()))
}

#[cfg(test)]
mod tests {
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
            cache.request_key(1, std::slice::from_ref(&x), &[]),
            cache.request_key(2, std::slice::from_ref(&x), &[]),
            cache.request_key(1, &[tensor(2, &[1.0, 2.0, 3.0, 4.0])], &[]),
            cache.request_key(1, &[tensor(1, &[1.0, 2.0, 3.0, 5.0])], &[]),
            cache.request_key(1, std::slice::from_ref(&x), &["y".into()]),
            cache.request_key(1, std::slice::from_ref(&x), &["y".into(), "z".into()]),
            cache.request_key(1, &[x], &["yz".into()]),
            cache.body_key(1, &[b"a", b"bc"], &[b"d"]),
            cache.body_key(1, &[b"ab", b"c"], &[b"d"]),
            cache.body_key(2, &[b"ab", b"c"], &[b"d"]),
            cache.body_key(1, &[b"ab", b"c"], &[b"e"]),
            cache.body_key(1, &[b"ab"], &[b"cd"]),
        ];
        let different: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
        let body = vec![7_u8; 100];
        let (begin, end) = body.split_at(33);
        assert_eq!(
            cache.body_key(1, &[], &[&body]),
            cache.body_key(1, &[], &[begin, &[], end]),
            "however it came"
        );
        assert_ne!(
            Cache::new(1).body_key(1, &[], &[b""]),
            Cache::new(1).body_key(1, &[], &[b""]),
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
}
