//! Models that were uploaded to a site, rather than assigned to it by a hub.
//!
//! A tag has numbered versions, each one file that never changes. What was acknowledged survives a crash: the file
//! is in a folder of blobs, and one commit in the ledger makes it a version. Before that commit an engine has
//! loaded it, so that what can't be served is refused and leaves nothing behind.

mod error;
mod room;
mod tag;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use artifacts::Blobs;
use inference::{LoadRequest, Repository};
use store::{Ledger, ledger};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{Mutex, OwnedMutexGuard};
use types::Digest;

pub use error::Error;
use room::{Coming, Disk, Room};
pub use tag::{Tag, Version};

const TABLE: &str = "uploaded-models";

/// Bounds of a [`Shelf`], and which names it leaves to others.
#[derive(Clone)]
pub struct Options {
    /// Largest file in bytes.
    pub file_bytes: u64,
    /// Most bytes of all files; equal ones count once. Where there are more already, none goes and none comes.
    pub bytes: u64,
    /// Most tags.
    pub tags: usize,
    /// Most versions of one tag.
    pub versions: usize,
    /// Whether a name belongs to somebody else, even if it isn't loaded yet. Called on each upload of a new tag, before
    /// and after its model is tried out.
    pub taken: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

impl Default for Options {
    /// Files up to 4 GiB, 64 GiB of them; a thousand tags of a hundred versions are megabytes of records.
    fn default() -> Self {
        Options {
            file_bytes: 4 << 30,
            bytes: 64 << 30,
            tags: 1000,
            versions: 100,
            taken: Arc::new(|_| false),
        }
    }
}

/// A file that has come, and is not yet a version.
pub struct Received {
    digest: Digest,
    size: u64,
    _room: Arc<Room>,
}

/// What is said about a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Label {
    /// The file's own name.
    pub file: String,
    /// The library that made it.
    pub library: String,
    /// For people.
    pub description: Option<String>,
}

/// What a deletion did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// The tag had no other version and is gone.
    Tag,
    /// The version; the default is now this one.
    Version {
        /// The default version.
        default: u32,
    },
}

/// The uploaded models. Cheap to clone.
#[derive(Clone)]
pub struct Shelf {
    inner: Arc<Inner>,
}

struct Inner {
    ledger: Ledger,
    blobs: Blobs,
    repository: Repository,
    options: Options,
    disk: Arc<Disk>,
    tags: RwLock<BTreeMap<String, Tag>>,
    /// One change at a time; reads don't wait for it.
    changing: Arc<Mutex<()>>,
    /// The name under which a version is being tried out.
    claimed: std::sync::Mutex<Option<String>>,
}

impl Shelf {
    /// Opens the models in `folder` and makes them known to the repository, which loads them when they are asked
    /// for. Files that belong to no version go. Blocks.
    ///
    /// # Errors
    /// When records or files can't be read.
    pub fn open(
        folder: &Path,
        ledger: Ledger,
        repository: Repository,
        options: Options,
    ) -> Result<Shelf, Error> {
        let blobs = Blobs::open(folder)?;
        let tags: Vec<(String, Tag)> = ledger.read(|tables| tables.range(TABLE, "", "", usize::MAX))?;
        let tags: BTreeMap<String, Tag> = tags.into_iter().collect();
        let versions = tags.values().flat_map(|tag| tag.versions().values());
        let keep: HashSet<Digest> = versions.map(|version| version.digest).collect();
        blobs.collect_garbage(&keep, Duration::ZERO)?;
        let disk = Arc::new(Disk::new(options.bytes));
        disk.count(&tags);
        let shelf = Shelf {
            inner: Arc::new(Inner {
                ledger,
                blobs,
                repository,
                options,
                disk,
                tags: RwLock::new(tags),
                changing: Arc::default(),
                claimed: std::sync::Mutex::default(),
            }),
        };
        for (name, tag) in shelf.tags() {
            shelf.inner.register(&name, &tag);
        }
        Ok(shelf)
    }

