//! Sends a file to a hub in parts that fit the way there: one that is slow, or breaks again and again, carries all of it
//! in the end, for each part goes on where the hub says that the last one ended.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::{Beginning, Client, Mailbox, client};
use reqwest::{RequestBuilder, StatusCode};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;
use tracing::debug;

use crate::Error;

/// How large parts are at first, at least and at most, in bytes. The least are small enough for a way of 9600 bits per
/// second to carry one before the connection is taken for dead.
const FIRST: u64 = 256 << 10;
const LEAST: u64 = 16 << 10;
const MOST: u64 = 64 << 20;
/// Parts become larger where one takes less, and smaller where one takes more.
const QUICK: Duration = Duration::from_secs(4);
const SLOW: Duration = Duration::from_secs(12);
/// How long a part may take until the hub has it: what doesn't come that far is no progress.
const LONGEST_PART: Duration = Duration::from_secs(120);
/// How long the hub may take to look through all that came.
const LONGEST_LOOK: Duration = Duration::from_secs(600);
/// How long all of it may take towards a hub that knows no parts.
const LONGEST_WHOLE: Duration = Duration::from_secs(3600);
/// How often the hub may have less than it had until that is no progress, either.
const SETBACKS: u32 = 3;

/// How large parts are, as the way turned out to be. Cheap to clone: clones share it.
#[derive(Clone)]
pub(crate) struct Pace(Arc<AtomicU64>);

impl Default for Pace {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(FIRST)))
    }
}

impl Pace {
    fn part(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// So many bytes took so long, or did not arrive.
    fn note(&self, bytes: u64, took: Option<Duration>) {
        self.0.store(next(self.part(), bytes, took), Ordering::Relaxed);
    }
}

fn next(part: u64, bytes: u64, took: Option<Duration>) -> u64 {
    let next = match took {
        None => bytes.min(part) / 4,
        Some(took) if took > SLOW => bytes.min(part) / 2,
        // What was much smaller says nothing of larger ones.
        Some(took) if took < QUICK && bytes >= part / 2 => part * 2,
        Some(_) => part,
    };
    next.clamp(LEAST, MOST)
}

/// Where the bytes are.
#[derive(Clone, Copy)]
pub(crate) enum Content<'a> {
    File(&'a Path),
    /// A delivery in the boxes of this hub that is for sites beyond the hub above.
    Delivery(&'a Mailbox, &'a str),
}

/// A file on its way to the hub.
pub(crate) struct Sending<'a> {
    /// Without patience: what is sent here has time limits of its own.
    pub client: &'a Client,
    pub pace: &'a Pace,
    pub content: Content<'a>,
    pub size: u64,
}

impl Sending<'_> {
    /// Sends all that the hub does not have yet; `request` begins each request.
    ///
    /// # Errors
    /// If the hub refuses it or the way breaks. What arrived until then need not be sent again.
    pub(crate) async fn send(&self, request: impl Fn() -> RequestBuilder) -> Result<(), Error> {
        if self.size <= self.pace.part() {
            return self.send_whole(request(), LONGEST_PART).await;
        }
        let mut there = match self.send_part(&request, 0, 0).await {
            Ok(Some(received)) => received,
            Ok(None) => return Ok(()),
            // A hub of an older version takes this for an empty output.
            Err(Error::Hub(client::Error::Refused { code: 400, .. })) => {
                return self.send_whole(request(), LONGEST_WHOLE).await;
            }
            Err(error) => return Err(error),
        };
        let mut setbacks = 0;
        loop {
            debug!(received = there, size = self.size, "an output goes on");
            let length = self.pace.part().min(self.size.saturating_sub(there));
            let received = match self.send_part(&request, there, length).await {
                Ok(Some(received)) => received,
                Ok(None) => return Ok(()),
                // All that came was damaged on the way, or on the hub's disk: it has nothing of it now.
                Err(Error::Hub(client::Error::Refused { code: 400, .. })) if setbacks == 0 => 0,
                Err(error) => return Err(error),
            };
            if received <= there {
                setbacks += 1;
                if setbacks > SETBACKS {
                    let problem = format!("the hub has {received} of its bytes again and again");
                    return Err(Error::Undeliverable(problem));
                }
            }
            there = received;
        }
    }

    async fn open(&self) -> Result<File, Error> {
        match self.content {
            Content::File(path) => File::open(path).await.map_err(|error| Error::disk(path, error)),
            Content::Delivery(mailbox, id) => Ok(mailbox.open_for_parent(id).await?),
        }
    }

    async fn send_whole(&self, request: RequestBuilder, within: Duration) -> Result<(), Error> {
        let body = reqwest::Body::wrap_stream(ReaderStream::new(self.open().await?));
        let request = request.header("content-length", self.size).timeout(within).body(body);
        self.timed(self.size, self.client.send(request)).await.map(drop)
    }

    /// Sends a part; answers how many bytes the hub has then, and nothing once it has looked through all of them.
    async fn send_part(
        &self,
        request: &impl Fn() -> RequestBuilder,
        offset: u64,
        length: u64,
    ) -> Result<Option<u64>, Error> {
        let request = request().query(&[("offset", offset), ("size", self.size)]);
        let request = request.header("content-length", length);
        let sent = if length == 0 {
            self.client.send(request.timeout(LONGEST_LOOK)).await?
        } else {
            let mut file = self.open().await?;
            let sought = file.seek(std::io::SeekFrom::Start(offset)).await;
            sought.map_err(|error| Error::disk(Path::new("an output"), error))?;
            let body = reqwest::Body::wrap_stream(ReaderStream::new(file.take(length)));
            self.timed(length, self.client.send(request.timeout(LONGEST_PART).body(body))).await?
        };
        if sent.status() != StatusCode::ACCEPTED {
            return Ok(None);
        }
        let said = self.client.read(sent).await?;
        let said: Beginning = serde_json::from_slice(&said).map_err(Error::Assignment)?;
        Ok(Some(said.received))
    }

    async fn timed<T>(
        &self,
        bytes: u64,
        sent: impl Future<Output = Result<T, client::Error>>,
    ) -> Result<T, Error> {
        let began = Instant::now();
        let sent = sent.await;
        match &sent {
            Ok(_) => self.pace.note(bytes, Some(began.elapsed())),
            // What is refused says nothing of the way.
            Err(client::Error::Refused { .. }) => {}
            Err(_) => self.pace.note(bytes, None),
        }
        Ok(sent?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_become_as_large_as_the_way_carries_in_a_few_seconds() {
        for (bytes_per_second, least, most) in [
            (1_200, LEAST, LEAST),
            (8_000, 32 << 10, 96 << 10),
            (1 << 20, 4 << 20, 12 << 20),
            (1 << 30, MOST, MOST),
        ] {
            let mut part = FIRST;
            for _ in 0..30 {
                part = next(
                    part,
                    part,
                    Some(Duration::from_secs_f64(part as f64 / f64::from(bytes_per_second))),
                );
            }
            assert!((least..=most).contains(&part), "{part} at {bytes_per_second} B/s");
        }
        assert_eq!(next(1 << 20, 1 << 20, None), 256 << 10);
        assert_eq!(next(1 << 20, 10, Some(Duration::ZERO)), 1 << 20, "a small one says nothing");
        assert_eq!(next(LEAST, 10, None), LEAST);
    }
}
