//! Outputs on their way from site to site.
//!
//! A site that made something for another puts it into the other's box at the hub; the other takes it when it
//! comes by. So every site needs to reach only its parent, and neither needs the other to be there. A delivery
//! has the same id however often it is sent, so it lies in the box once; it leaves the box when the receiver says
//! that it has it durably. Inputs and outputs of offloaded work travel in the same boxes, see [`crate::offload`].

mod arriving;
mod boxes;
mod tending;
mod usage;
mod writers;

use std::collections::BTreeMap;
use std::io::SeekFrom;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{BoxError, Extension, Json};
use bytes::Bytes;
use futures::{Stream, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use store::Key;
use tokio::io::AsyncSeekExt;
use tokio::time::Instant;
use tokio_util::io::ReaderStream;
use types::{AssignmentSpec, Digest, Kind, SiteSpec};

use crate::authentication::User;
use crate::limits::{Held, WatchPlace};
use crate::metrics::Gauge;
use crate::nesting::{Branch, next_hop};
use crate::offload::{Listening, Note};
use crate::{ApiError, Hub, blobs};
pub use arriving::{Arriving, ArrivingError};
pub use boxes::Mailbox;
use boxes::{BUCKET, refuse};
pub(crate) use boxes::{Letter, Part, Taken};
pub use tending::tend;

/// The box for sites that are not below this hub: the hub above knows them. No site has such a name.
const UP: &str = "^";
/// As whom the hub above sends.
const FROM_ABOVE: &str = "the hub above";
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// The header of who hears of notes beside deliveries: an agent that offloads. Hubs below don't, nor older agents.
pub const LISTENS: &str = "avocet-offload";
/// How large a delivery may be, in bytes.
pub(crate) const LARGEST: usize = 5 << 30;

/// What a delivery is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeliveryKind {
    /// An output that becomes an object.
    #[default]
    Output,
    /// The input of an attempt that the site is to run for another.
    Task,
    /// What became of an attempt that another site ran.
    Result,
}

/// Something that waits for a site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// The same however often it is sent.
    pub id: String,
    /// The bucket that it goes to.
    pub bucket: String,
    /// The key that it gets there.
    pub key: String,
    /// Its media type, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Size in bytes.
    #[serde(default)]
    pub size: u64,
    /// What its content hashes to.
    pub digest: Digest,
    /// The site that it is for, where that is beyond the one that takes it from the box; empty otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub site: String,
    /// What it is.
    #[serde(default)]
    pub kind: DeliveryKind,
    /// What else there is to say of it; nothing of an output.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub about: BTreeMap<String, String>,
}

