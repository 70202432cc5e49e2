//! Versioned resources on a ledger.
//!
//! Every write is checked and made in the ledger's writer, so compare-and-swap is exact; once durable it is
//! applied to the copy in memory that all reads and watches are served from.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;
use types::{ObjectMeta, Time};

use crate::ledger::{self, Ledger, Tables};
use crate::watch::{Event, EventKind, Expired, History, Watch};

const TABLE: &str = "resources";
const VERSION_TABLE: &str = "resources-version";

/// Names one resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The kind's plural.
    pub plural: &'static str,
    /// The namespace; empty for kinds without one.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Key {
    /// The key of a resource.
    pub fn new(plural: &'static str, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { plural, namespace: namespace.into(), name: name.into() }
    }

    fn row(&self) -> String {
        format!("{}/{}/{}", self.plural, self.namespace, self.name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.plural)?;
        if !self.namespace.is_empty() {
            write!(f, "/{}", self.namespace)?;
        }
        write!(f, "/{}", self.name)
    }
}

/// A stored resource: the whole manifest, with its metadata read out.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Its key.
    pub key: Key,
    /// Its metadata, the same as in `manifest`.
    pub metadata: ObjectMeta,
    /// All of it, as JSON.
    pub manifest: Value,
}

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
    /// A watch began too far back.
    #[error(transparent)]
    Expired(#[from] Expired),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
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
    memory: Arc<RwLock<Memory>>,
    history: Arc<History>,
}

struct Memory {
    objects: BTreeMap<Key, Arc<Object>>,
    version: u64,
    /// The version of each kind's latest change since the start.
    latest: BTreeMap<&'static str, u64>,
}

/// A change that is durable and waits to be seen.
struct Change {
    kind: EventKind,
    version: u64,
    object: Arc<Object>,
}

impl Store {
    /// Loads the resources of these kinds (their plurals) from a ledger.
    ///
    /// # Errors
    /// If a record can't be read.
    pub fn open(ledger: Ledger, plurals: &[&'static str]) -> Result<Self, Error> {
        let (rows, version) = ledger.read(|tables| {
            let rows: Vec<(String, Value)> = tables.range(TABLE, "", "", usize::MAX)?;
            Ok::<_, Error>((rows, stored_version(tables)?))
        })?;
        let mut objects = BTreeMap::new();
        for (row, manifest) in rows {
            let mut parts = row.splitn(3, '/');
            let known = parts.next().and_then(|word| plurals.iter().find(|plural| **plural == word));
            if let (Some(plural), Some(namespace), Some(name)) = (known, parts.next(), parts.next()) {
                let object = read_object(Key::new(plural, namespace, name), manifest)?;
                objects.insert(object.key.clone(), Arc::new(object));
            }
        }
        Ok(Self {
            ledger,
            memory: Arc::new(RwLock::new(Memory { objects, version, latest: BTreeMap::new() })),
            history: Arc::new(History::starting_at(version)),
        })
    }

    /// The resource of that key.
    pub fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.memory().objects.get(key).cloned()
    }

