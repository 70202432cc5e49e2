//! Random graphs of owners, deleted at random: in the end there is exactly what should be.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;
use store::{Event, EventKind, Key, Object};
use types::names::finalizer::{FOREGROUND, ORPHAN};
use types::{ObjectMeta, OwnerReference, Time};

use crate::dependents::Dependents;
use crate::garbage::{Objects, collect};
use crate::write::{Action, Write};

/// A store as far as garbage is concerned, whose changes reach the index late.
#[derive(Default)]
struct World {
    objects: BTreeMap<Key, Arc<Object>>,
    changes: Vec<Event>,
    index: Dependents,
    concerned: BTreeSet<Key>,
    version: u64,
}

fn key(number: usize) -> Key {
    Key::new("configmaps", "x", format!("n{number}"))
}

impl World {
    fn put(&mut self, kind: EventKind, key: Key, metadata: &ObjectMeta) {
        self.version += 1;
        let mut metadata = serde_json::to_value(metadata).unwrap();
        metadata["resourceVersion"] = json!(self.version.to_string());
        let manifest = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
        let object = Arc::new(Object::unstored(key, manifest).unwrap());
        let previous = self.objects.get(&object.key).cloned();
        match kind {
            EventKind::Deleted => self.objects.remove(&object.key),
            _ => self.objects.insert(object.key.clone(), object.clone()),
        };
        self.changes.push(Event { kind, version: self.version, object, previous });
    }

    fn create(&mut self, number: usize, owners: &[(usize, bool)]) {
        let owner_references = owners.iter().map(|(owner, blocks)| OwnerReference {
            api_version: "v1".into(),
            kind: "ConfigMap".into(),
            name: format!("n{owner}"),
            uid: format!("u{owner}"),
            controller: false,
            block_owner_deletion: *blocks,
        });
        let metadata = ObjectMeta {
            name: format!("n{number}"),
            namespace: "x".into(),
            uid: format!("u{number}"),
            owner_references: owner_references.collect(),
            ..ObjectMeta::default()
        };
        self.put(EventKind::Added, key(number), &metadata);
    }

    /// Deletes as a store does; answers whether the object is gone at once.
    fn delete(&mut self, key: &Key, finalizer: Option<&str>) {
        let Some(object) = self.objects.get(key) else { return };
        let mut metadata = object.metadata.clone();
        if metadata.deletion_timestamp.is_some() {
            return;
        }
        metadata.finalizers.extend(finalizer.map(str::to_owned));
        if metadata.finalizers.is_empty() {
            return self.put(EventKind::Deleted, key.clone(), &metadata);
        }
        metadata.deletion_timestamp = Some(Time("2026-01-01T00:00:00Z".parse().unwrap()));
        self.put(EventKind::Modified, key.clone(), &metadata);
    }

    /// Makes a write if the object still is at the version that it is of.
    fn apply(&mut self, write: Write) {
        let Some(old) = self.objects.get(&write.key).cloned() else { return };
        match write.action {
            Action::Delete { version, finalizer } if version == old.metadata.resource_version => {
                self.delete(&write.key, finalizer);
            }
            Action::Spec(manifest) => {
                let metadata: ObjectMeta = serde_json::from_value(manifest["metadata"].clone()).unwrap();
                if metadata.resource_version != old.metadata.resource_version {
                    return;
                }
                let is_gone = metadata.deletion_timestamp.is_some() && metadata.finalizers.is_empty();
                let kind = if is_gone { EventKind::Deleted } else { EventKind::Modified };
                self.put(kind, write.key, &metadata);
            }
            _ => {}
        }
    }

    fn follow(&mut self, most: usize) {
        for change in self.changes.drain(..most.min(self.changes.len())) {
            self.concerned.extend(self.index.follow(&change));
        }
    }

    /// Acts on one of those that are concerned, as the loop does.
    fn step(&mut self, choice: usize) {
        if self.concerned.is_empty() {
            return;
        }
        let key = self.concerned.iter().nth(choice % self.concerned.len()).unwrap().clone();
        self.concerned.remove(&key);
        let Some(object) = self.objects.get(&key).cloned() else { return };
        let find = |key: &Key| self.objects.get(key).cloned();
        for write in collect(&object, &Objects { find: &find, dependents: &self.index }) {
            self.apply(write);
        }
    }

    fn settle(&mut self) {
        for round in 0..100_000 {
            self.follow(usize::MAX);
            if self.concerned.is_empty() {
                return;
            }
            self.step(round);
        }
        panic!("does not settle: {:?}", self.concerned);
    }

    fn remaining(&self) -> BTreeSet<usize> {
        self.objects.keys().map(|key| key.name[1..].parse().unwrap()).collect()
    }
}

/// What is there in the end, worked out from the whole graph, one deletion after the other.
#[derive(Default)]
struct Model {
    owners: HashMap<usize, BTreeSet<usize>>,
}

impl Model {
    fn delete(&mut self, number: usize, finalizer: Option<&str>) {
        if self.owners.remove(&number).is_none() {
            return;
        }
        let dependents: Vec<usize> = self
            .owners
            .iter()
            .filter(|(_, owners)| owners.contains(&number))
            .map(|(object, _)| *object)
            .collect();
        for dependent in dependents {
            let owners = self.owners.get_mut(&dependent).unwrap();
            owners.remove(&number);
            if owners.is_empty() && finalizer != Some(ORPHAN) {
                self.delete(dependent, None);
            }
        }
    }
}

const POLICIES: [Option<&str>; 3] = [None, Some(FOREGROUND), Some(ORPHAN)];

