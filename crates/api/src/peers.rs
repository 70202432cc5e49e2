//! Sites of one place that fetch artifacts from one another.
//!
//! A site that takes part tells its hub, over the connection on which it proves who it is, where it listens, the
//! certificate to know it by, a secret, and what it has. A site that was assigned an artifact asks the hub from whom to
//! fetch it and gets a neighbour's address and certificate, and a ticket: a hash that only the neighbour and the hub can
//! make, and that is good there for this one artifact. So nobody gets at a neighbour what the hub would not give them.
//!
//! All of it is in memory. After a restart the hub hears it anew within a minute, and is asked itself meanwhile.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, Path, State};
use axum::http::StatusCode;
use axum::routing::{post, put};
use axum::{Extension, Json, Router};
use hmac::{Hmac, KeyInit, Mac};
use planner::distribution::Spread;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use store::Key;
use types::{AssignmentSpec, Digest, Kind, SiteSpec};

use crate::authentication::User;
use crate::listener::Peer;
use crate::rbac::Attempt;
use crate::{ApiError, Hub};

/// How often a site tells what it has, if nothing changes.
pub const TOLD_EVERY: Duration = Duration::from_secs(60);
/// For how long it is believed.
const BELIEVED: Duration = Duration::from_secs(150);
/// How many artifacts a site may tell of.
pub const MOST_ARTIFACTS: usize = 4096;
/// How long a certificate in PEM may be, and a secret, in bytes.
const LONGEST_CERTIFICATE: usize = 4096;
const LONGEST_SECRET: usize = 128;
/// How many artifacts are followed at once, each in each place.
const MOST_SPREADS: usize = 20_000;

/// What a site tells that others may fetch from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PeerOffer {
    /// Where it listens. An address that is none in particular, such as `0.0.0.0`, stands for the one that the hub sees.
    pub address: SocketAddr,
    /// The certificate that it shows, in PEM.
    pub certificate: String,
    /// What tickets are made with.
    pub secret: String,
    /// The artifacts that it has.
    pub has: BTreeSet<Digest>,
}

/// From whom a site asks to fetch an artifact.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PeerQuestion {
    /// The artifact.
    pub digest: Digest,
    /// The neighbours that let the site down.
    #[serde(default)]
    pub without: Vec<String>,
}

/// From whom to fetch.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerAnswer {
    /// The neighbour; none means the hub.
    pub from: Option<Neighbour>,
}

/// A neighbour that has an artifact, or fetches it now.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Neighbour {
    /// Its name.
    pub site: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// The certificate that it shows, in PEM.
    pub certificate: String,
    /// What it is to be shown.
    pub ticket: String,
}

/// What lets its bearer fetch an artifact from the site that has this secret.
///
/// # Errors
/// Never with a secret of usable length.
pub fn peer_ticket(secret: &str, digest: &Digest) -> std::io::Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map_err(std::io::Error::other)?;
    mac.update(format!("avocet peer\n{digest}\n").as_bytes());
    Ok(mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Who offers what to whom. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    started: Instant,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    offers: HashMap<String, Offered>,
    /// By location and artifact.
    spreads: HashMap<(String, Digest), Spread>,
}

struct Offered {
    offer: PeerOffer,
    location: String,
    until: Instant,
}

impl Default for Peers {
    fn default() -> Self {
        Self { started: Instant::now(), known: Arc::default() }
    }
}

impl Peers {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offer(&self, site: &str, location: &str, offer: PeerOffer) {
        let mut known = self.known();
        let Known { offers, spreads } = &mut *known;
        let before = offers.remove(site);
        if let Some(before) = before {
            for digest in before.offer.has.difference(&offer.has) {
                if let Some(spread) = spreads.get_mut(&(before.location.clone(), *digest)) {
                    spread.lost(site);
                }
            }
        }
        for digest in &offer.has {
            if spreads.len() < MOST_SPREADS || spreads.contains_key(&(location.to_owned(), *digest)) {
                spreads.entry((location.to_owned(), *digest)).or_default().has(site);
            }
        }
        spreads.retain(|_, spread| !spread.is_empty());
        let until = Instant::now() + BELIEVED;
        offers.insert(site.to_owned(), Offered { offer, location: location.to_owned(), until });
    }

