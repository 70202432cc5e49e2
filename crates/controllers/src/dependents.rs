//! Who owns whom: an index over all objects, so that a change leads to the few objects that it concerns.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use store::{Event, EventKind, Key, Object, Store};
use types::core::{
    CertificateSigningRequestSpec, ConfigMapBody, NamespaceSpec, ResourceQuotaSpec, ServiceAccountBody,
};
use types::{Kind, SiteSpec, kinds};

use crate::namespace::{ACCOUNT, AUTHORITY};

/// What is known of all objects at one version of the store. It is derived from the store alone, and can be thrown
/// away and built again at any time.
#[derive(Debug, Default)]
pub(crate) struct Dependents {
    /// The version that this is of.
    pub(crate) version: u64,
    /// All objects, by their UIDs.
    all: HashSet<Indexed>,
    /// The objects that refer to an owner, by its UID.
    of_owner: HashMap<String, BTreeSet<Key>>,
    /// The UIDs that an object refers to; only of those that do.
    owners: HashMap<Key, Vec<String>>,
    /// The quotas of each namespace that has some.
    quotas: HashMap<String, BTreeSet<Key>>,
    /// Namespaces that are going.
    terminating: HashSet<String>,
}

/// An object among all, found by its own UID: there are many, and none is kept twice.
#[derive(Debug)]
struct Indexed(Arc<Object>);

impl Borrow<str> for Indexed {
    fn borrow(&self) -> &str {
        &self.0.metadata.uid
    }
}

impl Hash for Indexed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.metadata.uid.hash(state);
    }
}

impl PartialEq for Indexed {
    fn eq(&self, other: &Self) -> bool {
        self.0.metadata.uid == other.0.metadata.uid
    }
}

impl Eq for Indexed {}

impl Dependents {
    /// The index of a store, and the objects in it that somebody may have to act on.
    pub(crate) fn read(store: &Store) -> (Self, BTreeSet<Key>) {
        let mut index = Self { version: store.version(), ..Self::default() };
        let mut concerned = BTreeSet::new();
        for info in kinds().filter(|info| !info.is_alias()) {
            for object in store.list(info.plural, None).0 {
                index.put(&object);
                if is_interesting(&object) {
                    concerned.insert(object.key.clone());
                }
            }
        }
        (index, concerned)
    }

    /// Follows a change of the store; answers the objects that it concerns.
    pub(crate) fn follow(&mut self, event: &Event) -> BTreeSet<Key> {
        let object = &event.object;
        let key = &object.key;
        // An owner that waits for its dependents wants to know of them, before and after.
        let mut concerned = self.places_of_owners(key);
        match event.kind {
            EventKind::Deleted => self.remove(object),
            EventKind::Added | EventKind::Modified => self.put(object),
        }
        self.version = event.version;
        concerned.extend(self.places_of_owners(key));
        if object.metadata.deletion_timestamp.is_some() || event.kind == EventKind::Deleted {
            concerned.extend(self.of(&object.metadata.uid).cloned());
        }
        let is_furniture = match key.plural {
            ServiceAccountBody::PLURAL => key.name == ACCOUNT,
            ConfigMapBody::PLURAL => key.name == AUTHORITY,
            _ => false,
        };
        if is_furniture || self.terminating.contains(&key.namespace) {
            concerned.insert(Key::new(NamespaceSpec::PLURAL, "", &*key.namespace));
        }
        if key.plural == NamespaceSpec::PLURAL {
            concerned.insert(Key::new(SiteSpec::PLURAL, "", &*key.name));
        }
        if event.kind != EventKind::Modified {
            concerned.extend(self.quotas.get(&key.namespace).into_iter().flatten().cloned());
        }
        if is_interesting(object) {
            concerned.insert(key.clone());
        }
        concerned
    }

    /// Whether anything refers to an owner.
    pub(crate) fn has_any(&self, owner: &Object) -> bool {
        self.of(&owner.metadata.uid).next().is_some()
    }

    /// The objects that refer to an owner, by its UID.
    pub(crate) fn of(&self, uid: &str) -> impl Iterator<Item = &Key> {
        self.of_owner.get(uid).into_iter().flatten()
    }

    /// Where the object of a UID is.
    pub(crate) fn place(&self, uid: &str) -> Option<&Key> {
        self.all.get(uid).map(|Indexed(object)| &object.key)
    }

    fn places_of_owners(&self, key: &Key) -> BTreeSet<Key> {
        let owners = self.owners.get(key).into_iter().flatten();
        owners.filter_map(|uid| self.place(uid).cloned()).collect()
    }

    fn put(&mut self, object: &Arc<Object>) {
        self.forget_owners(&object.key);
        let metadata = &object.metadata;
        self.all.replace(Indexed(object.clone()));
        if !metadata.owner_references.is_empty() {
            let owners: Vec<String> =
                metadata.owner_references.iter().map(|owner| owner.uid.clone()).collect();
            for owner in &owners {
                self.of_owner.entry(owner.clone()).or_default().insert(object.key.clone());
            }
            self.owners.insert(object.key.clone(), owners);
        }
        if object.key.plural == NamespaceSpec::PLURAL && metadata.deletion_timestamp.is_some() {
            self.terminating.insert(object.key.name.clone());
        }
        if object.key.plural == ResourceQuotaSpec::PLURAL {
            self.quotas.entry(object.key.namespace.clone()).or_default().insert(object.key.clone());
        }
    }

    fn remove(&mut self, object: &Object) {
        self.forget_owners(&object.key);
        self.all.remove(object.metadata.uid.as_str());
        if object.key.plural == NamespaceSpec::PLURAL {
            self.terminating.remove(&object.key.name);
        }
        if object.key.plural == ResourceQuotaSpec::PLURAL
            && let Some(quotas) = self.quotas.get_mut(&object.key.namespace)
        {
            quotas.remove(&object.key);
            if quotas.is_empty() {
                self.quotas.remove(&object.key.namespace);
            }
        }
    }

    fn forget_owners(&mut self, key: &Key) {
        for owner in self.owners.remove(key).into_iter().flatten() {
            if let Some(dependents) = self.of_owner.get_mut(&owner) {
                dependents.remove(key);
                if dependents.is_empty() {
                    self.of_owner.remove(&owner);
                }
            }
        }
    }
}

/// Whether an object itself may need somebody to act on it.
fn is_interesting(object: &Object) -> bool {
    let is_kept_up = [
        NamespaceSpec::PLURAL,
        SiteSpec::PLURAL,
        CertificateSigningRequestSpec::PLURAL,
        ResourceQuotaSpec::PLURAL,
    ];
    is_kept_up.contains(&object.key.plural)
        || object.metadata.deletion_timestamp.is_some()
        || !object.metadata.owner_references.is_empty()
}
