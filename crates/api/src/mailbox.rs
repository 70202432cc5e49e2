//! Outputs on their way from site to site.
//!
//! A site that made something for another puts it into the other's box at the hub; the other takes it when it
//! comes by. So every site needs to reach only its parent, and neither needs the other to be there. A delivery
//! has the same id however often it is sent, so it lies in the box once; it leaves the box when the receiver says
//! that it has it durably. Inputs and outputs of offloaded work travel in the same boxes, see [`crate::offload`].

mod bells;

use std::collections::{BTreeMap, HashSet};
use std::path::Path as FilePath;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json};
use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use objects::{List, Objects, PutOptions};
use serde::{Deserialize, Serialize};
use store::{Key, Ledger};
use tokio_util::io::ReaderStream;
use types::{Assignment, AssignmentSpec, Digest, Kind, SiteSpec};

use crate::authentication::User;
use crate::limits::Held;
use crate::nesting::{Branch, next_hop};
use crate::offload::{Listening, Note};
use crate::{ApiError, Hub};
use bells::Bells;

const BUCKET: &str = "mailbox";
/// How many deliveries one answer tells of; the receiver asks again.
const PAGE: usize = 100;
/// The box for sites that are not below this hub: the hub above knows them. No site has such a name.
const UP: &str = "^";
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

/// What is to be put into a box.
pub(crate) struct Letter {
    pub kind: DeliveryKind,
    pub digest: Digest,
    pub content_type: Option<String>,
    /// Kept with it: `bucket` and `key` of where it goes, and what else there is to say.
    pub about: BTreeMap<String, String>,
}

/// Under which name the kind of a letter is kept with it.
const KIND: &str = "kind";

/// The boxes of all sites, on the hub's disk.
#[derive(Clone)]
pub struct Mailbox {
    objects: Objects,
    bells: Bells,
}

impl Mailbox {
    /// Opens the boxes in a folder.
    ///
    /// # Errors
    /// If the folder can't be read.
    pub fn open(folder: &FilePath, ledger: Ledger) -> Result<Self, objects::Error> {
        Ok(Self { objects: Objects::open(folder, ledger)?, bells: Bells::new() })
    }

    /// Puts a letter into a site's box, durably, and once however often it is sent.
    ///
    /// # Errors
    /// 400 if its id can't be one or its content is not what it should be, 413 if it is too large.
    pub(crate) async fn put<S>(&self, site: &str, id: &str, letter: Letter, body: S) -> Result<(), ApiError>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
    {
        if !types::names::is_label_value(id) || id.is_empty() {
            return Err(ApiError::bad_request(format!(
                "`{id}` is not a delivery id: write 1 to 63 of A-Z a-z 0-9 - _ ."
            )));
        }
        let name = format!("{site}/{id}");
        let mut metadata = letter.about;
        let kind = match letter.kind {
            DeliveryKind::Output => None,
            DeliveryKind::Task => Some("task"),
            DeliveryKind::Result => Some("result"),
        };
        metadata.extend(kind.map(|kind| (KIND.to_owned(), kind.to_owned())));
        let options = PutOptions {
            content_type: letter.content_type,
            metadata,
            idempotency_key: Some(name.clone()),
            expected_digest: Some(letter.digest),
            create_bucket: true,
            ..PutOptions::default()
        };
        self.objects.put(BUCKET, &name, body, options).await.map_err(refuse)?;
        self.bells.of(site).notify_waiters();
        Ok(())
    }