    /// All tags by name.
    pub fn tags(&self) -> BTreeMap<String, Tag> {
        self.inner.read(Clone::clone)
    }

    /// The tag of this name.
    pub fn tag(&self, name: &str) -> Option<Tag> {
        self.inner.read(|tags| tags.get(name).cloned())
    }

    /// Whether there is a tag of this name.
    pub fn has(&self, name: &str) -> bool {
        self.inner.read(|tags| tags.contains_key(name))
    }

    /// Whether nobody else may load a model of this name: there is a tag of it, or one is being tried out.
    pub fn holds(&self, name: &str) -> bool {
        self.inner.claimed().as_deref() == Some(name) || self.has(name)
    }

    /// Largest file in bytes.
    pub fn file_limit(&self) -> u64 {
        self.inner.options.file_bytes
    }

    /// Where a version's file is.
    pub fn path(&self, version: &Version) -> PathBuf {
        self.inner.blobs.path(&version.digest)
    }

    /// Whether a tag may be uploaded under this name.
    ///
    /// # Errors
    /// When it can't be a name, belongs to somebody else, or there are too many.
    pub fn check(&self, name: &str) -> Result<(), Error> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 63 || name.starts_with('-') || !name.bytes().all(allowed) {
            return Err(Error::Name(name.chars().take(64).collect()));
        }
        let options = &self.inner.options;
        let Some(tag) = self.tag(name) else {
            if (options.taken)(name) {
                return Err(Error::Taken(name.into()));
            }
            let full = self.inner.read(BTreeMap::len) >= options.tags;
            let too_many = Error::TooMany { what: "tags".into(), limit: options.tags };
            return if full { Err(too_many) } else { Ok(()) };
        };
        if tag.versions().len() >= options.versions {
            let what = format!("versions of tag `{name}`");
            return Err(Error::TooMany { what, limit: options.versions });
        }
        Ok(())
    }

    /// Takes a file to the disk. It goes again at the next start unless it becomes a version.
    ///
    /// # Errors
    /// When it is too large, there is no room for it beside the others, or it breaks off.
    pub async fn receive(&self, content: impl AsyncRead + Send + Unpin) -> Result<Received, Error> {
        let limit = self.inner.options.file_bytes;
        let room = Room::on(&self.inner.disk);
        let coming = Coming { content: content.take(limit.saturating_add(1)), room: Arc::clone(&room) };
        let kept = self.inner.blobs.put_reader(coming).await;
        let (digest, size) = kept.map_err(|error| room.refusal().unwrap_or(error.into()))?;
        let received = Received { digest, size, _room: room };
        if size > limit {
            self.discard(received).await;
            return Err(Error::TooLarge { limit });
        }
        Ok(received)
    }

    /// Removes a file that did not become a version.
    pub async fn discard(&self, received: Received) {
        let _one_at_a_time = self.inner.changing.lock().await;
        self.inner.forget(&received.digest);
    }

    /// Makes a file the next version of a tag, and that the default; answers its number.
    ///
    /// # Errors
    /// When no engine takes it, or the tag can't be used; the file is gone then.
    pub async fn publish(&self, name: &str, label: Label, received: Received) -> Result<u32, Error> {
        let turn = self.inner.changing.clone().lock_owned().await;
        let published = self.publish_in_turn(name, label, &received, turn).await;
        if published.is_err() {
            self.discard(received).await;
        }
        published
    }

    async fn publish_in_turn(
        &self,
        name: &str,
        label: Label,
        Received { digest, size, .. }: &Received,
        turn: OwnedMutexGuard<()>,
    ) -> Result<u32, Error> {
        let claim = Claim::of(&self.inner, name, turn);
        self.check(name)?;
        // Only now: outside of a turn, the one who serves it may be an upload that is being tried out.
        if self.tag(name).is_none() && self.inner.repository.list().iter().any(|model| model.name == name) {
            return Err(Error::Taken(name.into()));
        }
        let (digest, size) = (*digest, *size);
        if !self.inner.blobs.has(&digest) {
            return Err(Error::Undone);
        }
        let mut tag = self.tag(name).unwrap_or_default();
        let candidate = self.try_out(name, tag.next(), &digest, claim).await?;
        // Who was promised the name meanwhile has waited for it.
        if !self.has(name) && (self.inner.options.taken)(name) {
            return Err(Error::Taken(name.into()));
        }
        let Label { file, library, description } = label;
        let number = tag.add(Version { digest, size, file, library, description, time: daemon::now() });
        self.save(name, tag, move || candidate.keep()).await?;
        Ok(number)
    }

    /// Loads a version before anybody is told that it is there.
    async fn try_out(
        &self,
        name: &str,
        number: u32,
        digest: &Digest,
        claim: Claim,
    ) -> Result<Candidate, Error> {
        let request = LoadRequest { default: false, ..self.inner.request(name, number, digest) };
        let repository = self.inner.repository.clone();
        // Where the uploader goes away meanwhile, the candidate is dropped when it has loaded, and the turn ends.
        let load = move || {
            let candidate =
                Candidate { repository, name: request.name.clone(), number, kept: false, _claim: claim };
            candidate.repository.load(request).map(|_| candidate)
        };
        let loaded = tokio::task::spawn_blocking(load).await.map_err(|_| Error::CutOff)?;
        loaded.map_err(|error| Error::Unloadable(daemon::chain(&error)))
    }

    /// Sends requests that name no version to this one.
    ///
    /// # Errors
    /// When it isn't there.
    pub async fn set_default(&self, name: &str, number: u32) -> Result<(), Error> {
        let turn = self.inner.changing.clone().lock_owned().await;
        let mut tag = self.known(name)?;
        if !tag.set_default(number) {
            return Err(unknown(name, number));
        }
        self.save(name, tag, move || drop(turn)).await
    }

    /// Describes a version anew.
    ///
    /// # Errors
    /// When it isn't there.
    pub async fn describe(&self, name: &str, number: u32, description: String) -> Result<(), Error> {
        let turn = self.inner.changing.clone().lock_owned().await;
        let mut tag = self.known(name)?;
        if !tag.describe(number, description) {
            return Err(unknown(name, number));
        }
        self.save(name, tag, move || drop(turn)).await
    }

    /// Deletes a version, and the tag with its last one. Requests that run on it end first.
    ///
    /// # Errors
    /// When it isn't there.
    pub async fn delete_version(&self, name: &str, number: u32) -> Result<Deleted, Error> {
        let turn = self.inner.changing.clone().lock_owned().await;
        let mut tag = self.known(name)?;
        let removed = tag.remove(number).ok_or_else(|| unknown(name, number))?;
        if tag.versions().is_empty() {
            self.remove(name, turn).await?;
            self.clean([removed.digest]).await;
            return Ok(Deleted::Tag);
        }
        let default = tag.default_version();
        let (repository, model) = (self.inner.repository.clone(), name.to_owned());
        let after = move || {
            unload(&repository, &model, number);
            drop(turn);
        };
        self.save(name, tag, after).await?;
        self.clean([removed.digest]).await;
        Ok(Deleted::Version { default })
    }

    /// Deletes a tag with all versions.
    ///
    /// # Errors
    /// When it isn't there.
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        let turn = self.inner.changing.clone().lock_owned().await;
        let tag = self.known(name)?;
        self.remove(name, turn).await?;
        self.clean(tag.versions().values().map(|version| version.digest)).await;
        Ok(())
    }

    fn known(&self, name: &str) -> Result<Tag, Error> {
        self.tag(name).ok_or_else(|| Error::UnknownTag(name.into()))
    }

    /// Writes a tag and then shows it. Once begun, all is done even if nobody waits for it; `after` ends the turn.
    async fn save(&self, name: &str, tag: Tag, after: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let (inner, key, record) = (self.inner.clone(), name.to_owned(), tag.clone());
        let name = name.to_owned();
        let change = move |tables: &ledger::Tables<'_>| Ok::<_, Error>(tables.put(TABLE, &key, &record)?);
        let show = move |()| {
            inner.register(&name, &tag);
            inner.write(|tags| tags.insert(name, tag));
            after();
        };
        self.inner.ledger.write_then(change, show).await
    }

    async fn remove(&self, name: &str, turn: OwnedMutexGuard<()>) -> Result<(), Error> {
        let (inner, key, name) = (self.inner.clone(), name.to_owned(), name.to_owned());
        let change = move |tables: &ledger::Tables<'_>| Ok::<_, Error>(tables.delete(TABLE, &key).map(drop)?);
        let hide = move |()| {
            let tag = inner.write(|tags| tags.remove(&name)).unwrap_or_default();
            tag.versions().keys().for_each(|number| unload(&inner.repository, &name, *number));
            drop(turn);
        };
        self.inner.ledger.write_then(change, hide).await
    }

    /// Removes files that no version needs any more.
    async fn clean(&self, digests: impl IntoIterator<Item = Digest>) {
        let _one_at_a_time = self.inner.changing.lock().await;
        digests.into_iter().for_each(|digest| self.inner.forget(&digest));
    }
}

