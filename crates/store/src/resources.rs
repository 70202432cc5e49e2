//! Versioned resources on a ledger.
//!
//! Every write is checked and made in the ledger's writer, so compare-and-swap is exact; once durable it is
//! applied to the copy in memory that all reads and watches are served from.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use serde::Deserialize;
use serde_json::Value;
use types::Time;

use crate::history::{History, HistoryLimits};
use crate::ledger::{self, Ledger, Tables};
use crate::object::{Draft, Key, Object, Seen};
use crate::seal::{self, Seal, SealError};
use crate::watch::{Event, EventKind, Expired, Watch};

const TABLE: &str = "resources";
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

struct Shared {
    memory: RwLock<Memory>,
    ahead: Mutex<Ahead>,
}

/// What readers see: all that is durable.
struct Memory {
    objects: BTreeMap<Key, Arc<Object>>,
    /// By plural and namespace.
    counts: HashMap<&'static str, HashMap<String, usize>>,
    version: u64,
    /// The version of each kind's latest change since the start.
    latest: HashMap<&'static str, u64>,
}

impl Memory {
    fn of(objects: BTreeMap<Key, Arc<Object>>, version: u64) -> Self {
        let mut memory =
            Self { objects: BTreeMap::new(), counts: HashMap::new(), version, latest: HashMap::new() };
        objects.keys().for_each(|key| memory.count(key, true));
        Self { objects, ..memory }
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
            EventKind::Deleted => self.objects.remove(key),
            _ => self.objects.insert(key.clone(), event.object.clone()),
        };
        match (event.kind, &replaced) {
            (EventKind::Deleted, Some(_)) => self.count(key, false),
            (EventKind::Added | EventKind::Modified, None) => self.count(key, true),
            _ => {}
        }
        replaced
    }
}

/// What the writer sees besides: the changes of the commit that is under way. Only the writer's thread looks here.
struct Ahead {
    group: u64,
    objects: HashMap<Key, Option<Arc<Object>>>,
    version: u64,
}

/// A change that is durable once its commit is.
enum Change {
    None(Arc<Object>),
    Made(Event),
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
        let mut objects = BTreeMap::new();
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
                    objects.insert(key, Arc::new(object));
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
        self.shared.memory().objects.get(key).cloned()
    }

    /// All resources of a kind, in one namespace or in all, in order of namespace and name, and the version that
    /// the list is of: a watch from there misses nothing.
    pub fn list(&self, plural: &'static str, namespace: Option<&str>) -> (Vec<Arc<Object>>, u64) {
        let memory = self.shared.memory();
        let from = Key::new(plural, namespace.unwrap_or(""), "");
        let objects = memory
            .objects
            .range((Bound::Included(from), Bound::Unbounded))
            .take_while(|(key, _)| {
                key.plural == plural && namespace.is_none_or(|wanted| key.namespace == wanted)
            })
            .map(|(_, object)| object.clone())
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
        Watch::begin(self.history.clone(), None, from)
    }

    /// All changes of one kind after a version. Changes of other kinds neither wake nor expire it.
    ///
    /// # Errors
    /// If it is too long ago, or was never made.
    pub fn watch_kind(&self, plural: &'static str, from: u64) -> Result<Watch, Expired> {
        Watch::begin(self.history.clone(), Some(plural), from)
    }

    /// Stores a new resource; sets uid, version, generation and creation time.
    ///
    /// # Errors
    /// If one of that name exists, or the ledger fails.
    pub async fn create(&self, key: Key, manifest: Value, now: Time) -> Result<Arc<Object>, Error> {
        let mut new = read_draft(key, manifest)?;
        new.begin(now);
        new.write_metadata().map_err(unreadable(&new.key))?;
        self.commit(move |writer| {
            if writer.current(&new.key).is_some() {
                return Err(Error::Exists(new.key));
            }
            writer.put(new, None)
        })
        .await
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
        self.replace(key, seen, manifest, status).await
    }

    /// The same for who has read the object and parsed it.
    ///
    /// # Errors
    /// If it does not exist, changed meanwhile, or the ledger fails.
    pub async fn update_seen(&self, seen: Seen, manifest: Value, status: bool) -> Result<Arc<Object>, Error> {
        self.replace(seen.object.key.clone(), Some(seen), manifest, status).await
    }

    /// What was seen is most likely still current when the writer comes to it: then nothing is parsed on its thread.
    async fn replace(
        &self,
        key: Key,
        seen: Option<Seen>,
        manifest: Value,
        status: bool,
    ) -> Result<Arc<Object>, Error> {
        let mut new = read_draft(key, manifest)?;
        self.commit(move |writer| {
            let old = writer.current(&new.key).ok_or_else(|| Error::NotFound(new.key.clone()))?;
            check_version(&old, Some(&new.metadata.resource_version))?;
            let before = match seen {
                Some(seen) if Arc::ptr_eq(&seen.object, &old) => seen.manifest,
                _ => old.manifest(),
            };
            if status {
                let reported = take_status(&mut new);
                let managers = std::mem::take(&mut new.metadata.managed_fields);
                new = read_draft(old.key.clone(), before.clone())?;
                if !managers.is_empty() {
                    new.metadata.managed_fields = managers;
                }
                new.set_field("status", reported);
            } else {
                if let Some(reported) = before.get("status") {
                    new.set_field("status", reported.clone());
                }
                new.keep_system_metadata(&old.metadata, before.get("spec"));
            }
            new.write_metadata().map_err(unreadable(&old.key))?;
            if new.manifest == before {
                return Ok(Change::None(old));
            }
            if new.metadata.deletion_timestamp.is_some() && !new.is_held() {
                return writer.remove(new, old);
            }
            writer.put(new, Some(old))
        })
        .await
    }

    /// Deletes a resource. While it has finalizers it stays, marked with the time of its deletion.
    ///
    /// # Errors
    /// If it does not exist, is not at the expected version any more, or the ledger fails.
    pub async fn delete(&self, key: Key, deletion: Deletion) -> Result<Arc<Object>, Error> {
        let Deletion { expected, finalizer, now } = deletion;
        self.commit(move |writer| {
            let old = writer.current(&key).ok_or(Error::NotFound(key))?;
            check_version(&old, expected.as_ref())?;
            let mut marked = read_draft(old.key.clone(), old.manifest())?;
            let is_marked = marked.metadata.deletion_timestamp.is_some();
            if !marked.doom(finalizer, now) {
                marked.write_metadata().map_err(unreadable(&old.key))?;
                return writer.remove(marked, old);
            }
            if is_marked {
                return Ok(Change::None(old));
            }
            marked.write_metadata().map_err(unreadable(&old.key))?;
            writer.put(marked, Some(old))
        })
        .await
    }

    async fn commit(
        &self,
        change: impl FnOnce(&mut Writer) -> Result<Change, Error> + Send + 'static,
    ) -> Result<Arc<Object>, Error> {
        let (writing, applying) = (self.shared.clone(), self.shared.clone());
        let (history, seal) = (self.history.clone(), self.seal.clone());
        self.ledger
            .write_then(
                move |tables| change(&mut Writer::begin(tables, &writing, seal.as_ref())),
                move |change| match change {
                    Change::None(object) => object,
                    Change::Made(event) => applying.apply(event, &history),
                },
            )
            .await
    }
}

