//! Answers kept for equal requests: bounded in bytes, dropped by age, computed once however many ask at once.
//!
//! Keys are 128 bits of HighwayHash under a key of this process, so that nobody can make two requests collide.

use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use highway::{HighwayHash, HighwayHasher, Key};
use quick_cache::Weighter;
use quick_cache::sync::{Cache as Entries, DefaultLifecycle, GuardResult, PlaceholderGuard};

use crate::Tensor;

/// A request's identity: model version and input.
pub(crate) type RequestKey = [u64; 2];
/// A model version's: one load of it, or what it is made of.
pub(crate) type ModelKey = [u64; 2];

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

    /// The key of a model by the content of its file, and what else makes its answers what they are.
    pub fn model_key(&self, said: &[u8], content: &mut impl Read) -> std::io::Result<ModelKey> {
        let mut hasher = HighwayHasher::new(Key(self.key));
        hasher.append(b"model");
        hasher.append(&said.len().to_le_bytes());
        hasher.append(said);
        let mut buffer = vec![0; 256 << 10];
        loop {
            match content.read(&mut buffer)? {
                0 => return Ok(hasher.finalize128()),
                read => hasher.append(buffer.get(..read).unwrap_or_default()),
            }
        }
    }

    /// The key of a load whose content isn't known.
    pub fn load_key(load: u64) -> ModelKey {
        [u64::MAX, load]
    }

    /// The key of a front's request body, in pieces; `parts` are whatever else makes its answer what it is.
    pub fn body_key(&self, model: ModelKey, parts: &[&[u8]], body: &[impl AsRef<[u8]>]) -> RequestKey {
        let mut hasher = HighwayHasher::new(Key(self.key));
        hasher.append(b"body");
        hasher.append(bytemuck::bytes_of(&model));
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
    pub fn request_key(&self, model: ModelKey, inputs: &[Tensor], outputs: &[String]) -> RequestKey {
        let mut hasher = HighwayHasher::new(Key(self.key));
        hasher.append(b"tensors");
        hasher.append(bytemuck::bytes_of(&model));
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
#[path = "cache/tests.rs"]
mod tests;
