//! What this site fetches from a neighbour, which may be fetching it itself.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::Neighbour;
use artifacts::Source;
use bytes::Bytes;
use daemon::tls::PINNED_NAME;
use futures::StreamExt;
use futures::stream::BoxStream;
use reqwest::header::RANGE;
use reqwest::{Response, StatusCode};
use types::Digest;

use super::giving::LIFE;

/// How long a neighbour may take to be reached and to say something, and between two parts of it.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long nothing may change in a fetch that is waited for.
const LIFELESS: Duration = Duration::from_secs(15);
/// How long no bytes may come, whatever else the neighbour says.
const FRUITLESS: Duration = Duration::from_secs(60);
/// How often it is looked whether more has arrived there.
const LOOK: Duration = Duration::from_millis(100);

/// A neighbour that was asked for an artifact. Cheap to clone.
#[derive(Clone)]
pub(super) struct Asked {
    http: reqwest::Client,
    address: String,
    ticket: String,
    /// Of the artifact, in bytes.
    size: u64,
    /// Shows those who wait for this site that there is life in its fetch.
    life: Arc<AtomicU64>,
}

impl Asked {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// If the neighbour's certificate is none.
    pub(super) fn new(
        neighbour: &Neighbour,
        digest: &Digest,
        size: u64,
        life: &Arc<AtomicU64>,
    ) -> io::Result<Self> {
        let http = api::client::http_pinned(&neighbour.certificate, neighbour.address);
        Ok(Self {
            http: http.map_err(io::Error::other)?,
            address: format!("https://{PINNED_NAME}:{}/artifacts/{digest}", neighbour.address.port()),
            ticket: neighbour.ticket.clone(),
            size,
            life: life.clone(),
        })
    }

    async fn ask(&self, from: u64) -> io::Result<Response> {
        let request = self.http.get(&self.address).bearer_auth(&self.ticket);
        let request = request.header(RANGE, format!("bytes={from}-"));
        within(request.send()).await
    }

    /// What there is from a byte on, once there is something.
    async fn next(&self, from: u64) -> io::Result<Response> {
        let began = Instant::now();
        let (mut seen, mut changed) = (None, began);
        loop {
            let response = self.ask(from).await?;
            match response.status() {
                StatusCode::PARTIAL_CONTENT => return Ok(response),
                StatusCode::NO_CONTENT => {}
                status => return Err(io::Error::other(format!("the neighbour answered {status}"))),
            }
            let life = response.headers().get(LIFE).cloned();
            if life != seen {
                (seen, changed) = (life, Instant::now());
                self.life.fetch_add(1, Ordering::Relaxed);
            }
            if changed.elapsed() > LIFELESS || began.elapsed() > FRUITLESS {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the neighbour gets on with nothing"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

async fn within<T>(answer: impl Future<Output = Result<T, reqwest::Error>>) -> io::Result<T> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answered) => answered.map_err(|error| io::Error::other(error.without_url())),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the neighbour says nothing")),
    }
}

/// Where a stream is: what it reads, and from which byte on the next answer is to be.
struct At {
    asked: Asked,
    response: Option<Response>,
    next: u64,
}

impl Source for Asked {
    async fn open(&self, _: &Digest, offset: u64) -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
        let response = self.next(offset).await?;
        let at = At { asked: self.clone(), response: Some(response), next: offset };
        Ok(futures::stream::try_unfold(at, |mut at| async move {
            while at.next < at.asked.size {
                let mut response = match at.response.take() {
                    Some(response) => response,
                    None => at.asked.next(at.next).await?,
                };
                if let Some(part) = within(response.chunk()).await? {
                    at.asked.life.fetch_add(1, Ordering::Relaxed);
                    at.next += part.len() as u64;
                    at.response = Some(response);
                    return Ok(Some((part, at)));
                }
            }
            Ok::<_, io::Error>(None)
        })
        .boxed())
    }
}
