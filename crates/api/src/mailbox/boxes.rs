//! The boxes of all sites, on the hub's disk.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use objects::{Info, List, Objects, PutOptions};
use store::Ledger;
use tokio::sync::OnceCell;
use types::Digest;

use super::arriving::{Arriving, ArrivingError};
use super::usage::{Fill, Usage};
use super::writers::Writers;
use super::{Delivery, DeliveryKind, LARGEST, UP};
use crate::ApiError;
use crate::bells::Bells;

pub(super) const BUCKET: &str = "mailbox";
/// How many deliveries one answer tells of; the receiver asks again.
const PAGE: usize = 100;
/// How many bytes may wait for one site, if nobody says it.
const MOST_BYTES: u64 = 32 << 30;

/// What is to be put into a box.
pub(crate) struct Letter {
    pub kind: DeliveryKind,
    pub digest: Digest,
    pub content_type: Option<String>,
    /// How many bytes it is, where that is announced.
    pub size: Option<u64>,
    /// Kept with it: `bucket` and `key` of where it goes, and what else there is to say.
    pub about: BTreeMap<String, String>,
}

/// Which part of a letter comes now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'a> {
    /// Who sends it: what two send never is the same.
    pub from: &'a str,
    /// How many bytes came before.
    pub offset: u64,
    /// How many bytes it is in all.
    pub size: u64,
}

/// What became of a letter that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is in the box, or was.
    Whole,
    /// So many bytes of it are here; the next part begins there.
    Beginning(u64),
}

/// Under which name the kind of a letter is kept with it.
const KIND: &str = "kind";

/// The boxes of all sites, on the hub's disk. Cheap to clone.
#[derive(Clone)]
pub struct Mailbox {
    pub(super) objects: Objects,
    pub(super) bells: Bells,
    arriving: Arriving,
    usage: Usage,
    /// What is being put now: the same delivery once at a time.
    landing: Arc<Mutex<HashSet<String>>>,
    pub(super) writers: Writers,
    /// Set once what is in the boxes was counted.
    counted: Arc<OnceCell<()>>,
}

impl Mailbox {
    /// Opens the boxes in a folder.
    ///
    /// # Errors
    /// If the folder can't be read.
    pub fn open(folder: &Path, ledger: Ledger) -> Result<Self, ArrivingError> {
        Ok(Self {
            writers: Writers::open(ledger.clone()).map_err(objects::Error::from)?,
            objects: Objects::open(folder, ledger)?,
            bells: Bells::new(),
            arriving: Arriving::open(&folder.join("arriving"))?,
            usage: Usage::new(MOST_BYTES),
            landing: Arc::default(),
            counted: Arc::default(),
        })
    }

    /// The same, where so many bytes may wait for one site.
    #[must_use]
    pub fn holding(self, most_bytes: u64) -> Self {
        Self { usage: Usage::new(most_bytes), counted: Arc::default(), ..self }
    }

    /// How full the boxes are; only looked through once, for all that changes is counted.
    async fn usage(&self) -> Result<&Usage, objects::Error> {
        let count = async {
            let mut after = String::new();
            loop {
                let page = self.listed(List { after, ..List::default() }).await?;
                let Some(last) = page.last() else { return Ok::<_, objects::Error>(()) };
                after = last.key.clone();
                for info in &page {
                    self.usage.came(box_of(&info.key), info.size, None);
                }
            }
        };
        self.counted.get_or_try_init(|| count).await?;
        Ok(&self.usage)
    }