    /// What waits for sites that the hub above knows, but for these ids; at most a hundred. Waits until there is
    /// something.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn waiting_for_parent(&self, but: &HashSet<String>) -> Result<Vec<Delivery>, objects::Error> {
        loop {
            let mut rung = pin!(self.bells.of(UP).notified());
            rung.as_mut().enable();
            let mut waiting = self.page(UP, PAGE + but.len()).await?;
            waiting.retain(|delivery| !but.contains(&delivery.id));
            if !waiting.is_empty() {
                waiting.truncate(PAGE);
                return Ok(waiting);
            }
            rung.await;
        }
    }

    /// The content of what waits for the hub above.
    ///
    /// # Errors
    /// If it is not there, or the disk fails.
    pub async fn open_for_parent(&self, id: &str) -> Result<tokio::fs::File, objects::Error> {
        self.objects.get(BUCKET, &format!("{UP}/{id}")).await.map(|(_, file)| file)
    }

    /// The hub above has a delivery.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn sent_to_parent(&self, id: &str) -> Result<(), objects::Error> {
        self.remove(UP, id).await
    }

    async fn remove(&self, from: &str, id: &str) -> Result<(), objects::Error> {
        self.objects.delete(BUCKET, &format!("{from}/{id}")).await?;
        // Nobody reads the boxes' history.
        self.objects.trim_changes(self.objects.latest_sequence()).await.map(drop)
    }

    async fn waiting(&self, site: &str) -> Result<Vec<Delivery>, objects::Error> {
        self.page(site, PAGE).await
    }

    async fn page(&self, site: &str, limit: usize) -> Result<Vec<Delivery>, objects::Error> {
        let prefix = format!("{site}/");
        let list = List { prefix: prefix.clone(), limit, ..List::default() };
        let page = match self.objects.list(BUCKET, list).await {
            Err(objects::Error::NoSuchBucket(_)) => return Ok(vec![]),
            page => page?,
        };
        let deliveries = page.objects.into_iter().map(|info| {
            let mut about = info.metadata;
            let kind = match about.remove(KIND).as_deref() {
                Some("task") => DeliveryKind::Task,
                Some("result") => DeliveryKind::Result,
                _ => DeliveryKind::Output,
            };
            let mut told = |name: &str| about.remove(name).unwrap_or_default();
            Delivery {
                id: info.key.strip_prefix(&prefix).unwrap_or_default().to_owned(),
                bucket: told("bucket"),
                key: told("key"),
                site: told("site"),
                content_type: info.content_type,
                size: info.size,
                digest: info.digest,
                kind,
                about,
            }
        });
        Ok(deliveries.collect())
    }
}

pub fn routes() -> Router<Arc<Hub>> {
    Router::new()
        .route("/avocet/v1/mailbox/{site}", get(list))
        .route("/avocet/v1/mailbox/{site}/{id}", get(take).put(send).delete(confirm))
        .layer(DefaultBodyLimit::max(LARGEST))
}