impl Shared {
    fn memory(&self) -> std::sync::RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a durable change to readers, and wakes watchers after the last one of its commit.
    fn apply(&self, event: Event, history: &History) -> Arc<Object> {
        let object = event.object.clone();
        let replaced = self.memory.write().unwrap_or_else(PoisonError::into_inner).apply(&event);
        // Taken apart outside of the lock.
        drop(replaced);
        let is_last = event.version == self.ahead.lock().unwrap_or_else(PoisonError::into_inner).version;
        history.push(event);
        if is_last {
            history.announce();
        }
        object
    }
}

/// The writer's view: what is durable, and on it the changes of the commit that is under way.
struct Writer<'a> {
    tables: &'a Tables<'a>,
    shared: &'a Shared,
    ahead: MutexGuard<'a, Ahead>,
    seal: Option<&'a Seal>,
}

impl<'a> Writer<'a> {
    fn begin(tables: &'a Tables<'a>, shared: &'a Shared, seal: Option<&'a Seal>) -> Self {
        let mut ahead = shared.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if ahead.group != tables.group() {
            // The commit before this one is in memory by now, or failed and left nothing.
            *ahead =
                Ahead { group: tables.group(), objects: HashMap::new(), version: shared.memory().version };
        }
        Self { tables, shared, ahead, seal }
    }

    fn current(&self, key: &Key) -> Option<Arc<Object>> {
        match self.ahead.objects.get(key) {
            Some(changed) => changed.clone(),
            None => self.shared.memory().objects.get(key).cloned(),
        }
    }

    fn put(&mut self, new: Draft, previous: Option<Arc<Object>>) -> Result<Change, Error> {
        let object = self.finish(new)?;
        let json = std::str::from_utf8(object.json()).unwrap_or_default();
        let sealed = seal::seal(self.seal, &object.key, object.version(), json);
        self.tables.put_json(TABLE, &object.key.row(), &sealed.map_err(unsealable(&object.key))?)?;
        let kind = if previous.is_some() { EventKind::Modified } else { EventKind::Added };
        self.ahead.version += 1;
        self.ahead.objects.insert(object.key.clone(), Some(object.clone()));
        Ok(Change::Made(Event::new(kind, object, previous)))
    }

    fn remove(&mut self, last: Draft, previous: Arc<Object>) -> Result<Change, Error> {
        let object = self.finish(last)?;
        self.tables.delete(TABLE, &object.key.row())?;
        // No object will say any more that there was this version.
        self.tables.put(VERSION_TABLE, LATEST, &object.version())?;
        self.ahead.version += 1;
        self.ahead.objects.insert(object.key.clone(), None);
        Ok(Change::Made(Event::new(EventKind::Deleted, object, Some(previous))))
    }

    fn finish(&self, draft: Draft) -> Result<Arc<Object>, Error> {
        let key = draft.key.clone();
        Ok(Arc::new(draft.finish_written(self.ahead.version + 1).map_err(unreadable(&key))?))
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

fn check_version(object: &Object, expected: Option<&String>) -> Result<(), Error> {
    let current = &object.metadata.resource_version;
    match expected.filter(|expected| !expected.is_empty() && *expected != current) {
        None => Ok(()),
        Some(expected) => Err(Error::Conflict {
            key: object.key.clone(),
            expected: expected.clone(),
            current: current.clone(),
        }),
    }
}

fn take_status(draft: &mut Draft) -> Value {
    draft.manifest.get_mut("status").map(Value::take).unwrap_or_default()
}

fn read_draft(key: Key, manifest: Value) -> Result<Draft, Error> {
    Draft::of(key.clone(), manifest).map_err(unreadable(&key))
}

fn unsealable(key: &Key) -> impl FnOnce(SealError) -> Error {
    let key = key.clone();
    |source| Error::Sealed { key, source }
}

fn unreadable(key: &Key) -> impl FnOnce(serde_json::Error) -> Error {
    let key = key.clone();
    |source| Error::Manifest { key, source }
}
