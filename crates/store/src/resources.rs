//! Versioned resources on a ledger.
//!
//! Every write is checked and made in the ledger's writer, so compare-and-swap is exact; once durable it is
//! applied to the copy in memory that all reads and watches are served from.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use serde::Deserialize;
use serde_json::Value;
use types::Time;

use crate::history::{History, HistoryLimits, Scope};
use crate::ledger::{self, Begun, Ledger, Tables};
use crate::object::{Key, Object, Seen};
use crate::seal::{self, Seal, SealError};
use crate::watch::{Event, EventKind, Expired, Watch};
use crate::writer::{self, Ahead, Change, Part, Ready, Writer, read_draft, unreadable, unsealable};

pub(crate) const TABLE: &str = "resources";
/// Says which version is the latest where no object does: after deletions, and after a restore.
pub(crate) const VERSION_TABLE: &str = "resources-version";
pub(crate) const LATEST: &str = "latest";

/// Why the store refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such resource.
    #[error("{0} does not exist")]
    NotFound(Key),
    /// Create met a resource of that name.
    #[error("{0} exists already")]
    Exists(Key),
    /// The resource changed since it was read.
    #[error("{key} changed meanwhile: it is at version {current}, not {expected}; read it and try again")]
    Conflict {
        /// Which one.
        key: Key,
        /// The version that the writer had read.
        expected: String,
        /// The version that is stored.
        current: String,
    },
    /// The manifest is not one.
    #[error("{key} has unreadable metadata")]
    Manifest {
        /// Which one.
        key: Key,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// What is stored of it can't be opened, or it can't be sealed.
    #[error("{key} can't be read or written")]
    Sealed {
        /// Which one.
        key: Key,
        /// Why.
        #[source]
        source: SealError,
    },
    /// A watch began too far back.
    #[error(transparent)]
    Expired(#[from] Expired),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
}

/// How a store is opened.
#[derive(Clone, Default)]
pub struct Options {
    /// How much is kept for watchers.
    pub history: HistoryLimits,
    /// Seals kinds that hold secrets; without it they are stored as they are.
    pub seal: Option<Seal>,
}

/// How a resource is to be deleted.
#[derive(Debug, Clone)]
pub struct Deletion {
    /// The version that it must still be at.
    pub expected: Option<String>,
    /// What is added to its finalizers, so that it stays until somebody has dealt with what it owns.
    pub finalizer: Option<&'static str>,
    /// The time of the deletion.
    pub now: Time,
}

impl Deletion {
    /// At any version, with nothing to be done before.
    pub fn at(now: Time) -> Self {
        Self { expected: None, finalizer: None, now }
    }
}

/// The resources of one hub. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    ledger: Ledger,
    shared: Arc<Shared>,
    history: Arc<History>,
    seal: Option<Seal>,
}

pub(crate) struct Shared {
    memory: RwLock<Memory>,
    pub(crate) ahead: Mutex<Ahead>,
}

/// A resource among all, in its place by its own key.
struct Stored(Arc<Object>);

impl Borrow<Key> for Stored {
    fn borrow(&self) -> &Key {
        &self.0.key
    }
}

impl Ord for Stored {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key.cmp(&other.0.key)
    }
}

impl PartialOrd for Stored {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Stored {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for Stored {}

/// What readers see: all that is durable.
pub(crate) struct Memory {
    objects: BTreeSet<Stored>,
    /// By plural and namespace.
    counts: HashMap<&'static str, HashMap<String, usize>>,
    pub(crate) version: u64,
    /// The version of each kind's latest change since the start.
    latest: HashMap<&'static str, u64>,
}

impl Memory {
    fn of(objects: BTreeSet<Stored>, version: u64) -> Self {
        let mut memory =
            Self { objects: BTreeSet::new(), counts: HashMap::new(), version, latest: HashMap::new() };
        objects.iter().for_each(|Stored(object)| memory.count(&object.key, true));
        Self { objects, ..memory }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.objects.get(key).map(|Stored(object)| object.clone())
    }

    fn count(&mut self, key: &Key, is_new: bool) {
        let counts = self.counts.entry(key.plural).or_default();
        let count = counts.entry(key.namespace.clone()).or_default();
        *count = if is_new { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            counts.remove(&key.namespace);
        }
    }