    /// How full each box is that has something in it, by the site's name; `^` is the box for the hub above.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn fill(&self) -> Result<Vec<(String, Fill)>, objects::Error> {
        Ok(self.usage().await?.all())
    }

    /// Puts a letter into a site's box, durably, and once however often it is sent.
    ///
    /// # Errors
    /// 400 if its id can't be one or its content is not what it should be, 413 if it is too large, 507 if there is no room
    /// for it now.
    pub(crate) async fn put<S>(&self, site: &str, id: &str, letter: Letter, body: S) -> Result<(), ApiError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Unpin,
    {
        check_id(id)?;
        let usage = self.usage().await.map_err(refuse)?;
        let name = format!("{site}/{id}");
        if self.objects.written_before(&name).await.map_err(refuse)?.is_some() {
            self.bells.of(site).notify_waiters();
            return Ok(());
        }
        let random = daemon::random_hex(8).map_err(|error| ApiError::internal(&error))?;
        usage.expect(site, &random, letter.size.unwrap_or_default())?;
        let _room = Room { usage, site, what: &random };
        let put = |options| async { Ok(self.objects.put(BUCKET, &name, body, options).await?) };
        self.keep(site, &name, letter, put).await
    }

    /// Takes a part of a letter if it is the next one, and puts the letter into the box when all is here: who has sent
    /// everything says so with an empty part at the end.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub(crate) async fn put_part<S>(
        &self,
        site: &str,
        id: &str,
        part: Part<'_>,
        letter: Letter,
        body: S,
    ) -> Result<Taken, ApiError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Unpin,
    {
        check_id(id)?;
        let Part { from, offset, size } = part;
        if size > LARGEST as u64 {
            return Err(ApiError::too_large(format!(
                "a delivery of {size} bytes is too large; send {LARGEST} at most"
            )));
        }
        let usage = self.usage().await.map_err(refuse)?;
        let name = format!("{site}/{id}");
        if self.objects.written_before(&name).await.map_err(refuse)?.is_some() {
            self.bells.of(site).notify_waiters();
            return Ok(Taken::Whole);
        }
        let what = beginning(from, &name, &letter.digest);
        usage.expect(site, &what, size)?;
        let received = self.arriving.received(&what);
        if offset != received {
            return Ok(Taken::Beginning(received));
        }
        if received < size {
            let appended = self.arriving.append(&what, offset, size, body).await;
            return appended.map(Taken::Beginning).map_err(|error| refuse_arriving(error.into()));
        }
        let put = |options| self.arriving.put(&what, size, &self.objects, (BUCKET, &name), options);
        let kept = self.keep(site, &name, letter, put).await;
        if self.arriving.received(&what) == 0 {
            usage.settle(site, &what);
        }
        kept.map(|()| Taken::Whole)
    }

    /// How many bytes are here of a letter of somebody.
    pub(super) fn begun(&self, from: &str, site: &str, delivery: &Delivery) -> u64 {
        let name = format!("{site}/{}", delivery.id);
        self.arriving.received(&beginning(from, &name, &delivery.digest))
    }

    pub(super) fn forget_begun(&self, from: &str, site: &str, delivery: &Delivery) -> Result<(), ApiError> {
        let name = format!("{site}/{}", delivery.id);
        let forgotten = self.arriving.forget(&beginning(from, &name, &delivery.digest));
        forgotten.map_err(|error| refuse_arriving(error.into()))
    }

    async fn keep<P, F>(&self, site: &str, name: &str, letter: Letter, put: P) -> Result<(), ApiError>
    where
        P: FnOnce(PutOptions) -> F,
        F: Future<Output = Result<Info, ArrivingError>>,
    {
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
            idempotency_key: Some(name.to_owned()),
            expected_length: letter.size,
            expected_digest: Some(letter.digest),
            create_bucket: true,
            ..PutOptions::default()
        };
        let _landing = Landing::begin(&self.landing, name)?;
        let replaced = self.objects.head(BUCKET, name).await.ok().map(|info| info.size);
        let before = self.objects.latest_sequence();
        let info = put(options).await.map_err(refuse_arriving)?;
        // Else it was put before, and may have been taken since.
        if info.sequence > before {
            self.usage.came(site, info.size, replaced);
        }
        self.bells.of(site).notify_waiters();
        Ok(())
    }

    /// Of what waits for sites that the hub above knows, what is `wanted`; at most a hundred. Waits until there is
    /// something.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn waiting_for_parent(
        &self,
        wanted: impl Fn(&Delivery) -> bool,
    ) -> Result<Vec<Delivery>, objects::Error> {
        loop {
            let mut rung = pin!(self.bells.of(UP).notified());
            rung.as_mut().enable();
            let waiting = self.page(UP, &wanted).await?;
            if !waiting.is_empty() {
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

    pub(super) async fn remove(&self, from: &str, id: &str) -> Result<(), objects::Error> {
        let (usage, name) = (self.usage().await?, format!("{from}/{id}"));
        let size = self.objects.head(BUCKET, &name).await.map(|info| info.size);
        if self.objects.delete(BUCKET, &name).await? {
            usage.went(from, size.unwrap_or_default());
        }
        // Nobody reads the boxes' history.
        self.objects.trim_changes(self.objects.latest_sequence()).await.map(drop)
    }

    /// What waits for a site; at most a hundred.
    pub(super) async fn waiting(&self, site: &str) -> Result<Vec<Delivery>, objects::Error> {
        self.page(site, |_| true).await
    }

    /// The first hundred in a box that are `wanted`.
    async fn page(
        &self,
        site: &str,
        wanted: impl Fn(&Delivery) -> bool,
    ) -> Result<Vec<Delivery>, objects::Error> {
        let prefix = format!("{site}/");
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let list = List { prefix: prefix.clone(), after, limit: PAGE, ..List::default() };
            let page = self.listed(list).await?;
            let Some(last) = page.last() else { return Ok(found) };
            after = last.key.clone();
            found.extend(page.into_iter().map(|info| delivery(&prefix, info)).filter(&wanted));
            if found.len() >= PAGE {
                found.truncate(PAGE);
                return Ok(found);
            }
        }
    }

    async fn listed(&self, list: List) -> Result<Vec<Info>, objects::Error> {
        match self.objects.list(BUCKET, list).await {
            Err(objects::Error::NoSuchBucket(_)) => Ok(vec![]),
            page => page.map(|page| page.objects),
        }
    }

    /// Gives up beginnings that nobody went on with for long.
    ///
    /// # Errors
    /// If the disk fails.
    pub(super) fn give_up_old(&self) -> Result<(), ArrivingError> {
        let freed = self.arriving.give_up_old()?;
        if freed > 0 {
            tracing::info!(bytes = freed, "beginnings of deliveries that nobody went on with were given up");
        }
        self.usage.settle_lost(|what| !what.contains('\0') || self.arriving.received(what) > 0);
        Ok(())
    }

    /// Drops what is for sites that are no more, as `is_gone` says of their names; answers how many deliveries went, of how
    /// many bytes, by site.
    ///
    /// # Errors
    /// If the disk fails; what was dropped until then is gone.
    pub(super) async fn drop_lost(
        &self,
        is_gone: impl Fn(&str) -> bool,
    ) -> Result<HashMap<String, (u64, u64)>, objects::Error> {
        let mut dropped: HashMap<String, (u64, u64)> = HashMap::new();
        let mut after = String::new();
        loop {
            let page = self.listed(List { after, ..List::default() }).await?;
            let Some(last) = page.last() else { return Ok(dropped) };
            after = last.key.clone();
            for info in &page {
                let Some((into, id)) = info.key.split_once('/').filter(|(into, _)| *into != UP) else {
                    continue;
                };
                // Of another site's box it is part where that is the way to it.
                let to = info.metadata.get("site").map_or(into, String::as_str);
                if is_gone(into) || is_gone(to) {
                    self.remove(into, id).await?;
                    let (deliveries, bytes) = dropped.entry(to.to_owned()).or_default();
                    (*deliveries, *bytes) = (*deliveries + 1, *bytes + info.size);
                }
            }
        }
    }
}

/// Room that is kept while a letter comes, and free again when dropped.
struct Room<'a> {
    usage: &'a Usage,
    site: &'a str,
    what: &'a str,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.usage.settle(self.site, self.what);
    }
}