fn graphs() -> impl Strategy<Value = Vec<Vec<(usize, bool)>>> {
    let owners = prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..3);
    prop::collection::vec(owners, 1..14).prop_map(|objects| {
        let pick = |number: usize, owners: Vec<(prop::sample::Index, bool)>| {
            // Owners are older than what they own, as they must be to be known by their UID.
            let picked = owners.into_iter().filter(|_| number > 0);
            picked
                .map(|(owner, blocks)| (owner.index(number), blocks))
                .collect::<BTreeMap<_, _>>()
                .into_iter()
                .collect()
        };
        objects.into_iter().enumerate().map(|(number, owners)| pick(number, owners)).collect()
    })
}

fn world(graph: &[Vec<(usize, bool)>]) -> (World, Model) {
    let (mut world, mut model) = (World::default(), Model::default());
    for (number, owners) in graph.iter().enumerate() {
        world.create(number, owners);
        model.owners.insert(number, owners.iter().map(|(owner, _)| *owner).collect());
    }
    (world, model)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn in_the_end_exactly_what_should_remain_remains(
        graph in graphs(),
        deletions in prop::collection::vec((0..14_usize, 0..3_usize), 1..6),
    ) {
        let (mut world, mut model) = world(&graph);
        world.settle();
        prop_assert_eq!(world.remaining(), (0..graph.len()).collect());
        for (number, policy) in deletions {
            world.delete(&key(number), POLICIES[policy]);
            model.delete(number, POLICIES[policy]);
            world.settle();
            prop_assert_eq!(world.remaining(), model.owners.keys().copied().collect());
            for (number, owners) in &model.owners {
                let found: BTreeSet<usize> = world.objects[&key(*number)].metadata.owner_references.iter()
                    .map(|owner| owner.name[1..].parse().unwrap()).collect();
                prop_assert_eq!(&found, owners);
            }
        }
    }

    #[test]
    fn however_late_changes_are_seen_orphans_remain(
        graph in graphs(),
        deletions in prop::collection::vec(0..14_usize, 1..6),
        steps in prop::collection::vec((0..4_usize, 0..20_usize), 0..60),
    ) {
        let (mut world, _) = world(&graph);
        let mut deletions: Vec<usize> = deletions.into_iter().map(|number| number % graph.len()).collect();
        let asked: BTreeSet<usize> = deletions.iter().copied().collect();
        for (action, number) in steps {
            match action {
                0 => deletions.pop().into_iter().for_each(|number| world.delete(&key(number), Some(ORPHAN))),
                1 => world.follow(number % 5),
                _ => world.step(number),
            }
        }
        for number in deletions {
            world.delete(&key(number), Some(ORPHAN));
        }
        world.settle();
        prop_assert_eq!(world.remaining(), (0..graph.len()).filter(|number| !asked.contains(number)).collect());
    }

    #[test]
    fn however_late_changes_are_seen_nothing_with_a_living_owner_is_collected(
        graph in graphs(),
        deletions in prop::collection::vec((0..14_usize, 0..3_usize), 1..6),
        steps in prop::collection::vec((any::<bool>(), 0..20_usize), 0..60),
    ) {
        let (mut world, _) = world(&graph);
        let mut deletions: Vec<_> = deletions.into_iter().map(|(number, policy)| (number % graph.len(), policy)).collect();
        let asked: BTreeSet<usize> = deletions.iter().map(|(number, _)| *number).collect();
        for (follows, number) in steps {
            match (follows, deletions.pop()) {
                (true, Some((number, policy))) => world.delete(&key(number), POLICIES[policy]),
                (true, None) => world.follow(number),
                (false, kept) => {
                    deletions.extend(kept);
                    world.follow(number % 3);
                    world.step(number);
                }
            }
        }
        for (number, policy) in deletions {
            world.delete(&key(number), POLICIES[policy]);
        }
        world.settle();
        // Whoever still is there and was not asked to go keeps all that it owns, unless that was asked to go itself.
        let remaining = world.remaining();
        for (number, owners) in graph.iter().enumerate() {
            let has_owner = owners.iter().any(|(owner, _)| remaining.contains(owner));
            if has_owner && !asked.contains(&number) {
                prop_assert!(remaining.contains(&number), "{number} of {owners:?} is gone");
            }
            if asked.contains(&number) {
                prop_assert!(!remaining.contains(&number), "{number} was deleted and is there");
            }
        }
        for object in world.objects.values() {
            for owner in &object.metadata.owner_references {
                prop_assert!(remaining.contains(&owner.name[1..].parse().unwrap()), "refers to {}", owner.name);
            }
        }
    }
}

#[test]
fn a_change_among_100_000_objects_concerns_a_few() {
    let (mut world, started) = (World::default(), std::time::Instant::now());
    for number in 0..100_000 {
        let owners = if number % 10 == 0 { vec![] } else { vec![(number - number % 10, false)] };
        world.create(number, &owners);
    }
    let made = started.elapsed();
    world.follow(usize::MAX);
    world.concerned.clear();
    println!("made in {made:?}, read in {:?}", started.elapsed() - made);
    let started = std::time::Instant::now();
    world.delete(&key(50_000), None);
    world.follow(usize::MAX);
    assert_eq!(world.concerned, (50_001..50_010).map(key).collect());
    while !world.concerned.is_empty() {
        world.step(0);
        world.follow(usize::MAX);
    }
    println!("collected in {:?}", started.elapsed());
    assert_eq!(world.objects.len(), 99_990);
}
