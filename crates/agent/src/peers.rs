//! Artifacts from neighbours: sites of the same hub and location fetch what they were assigned from one another.
//!
//! The hub says from whom (`api::peers`) and gives a ticket for there; the digests of the pieces are the hub's word, too.
//! So a neighbour that is gone, slow or lies costs a little time, and the next one, or the hub, is asked. What arrives
//! is passed on piece by piece while the rest is still coming ([`giving`]).

mod asking;
mod giving;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::{Client, PeerOffer, TOLD_EVERY, Upstream};
use artifacts::{Blobs, PIECE, Source};
use daemon::{Shutdown, Tasks, tls};
use reqwest::Method;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tracing::debug;
use types::Digest;

use crate::Error;
use crate::links::Links;

/// Smaller artifacts come from the hub: to ask would cost as much, in bytes.
const SMALL: u64 = 256 << 10;
/// How long the hub may take to say from whom.
const LONGEST_ANSWER: Duration = Duration::from_secs(10);
/// How soon after a change the hub is told what is here.
const GATHER: Duration = Duration::from_millis(100);
/// How long a secret is in use; tickets that were made with the one before are good as long.
const SECRET_LASTS: Duration = Duration::from_secs(3600);
/// How long a neighbour is left alone that was gone, and one that lied.
const GONE: Duration = Duration::from_secs(60);
const LIAR: Duration = Duration::from_secs(3600);
/// How many neighbours may let the site down until the hub is asked for the artifact itself.
const MOST_LET_DOWN: usize = 4;
/// How many uploads to neighbours go on at once.
const UPLOADS: usize = 8;
/// How often a fetch from the hub shows life to those who wait for it.
const SIGN: Duration = Duration::from_secs(3);

/// Fetches artifacts, from neighbours if the site takes part in that. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Peers {
    upstream: Upstream,
    links: Links,
    counted: Arc<Counted>,
    own: Option<Arc<Own>>,
}

/// Bytes of artifacts since the start.
#[derive(Default)]
struct Counted {
    from_hub: AtomicU64,
    from_neighbours: AtomicU64,
    to_neighbours: AtomicU64,
    let_down: AtomicU64,
}

/// What a site is to its neighbours.
struct Own {
    site: String,
    client: Client,
    blobs: Blobs,
    address: SocketAddr,
    certificate: String,
    secrets: Mutex<Secrets>,
    /// What neighbours may have.
    has: Mutex<BTreeSet<Digest>>,
    changed: Notify,
    /// What is being fetched, with a number that changes while there is life in it.
    flights: Mutex<HashMap<Digest, Arc<AtomicU64>>>,
    /// Neighbours that are left alone, until when.
    unfit: Mutex<HashMap<String, Instant>>,
    uploads: Arc<Semaphore>,
}

