//! What goes when its owners go, and what waits for what, as `ownerReferences` say.
//!
//! An owner's UID is made when the owner is, and known to nobody before; so once no object has it, none ever will
//! again, and an owner that was looked up in the store itself and not found is gone for good. The dependent is
//! written only at the version that was judged.

use std::sync::Arc;

use store::{Key, Object};
use types::names::finalizer::{FOREGROUND, ORPHAN};
use types::{ObjectMeta, OwnerReference};

use crate::Occurrence;
use crate::dependents::Dependents;
use crate::write::{Action, Write};

/// All objects: as they are now, and who refers to whom.
pub(crate) struct Objects<'a> {
    pub(crate) find: &'a dyn Fn(&Key) -> Option<Arc<Object>>,
    pub(crate) dependents: &'a Dependents,
}

impl Objects<'_> {
    /// The objects that an owner owns, and how they refer to it. References from other namespaces don't count.
    fn owned_by(&self, owner: &Object) -> Vec<(Arc<Object>, OwnerReference)> {
        let namespace = &owner.key.namespace;
        let referring = self.dependents.of(&owner.metadata.uid).filter_map(|key| (self.find)(key));
        let near = referring.filter(|object| namespace.is_empty() || object.key.namespace == *namespace);
        near.filter_map(|object| {
            let mut references = object.metadata.owner_references.iter();
            let reference = references.find(|reference| reference.uid == owner.metadata.uid)?.clone();
            Some((object, reference))
        })
        .collect()
    }
}

/// How an owner stands.
enum Owner {
    Alive,
    /// It is being deleted, and waits for its dependents.
    Waits,
    Gone,
    /// Nobody can say: the kind isn't known here, or can't own this object.
    Unknown,
}

/// What has to be done about an object: because of its owners, or because it is going and owns something.
pub(crate) fn collect(object: &Object, objects: &Objects) -> Vec<Write> {
    let metadata = &object.metadata;
    // It changed since, which will be told: what depends on it may not be known to the index yet.
    if metadata.resource_version.parse().is_ok_and(|version: u64| version > objects.dependents.version) {
        return vec![];
    }
    if metadata.deletion_timestamp.is_none() {
        return judge(object, objects);
    }
    let has = |finalizer: &str| metadata.finalizers.iter().any(|held| held == finalizer);
    if has(ORPHAN) {
        orphan(object, objects)
    } else if has(FOREGROUND) {
        let blocks = |(_, reference): &(Arc<Object>, OwnerReference)| reference.block_owner_deletion;
        let is_blocked = objects.owned_by(object).iter().any(blocks);
        if is_blocked { vec![] } else { vec![without_finalizer(object, FOREGROUND)] }
    } else {
        vec![]
    }
}

/// Lets the dependents of an owner stand for themselves; once they do, the owner goes.
fn orphan(owner: &Object, objects: &Objects) -> Vec<Write> {
    let owned = objects.owned_by(owner);
    if owned.is_empty() {
        return vec![without_finalizer(owner, ORPHAN)];
    }
    let freed = owned.iter().map(|(object, _)| {
        with_metadata(object, |metadata| {
            metadata.owner_references.retain(|reference| reference.uid != owner.metadata.uid);
        })
    });
    freed.collect()
}

/// Whether an object goes because its owners went.
fn judge(object: &Object, objects: &Objects) -> Vec<Write> {
    let references = &object.metadata.owner_references;
    if references.is_empty() {
        return vec![];
    }
    let (mut alive, mut gone, mut waiting) = (vec![], vec![], vec![]);
    let mut misplaced = Vec::new();
    for reference in references {
        if is_misplaced(object, reference, objects) {
            misplaced.push(tell_misplaced(object, reference));
        }
        match standing(object, reference, objects) {
            Owner::Alive => alive.push(reference),
            Owner::Gone => gone.push(reference),
            Owner::Waits => waiting.push(reference),
            Owner::Unknown if misplaced.is_empty() => return vec![],
            Owner::Unknown => return vec![Write::new(object.key.clone(), Action::Tell).telling(misplaced)],
        }
    }
    let write = if !alive.is_empty() {
        if gone.is_empty() && waiting.is_empty() {
            return vec![];
        }
        with_metadata(object, |metadata| metadata.owner_references.retain(|held| alive.contains(&held)))
    } else if !waiting.is_empty() && objects.dependents.has_any(object) {
        // Those that own each other and all wait would wait forever.
        let waits = |(object, _): &(Arc<Object>, OwnerReference)| is_waiting(object);
        let blocks = references.iter().any(|reference| reference.block_owner_deletion);
        if blocks && objects.owned_by(object).iter().any(waits) {
            with_metadata(object, |metadata| {
                for reference in &mut metadata.owner_references {
                    reference.block_owner_deletion = false;
                }
            })
        } else {
            Write::delete_object(object, Some(FOREGROUND))
        }
    } else {
        Write::delete_object(object, None)
    };
    vec![write.telling(misplaced)]
}

fn standing(object: &Object, reference: &OwnerReference, objects: &Objects) -> Owner {
    let Some(info) = types::kind_of(&reference.api_version, &reference.kind) else { return Owner::Unknown };
    let is_clusterwide = object.key.namespace.is_empty();
    if info.namespaced && is_clusterwide {
        return Owner::Unknown;
    }
    let namespace = if info.namespaced { &*object.key.namespace } else { "" };
    let found = (objects.find)(&Key::new(info.plural, namespace, &*reference.name));
    match found.filter(|owner| owner.metadata.uid == reference.uid) {
        None => Owner::Gone,
        Some(owner) if is_waiting(&owner) => Owner::Waits,
        Some(_) => Owner::Alive,
    }
}

fn is_waiting(owner: &Object) -> bool {
    let metadata = &owner.metadata;
    metadata.deletion_timestamp.is_some() && metadata.finalizers.iter().any(|held| held == FOREGROUND)
}

/// Whether an owner is there, but in a namespace from which it can't own the object.
fn is_misplaced(object: &Object, reference: &OwnerReference, objects: &Objects) -> bool {
    let place = objects.dependents.place(&reference.uid);
    place.is_some_and(|owner| !owner.namespace.is_empty() && owner.namespace != object.key.namespace)
}

fn tell_misplaced(object: &Object, reference: &OwnerReference) -> Occurrence {
    let namespace = &object.key.namespace;
    let OwnerReference { api_version, kind, name, uid, .. } = reference;
    let message = format!(
        "ownerRef [{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}] does not exist in \
         namespace {namespace:?}"
    );
    Occurrence::warning(object, "OwnerRefInvalidNamespace", message)
}

fn without_finalizer(object: &Object, finalizer: &str) -> Write {
    with_metadata(object, |metadata| metadata.finalizers.retain(|held| held != finalizer))
}

fn with_metadata(object: &Object, change: impl FnOnce(&mut ObjectMeta)) -> Write {
    let mut metadata = object.metadata.clone();
    change(&mut metadata);
    let mut manifest = object.manifest();
    if let Some(fields) = manifest.as_object_mut() {
        // Metadata always is JSON: maps with string keys, finite numbers.
        fields.insert("metadata".to_owned(), serde_json::to_value(metadata).unwrap_or_default());
    }
    Write::new(object.key.clone(), Action::Spec(manifest))
}
