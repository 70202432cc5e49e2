//! Changes of resources, made on the ledger's writer.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use serde_json::Value;
use types::Time;

use crate::ledger::Tables;
use crate::object::{Draft, Key, Object, Seen};
use crate::resources::{Deletion, Error, LATEST, Shared, TABLE, VERSION_TABLE};
use crate::seal::{self, Seal, SealError};
use crate::watch::{Event, EventKind};

/// One of several changes that are made together.
#[derive(Debug, Clone)]
pub enum Change {
    /// As by [`Store::create`](crate::Store::create).
    Create {
        /// What is made.
        key: Key,
        /// As what.
        manifest: Value,
        /// When.
        now: Time,
    },
    /// As by [`Store::update`](crate::Store::update).
    Update {
        /// What is replaced.
        key: Key,
        /// By what.
        manifest: Value,
        /// Nothing but the status, or everything but that.
        status: bool,
    },
    /// All of a resource, its status too: made where the manifest names no version, else replaced if it still is at that.
    Put {
        /// What is written.
        key: Key,
        /// As what.
        manifest: Value,
        /// When it is made.
        now: Time,
    },
    /// As by [`Store::delete`](crate::Store::delete).
    Delete {
        /// What is deleted.
        key: Key,
        /// How.
        deletion: Deletion,
    },
}

/// A change as far as it can be made ready outside of the writer.
pub(crate) enum Ready {
    Create(Draft),
    Replace(Draft, Option<Seen>, Part),
    Delete(Key, Deletion),
}

impl Ready {
    /// With what is there now, parsed: most likely it still is when the writer comes to it.
    pub(crate) fn new(change: Change, get: impl Fn(&Key) -> Option<Arc<Object>>) -> Result<Self, Error> {
        let replace = |key: Key, manifest: Value, part: Part| -> Result<Self, Error> {
            let seen = get(&key).map(Seen::from);
            Ok(Self::Replace(read_draft(key, manifest)?, seen, part))
        };
        match change {
            Change::Update { key, manifest, status } => replace(key, manifest, Part::of(status)),
            Change::Put { key, manifest, .. } if names_version(&manifest) => {
                replace(key, manifest, Part::All)
            }
            Change::Create { key, manifest, now } | Change::Put { key, manifest, now } => {
                begin(key, manifest, now).map(Self::Create)
            }
            Change::Delete { key, deletion } => Ok(Self::Delete(key, deletion)),
        }
    }
}

/// What of a resource is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    All,
    Main,
    Status,
}

impl Part {
    pub(crate) fn of(status: bool) -> Self {
        if status { Self::Status } else { Self::Main }
    }
}

/// What the writer sees besides: the changes of the commit that is under way. Only the writer's thread looks here.
pub(crate) struct Ahead {
    pub(crate) group: u64,
    pub(crate) objects: HashMap<Key, Option<Arc<Object>>>,
    pub(crate) version: u64,
}

/// The writer's view: what is durable, on it the changes of the commit that is under way, and on them those of this
/// write, of which nothing is left unless it comes to its end.
pub(crate) struct Writer<'a> {
    tables: &'a Tables<'a>,
    shared: &'a Shared,
    ahead: MutexGuard<'a, Ahead>,
    seal: Option<&'a Seal>,
    changed: HashMap<Key, Option<Arc<Object>>>,
    made: Vec<Event>,
}

impl<'a> Writer<'a> {
    pub(crate) fn begin(tables: &'a Tables<'a>, shared: &'a Shared, seal: Option<&'a Seal>) -> Self {
        let mut ahead = shared.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if ahead.group != tables.group() {
            // The commit before this one is in memory by now, or failed and left nothing.
            *ahead =
                Ahead { group: tables.group(), objects: HashMap::new(), version: shared.memory().version };
        }
        Self { tables, shared, ahead, seal, changed: HashMap::new(), made: vec![] }
    }

    /// What was changed, which later writes of the commit see from now on.
    pub(crate) fn end(mut self) -> Vec<Event> {
        self.ahead.version = self.made.last().map_or(self.ahead.version, |event| event.version);
        self.ahead.objects.extend(self.changed);
        self.made
    }

    pub(crate) fn make(&mut self, change: Ready) -> Result<Arc<Object>, Error> {
        match change {
            Ready::Create(new) => self.create(new),
            Ready::Replace(new, seen, part) => self.replace(new, seen, part),
            Ready::Delete(key, deletion) => self.delete(key, deletion),
        }
    }

    pub(crate) fn create(&mut self, new: Draft) -> Result<Arc<Object>, Error> {
        if self.current(&new.key).is_some() {
            return Err(Error::Exists(new.key));
        }
        self.put(new, None)
    }