struct Secrets {
    now: String,
    before: String,
    since: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peers {
    /// Takes no part: all comes from the hub.
    pub(crate) fn alone(client: &Client, links: Links) -> Self {
        Self { upstream: Upstream::to(client.clone()), links, counted: Arc::default(), own: None }
    }

    /// Serves neighbours at `listener` until the end, and asks them.
    ///
    /// # Errors
    /// If the machine has no randomness.
    pub(crate) fn among(
        self,
        site: &str,
        client: &Client,
        blobs: &Blobs,
        listener: TcpListener,
        tasks: &Tasks,
    ) -> std::io::Result<Self> {
        let (encryption, certificate) = tls::pinned_server()?;
        let secret = daemon::random_hex(32)?;
        let own = Arc::new(Own {
            site: site.to_owned(),
            client: client.clone(),
            blobs: blobs.clone(),
            address: listener.local_addr()?,
            certificate,
            secrets: Mutex::new(Secrets { now: secret.clone(), before: secret, since: Instant::now() }),
            has: Mutex::default(),
            changed: Notify::new(),
            flights: Mutex::default(),
            unfit: Mutex::default(),
            uploads: Arc::new(Semaphore::new(UPLOADS)),
        });
        let peers = Self { own: Some(own), ..self };
        let router = giving::router(peers.clone());
        tasks.spawn("peers-front", api::serve_encrypted(listener, encryption, router, tasks.shutdown()));
        Ok(peers)
    }

    /// Whether the hub is told what is here.
    pub(crate) fn are_told_of(&self) -> bool {
        self.own.is_some()
    }

    /// Makes sure that an artifact is here; no more than `size` bytes are taken in.
    ///
    /// # Errors
    /// As [`artifacts::fetch`].
    pub(crate) async fn bring(
        &self,
        blobs: &Blobs,
        digest: &Digest,
        size: u64,
    ) -> Result<(), artifacts::Error> {
        let Some(own) = self.own.as_deref().filter(|_| size >= SMALL) else {
            return self.bring_from_hub(blobs, digest, size).await;
        };
        let flight = Flight::begin(own, digest);
        let brought = match self.bring_from_neighbours(own, &flight, blobs, size).await {
            Some(brought) => brought,
            None => {
                let mut fetch = std::pin::pin!(self.bring_from_hub(blobs, digest, size));
                loop {
                    tokio::select! {
                        fetched = &mut fetch => break fetched,
                        // It may be waiting for its turn at the hub.
                        () = tokio::time::sleep(SIGN) => flight.live(),
                    }
                }
            }
        };
        if brought.is_ok() {
            self.give(digest);
        }
        brought
    }

    /// Asks the neighbours that the hub names; none if the hub has to be asked itself.
    async fn bring_from_neighbours(
        &self,
        own: &Own,
        flight: &Flight<'_>,
        blobs: &Blobs,
        size: u64,
    ) -> Option<Result<(), artifacts::Error>> {
        let digest = &flight.digest;
        let mut without = own.unfit();
        for _ in 0..MOST_LET_DOWN {
            let neighbour = own.ask(digest, &without).await?;
            let pieces = self.pieces(digest, size).await?;
            let there = blobs.partial_len(digest);
            let fetched = match asking::Asked::new(&neighbour, digest, size, &flight.life) {
                Ok(source) => artifacts::fetch_checked(blobs, digest, size, pieces, &source).await,
                Err(source) => Err(artifacts::Error::Source { digest: *digest, source }),
            };
            let received = if fetched.is_ok() { size } else { blobs.partial_len(digest) };
            self.counted.from_neighbours.fetch_add(received.saturating_sub(there), Ordering::Relaxed);
            let error = match fetched {
                Err(
                    error @ (artifacts::Error::Source { .. }
                    | artifacts::Error::Incomplete { .. }
                    | artifacts::Error::Corrupt { .. }
                    | artifacts::Error::TooLong { .. }),
                ) => error,
                // That is none of the neighbour's doing.
                fetched => return Some(fetched),
            };
            debug!(%digest, neighbour = neighbour.site, error = daemon::chain(&error), "let down by a neighbour");
            self.counted.let_down.fetch_add(1, Ordering::Relaxed);
            let rest = if error.is_broken_piece() { LIAR } else { GONE };
            lock(&own.unfit).insert(neighbour.site.clone(), Instant::now() + rest);
            without.push(neighbour.site);
        }
        None
    }

    async fn bring_from_hub(
        &self,
        blobs: &Blobs,
        digest: &Digest,
        size: u64,
    ) -> Result<(), artifacts::Error> {
        let (started, there) = (Instant::now(), blobs.partial_len(digest));
        let fetched = artifacts::fetch(blobs, digest, size, &self.upstream).await;
        let here = if fetched.is_ok() { size } else { blobs.partial_len(digest) };
        let received = here.saturating_sub(there);
        self.counted.from_hub.fetch_add(received, Ordering::Relaxed);
        if fetched.is_ok() {
            self.links.received(received, started.elapsed());
        }
        fetched
    }

    /// The digests of an artifact's pieces, by the word of the hub.
    async fn pieces(&self, digest: &Digest, size: u64) -> Option<Vec<Digest>> {
        if size <= PIECE {
            return Some(vec![*digest]);
        }
        let pieces = self.upstream.pieces(digest).await.ok().flatten()?;
        artifacts::is_whole(&pieces, size).then_some(pieces)
    }

    /// Neighbours may have this artifact from now on.
    pub(crate) fn give(&self, digest: &Digest) {
        let Some(own) = &self.own else { return };
        let mut has = lock(&own.has);
        if has.len() < api::MOST_ARTIFACTS && has.insert(*digest) {
            own.changed.notify_one();
        }
    }

    /// Neighbours may have nothing but these any more.
    pub(crate) fn keep(&self, needed: &BTreeMap<Digest, u64>) {
        let Some(own) = &self.own else { return };
        let mut has = lock(&own.has);
        let before = has.len();
        has.retain(|digest| needed.contains_key(digest));
        if has.len() != before {
            own.changed.notify_one();
        }
    }

    /// Tells the hub what is here, whenever it changes and now and then, until it can't be told.
    pub(crate) async fn tell(self, shutdown: Shutdown) -> Result<(), Error> {
        let Some(own) = &self.own else { return Ok(()) };
        loop {
            let path = format!("/avocet/v1/sites/{}/peers", own.site);
            let request = own.client.request(Method::PUT, &path).timeout(LONGEST_ANSWER);
            match own.client.send(request.json(&own.offer())).await {
                // The hub is too old for it.
                Err(error) if error.code() == Some(404) => debug!(%error, "the hub takes no offers"),
                told => drop(told?),
            }
            tokio::select! {
                () = shutdown.wait() => return Ok(()),
                () = own.changed.notified() => drop(shutdown.sleep(GATHER).await),
                () = tokio::time::sleep(TOLD_EVERY) => {}
            }
        }
    }

    /// What `/metrics` tells, in Prometheus' text format.
    pub(crate) fn text(&self) -> String {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counted { from_hub, from_neighbours, to_neighbours, let_down } = &*self.counted;
        format!(
            "# HELP avocet_artifact_bytes_received_total Bytes of artifacts that were fetched\n\
             # TYPE avocet_artifact_bytes_received_total counter\n\
             avocet_artifact_bytes_received_total{{from=\"hub\"}} {}\n\
             avocet_artifact_bytes_received_total{{from=\"neighbours\"}} {}\n\
             # HELP avocet_artifact_bytes_given_total Bytes of artifacts that neighbours fetched here\n\
             # TYPE avocet_artifact_bytes_given_total counter\n\
             avocet_artifact_bytes_given_total {}\n\
             # HELP avocet_artifact_let_down_total Fetches from neighbours that were given up\n\
             # TYPE avocet_artifact_let_down_total counter\n\
             avocet_artifact_let_down_total {}\n",
            of(from_hub),
            of(from_neighbours),
            of(to_neighbours),
            of(let_down),
        )
    }
}

impl Own {
    fn offer(&self) -> PeerOffer {
        let mut secrets = lock(&self.secrets);
        // Without randomness the old one stays.
        if secrets.since.elapsed() >= SECRET_LASTS
            && let Ok(new) = daemon::random_hex(32)
        {
            secrets.before = std::mem::replace(&mut secrets.now, new);
            secrets.since = Instant::now();
        }
        PeerOffer {
            address: self.address,
            certificate: self.certificate.clone(),
            secret: secrets.now.clone(),
            has: lock(&self.has).clone(),
        }
    }

