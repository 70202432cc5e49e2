//! What clients send at once: so many bytes are in memory at most, and nobody sends for ever.
//!
//! A body counts as it comes, and what is unpacked of it counts beside it. All fronts of a server have one account.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::error::ApiError;

/// Bodies of the largest size that there is room for.
const LARGEST: u64 = 8;
/// Bytes that there is room for at least.
const LEAST: u64 = 64 << 20;
/// Bytes a second at which a body that has no largest size may come for ever.
const PACE: u64 = 64 << 10;
/// 64 MiB come over a slow line in time.
const PATIENCE: Patience =
    Patience { rest: Duration::from_secs(30), whole: Duration::from_secs(600), pace: None };

/// The bodies that a server's fronts hold. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Bodies {
    held: Arc<AtomicU64>,
    limit: u64,
    patience: Patience,
}

/// How long a body may bring nothing, and how long it may take in all.
#[derive(Clone, Copy)]
struct Patience {
    rest: Duration,
    whole: Duration,
    /// Bytes that give a body a second more.
    pace: Option<u64>,
}

/// What one request holds, until it is answered.
pub(crate) struct Held {
    bodies: Bodies,
    bytes: AtomicU64,
    refused: OnceLock<Refused>,
}

/// Why a body is not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("there is no room for it")]
    Full,
    #[error("it comes too slowly")]
    Slow,
}

impl Bodies {
    /// For bodies of up to so many bytes.
    pub fn of(largest: usize) -> Bodies {
        let limit = (largest as u64).saturating_mul(LARGEST).max(LEAST);
        Bodies { held: Arc::default(), limit, patience: PATIENCE }
    }

    /// For bodies that go to the disk as they come: they may be as large as they like, but not come too slowly.
    pub fn passing() -> Bodies {
        Bodies { held: Arc::default(), limit: u64::MAX, patience: Patience { pace: Some(PACE), ..PATIENCE } }
    }

    /// What a request is going to hold.
    pub fn begin(&self) -> Arc<Held> {
        Arc::new(Held { bodies: self.clone(), bytes: AtomicU64::new(0), refused: OnceLock::new() })
    }

    /// The body as it is to be read, and what it holds.
    pub fn bound(&self, body: Body) -> (Body, Arc<Held>) {
        let held = self.begin();
        if body.is_end_stream() {
            return (body, held);
        }
        (Body::new(Bound { body, wait: Wait::begin(&held), held: held.clone() }), held)
    }

    /// Answers a request whose body is bounded; who makes more of it finds what it holds among its extensions.
    ///
    /// # Errors
    /// When it wasn't read to its end for that.
    pub async fn answer(&self, request: Request, next: Next) -> Result<Response, ApiError> {
        let (mut parts, body) = request.into_parts();
        let (body, held) = self.bound(body);
        parts.extensions.insert(held.clone());
        let response = next.run(Request::from_parts(parts, body)).await;
        held.check().map(|()| response)
    }
}

impl Held {
    /// # Errors
    /// When the body was not read to its end because there was no room or it came too slowly.
    pub fn check(&self) -> Result<(), ApiError> {
        self.refused.get().map_or(Ok(()), |why| Err((*why).into()))
    }

    pub fn refuse(&self, why: Refused) -> Refused {
        *self.refused.get_or_init(|| why)
    }

    /// Counts bytes that came or were unpacked.
    ///
    /// # Errors
    /// When there is no room for them.
    pub fn take(&self, bytes: usize) -> Result<(), Refused> {
        let bytes = bytes as u64;
        self.bytes.fetch_add(bytes, Relaxed);
        let before = self.bodies.held.fetch_add(bytes, Relaxed);
        if before.saturating_add(bytes) > self.bodies.limit {
            Err(self.refuse(Refused::Full))
        } else {
            Ok(())
        }
    }

    /// Gives back bytes that were taken and are not needed any more.
    pub fn give(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes as u64, Relaxed);
        self.bodies.held.fetch_sub(bytes as u64, Relaxed);
    }

    /// Bytes that it holds now.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }
}