impl Inner {
    fn request(&self, name: &str, number: u32, digest: &Digest) -> LoadRequest {
        LoadRequest::new(name, number.to_string(), self.blobs.path(digest))
    }

    /// Makes all versions of a tag known, the default one last. Loads nothing: nobody else has loaded its name.
    fn register(&self, name: &str, tag: &Tag) {
        for (&number, version) in tag.versions() {
            let default = number == tag.default_version();
            let request = LoadRequest { default, ..self.request(name, number, &version.digest) };
            if let Err(error) = self.repository.register(request) {
                let error = daemon::chain(&error);
                tracing::warn!(model = name, version = number, error, "an uploaded model can't be served");
            }
        }
    }

    /// Removes a file unless a version needs it.
    fn forget(&self, digest: &Digest) {
        let used = |tag: &Tag| tag.versions().values().any(|version| version.digest == *digest);
        if self.read(|tags| tags.values().any(used)) {
            return;
        }
        if let Err(error) = self.blobs.remove(digest) {
            tracing::warn!(%digest, error = daemon::chain(&error), "a deleted model's file can't be removed");
        }
    }

    fn claimed(&self) -> MutexGuard<'_, Option<String>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, look: impl FnOnce(&BTreeMap<String, Tag>) -> T) -> T {
        look(&self.tags.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut BTreeMap<String, Tag>) -> T) -> T {
        let mut tags = self.tags.write().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut tags);
        self.disk.count(&tags);
        changed
    }
}

/// A loaded version that is unloaded again unless it is kept.
struct Candidate {
    repository: Repository,
    name: String,
    number: u32,
    kept: bool,
    _claim: Claim,
}

/// Nobody else loads or keeps a version of this name meanwhile.
struct Claim {
    inner: Arc<Inner>,
    _turn: OwnedMutexGuard<()>,
}

impl Claim {
    fn of(inner: &Arc<Inner>, name: &str, turn: OwnedMutexGuard<()>) -> Claim {
        *inner.claimed() = Some(name.to_owned());
        Claim { inner: Arc::clone(inner), _turn: turn }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        *self.inner.claimed() = None;
    }
}

impl Candidate {
    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        if !self.kept {
            unload(&self.repository, &self.name, self.number);
        }
    }
}

/// It may be gone already; that is what is wanted.
fn unload(repository: &Repository, name: &str, number: u32) {
    let _ = repository.unload(name, &number.to_string());
}

fn unknown(tag: &str, version: u32) -> Error {
    Error::UnknownVersion { tag: tag.into(), version }
}