    /// Whether the hub made a ticket for this artifact.
    fn admits(&self, ticket: &str, digest: &Digest) -> bool {
        let secrets = lock(&self.secrets);
        [&secrets.now, &secrets.before].into_iter().any(|secret| {
            api::peer_ticket(secret, digest).is_ok_and(|expected| daemon::same_secret(&expected, ticket))
        })
    }

    fn unfit(&self) -> Vec<String> {
        let mut unfit = lock(&self.unfit);
        unfit.retain(|_, until| *until > Instant::now());
        unfit.keys().cloned().collect()
    }

    /// From whom the hub says to fetch an artifact; none means from the hub itself, as where it can't say.
    async fn ask(&self, digest: &Digest, without: &[String]) -> Option<api::Neighbour> {
        let path = format!("/avocet/v1/sites/{}/peers/questions", self.site);
        let question = api::PeerQuestion { digest: *digest, without: without.to_vec() };
        let request = self.client.request(Method::POST, &path).timeout(LONGEST_ANSWER).json(&question);
        match self.client.json::<api::PeerAnswer>(request).await {
            Ok(answer) => answer.from,
            Err(error) => {
                debug!(%digest, error = daemon::chain(&error), "the hub does not say from whom to fetch");
                None
            }
        }
    }
}

/// A fetch under way, which neighbours may wait for.
struct Flight<'a> {
    own: &'a Own,
    digest: Digest,
    life: Arc<AtomicU64>,
}

impl<'a> Flight<'a> {
    fn begin(own: &'a Own, digest: &Digest) -> Self {
        let life = lock(&own.flights).entry(*digest).or_default().clone();
        Self { own, digest: *digest, life }
    }

    fn live(&self) {
        self.life.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        lock(&self.own.flights).remove(&self.digest);
    }
}
