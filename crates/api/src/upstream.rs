//! The hub above, as the place where artifacts and images come from that are not here.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use artifacts::{Blobs, Source};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use registry::{ContentDigest, Descriptor, Found, Incoming, Origin, Reference, Repository};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, RANGE};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use types::Digest;

use crate::Client;
use crate::client::Error;

/// How large a manifest from above may be, in bytes.
const LARGEST_MANIFEST: u64 = 4 << 20;

/// How long a short question may take: somebody waits for the answer.
const LONGEST_ANSWER: Duration = Duration::from_secs(4);

/// For how long to come again where the hub is busy with others.
const LONGEST_TURN: Duration = Duration::from_secs(300);
/// How long to wait at once, however long it says.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A wait of this length or up to half more, for others were told the same.
fn spread(wait: Duration) -> Duration {
    let mut random = [0];
    // Without randomness it is right, only less spread.
    let _ = daemon::fill_random(&mut random);
    wait.min(LONGEST_PAUSE).mul_f64(1.0 + f64::from(random[0]) / 510.0)
}

/// The hub above; perhaps it is not joined yet. Cheap to clone.
#[derive(Clone, Default)]
pub struct Upstream {
    client: Arc<OnceLock<Client>>,
    /// Who brings what: the others wait for them.
    flights: Arc<Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>>,
}

impl Upstream {
    /// The hub that a client asks.
    pub fn to(client: Client) -> Self {
        let upstream = Self::default();
        upstream.join(client);
        upstream
    }

    /// From now on this is the hub above. Whoever says so first is right.
    pub fn join(&self, client: Client) {
        let _ = self.client.set(client.in_bulk());
    }

    fn client(&self) -> io::Result<&Client> {
        self.client.get().ok_or_else(|| io::Error::other("the hub above is not joined yet"))
    }

    /// Makes sure that a blob is here, fetched once for all who want it at the same time.
    ///
    /// # Errors
    /// If it is not there either, or can't be fetched now.
    pub async fn bring(&self, blobs: &Blobs, digest: &Digest) -> Result<(), artifacts::Error> {
        let flight = self.flight(digest);
        let _turn = flight.lock().await;
        if blobs.has(digest) {
            return Ok(());
        }
        let size = self.size(digest).await?;
        artifacts::fetch(blobs, digest, size, self).await
    }

    /// How large a blob is there, in bytes.
    ///
    /// # Errors
    /// If it is not there, or nobody can be asked now.
    pub(crate) async fn size(&self, digest: &Digest) -> Result<u64, artifacts::Error> {
        let failed = |source| artifacts::Error::Source { digest: *digest, source };
        let client = self.client().map_err(failed)?;
        let head = client.request(Method::HEAD, &format!("/avocet/v1/blobs/{digest}"));
        match client.send(head.timeout(LONGEST_ANSWER)).await {
            Ok(response) => text(&response, CONTENT_LENGTH)
                .parse()
                .map_err(|_| failed(io::Error::other("the hub above does not say how large it is"))),
            Err(Error::Refused { code: 404, .. }) => Err(artifacts::Error::Missing { digest: *digest }),
            Err(error) => Err(failed(io::Error::other(daemon::chain(&error)))),
        }
    }

    /// Whether the hub above says of a token that it is good at a site here. It is not if that hub can't be asked.
    pub(crate) async fn vouches(&self, review: &Value) -> bool {
        let Ok(client) = self.client() else { return false };
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        let request = client.request(Method::POST, path).timeout(LONGEST_ANSWER).json(review);
        let answer = client.json::<Value>(request).await.unwrap_or_default();
        answer.pointer("/status/authenticated") == Some(&Value::Bool(true))
    }

    fn flight(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, flight| flight.strong_count() > 0);
        if let Some(flight) = flights.get(digest).and_then(Weak::upgrade) {
            return flight;
        }
        let flight = Arc::default();
        flights.insert(*digest, Arc::downgrade(&flight));
        flight
    }

    async fn ask(&self, request: RequestBuilder) -> io::Result<Option<Response>> {
        match in_turn(self.client()?, request).await {
            Ok(response) => Ok(Some(response)),
            Err(Error::Refused { code: 404, .. }) => Ok(None),
            Err(error) => Err(io::Error::other(daemon::chain(&error))),
        }
    }
}