/// One that puts a delivery; the next may once this is dropped.
struct Landing<'a> {
    landing: &'a Mutex<HashSet<String>>,
    name: &'a str,
}

impl<'a> Landing<'a> {
    fn begin(landing: &'a Mutex<HashSet<String>>, name: &'a str) -> Result<Self, ApiError> {
        if landing.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned()) {
            return Ok(Self { landing, name });
        }
        Err(another_sends())
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.landing.lock().unwrap_or_else(PoisonError::into_inner).remove(self.name);
    }
}

fn another_sends() -> ApiError {
    let message = "another request sends the same delivery; ask again later";
    ApiError::too_many_requests(message).retry_after(Duration::from_secs(5))
}

fn check_id(id: &str) -> Result<(), ApiError> {
    if types::names::is_label_value(id) && !id.is_empty() {
        return Ok(());
    }
    Err(ApiError::bad_request(format!("`{id}` is not a delivery id: write 1 to 63 of A-Z a-z 0-9 - _ .")))
}

/// What tells a beginning from all others.
fn beginning(from: &str, name: &str, digest: &Digest) -> String {
    [from, name, &digest.to_string()].join("\0")
}

fn box_of(name: &str) -> &str {
    name.split_once('/').map_or(name, |(site, _)| site)
}

fn delivery(prefix: &str, info: Info) -> Delivery {
    let mut about = info.metadata;
    let kind = match about.remove(KIND).as_deref() {
        Some("task") => DeliveryKind::Task,
        Some("result") => DeliveryKind::Result,
        _ => DeliveryKind::Output,
    };
    let mut told = |name: &str| about.remove(name).unwrap_or_default();
    Delivery {
        id: info.key.strip_prefix(prefix).unwrap_or_default().to_owned(),
        bucket: told("bucket"),
        key: told("key"),
        site: told("site"),
        content_type: info.content_type,
        size: info.size,
        digest: info.digest,
        kind,
        about,
    }
}

pub(super) fn refuse(error: objects::Error) -> ApiError {
    match &error {
        objects::Error::NoSuchKey { .. } | objects::Error::NoSuchBucket(_) => {
            ApiError::not_found(error.to_string())
        }
        objects::Error::TooLarge { .. } => ApiError::too_large(error.to_string()),
        objects::Error::Full(_) => ApiError::insufficient_storage(format!("the hub has no room: {error}")),
        objects::Error::Invalid(_)
        | objects::Error::BucketName(_)
        | objects::Error::Mismatch { .. }
        | objects::Error::Incomplete { .. }
        | objects::Error::Range { .. }
        | objects::Error::Body(_) => ApiError::bad_request(error.to_string()),
        _ => ApiError::internal(&error),
    }
}

fn refuse_arriving(error: ArrivingError) -> ApiError {
    match error {
        ArrivingError::Object(error) => refuse(error),
        ArrivingError::Beginning(error) => match &error {
            artifacts::Error::Io { source, .. }
                if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                ApiError::insufficient_storage("the hub has no room: its disk is full; send it again later")
            }
            artifacts::Error::TooLong { size, .. } => {
                ApiError::bad_request(format!("more came than the {size} bytes announced; send it anew"))
            }
            artifacts::Error::Busy { .. } => another_sends(),
            _ => ApiError::internal(&error),
        },
    }
}