    /// Shows a change; answers what it replaced.
    fn apply(&mut self, event: &Event) -> Option<Arc<Object>> {
        self.version = event.version;
        self.latest.insert(event.object.key.plural, event.version);
        let key = &event.object.key;
        let replaced = match event.kind {
            EventKind::Deleted => self.objects.take(key),
            EventKind::Added | EventKind::Modified => self.objects.replace(Stored(event.object.clone())),
        };
        match (event.kind, &replaced) {
            (EventKind::Deleted, Some(_)) => self.count(key, false),
            (EventKind::Added | EventKind::Modified, None) => self.count(key, true),
            _ => {}
        }
        replaced.map(|Stored(object)| object)
    }
}

impl Store {
    /// Loads the resources of these kinds (their plurals) from a ledger.
    ///
    /// # Errors
    /// If a record can't be read.
    pub fn open(ledger: Ledger, plurals: &[&'static str]) -> Result<Self, Error> {
        Self::open_with(ledger, plurals, Options::default())
    }

    /// The same, with options. Secrets that were stored before there was a key are sealed at their next write.
    ///
    /// # Errors
    /// If a record can't be read.
    pub fn open_with(ledger: Ledger, plurals: &[&'static str], options: Options) -> Result<Self, Error> {
        let Options { history: limits, seal } = options;
        let mut objects = BTreeSet::new();
        let version = ledger.read(|tables| {
            let mut version = tables.get(VERSION_TABLE, LATEST)?.unwrap_or(1);
            tables.each_json(TABLE, |row, json| {
                let mut parts = row.splitn(3, '/').map(str::to_owned);
                let word = parts.next().unwrap_or_default();
                let (namespace, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                // What a newer version stored of kinds that are unknown here is left alone; its versions count.
                let known = plurals.iter().find(|plural| **plural == word);
                let key = Key::new(known.copied().unwrap_or_default(), namespace, name);
                let opened = seal::open(seal.as_ref(), &key, json).map_err(unsealable(&key));
                let opened = if known.is_some() { opened? } else { None };
                let object = match Object::read(key.clone(), opened.as_deref().unwrap_or(json)) {
                    Err(error) if known.is_some() => return Err(unreadable(&key)(error)),
                    Err(_) => return Ok(()),
                    Ok(object) => object,
                };
                version = version.max(object.version());
                if known.is_some() {
                    objects.insert(Stored(Arc::new(object)));
                }
                Ok::<_, Error>(())
            })?;
            Ok::<_, Error>(version)
        })?;
        let ahead = Ahead { group: 0, objects: HashMap::new(), version };
        let shared = Shared { memory: RwLock::new(Memory::of(objects, version)), ahead: Mutex::new(ahead) };
        let history = Arc::new(History::starting_at(version, limits));
        Ok(Self { ledger, shared: Arc::new(shared), history, seal })
    }

    /// The resource of that key.
    pub fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.shared.memory().get(key)
    }

    /// All resources of a kind, in one namespace or in all, in order of namespace and name, and the version that
    /// the list is of: a watch from there misses nothing.
    pub fn list(&self, plural: &'static str, namespace: Option<&str>) -> (Vec<Arc<Object>>, u64) {
        let memory = self.shared.memory();
        let from = Key::new(plural, namespace.unwrap_or(""), "");
        let objects = memory
            .objects
            .range::<Key, _>((Bound::Included(from), Bound::Unbounded))
            .map(|Stored(object)| object)
            .take_while(|object| {
                object.key.plural == plural && namespace.is_none_or(|wanted| object.key.namespace == wanted)
            })
            .cloned()
            .collect();
        (objects, memory.version)
    }

    /// How many resources of a kind there are in a namespace; empty for kinds without one.
    pub fn count(&self, plural: &'static str, namespace: &str) -> usize {
        let memory = self.shared.memory();
        memory.counts.get(plural).and_then(|counts| counts.get(namespace)).copied().unwrap_or(0)
    }

    /// How many resources of a kind there are, in all namespaces together.
    pub fn count_all(&self, plural: &'static str) -> usize {
        self.shared.memory().counts.get(plural).map_or(0, |counts| counts.values().sum())
    }

    /// Whether what is kept can be read from its disk.
    pub fn works(&self) -> bool {
        self.ledger.read(|tables| tables.get::<u64>(VERSION_TABLE, LATEST)).is_ok()
    }

    /// The version of the latest change.
    pub fn version(&self) -> u64 {
        self.shared.memory().version
    }

    /// The version of the latest change of one of these kinds since the start; 0 if there was none.
    pub fn latest_of(&self, plurals: &[&'static str]) -> u64 {
        let memory = self.shared.memory();
        plurals.iter().filter_map(|plural| memory.latest.get(plural)).copied().max().unwrap_or(0)
    }

    /// All changes after a version.
    ///
    /// # Errors
    /// If it is too long ago, or was never made.
    pub fn watch(&self, from: u64) -> Result<Watch, Expired> {
        Watch::begin(self.history.clone(), Scope::All, from)
    }

    /// All changes of one kind after a version. Changes of other kinds neither wake nor expire it.
    ///
    /// # Errors
    /// If it is too long ago, or was never made.
    pub fn watch_kind(&self, plural: &'static str, from: u64) -> Result<Watch, Expired> {
        Watch::begin(self.history.clone(), Scope::Kind(plural), from)
    }

    /// All changes of one kind in one namespace after a version. Other changes neither wake nor expire it.
    ///
    /// # Errors
    /// If it is too long ago, or was never made.
    pub fn watch_namespace(
        &self,
        plural: &'static str,
        namespace: &str,
        from: u64,
    ) -> Result<Watch, Expired> {
        Watch::begin(self.history.clone(), Scope::Place(plural, namespace.into()), from)
    }

    /// Forgets changes that are older than what is kept of them; to be called now and then.
    pub fn forget_old(&self) {
        self.history.forget_old(Instant::now());
    }

    /// Stores a new resource; sets uid, version, generation and creation time.
    ///
    /// # Errors
    /// If one of that name exists, or the ledger fails.
    pub async fn create(&self, key: Key, manifest: Value, now: Time) -> Result<Arc<Object>, Error> {
        let new = writer::begin(key, manifest, now)?;
        self.write(move |writer| writer.create(new)).await
    }

    /// Replaces a resource if it is still at the version that the manifest's metadata names (or at any, if it
    /// names none). Where it is being deleted and its last finalizer went, it goes.
    ///
    /// `status` says what part the writer may change: with `false` everything but the status, with `true`
    /// nothing but the status. A write that changes nothing makes no new version.
    ///
    /// # Errors
    /// If it does not exist, changed meanwhile, or the ledger fails.
    pub async fn update(&self, key: Key, manifest: Value, status: bool) -> Result<Arc<Object>, Error> {
        let seen = self.get(&key).map(Seen::from);
        let new = read_draft(key, manifest)?;
        self.write(move |writer| writer.replace(new, seen, Part::of(status))).await
    }

    /// The same for who has read the object and parsed it.
    ///
    /// # Errors
    /// If it does not exist, changed meanwhile, or the ledger fails.
    pub async fn update_seen(&self, seen: Seen, manifest: Value, status: bool) -> Result<Arc<Object>, Error> {
        let new = read_draft(seen.object.key.clone(), manifest)?;
        self.write(move |writer| writer.replace(new, Some(seen), Part::of(status))).await
    }

    /// Deletes a resource. While it has finalizers it stays, marked with the time of its deletion.
    ///
    /// # Errors
    /// If it does not exist, is not at the expected version any more, or the ledger fails.
    pub async fn delete(&self, key: Key, deletion: Deletion) -> Result<Arc<Object>, Error> {
        self.write(move |writer| writer.delete(key, deletion)).await
    }

    /// Makes several changes, or none. Nobody lists some of them without the others, and no crash leaves some.
    ///
    /// # Errors
    /// That of the first one that can't be made, or if the ledger fails.
    pub async fn change_all(&self, changes: Vec<Change>) -> Result<(), Error> {
        self.begin_all(changes).await?.made().await
    }

    /// The same as far as the changes' place among all others goes: they are made after all that began before.
    ///
    /// # Errors
    /// If one can't be read, or the ledger is closed.
    pub async fn begin_all(&self, changes: Vec<Change>) -> Result<Begun<(), Error>, Error> {
        let ready = changes.into_iter().map(|change| Ready::new(change, |key| self.get(key)));
        let ready = ready.collect::<Result<Vec<Ready>, Error>>()?;
        self.begin(move |writer| ready.into_iter().try_for_each(|change| writer.make(change).map(drop))).await
    }

    async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Writer) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.begin(change).await?.made().await
    }

    async fn begin<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Writer) -> Result<T, Error> + Send + 'static,
    ) -> Result<Begun<T, Error>, Error> {
        let (writing, applying) = (self.shared.clone(), self.shared.clone());
        let (history, seal) = (self.history.clone(), self.seal.clone());
        let begun = self
            .ledger
            .begin(
                move |tables| {
                    let mut writer = Writer::begin(tables, &writing, seal.as_ref());
                    let answer = change(&mut writer)?;
                    Ok((answer, writer.end()))
                },
                move |(answer, events)| {
                    applying.apply(events, &history);
                    answer
                },
            )
            .await?;
        Ok(begun)
    }
}

impl Shared {
    pub(crate) fn memory(&self) -> std::sync::RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows durable changes to readers, and wakes watchers after the last one of their commit.
    fn apply(&self, events: Vec<Event>, history: &History) {
        let Some(last) = events.last().map(|event| event.version) else { return };
        let is_last = last == self.ahead.lock().unwrap_or_else(PoisonError::into_inner).version;
        let mut memory = self.memory.write().unwrap_or_else(PoisonError::into_inner);
        let replaced: Vec<Option<Arc<Object>>> = events.iter().map(|event| memory.apply(event)).collect();
        // Both at once: what is listed can be watched from.
        events.into_iter().for_each(|event| history.push(event));
        drop(memory);
        // Taken apart outside of the lock.
        drop(replaced);
        if is_last {
            history.announce();
        }
    }
}

/// The highest version that was given to anything that is stored, or deleted.
pub(crate) fn stored_version(tables: &Tables) -> Result<u64, ledger::Error> {
    #[derive(Deserialize)]
    struct Stored {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        resource_version: String,
    }
    let mut version: u64 = tables.get(VERSION_TABLE, LATEST)?.unwrap_or(1);
    tables.each_json(TABLE, |_, json| {
        let stored = serde_json::from_str::<Stored>(json).ok();
        let of_this = stored.and_then(|stored| stored.metadata.resource_version.parse().ok());
        version = version.max(of_this.unwrap_or(0));
        Ok::<_, ledger::Error>(())
    })?;
    Ok(version)
}