pub fn routes() -> Router<Arc<Hub>> {
    Router::new()
        .route("/avocet/v1/mailbox/{site}", get(list))
        .route("/avocet/v1/mailbox/{site}/{id}", get(take).put(send).delete(confirm))
        .layer(DefaultBodyLimit::max(LARGEST))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Address {
    bucket: String,
    key: String,
    digest: Digest,
    content_type: Option<String>,
    /// Of what comes in parts: how many bytes came before, and how many it is in all.
    offset: Option<u64>,
    size: Option<u64>,
}

/// What a part begins: how much of it is here.
#[derive(Serialize, Deserialize)]
pub struct Beginning {
    /// Bytes; the next part begins there.
    pub received: u64,
}

/// Puts what a request brings into a box: all of it, or a part.
pub(crate) async fn put(
    hub: &Hub,
    user: &User,
    (into, id): (&str, &str),
    (offset, size): (Option<u64>, Option<u64>),
    letter: Letter,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body.into_data_stream().map_err(std::io::Error::other);
    let (Some(offset), Some(size)) = (offset, size) else {
        hub.mailbox.put(into, id, letter, body).await?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let part = Part { from: &user.name, offset, size };
    let letter = Letter { size: Some(size), ..letter };
    Ok(match hub.mailbox.put_part(into, id, part, letter, body).await? {
        Taken::Whole => StatusCode::NO_CONTENT.into_response(),
        Taken::Beginning(received) => (StatusCode::ACCEPTED, Json(Beginning { received })).into_response(),
    })
}

/// How many bytes a request says that it brings.
pub(crate) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn send(
    State(hub): State<Arc<Hub>>,
    Extension(user): Extension<Arc<User>>,
    Path((site, id)): Path<(String, String)>,
    Query(address): Query<Address>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    check_sender(&hub, &user, &address)?;
    let Address { bucket, key, digest, content_type, offset, size } = address;
    if !types::names::is_bucket(&bucket) || key.is_empty() {
        return Err(ApiError::bad_request(format!("`{bucket}/{key}` is not a bucket and a key")));
    }
    let known = known_box(&hub, &site);
    let into = known.or(hub.parent.as_ref().map(|_| UP.to_owned())).ok_or_else(|| unknown(&site))?;
    let letter = Letter {
        kind: DeliveryKind::Output,
        digest,
        content_type,
        size: announced(&headers),
        about: to(&into, &site, bucket, key),
    };
    put(&hub, &user, (&into, &id), (offset, size), letter, body).await
}

/// What is kept with an output for a site, in the box from which it travels on.
fn to(into: &str, site: &str, bucket: String, key: String) -> BTreeMap<String, String> {
    let beyond = (into != site).then(|| ("site".to_owned(), site.to_owned()));
    [("bucket".to_owned(), bucket), ("key".to_owned(), key)].into_iter().chain(beyond).collect()
}

/// The box in which a site, or the child of this hub by which it is reached, looks for what is for it.
fn known_box(hub: &Hub, site: &str) -> Option<String> {
    hub.store.get(&Key::new(SiteSpec::PLURAL, "", site))?;
    Some(next_hop(&hub.store, &hub.site, site).unwrap_or_else(|| site.to_owned()))
}

fn unknown(site: &str) -> ApiError {
    ApiError::not_found(format!("sites \"{site}\" not found; nothing can be delivered to it"))
}

impl Hub {
    /// How many bytes are here of what the hub above has for a site of this hub: where it goes on.
    pub fn delivered(&self, delivery: &Delivery) -> u64 {
        let site = self.receiver(delivery);
        known_box(self, &site).map_or(0, |into| self.mailbox.begun(FROM_ABOVE, &into, delivery))
    }

    /// Forgets what is here of what the hub above has for a site of this hub: it comes from its beginning.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn forget_delivered(&self, delivery: &Delivery) -> Result<(), ApiError> {
        let site = self.receiver(delivery);
        known_box(self, &site).map_or(Ok(()), |into| self.mailbox.forget_begun(FROM_ABOVE, &into, delivery))
    }

    /// Takes in what the hub above has for a site of this hub, from byte `offset` on.
    ///
    /// # Errors
    /// 404 if there is no such site here; else if it can't be kept, or not all came: what came is kept then.
    pub async fn deliver<S>(&self, delivery: Delivery, offset: u64, body: S) -> Result<(), ApiError>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
    {
        let site = self.receiver(&delivery);
        let into = known_box(self, &site).ok_or_else(|| unknown(&site))?;
        let Delivery { id, bucket, key, content_type, digest, kind, size, .. } = delivery;
        let about = to(&into, &site, bucket, key);
        let letter = || Letter {
            kind,
            digest,
            content_type: content_type.clone(),
            size: Some(size),
            about: about.clone(),
        };
        let part = Part { from: FROM_ABOVE, offset, size };
        let nothing = futures::stream::empty();
        let taken = match self.mailbox.put_part(&into, &id, part, letter(), body).await? {
            Taken::Beginning(received) if received == size => {
                let end = Part { offset: size, ..part };
                self.mailbox.put_part(&into, &id, end, letter(), nothing).await?
            }
            taken => taken,
        };
        match taken {
            Taken::Whole => Ok(()),
            Taken::Beginning(received) => Err(ApiError::timeout(format!(
                "{received} of {size} bytes of a delivery for site `{site}` came; the rest is fetched later"
            ))),
        }
    }

    /// For whom a delivery from above is.
    fn receiver(&self, delivery: &Delivery) -> String {
        if delivery.site.is_empty() { self.site.clone() } else { delivery.site.clone() }
    }
}

/// A site may send what one of its assignments makes, or one of a site below it, or made not long ago; and nothing else.
fn check_sender(hub: &Hub, user: &User, address: &Address) -> Result<(), ApiError> {
    if user.is_admin() {
        return Ok(());
    }
    let Address { bucket, key, .. } = address;
    let makes = |sender: &str| {
        let (assignments, _) = hub.store.list(AssignmentSpec::PLURAL, Some(sender));
        assignments.iter().any(|object| {
            let Ok(assignment) = object.resource::<AssignmentSpec>() else { return false };
            assignment.spec.outputs.iter().any(|output| output.to.matches(bucket, key))
        })
    };
    // What was assigned only just now may not be remembered yet.
    let makes = user.site().is_some_and(|sender| {
        hub.mailbox.writers.allow(sender, bucket, key, daemon::now())
            || makes(sender)
            || Branch::of(hub, sender).below().iter().any(|below| makes(below))
    });
    if makes {
        return Ok(());
    }
    Err(ApiError::forbidden(format!(
        "{} has no assignment that writes `{bucket}/{key}`, nor had one of late",
        user.name
    )))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wait {
    /// For how many seconds to wait if nothing is there.
    #[serde(default)]
    wait: u64,
}

#[derive(Serialize)]
pub(crate) struct Deliveries {
    deliveries: Vec<Delivery>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<Note>,
}

impl Deliveries {
    fn is_empty(&self) -> bool {
        self.deliveries.is_empty() && self.notes.is_empty()
    }
}

async fn list(
    State(hub): State<Arc<Hub>>,
    Extension(user): Extension<Arc<User>>,
    Extension(place): Extension<Held>,
    Path(site): Path<String>,
    Query(Wait { wait }): Query<Wait>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    place.give_back();
    let place = hub.limits.watch(&user.name)?;
    let listening = headers.contains_key(LISTENS).then(|| hub.relay.listen(&site));
    let at_work = hub.metrics.at_work(&Method::GET);
    let waiter = Waiter { hub, site, listening, _place: place, _at_work: at_work };
    let found = waiter.look().await.map_err(refuse)?;
    if wait == 0 || !found.is_empty() {
        return Ok(Json(found).into_response());
    }
    // The answer begins now: as long as nothing comes, its body alone is kept, and not all that a request goes through,
    // which is 10 KB. All sites wait, nearly always.
    let until = Instant::now() + Duration::from_secs(wait).min(LONGEST_WAIT);
    let body = Body::from_stream(stream::once(waiter.wait(until)));
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

/// A site that asks for what is in its box.
struct Waiter {
    hub: Arc<Hub>,
    site: String,
    listening: Option<Listening>,
    _place: WatchPlace,
    _at_work: Gauge,
}

impl Waiter {
    /// What is there now.
    async fn look(&self) -> Result<Deliveries, objects::Error> {
        let deliveries = self.hub.mailbox.waiting(&self.site).await?;
        let notes = self.listening.as_ref().map(Listening::take).unwrap_or_default();
        Ok(Deliveries { deliveries, notes })
    }

    async fn told(&self) {
        match &self.listening {
            Some(listening) => listening.told().await,
            None => std::future::pending().await,
        }
    }

    /// What is there once there is something, or the time is up; as JSON.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` has room for what it is given twice")]
    fn wait(self, until: Instant) -> impl Future<Output = Result<Vec<u8>, BoxError>> {
        async move {
            loop {
                let mut rung = pin!(self.hub.mailbox.bells.of(&self.site).notified());
                rung.as_mut().enable();
                // Boxed, so that who waits has no space for it.
                if let Some(found) = Box::pin(self.found(until)).await? {
                    return Ok(found);
                }
                tokio::select! {
                    () = rung => {}
                    () = self.told() => {}
                    () = self.hub.shutdown.wait() => {}
                    () = tokio::time::sleep_until(until) => {}
                }
            }
        }
    }

    /// What is to be answered, if it is time to.
    async fn found(&self, until: Instant) -> Result<Option<Vec<u8>>, BoxError> {
        // The head was sent: whoever waits sees that it broke off, asks again, and is told why.
        let found = self.look().await.inspect_err(|error| {
            tracing::error!(site = self.site, %error, "can't look into a box that is waited for");
        })?;
        let is_over = self.hub.shutdown.is_due() || Instant::now() >= until;
        Ok(if is_over || !found.is_empty() { Some(serde_json::to_vec(&found)?) } else { None })
    }
}

async fn take(
    State(hub): State<Arc<Hub>>,
    Path((site, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (boxes, key) = (&hub.mailbox.objects, format!("{site}/{id}"));
    let (info, mut file) = match boxes.get(BUCKET, &key).await {
        // It was taken after the backup was made that this hub goes on from.
        Err(error @ objects::Error::Lost { .. }) => {
            hub.mailbox.remove(&site, &id).await.map_err(refuse)?;
            return Err(ApiError::not_found(error.to_string()));
        }
        found => found.map_err(refuse)?,
    };
    let offset = blobs::range(&headers, info.size)?;
    file.seek(SeekFrom::Start(offset)).await.map_err(|error| ApiError::internal(&error))?;
    Ok(blobs::rest(Body::from_stream(ReaderStream::new(file)), offset, info.size))
}

async fn confirm(
    State(hub): State<Arc<Hub>>,
    Path((site, id)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    hub.mailbox.remove(&site, &id).await.map_err(refuse)?;
    Ok(StatusCode::NO_CONTENT)
}