    /// All resources of a kind, in one namespace or in all, in order of namespace and name, and the version that
    /// the list is of: a watch from there misses nothing.
    pub fn list(&self, plural: &'static str, namespace: Option<&str>) -> (Vec<Arc<Object>>, u64) {
        let memory = self.memory();
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

    /// The version of the latest change.
    pub fn version(&self) -> u64 {
        self.memory().version
    }

    /// The version of the latest change of one of these kinds since the start; 0 if there was none.
    pub fn latest_of(&self, plurals: &[&'static str]) -> u64 {
        let memory = self.memory();
        plurals.iter().filter_map(|plural| memory.latest.get(plural)).copied().max().unwrap_or(0)
    }

    /// All changes after a version.
    ///
    /// # Errors
    /// If it is too long ago.
    pub fn watch(&self, from: u64) -> Result<Watch, Expired> {
        self.history.watch(from)
    }

    /// Stores a new resource; sets uid, version, generation and creation time.
    ///
    /// # Errors
    /// If one of that name exists, or the ledger fails.
    pub async fn create(&self, key: Key, manifest: Value, now: Time) -> Result<Arc<Object>, Error> {
        let uid = uuid::Uuid::new_v4().to_string();
        self.commit(move |tables| {
            if tables.get::<Value>(TABLE, &key.row())?.is_some() {
                return Err(Error::Exists(key));
            }
            let mut object = read_object(key, manifest)?;
            object.metadata.uid = uid;
            object.metadata.generation = 1;
            object.metadata.creation_timestamp = Some(now);
            object.metadata.deletion_timestamp = None;
            put(tables, EventKind::Added, object)
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
        self.commit(move |tables| {
            let row = key.row();
            let old: Value = tables.get(TABLE, &row)?.ok_or_else(|| Error::NotFound(key.clone()))?;
            let old = read_object(key.clone(), old)?;
            let mut new = read_object(key, manifest)?;
            let (expected, current) = (&new.metadata.resource_version, &old.metadata.resource_version);
            if !expected.is_empty() && expected != current {
                let (expected, current) = (expected.clone(), current.clone());
                return Err(Error::Conflict { key: new.key, expected, current });
            }
            if status {
                let reported = new.manifest.get("status").cloned().unwrap_or(Value::Null);
                let managers = std::mem::take(&mut new.metadata.managed_fields);
                new = old.clone();
                if !managers.is_empty() {
                    new.metadata.managed_fields = managers;
                }
                set_field(&mut new.manifest, "status", reported);
            } else {
                if let Some(reported) = old.manifest.get("status") {
                    set_field(&mut new.manifest, "status", reported.clone());
                }
                keep_system_metadata(&mut new, &old);
            }
            write_metadata(&mut new)?;
            if new == old {
                return Ok(Change { kind: EventKind::Modified, version: 0, object: Arc::new(old) });
            }
            if new.metadata.deletion_timestamp.is_some() && !is_held(&new) {
                return remove(tables, new);
            }
            put(tables, EventKind::Modified, new)
        })
        .await
    }

    /// Deletes a resource. While it has finalizers it stays, marked with the time of its deletion.
    ///
    /// # Errors
    /// If it does not exist, is not at the expected version any more, or the ledger fails.
    pub async fn delete(&self, key: Key, deletion: Deletion) -> Result<Arc<Object>, Error> {
        let Deletion { expected, finalizer, now } = deletion;
        self.commit(move |tables| {
            let old: Value = tables.get(TABLE, &key.row())?.ok_or_else(|| Error::NotFound(key.clone()))?;
            let mut object = read_object(key, old)?;
            let current = &object.metadata.resource_version;
            if let Some(expected) = expected.filter(|expected| expected != current) {
                return Err(Error::Conflict { current: current.clone(), key: object.key, expected });
            }
            if object.metadata.deletion_timestamp.is_none() {
                let finalizers = &mut object.metadata.finalizers;
                let new = finalizer.filter(|new| !finalizers.iter().any(|known| known == new));
                finalizers.extend(new.map(str::to_owned));
            }
            if !is_held(&object) {
                return remove(tables, object);
            }
            if object.metadata.deletion_timestamp.is_some() {
                return Ok(Change { kind: EventKind::Modified, version: 0, object: Arc::new(object) });
            }
            object.metadata.deletion_timestamp = Some(now);
            object.metadata.generation += 1;
            put(tables, EventKind::Modified, object)
        })
        .await
    }

    async fn commit(
        &self,
        change: impl FnOnce(&Tables) -> Result<Change, Error> + Send + 'static,
    ) -> Result<Arc<Object>, Error> {
        let memory = self.memory.clone();
        let history = self.history.clone();
        self.ledger
            .write_then(change, move |Change { kind, version, object }| {
                if version == 0 {
                    return object;
                }
                {
                    let mut memory = memory.write().unwrap_or_else(PoisonError::into_inner);
                    memory.version = version;
                    memory.latest.insert(object.key.plural, version);
                    match kind {
                        EventKind::Deleted => memory.objects.remove(&object.key),
                        _ => memory.objects.insert(object.key.clone(), object.clone()),
                    };
                }
                history.push(Event { kind, version, object: object.clone() });
                object
            })
            .await
    }

    fn memory(&self) -> std::sync::RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stored_version(tables: &Tables) -> Result<u64, Error> {
    Ok(tables.get(VERSION_TABLE, "latest")?.unwrap_or(1))
}

fn next_version(tables: &Tables) -> Result<u64, Error> {
    let version = stored_version(tables)? + 1;
    tables.put(VERSION_TABLE, "latest", &version)?;
    Ok(version)
}

fn put(tables: &Tables, kind: EventKind, mut object: Object) -> Result<Change, Error> {
    let version = next_version(tables)?;
    object.metadata.resource_version = version.to_string();
    write_metadata(&mut object)?;
    tables.put(TABLE, &object.key.row(), &object.manifest)?;
    Ok(Change { kind, version, object: Arc::new(object) })
}

fn remove(tables: &Tables, mut object: Object) -> Result<Change, Error> {
    let version = next_version(tables)?;
    tables.delete(TABLE, &object.key.row())?;
    object.metadata.resource_version = version.to_string();
    write_metadata(&mut object)?;
    Ok(Change { kind: EventKind::Deleted, version, object: Arc::new(object) })
}

/// What a writer of specs can't change; counts a generation if the spec differs.
fn keep_system_metadata(new: &mut Object, old: &Object) {
    let spec_changed = new.manifest.get("spec") != old.manifest.get("spec");
    new.metadata.uid.clone_from(&old.metadata.uid);
    new.metadata.resource_version.clone_from(&old.metadata.resource_version);
    new.metadata.creation_timestamp = old.metadata.creation_timestamp;
    new.metadata.deletion_timestamp = old.metadata.deletion_timestamp;
    new.metadata.generation = old.metadata.generation + i64::from(spec_changed);
}

/// Whether somebody must act before the object goes. Namespaces have a second list of who.
fn is_held(object: &Object) -> bool {
    let holders = object.manifest.pointer("/spec/finalizers").and_then(Value::as_array);
    let is_namespace = object.key.plural == "namespaces";
    !object.metadata.finalizers.is_empty()
        || (is_namespace && holders.is_some_and(|holders| !holders.is_empty()))
}

fn read_object(key: Key, manifest: Value) -> Result<Object, Error> {
    let metadata = manifest.get("metadata").cloned().unwrap_or_default();
    let metadata: ObjectMeta =
        serde_json::from_value(metadata).map_err(|source| Error::Manifest { key: key.clone(), source })?;
    let mut object = Object { key, metadata, manifest };
    object.metadata.name.clone_from(&object.key.name);
    object.metadata.namespace.clone_from(&object.key.namespace);
    Ok(object)
}

fn write_metadata(object: &mut Object) -> Result<(), Error> {
    let metadata = serde_json::to_value(&object.metadata)
        .map_err(|source| Error::Manifest { key: object.key.clone(), source })?;
    set_field(&mut object.manifest, "metadata", metadata);
    Ok(())
}

fn set_field(manifest: &mut Value, field: &str, value: Value) {
    if let Value::Object(fields) = manifest {
        fields.insert(field.to_owned(), value);
    }
}
