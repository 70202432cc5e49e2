//! What controllers want to change, and what they tell of it.

use schema::managed_fields::{self, Part};
use serde_json::Value;
use store::{Change, Deletion, Error, Key, Object, Store};
use types::core::NamespaceSpec;
use types::{Kind, Resource, Time};

use crate::{Events, Occurrence};

/// A change that a controller wants. Each is refused by the store if its object changed since the controller saw
/// it, and then thought over again.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// What it changes.
    pub key: Key,
    /// How it changes it.
    pub action: Action,
    /// What is told once the change is made.
    pub told: Vec<Occurrence>,
}

/// How an object is changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// It is made.
    Create(Value),
    /// All but its status is replaced.
    Spec(Value),
    /// Its status is replaced.
    Status(Value),
    /// All of it, its status too: it is made where no version is named, else replaced.
    Put(Value),
    /// It is deleted if it still is at that version; the finalizer stays on it until its dependents are gone.
    Delete { version: String, finalizer: Option<&'static str> },
    /// It stays as it is; there only is something to tell of it.
    Tell,
    /// It and others are changed, all or none.
    Together(Vec<Write>),
}

/// As whom controllers write.
const MANAGER: &str = "avocet-hub";

impl Write {
    pub(crate) fn new(key: Key, action: Action) -> Self {
        Self { key, action, told: vec![] }
    }

    pub(crate) fn create<S: Kind>(resource: &Resource<S>) -> Self {
        Self::new(key(resource), Action::Create(manifest(resource)))
    }

    pub(crate) fn spec<S: Kind>(resource: &Resource<S>) -> Self {
        Self::new(key(resource), Action::Spec(manifest(resource)))
    }

    pub(crate) fn status<S: Kind>(resource: &Resource<S>) -> Self {
        Self::new(key(resource), Action::Status(manifest(resource)))
    }

    /// All of a resource, its status too, whether it is new or not.
    pub(crate) fn put<S: Kind>(resource: &Resource<S>) -> Self {
        Self::new(key(resource), Action::Put(manifest(resource)))
    }

    /// Of several writes one that makes all of them or none; `None` of none. It counts as one to the first's object.
    pub(crate) fn together(mut writes: Vec<Self>) -> Option<Self> {
        let told = writes.iter_mut().flat_map(|write| std::mem::take(&mut write.told)).collect();
        let key = writes.first()?.key.clone();
        Some(Self { key, action: Action::Together(writes), told })
    }

    pub(crate) fn delete<S: Kind>(resource: &Resource<S>) -> Self {
        let version = resource.metadata.resource_version.clone();
        Self::new(key(resource), Action::Delete { version, finalizer: None })
    }

    pub(crate) fn delete_object(object: &Object, finalizer: Option<&'static str>) -> Self {
        let version = object.metadata.resource_version.clone();
        Self::new(object.key.clone(), Action::Delete { version, finalizer })
    }

    pub(crate) fn telling(self, told: Vec<Occurrence>) -> Self {
        Self { told, ..self }
    }

    pub(crate) async fn apply(self, store: &Store, events: &Events, now: Time) -> Result<(), Error> {
        self.begin(store, now).await?.end(events, now).await
    }

    /// Begins the change: it is made after all that began before. What is told of it waits for the end.
    pub(crate) async fn begin(self, store: &Store, now: Time) -> Result<Begun, Error> {
        let Self { key, action, told } = self;
        let changes = action.changes(store, key, now);
        let makes_in = |change: &Change| match change {
            Change::Create { key, .. } => is_terminating(store, &key.namespace),
            Change::Put { key, .. } => store.get(key).is_none() && is_terminating(store, &key.namespace),
            _ => false,
        };
        if changes.iter().any(makes_in) {
            // What comes into a namespace that is going would only be taken away again.
            return Ok(Begun { change: None, told: vec![] });
        }
        Ok(Begun { change: Some(store.begin_all(changes).await?), told })
    }
}

/// A change that was begun.
pub(crate) struct Begun {
    change: Option<store::Begun<(), Error>>,
    told: Vec<Occurrence>,
}

impl Begun {
    /// Waits until it is made, and tells of it.
    pub async fn end(self, events: &Events, now: Time) -> Result<(), Error> {
        if let Some(change) = self.change {
            change.made().await?;
        }
        for occurrence in self.told {
            events.record(occurrence, now).await;
        }
        Ok(())
    }
}