    /// Where what was seen is still current, nothing is parsed on the writer's thread.
    pub(crate) fn replace(
        &mut self,
        mut new: Draft,
        seen: Option<Seen>,
        part: Part,
    ) -> Result<Arc<Object>, Error> {
        let old = self.current(&new.key).ok_or_else(|| Error::NotFound(new.key.clone()))?;
        check_version(&old, Some(&new.metadata.resource_version))?;
        let before = match seen {
            Some(seen) if Arc::ptr_eq(&seen.object, &old) => seen.manifest,
            _ => old.manifest(),
        };
        if part == Part::Status {
            let reported = take_status(&mut new);
            let managers = std::mem::take(&mut new.metadata.managed_fields);
            new = read_draft(old.key.clone(), before.clone())?;
            if !managers.is_empty() {
                new.metadata.managed_fields = managers;
            }
            new.set_field("status", reported);
        } else {
            if let Some(reported) = before.get("status").filter(|_| part == Part::Main) {
                new.set_field("status", reported.clone());
            }
            new.keep_system_metadata(&old.metadata, before.get("spec"));
        }
        new.write_metadata().map_err(unreadable(&old.key))?;
        if new.manifest == before {
            return Ok(old);
        }
        if new.metadata.deletion_timestamp.is_some() && !new.is_held() {
            return self.remove(new, old);
        }
        self.put(new, Some(old))
    }

    pub(crate) fn delete(&mut self, key: Key, deletion: Deletion) -> Result<Arc<Object>, Error> {
        let Deletion { expected, finalizer, now } = deletion;
        let old = self.current(&key).ok_or(Error::NotFound(key))?;
        check_version(&old, expected.as_ref())?;
        let mut marked = read_draft(old.key.clone(), old.manifest())?;
        let is_marked = marked.metadata.deletion_timestamp.is_some();
        if !marked.doom(finalizer, now) {
            marked.write_metadata().map_err(unreadable(&old.key))?;
            return self.remove(marked, old);
        }
        if is_marked {
            return Ok(old);
        }
        marked.write_metadata().map_err(unreadable(&old.key))?;
        self.put(marked, Some(old))
    }

    fn current(&self, key: &Key) -> Option<Arc<Object>> {
        match self.changed.get(key).or_else(|| self.ahead.objects.get(key)) {
            Some(changed) => changed.clone(),
            None => self.shared.memory().get(key),
        }
    }

    fn put(&mut self, new: Draft, previous: Option<Arc<Object>>) -> Result<Arc<Object>, Error> {
        let object = self.finish(new)?;
        let json = std::str::from_utf8(object.json()).unwrap_or_default();
        let sealed = seal::seal(self.seal, &object.key, object.version(), json);
        self.tables.put_json(TABLE, &object.key.row(), &sealed.map_err(unsealable(&object.key))?)?;
        let kind = if previous.is_some() { EventKind::Modified } else { EventKind::Added };
        self.changed.insert(object.key.clone(), Some(object.clone()));
        self.made.push(Event::new(kind, object.clone(), previous));
        Ok(object)
    }

    fn remove(&mut self, last: Draft, previous: Arc<Object>) -> Result<Arc<Object>, Error> {
        let object = self.finish(last)?;
        self.tables.delete(TABLE, &object.key.row())?;
        // No object will say any more that there was this version.
        self.tables.put(VERSION_TABLE, LATEST, &object.version())?;
        self.changed.insert(object.key.clone(), None);
        self.made.push(Event::new(EventKind::Deleted, object.clone(), Some(previous)));
        Ok(object)
    }

    fn finish(&self, draft: Draft) -> Result<Arc<Object>, Error> {
        let key = draft.key.clone();
        let latest = self.made.last().map_or(self.ahead.version, |event| event.version);
        Ok(Arc::new(draft.finish_written(latest + 1).map_err(unreadable(&key))?))
    }
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

fn names_version(manifest: &Value) -> bool {
    let version = manifest.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    version.is_some_and(|version| !version.is_empty())
}

/// A new resource.
pub(crate) fn begin(key: Key, manifest: Value, now: Time) -> Result<Draft, Error> {
    let mut new = read_draft(key, manifest)?;
    new.begin(now);
    new.write_metadata().map_err(unreadable(&new.key))?;
    Ok(new)
}

pub(crate) fn read_draft(key: Key, manifest: Value) -> Result<Draft, Error> {
    Draft::of(key.clone(), manifest).map_err(unreadable(&key))
}

pub(crate) fn unsealable(key: &Key) -> impl FnOnce(SealError) -> Error {
    let key = key.clone();
    |source| Error::Sealed { key, source }
}

pub(crate) fn unreadable(key: &Key) -> impl FnOnce(serde_json::Error) -> Error {
    let key = key.clone();
    |source| Error::Manifest { key, source }
}
