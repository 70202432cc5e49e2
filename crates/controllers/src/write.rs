//! What controllers want to change, and what they tell of it.

use schema::managed_fields::{self, Part};
use serde_json::Value;
use store::{Deletion, Error, Key, Object, Store};
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
    /// It is deleted if it still is at that version; the finalizer stays on it until its dependents are gone.
    Delete { version: String, finalizer: Option<&'static str> },
    /// It stays as it is; there only is something to tell of it.
    Tell,
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
        let Self { key, action, told } = self;
        match action.signed(store, &key, now) {
            // What comes into a namespace that is going would only be taken away again.
            Action::Create(_) if is_terminating(store, &key.namespace) => return Ok(()),
            Action::Create(manifest) => store.create(key, manifest, now).await.map(drop)?,
            Action::Spec(manifest) => store.update(key, manifest, false).await.map(drop)?,
            Action::Status(manifest) => store.update(key, manifest, true).await.map(drop)?,
            Action::Delete { version, finalizer } => {
                let deletion = Deletion { expected: Some(version), finalizer, now };
                store.delete(key, deletion).await.map(drop)?;
            }
            Action::Tell => {}
        }
        for occurrence in told {
            events.record(occurrence, now).await;
        }
        Ok(())
    }
}

impl Action {
    /// The same, with what it changes noted as stated by the hub's controllers.
    fn signed(self, store: &Store, key: &Key, now: Time) -> Self {
        let has_status = types::kind_named(key.plural).is_some_and(|info| info.has_status);
        let main = if has_status { Part::Main } else { Part::All };
        let sign = |mut manifest: Value, part| {
            let old = store.get(key).map(|old| old.manifest());
            managed_fields::record_update(old.as_ref(), &mut manifest, MANAGER, part, now);
            manifest
        };
        match self {
            Self::Create(manifest) => Self::Create(sign(manifest, main)),
            Self::Spec(manifest) => Self::Spec(sign(manifest, main)),
            Self::Status(manifest) => Self::Status(sign(manifest, Part::Status)),
            other => other,
        }
    }
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
