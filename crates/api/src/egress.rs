//! What artifacts and images may take of the hub's way out: downloads at once, and bytes per second for all together.
//!
//! Who finds no place is told to come again a little later, each after another time. Everything else that the hub
//! answers is small and waits for none of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ApiError;

/// The limits of a hub's downloads.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Bytes per second of all downloads together; no limit if absent.
    pub bytes_per_second: Option<u64>,
    /// Downloads at once.
    pub at_once: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { bytes_per_second: None, at_once: 256 }
    }
}

/// How many bytes of a paced download go out at a time: the others' turn comes soon.
const PART: usize = 64 << 10;
/// After how many seconds who finds no place may come again, at the earliest and at the latest.
const AGAIN: (u64, u64) = (1, 4);

/// A bucket into which tokens drip; who takes more than there are waits until they are made up for.
#[derive(Debug)]
struct Bucket {
    per_second: f64,
    tokens: f64,
    at: Duration,
}

impl Bucket {
    /// Full: it holds what drips in within a second.
    fn new(bytes_per_second: u64) -> Self {
        let per_second = bytes_per_second.max(1) as f64;
        Self { per_second, tokens: per_second, at: Duration::ZERO }
    }

    /// Takes tokens; answers how long to wait before they are used. `now` is a span since any fixed moment.
    fn take(&mut self, bytes: usize, now: Duration) -> Duration {
        let dripped = now.saturating_sub(self.at).as_secs_f64() * self.per_second;
        self.at = self.at.max(now);
        self.tokens = (self.tokens + dripped).min(self.per_second) - bytes as f64;
        Duration::from_secs_f64((-self.tokens / self.per_second).max(0.0))
    }
}

/// Lets downloads out. Cheap to clone.
#[derive(Clone)]
pub struct Egress(Arc<Inner>);

struct Inner {
    started: Instant,
    bucket: Option<Mutex<Bucket>>,
    at_once: usize,
    places: Arc<Semaphore>,
    sent: AtomicU64,
    refused: AtomicU64,
}

impl Default for Egress {
    fn default() -> Self {
        Self::new(Options::default())
    }
}

impl Egress {
    /// With these limits.
    pub fn new(options: Options) -> Self {
        let at_once = options.at_once.clamp(1, Semaphore::MAX_PERMITS);
        Self(Arc::new(Inner {
            started: Instant::now(),
            bucket: options.bytes_per_second.map(|rate| Mutex::new(Bucket::new(rate))),
            at_once,
            places: Arc::new(Semaphore::new(at_once)),
            sent: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }))
    }

    /// A place for a download.
    ///
    /// # Errors
    /// 429 with `Retry-After` if all are taken.
    pub(crate) fn enter(&self) -> Result<Download, ApiError> {
        if let Ok(place) = self.0.places.clone().try_acquire_owned() {
            return Ok(Download { egress: self.clone(), _place: place });
        }
        self.0.refused.fetch_add(1, Ordering::Relaxed);
        let mut random = [0];
        // Without randomness all come again at the same time, and most are refused again.
        let _ = daemon::fill_random(&mut random);
        let (first, last) = AGAIN;
        let after = first + u64::from(random[0]) % (last - first + 1);
        let message = "artifacts are being sent to as many others as may be at once; ask again later";
        Err(ApiError::too_many_requests(message).retry_after(Duration::from_secs(after)))
    }

    /// Bytes that went out since the start.
    pub(crate) fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// How many downloads are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.0.at_once.saturating_sub(self.0.places.available_permits())
    }

    /// How many downloads found no place since the start.
    pub(crate) fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    async fn let_out(&self, bytes: usize) {
        if let Some(bucket) = &self.0.bucket {
            let now = self.0.started.elapsed();
            let wait = bucket.lock().unwrap_or_else(PoisonError::into_inner).take(bytes, now);
            tokio::time::sleep(wait).await;
        }
        self.0.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// The right to one download.
pub(crate) struct Download {
    egress: Egress,
    _place: OwnedSemaphorePermit,
}

impl Download {
    /// The same answer, whose body goes out as limits allow; the place is given back when it is out or dropped.
    pub fn pace(self, response: Response) -> Response {
        response.map(|body| {
            let parts = body.into_data_stream().flat_map(|part| {
                futures::stream::iter(match part {
                    Ok(bytes) => parts(bytes).map(Ok).collect::<Vec<_>>(),
                    Err(error) => vec![Err(error)],
                })
            });
            let paced = parts.then(move |part| {
                let egress = self.egress.clone();
                let _held = &self._place;
                async move {
                    if let Ok(bytes) = &part {
                        egress.let_out(bytes.len()).await;
                    }
                    part
                }
            });
            Body::from_stream(paced)
        })
    }
}

fn parts(mut bytes: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || (!bytes.is_empty()).then(|| bytes.split_to(bytes.len().min(PART))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_passes_at_once_and_the_rest_at_the_rate() {
        let mut bucket = Bucket::new(1000);
        let at = Duration::from_millis;
        assert_eq!(bucket.take(1000, at(0)), at(0));
        assert_eq!(bucket.take(500, at(0)), at(500));
        assert_eq!(bucket.take(500, at(0)), at(1000), "behind the one before");
        assert_eq!(bucket.take(500, at(1500)), at(0));
        assert_eq!(bucket.take(1500, at(60_000)), at(500), "it holds a second, however long it rests");
        assert_eq!(bucket.take(0, at(0)), at(500), "no time brings it back");
    }

    #[tokio::test]
    async fn who_finds_no_place_is_told_when_to_come_and_what_waits_is_whole() {
        let egress = Egress::new(Options { bytes_per_second: Some(1 << 20), at_once: 1 });
        let content: Bytes = (0..(1 << 20) + 300_000).map(|at| at as u8).collect::<Vec<_>>().into();
        let response = egress.enter().unwrap().pace(Response::new(Body::from(content.clone())));
        let refused = egress.enter().err().unwrap();
        assert_eq!(refused.code, 429);
        assert!((AGAIN.0..=AGAIN.1).contains(&refused.retry_after.unwrap()), "{refused:?}");
        let began = Instant::now();
        let arrived = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        assert!(arrived == content && began.elapsed() >= Duration::from_millis(250));
        assert_eq!((egress.sent(), egress.under_way(), egress.refused()), (content.len() as u64, 0, 1));
        drop(egress.enter().unwrap().pace(Response::new(Body::from("x"))));
        assert_eq!(egress.under_way(), 0, "who goes away leaves the place");
    }
}
