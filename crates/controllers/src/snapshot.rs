//! All resources at one moment, and what controllers want to change in them.

use serde_json::Value;
use store::{Deletion, Key, Store};
use types::{
    Application, Assignment, Function, Kind, Model, Placement, PlacementDecision, Resource, Site, Time,
};

/// All resources at one moment. Those that can't be read (written by a newer version) are left out and left alone.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub sites: Vec<Site>,
    pub placements: Vec<Placement>,
    pub decisions: Vec<PlacementDecision>,
    pub applications: Vec<Application>,
    pub assignments: Vec<Assignment>,
    pub functions: Vec<Function>,
    pub models: Vec<Model>,
}

impl Snapshot {
    /// Reads a store, and the version that it is at.
    pub fn read(store: &Store) -> (Self, u64) {
        let version = store.version();
        let snapshot = Self {
            sites: all(store),
            placements: all(store),
            decisions: all(store),
            applications: all(store),
            assignments: all(store),
            functions: all(store),
            models: all(store),
        };
        (snapshot, version)
    }

    /// The site of that name.
    pub fn site(&self, name: &str) -> Option<&Site> {
        self.sites.iter().find(|site| site.name() == name)
    }
}

fn all<S: Kind>(store: &Store) -> Vec<Resource<S>> {
    let (objects, _) = store.list(S::PLURAL, None);
    objects.iter().filter_map(|object| object.parse().ok()).collect()
}

/// A change that a controller wants. Each is refused by the store if its object changed since the snapshot, and
/// then thought over again.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    Create(Key, Value),
    Spec(Key, Value),
    Status(Key, Value),
    Delete(Key, String),
}

impl Write {
    pub(crate) fn create<S: Kind>(resource: &Resource<S>) -> Self {
        Self::Create(key(resource), manifest(resource))
    }

    pub(crate) fn spec<S: Kind>(resource: &Resource<S>) -> Self {
        Self::Spec(key(resource), manifest(resource))
    }

    pub(crate) fn status<S: Kind>(resource: &Resource<S>) -> Self {
        Self::Status(key(resource), manifest(resource))
    }

    pub(crate) fn delete<S: Kind>(resource: &Resource<S>) -> Self {
        Self::Delete(key(resource), resource.metadata.resource_version.clone())
    }

    /// What it changes.
    pub fn key(&self) -> &Key {
        match self {
            Self::Create(key, _) | Self::Spec(key, _) | Self::Status(key, _) | Self::Delete(key, _) => key,
        }
    }

    pub(crate) async fn apply(self, store: &Store, now: Time) -> Result<(), store::Error> {
        match self {
            Self::Create(key, manifest) => store.create(key, manifest, now).await.map(drop),
            Self::Spec(key, manifest) => store.update(key, manifest, false).await.map(drop),
            Self::Status(key, manifest) => store.update(key, manifest, true).await.map(drop),
            Self::Delete(key, version) => {
                store.delete(key, Deletion { expected: Some(version), ..Deletion::at(now) }).await.map(drop)
            }
        }
    }
}

fn key<S: Kind>(resource: &Resource<S>) -> Key {
    Key::new(S::PLURAL, resource.namespace(), resource.name())
}

fn manifest<S: Kind>(resource: &Resource<S>) -> Value {
    // Our own types always are JSON: maps with string keys, finite numbers.
    serde_json::to_value(resource).unwrap_or_default()
}