    /// From whom a site fetches an artifact, if not from the hub.
    fn ask(
        &self,
        site: &str,
        location: &str,
        question: &PeerQuestion,
    ) -> Result<Option<Neighbour>, ApiError> {
        let (now, mut known) = (Instant::now(), self.known());
        let Known { offers, spreads } = &mut *known;
        let gone: Vec<String> =
            offers.iter().filter(|(_, offered)| offered.until <= now).map(|(site, _)| site.clone()).collect();
        for site in gone {
            offers.remove(&site);
            spreads.values_mut().for_each(|spread| spread.lost(&site));
        }
        let place = (location.to_owned(), question.digest);
        if spreads.len() >= MOST_SPREADS && !spreads.contains_key(&place) {
            return Ok(None);
        }
        let serves = |other: &str| offers.get(other).is_some_and(|offered| offered.location == location);
        let spread = spreads.entry(place).or_default();
        let from = spread.ask(site, &question.without, self.started.elapsed(), serves);
        let found = from.and_then(|from| offers.get(&from).map(|offered| (from, &offered.offer)));
        found
            .map(|(site, PeerOffer { address, certificate, secret, .. })| {
                let ticket =
                    peer_ticket(secret, &question.digest).map_err(|error| ApiError::internal(&error))?;
                Ok(Neighbour { site, address: *address, certificate: certificate.clone(), ticket })
            })
            .transpose()
    }
}

pub fn routes() -> Router<Arc<Hub>> {
    Router::new()
        .route("/avocet/v1/sites/{site}/peers", put(offer))
        .route("/avocet/v1/sites/{site}/peers/questions", post(ask))
}

/// Where a site is: those of one location reach one another.
fn location(hub: &Hub, site: &str) -> Result<String, ApiError> {
    let found = hub.store.get(&Key::new(SiteSpec::PLURAL, "", site));
    let found = found.and_then(|object| object.resource::<SiteSpec>().ok());
    let found = found.filter(|found| found.spec.parent == hub.site || found.spec.parent.is_empty());
    let found =
        found.ok_or_else(|| ApiError::not_found(format!("sites \"{site}\" not found at this hub")))?;
    Ok(found.spec.location)
}

async fn offer(
    State(hub): State<Arc<Hub>>,
    Path(site): Path<String>,
    peer: Option<Extension<ConnectInfo<Peer>>>,
    Json(mut offer): Json<PeerOffer>,
) -> Result<StatusCode, ApiError> {
    if offer.certificate.len() > LONGEST_CERTIFICATE
        || !(16..=LONGEST_SECRET).contains(&offer.secret.len())
        || offer.has.len() > MOST_ARTIFACTS
    {
        return Err(ApiError::bad_request(format!(
            "an offer has a certificate of up to {LONGEST_CERTIFICATE} bytes, a secret of 16 to {LONGEST_SECRET}, and up \
             to {MOST_ARTIFACTS} artifacts"
        )));
    }
    if offer.address.ip().is_unspecified() {
        let seen = peer.map(|Extension(ConnectInfo(peer))| peer.address.ip());
        let seen =
            seen.ok_or_else(|| ApiError::bad_request("the address is none in particular; name one"))?;
        offer.address.set_ip(seen);
    }
    let location = location(&hub, &site)?;
    hub.peers.offer(&site, &location, offer);
    Ok(StatusCode::NO_CONTENT)
}

async fn ask(
    State(hub): State<Arc<Hub>>,
    Extension(user): Extension<Arc<User>>,
    Path(site): Path<String>,
    Json(question): Json<PeerQuestion>,
) -> Result<Json<PeerAnswer>, ApiError> {
    let digest = question.digest;
    let path = format!("/avocet/v1/blobs/{digest}");
    if !hub.rbac.decide(&user, &Attempt::Path { verb: "get", path: &path }).allowed
        || !is_assigned(&hub, &site, &digest)
    {
        return Err(ApiError::forbidden(format!("artifact {digest} is not assigned to site `{site}`")));
    }
    let location = location(&hub, &site)?;
    Ok(Json(PeerAnswer { from: hub.peers.ask(&site, &location, &question)? }))
}

/// Whether an Assignment of a site names an artifact.
fn is_assigned(hub: &Hub, site: &str, digest: &Digest) -> bool {
    let (assignments, _) = hub.store.list(AssignmentSpec::PLURAL, Some(site));
    let digest = digest.to_string();
    assignments.iter().any(|assignment| assignment.manifest().to_string().contains(&digest))
}
