//! Outputs on their way from site to site.
//!
//! A site that made something for another puts it into the other's box at the hub; the other takes it when it
//! comes by. So every site needs to reach only its parent, and neither needs the other to be there. A delivery
//! has the same id however often it is sent, so it lies in the box once; it leaves the box when the receiver says
//! that it has it durably. Inputs and outputs of offloaded work travel in the same boxes, see [`crate::offload`].

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json};
use futures::TryStreamExt;
use objects::{List, Objects, PutOptions};
use serde::{Deserialize, Serialize};
use store::{Key, Ledger};
use tokio_util::io::ReaderStream;
use types::{Assignment, AssignmentSpec, Digest, Kind, SiteSpec};

use crate::authentication::User;
use crate::limits::Held;
use crate::offload::Note;
use crate::{ApiError, Hub};

const BUCKET: &str = "mailbox";
/// How many deliveries one answer tells of; the receiver asks again.
const PAGE: usize = 100;
const LONGEST_WAIT: Duration = Duration::from_secs(60);
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
}

impl Mailbox {
    /// Opens the boxes in a folder.
    ///
    /// # Errors
    /// If the folder can't be read.
    pub fn open(folder: &FilePath, ledger: Ledger) -> Result<Self, objects::Error> {
        Ok(Self { objects: Objects::open(folder, ledger)? })
    }

    async fn waiting(&self, site: &str) -> Result<Vec<Delivery>, objects::Error> {
        let prefix = format!("{site}/");
        let list = List { prefix: prefix.clone(), limit: PAGE, ..List::default() };
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
            Delivery {
                id: info.key.strip_prefix(&prefix).unwrap_or_default().to_owned(),
                bucket: about.remove("bucket").unwrap_or_default(),
                key: about.remove("key").unwrap_or_default(),
                content_type: info.content_type,
                size: info.size,
                digest: info.digest,
                kind,
                about,
            }
        });
        Ok(deliveries.collect())
    }

    /// Puts a letter into a site's box, durably, and once however often it is sent.
    ///
    /// # Errors
    /// 400 if its id can't be one or its content is not what it should be, 413 if it is too large.
    pub(crate) async fn put(&self, site: &str, id: &str, letter: Letter, body: Body) -> Result<(), ApiError> {
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
        let body = body.into_data_stream().map_err(std::io::Error::other);
        self.objects.put(BUCKET, &name, body, options).await.map_err(refuse)?;
        Ok(())
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
    if hub.store.get(&Key::new(SiteSpec::PLURAL, "", &*site)).is_none() {
        return Err(ApiError::not_found(format!(
            "sites \"{site}\" not found; nothing can be delivered to it"
        )));
    }
    if !types::names::is_bucket(&address.bucket) || address.key.is_empty() {
        return Err(ApiError::bad_request(format!(
            "`{}/{}` is not a bucket and a key",
            address.bucket, address.key
        )));
    }
    let about = BTreeMap::from([("bucket".to_owned(), address.bucket), ("key".to_owned(), address.key)]);
    let Address { content_type, digest, .. } = address;
    let letter = Letter { kind: DeliveryKind::Output, digest, content_type, about };
    hub.mailbox.put(&site, &id, letter, body).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A site may send what one of its assignments makes, and nothing else.
fn check_sender(hub: &Hub, user: &User, address: &Address) -> Result<(), ApiError> {
    if user.is_admin() {
        return Ok(());
    }
    let makes = user.site().is_some_and(|sender| {
        let (assignments, _) = hub.store.list(AssignmentSpec::PLURAL, Some(sender));
        assignments.iter().any(|object| {
            let Ok(assignment) = object.parse::<Assignment>() else { return false };
            assignment.spec.outputs.iter().any(|output| output.to.matches(&address.bucket, &address.key))
        })
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
) -> Result<Json<Deliveries>, ApiError> {
    place.give_back();
    let _waits = hub.limits.watch(&user.name)?;
    let listening = hub.relay.listen(&site);
    let until = tokio::time::Instant::now() + Duration::from_secs(wait).min(LONGEST_WAIT);
    loop {
        let seen = hub.mailbox.objects.latest_sequence();
        let deliveries = hub.mailbox.waiting(&site).await.map_err(refuse)?;
        let notes = listening.take();
        if !deliveries.is_empty() || !notes.is_empty() {
            return Ok(Json(Deliveries { deliveries, notes }));
        }
        tokio::select! {
            _ = hub.mailbox.objects.changed_after(seen) => {}
            () = listening.told() => {}
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
    let boxes = &hub.mailbox.objects;
    boxes.delete(BUCKET, &format!("{site}/{id}")).await.map_err(refuse)?;
    // Nobody reads the boxes' history.
    boxes.trim_changes(boxes.latest_sequence()).await.map_err(refuse)?;
    Ok(StatusCode::NO_CONTENT)
}