/// Sends a request, again and again where the hub is busy with others and says when to come.
async fn in_turn(client: &Client, request: RequestBuilder) -> Result<Response, Error> {
    let mut waited = Duration::ZERO;
    loop {
        let Some(again) = request.try_clone() else { return client.send(request).await };
        let sent = client.send(again).await;
        let Err(Error::Refused { code: 429, retry_after: Some(after), .. }) = &sent else { return sent };
        if waited >= LONGEST_TURN {
            return sent;
        }
        let wait = spread(*after);
        waited += wait;
        tokio::time::sleep(wait).await;
    }
}

impl Source for Upstream {
    async fn open(&self, digest: &Digest, offset: u64) -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
        let client = self.client()?;
        let mut request = client.request(Method::GET, &format!("/avocet/v1/blobs/{digest}"));
        if offset > 0 {
            request = request.header(RANGE, format!("bytes={offset}-"));
        }
        let response = in_turn(client, request).await.map_err(io::Error::other)?;
        if offset > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
            return Err(io::Error::other("the hub began at the beginning although the rest was asked for"));
        }
        Ok(client.stream(response).boxed())
    }

    async fn pieces(&self, digest: &Digest) -> io::Result<Option<Vec<Digest>>> {
        let client = self.client()?;
        let request = client.request(Method::GET, &format!("/avocet/v1/blobs/{digest}/pieces"));
        client.json(request).await.map(Some).map_err(io::Error::other)
    }
}

impl Origin for Upstream {
    fn manifest<'a>(
        &'a self,
        repository: &'a Repository,
        reference: &'a Reference,
    ) -> BoxFuture<'a, io::Result<Option<Found>>> {
        Box::pin(async move {
            let path = format!("/v2/{repository}/manifests/{reference}");
            let request = self.client()?.request(Method::GET, &path).header(ACCEPT, "*/*");
            let Some(response) = self.ask(request).await? else { return Ok(None) };
            if response.content_length().is_none_or(|length| length > LARGEST_MANIFEST) {
                return Err(io::Error::other("the hub's manifest is too large"));
            }
            let media_type = text(&response, CONTENT_TYPE).to_owned();
            let bytes = self.client()?.read(response).await.map_err(io::Error::other)?;
            Ok(Some(Found { media_type, bytes: bytes.into() }))
        })
    }

    fn blob<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &'a ContentDigest,
        offset: u64,
    ) -> BoxFuture<'a, io::Result<Option<Incoming>>> {
        Box::pin(async move {
            let mut request =
                self.client()?.request(Method::GET, &format!("/v2/{repository}/blobs/{digest}"));
            if offset > 0 {
                request = request.header(RANGE, format!("bytes={offset}-"));
            }
            let Some(response) = self.ask(request).await? else { return Ok(None) };
            let is_rest = response.status() == StatusCode::PARTIAL_CONTENT;
            if is_rest != (offset > 0) {
                return Err(io::Error::other("the hub did not begin where it was asked to"));
            }
            let size = match is_rest {
                true => text(&response, CONTENT_RANGE).rsplit_once('/').map_or("", |(_, size)| size),
                false => text(&response, CONTENT_LENGTH),
            };
            let size =
                size.parse().map_err(|_| io::Error::other("the hub does not say how large the blob is"))?;
            Ok(Some((size, self.client()?.stream(response).boxed())))
        })
    }

    fn referrers<'a>(
        &'a self,
        repository: &'a Repository,
        subject: &'a ContentDigest,
    ) -> BoxFuture<'a, io::Result<Vec<Descriptor>>> {
        Box::pin(async move {
            #[derive(Deserialize)]
            struct Index {
                manifests: Vec<Descriptor>,
            }
            let request =
                self.client()?.request(Method::GET, &format!("/v2/{repository}/referrers/{subject}"));
            let Some(response) = self.ask(request).await? else { return Ok(vec![]) };
            let bytes = self.client()?.read(response).await.map_err(io::Error::other)?;
            Ok(serde_json::from_slice::<Index>(&bytes)?.manifests)
        })
    }
}

fn text(response: &Response, name: HeaderName) -> &str {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