impl From<Refused> for ApiError {
    fn from(why: Refused) -> ApiError {
        match why {
            Refused::Full => ApiError::Crowded,
            Refused::Slow => ApiError::Slow,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.bodies.held.fetch_sub(*self.bytes.get_mut(), Relaxed);
    }
}

/// How long is still waited for a body.
pub(crate) struct Wait {
    patience: Patience,
    /// Set while nothing comes.
    rest: Option<Pin<Box<Sleep>>>,
    end: Instant,
}

impl Wait {
    pub fn begin(held: &Held) -> Wait {
        let patience = held.bodies.patience;
        Wait { patience, rest: None, end: Instant::now() + patience.whole }
    }

    /// Ready when nothing came for too long.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let until = self.end.min(Instant::now() + self.patience.rest);
        self.rest.get_or_insert_with(|| Box::pin(sleep_until(until))).as_mut().poll(context)
    }

    /// Notes that so many bytes came.
    pub fn came(&mut self, bytes: usize) {
        self.rest = None;
        if let Some(pace) = self.patience.pace {
            self.end += Duration::from_secs_f64(bytes as f64 / pace as f64);
        }
    }
}

/// A body on its way.
struct Bound {
    body: Body,
    held: Arc<Held>,
    wait: Wait,
}

impl hyper::body::Body for Bound {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            ready!(self.wait.poll(context));
            return Poll::Ready(Some(Err(self.held.refuse(Refused::Slow).into())));
        };
        let Some(Ok(frame)) = frame else { return Poll::Ready(frame.map(|frame| frame.map_err(Into::into))) };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        self.wait.came(bytes);
        Poll::Ready(Some(self.held.take(bytes).map(|()| frame).map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    fn chunks(sizes: &[usize]) -> Body {
        let chunks: Vec<_> = sizes.iter().map(|&size| Ok::<_, std::io::Error>(vec![0; size])).collect();
        Body::from_stream(futures::stream::iter(chunks))
    }

    async fn read(body: Body) -> Option<usize> {
        axum::body::to_bytes(body, usize::MAX).await.ok().map(|bytes| bytes.len())
    }

    #[tokio::test]
    async fn what_is_held_leaves_less_room_until_it_is_dropped() {
        let bodies = Bodies { held: Arc::default(), limit: 80, patience: PATIENCE };
        let (first, held) = bodies.bound(chunks(&[30, 30]));
        assert_eq!(read(first).await, Some(60));
        let (second, refused) = bodies.bound(chunks(&[20, 20]));
        assert_eq!(read(second).await, None);
        assert!(matches!(refused.check(), Err(ApiError::Crowded)));
        assert!(held.check().is_ok());
        drop((held, refused));
        let (third, _held) = bodies.bound(chunks(&[40, 40]));
        assert_eq!(read(third).await, Some(80));
    }

    #[tokio::test]
    async fn bodies_that_rest_or_trickle_for_too_long_are_given_up() {
        let (short, long) = (Duration::from_millis(20), Duration::from_secs(3600));
        let resting =
            futures::stream::iter([Ok::<_, std::io::Error>(vec![0; 9])]).chain(futures::stream::pending());
        let trickling = futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(2)).await;
            Some((Ok::<_, std::io::Error>(vec![0; 1]), ()))
        });
        for (patience, body) in [
            (Patience { rest: short, whole: long, pace: None }, Body::from_stream(resting)),
            (Patience { rest: long, whole: short, pace: None }, Body::from_stream(trickling)),
        ] {
            let bodies = Bodies { held: Arc::default(), limit: 1 << 20, patience };
            let (body, held) = bodies.bound(body);
            assert_eq!(read(body).await, None);
            assert!(matches!(held.check(), Err(ApiError::Slow)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_of_any_size_may_take_as_long_as_its_bytes_are_worth() {
        let every_second = |bytes: usize, seconds: u64| {
            Body::from_stream(futures::stream::unfold(0, move |second| async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                (second < seconds).then(|| (Ok::<_, std::io::Error>(vec![0; bytes]), second + 1))
            }))
        };
        let (slow, hour) = (PACE as usize / 2, 3600);
        for (bytes, seconds, comes) in [(2 * slow, hour, true), (slow, hour, false), (slow, 900, true)] {
            let (body, held) = Bodies::passing().bound(every_second(bytes, seconds));
            assert_eq!(read(body).await.is_some(), comes, "{bytes} bytes a second for {seconds} s");
            assert_eq!(held.check().is_ok(), comes);
        }
    }
}