impl Action {
    /// What it changes in the store, noted as stated by the hub's controllers.
    fn changes(self, store: &Store, key: Key, now: Time) -> Vec<Change> {
        let has_status = types::kind_named(key.plural).is_some_and(|info| info.has_status);
        let main = if has_status { Part::Main } else { Part::All };
        let old = || store.get(&key).map(|old| old.manifest());
        let change = match self {
            Self::Create(manifest) => {
                let manifest = sign(old().as_ref(), manifest, main, now);
                Change::Create { key, manifest, now }
            }
            Self::Spec(manifest) => {
                let manifest = sign(old().as_ref(), manifest, main, now);
                Change::Update { key, manifest, status: false }
            }
            Self::Status(manifest) => {
                let manifest = sign(old().as_ref(), manifest, Part::Status, now);
                Change::Update { key, manifest, status: true }
            }
            Self::Put(manifest) => {
                let manifest = sign_all(old().as_ref(), manifest, now);
                Change::Put { key, manifest, now }
            }
            Self::Delete { version, finalizer } => {
                let deletion = Deletion { expected: Some(version), finalizer, now };
                Change::Delete { key, deletion }
            }
            Self::Tell => return vec![],
            Self::Together(writes) => {
                let changes = writes.into_iter().map(|write| write.action.changes(store, write.key, now));
                return changes.flatten().collect();
            }
        };
        vec![change]
    }
}

fn sign(old: Option<&Value>, mut manifest: Value, part: Part, now: Time) -> Value {
    managed_fields::record_update(old, &mut manifest, MANAGER, part, now);
    manifest
}

/// Notes what is changed in both parts of an object, one after the other.
fn sign_all(old: Option<&Value>, manifest: Value, now: Time) -> Value {
    let status = |of: Option<&Value>| of.and_then(|of| of.get("status")).cloned().unwrap_or_default();
    let (before, after) = (status(old), status(Some(&manifest)));
    let with = |mut manifest: Value, status: Value| {
        match manifest.as_object_mut() {
            Some(fields) if status.is_null() => drop(fields.remove("status")),
            Some(fields) => drop(fields.insert("status".into(), status)),
            None => {}
        }
        manifest
    };
    let main = sign(old, with(manifest, before), Part::Main, now);
    sign(Some(&main), with(main.clone(), after), Part::Status, now)
}

/// Whether a namespace is there, but going.
pub(crate) fn is_terminating(store: &Store, namespace: &str) -> bool {
    let found = store.get(&Key::new(NamespaceSpec::PLURAL, "", namespace));
    found.is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some())
}

fn key<S: Kind>(resource: &Resource<S>) -> Key {
    Key::new(S::PLURAL, resource.namespace(), resource.name())
}

fn manifest<S: Kind>(resource: &Resource<S>) -> Value {
    // Our own types always are JSON: maps with string keys, finite numbers.
    serde_json::to_value(resource).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use store::Ledger;
    use types::PlacementSpec;

    use super::*;

    #[tokio::test]
    async fn what_controllers_report_is_noted_as_stated_by_them() {
        let store = Store::open(Ledger::memory().unwrap(), &[PlacementSpec::PLURAL]).unwrap();
        let (key, now) = (Key::new(PlacementSpec::PLURAL, "default", "p"), daemon::now());
        let mut manifest = json!({
            "apiVersion": types::API_VERSION, "kind": "Placement", "metadata": {"name": "p", "namespace": "default"},
            "spec": {"numberOfSites": 1},
        });
        store.create(key.clone(), manifest.clone(), now).await.unwrap();
        manifest["status"] = json!({"observedGeneration": 1});
        let write = Write::new(key.clone(), Action::Status(manifest));
        write.apply(&store, &Events::new(store.clone()), now).await.unwrap();
        let managers = store.get(&key).unwrap().manifest()["metadata"]["managedFields"].take();
        assert_eq!(managers[0]["manager"], MANAGER);
        assert_eq!(managers[0]["subresource"], "status");
        assert_eq!(managers[0]["fieldsV1"], json!({"f:status": {".": {}, "f:observedGeneration": {}}}));
        assert_eq!(managers.as_array().unwrap().len(), 1);
    }
}