fn refuse(error: objects::Error) -> ApiError {
    match &error {
        objects::Error::NoSuchKey { .. } | objects::Error::NoSuchBucket(_) => {
            ApiError::not_found(error.to_string())
        }
        objects::Error::TooLarge { .. } => ApiError::too_large(error.to_string()),
        objects::Error::Invalid(_)
        | objects::Error::BucketName(_)
        | objects::Error::Mismatch { .. }
        | objects::Error::Incomplete { .. }
        | objects::Error::Body(_) => ApiError::bad_request(error.to_string()),
        _ => ApiError::internal(&error),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Address {
    bucket: String,
    key: String,
    digest: Digest,
    content_type: Option<String>,
}

async fn send(
    State(hub): State<Arc<Hub>>,
    Extension(user): Extension<Arc<User>>,
    Path((site, id)): Path<(String, String)>,
    Query(address): Query<Address>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    check_sender(&hub, &user, &address)?;
    let Address { bucket, key, digest, content_type } = address;
    if !types::names::is_bucket(&bucket) || key.is_empty() {
        return Err(ApiError::bad_request(format!("`{bucket}/{key}` is not a bucket and a key")));
    }
    let known = known_box(&hub, &site);
    let into = known.or(hub.parent.as_ref().map(|_| UP.to_owned())).ok_or_else(|| unknown(&site))?;
    let letter =
        Letter { kind: DeliveryKind::Output, digest, content_type, about: to(&into, &site, bucket, key) };
    let body = body.into_data_stream().map_err(std::io::Error::other);
    hub.mailbox.put(&into, &id, letter, body).await?;
    Ok(StatusCode::NO_CONTENT)
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
    /// Takes in what the hub above has for a site of this hub.
    ///
    /// # Errors
    /// 404 if there is no such site here; else if it can't be kept.
    pub async fn deliver<S>(&self, delivery: Delivery, body: S) -> Result<(), ApiError>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
    {
        let site = if delivery.site.is_empty() { self.site.clone() } else { delivery.site.clone() };
        let into = known_box(self, &site).ok_or_else(|| unknown(&site))?;
        let Delivery { id, bucket, key, content_type, digest, kind, .. } = delivery;
        let letter = Letter { kind, digest, content_type, about: to(&into, &site, bucket, key) };
        self.mailbox.put(&into, &id, letter, body).await
    }
}

/// A site may send what one of its assignments makes, or one of a site below it, and nothing else.
fn check_sender(hub: &Hub, user: &User, address: &Address) -> Result<(), ApiError> {
    if user.is_admin() {
        return Ok(());
    }
    let makes = |sender: &str| {
        let (assignments, _) = hub.store.list(AssignmentSpec::PLURAL, Some(sender));
        assignments.iter().any(|object| {
            let Ok(assignment) = object.parse::<Assignment>() else { return false };
            assignment.spec.outputs.iter().any(|output| output.to.matches(&address.bucket, &address.key))
        })
    };
    let makes = user.site().is_some_and(|sender| {
        makes(sender) || Branch::of(hub, sender).below().iter().any(|below| makes(below))
    });
    if makes {
        return Ok(());
    }
    Err(ApiError::forbidden(format!(
        "{} has no assignment that writes `{}/{}`",
        user.name, address.bucket, address.key
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

async fn list(
    State(hub): State<Arc<Hub>>,
    Extension(user): Extension<Arc<User>>,
    Extension(place): Extension<Held>,
    Path(site): Path<String>,
    Query(Wait { wait }): Query<Wait>,
    headers: HeaderMap,
) -> Result<Json<Deliveries>, ApiError> {
    place.give_back();
    let _waits = hub.limits.watch(&user.name)?;
    let listening = headers.contains_key(LISTENS).then(|| hub.relay.listen(&site));
    let told = || async {
        match &listening {
            Some(listening) => listening.told().await,
            None => std::future::pending().await,
        }
    };
    let until = tokio::time::Instant::now() + Duration::from_secs(wait).min(LONGEST_WAIT);
    loop {
        let mut rung = pin!(hub.mailbox.bells.of(&site).notified());
        rung.as_mut().enable();
        let deliveries = hub.mailbox.waiting(&site).await.map_err(refuse)?;
        let notes = listening.as_ref().map(Listening::take).unwrap_or_default();
        if !deliveries.is_empty() || !notes.is_empty() {
            return Ok(Json(Deliveries { deliveries, notes }));
        }
        tokio::select! {
            () = rung => {}
            () = told() => {}
            () = hub.shutdown.wait() => return Ok(Json(Deliveries { deliveries, notes })),
            () = tokio::time::sleep_until(until) => return Ok(Json(Deliveries { deliveries, notes })),
        }
    }
}

async fn take(
    State(hub): State<Arc<Hub>>,
    Path((site, id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let (boxes, key) = (&hub.mailbox.objects, format!("{site}/{id}"));
    let (_, file) = match boxes.get(BUCKET, &key).await {
        // It was taken after the backup was made that this hub goes on from.
        Err(error @ objects::Error::Lost { .. }) => {
            boxes.delete(BUCKET, &key).await.map_err(refuse)?;
            return Err(ApiError::not_found(error.to_string()));
        }
        found => found.map_err(refuse)?,
    };
    Ok(Body::from_stream(ReaderStream::new(file)).into_response())
}

async fn confirm(
    State(hub): State<Arc<Hub>>,
    Path((site, id)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    hub.mailbox.remove(&site, &id).await.map_err(refuse)?;
    Ok(StatusCode::NO_CONTENT)
}
