//! All resources of our own kinds at one moment.

use std::sync::Arc;

use store::{Key, Object, Store};
use types::{
    Application, ApplicationRevision, Assignment, Function, Kind, Model, Placement, PlacementDecision,
    PlacementScore, Resource, Site,
};

/// All resources of our own kinds at one moment, each kind in the order of namespaces and names. Those that can't be
/// read (written by a newer version) are left out and left alone.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub sites: Vec<Site>,
    pub placements: Vec<Placement>,
    pub decisions: Vec<PlacementDecision>,
    pub applications: Vec<Application>,
    pub revisions: Vec<ApplicationRevision>,
    pub assignments: Vec<Assignment>,
    pub functions: Vec<Function>,
    pub models: Vec<Model>,
    /// By site, for they are in its namespace.
    pub scores: Vec<PlacementScore>,
    /// The sites that came, changed or went since the last read, or of which others told something new. By name.
    pub changed_sites: Vec<String>,
}

impl Snapshot {
    /// All that placements depend on, as a store holds it now. Read anew: for questions that are seldom.
    pub fn of_placements(store: &Store) -> Self {
        Self {
            sites: parsed(store),
            placements: parsed(store),
            decisions: parsed(store),
            applications: parsed(store),
            scores: parsed(store),
            ..Self::default()
        }
    }

    /// The site of that name.
    pub fn site(&self, name: &str) -> Option<&Site> {
        Self::named(&self.sites, "", name)
    }

    /// The resource of that name, of all of its kind.
    pub fn named<'a, S: Kind>(
        all: &'a [Resource<S>],
        namespace: &str,
        name: &str,
    ) -> Option<&'a Resource<S>> {
        let order = |resource: &Resource<S>| {
            resource.namespace().cmp(namespace).then_with(|| resource.name().cmp(name))
        };
        all.get(all.binary_search_by(order).ok()?)
    }

    /// What others told of a site.
    pub fn scores_of(&self, site: &str) -> Vec<&PlacementScore> {
        let first = self.scores.partition_point(|told| told.namespace() < site);
        let told = self.scores.get(first..).unwrap_or_default();
        told.iter().take_while(|told| told.namespace() == site).collect()
    }
}

fn parsed<S: Kind>(store: &Store) -> Vec<Resource<S>> {
    let (objects, _) = store.list(S::PLURAL, None);
    objects.iter().filter_map(|object| object.resource().ok()).collect()
}

/// Keeps a snapshot up to date. Only objects that changed are parsed: one change among many costs little.
#[derive(Default)]
pub struct Reader {
    snapshot: Snapshot,
    sites: Source,
    placements: Source,
    decisions: Source,
    applications: Source,
    revisions: Source,
    assignments: Source,
    functions: Source,
    models: Source,
    scores: Source,
}

impl Reader {
    /// What a store holds now, and the version that it is at: a watch from there misses nothing.
    pub fn read(&mut self, store: &Store) -> (&Snapshot, u64) {
        let (version, snapshot) = (store.version(), &mut self.snapshot);
        let mut changed = self.sites.refresh(store, &mut snapshot.sites);
        for told in &mut self.scores.refresh(store, &mut snapshot.scores) {
            std::mem::swap(&mut told.name, &mut told.namespace);
            changed.push(told.clone());
        }
        snapshot.changed_sites = changed.into_iter().map(|key| key.name).collect();
        self.placements.refresh(store, &mut snapshot.placements);
        self.decisions.refresh(store, &mut snapshot.decisions);
        self.applications.refresh(store, &mut snapshot.applications);
        self.revisions.refresh(store, &mut snapshot.revisions);
        self.assignments.refresh(store, &mut snapshot.assignments);
        self.functions.refresh(store, &mut snapshot.functions);
        self.models.refresh(store, &mut snapshot.models);
        (snapshot, version)
    }
}

/// What the resources of one kind were read from.
#[derive(Default)]
struct Source {
    /// The version of the kind's latest change when it was read; `None` before the first time.
    version: Option<u64>,
    /// One for each resource, in the same order: that of their keys.
    objects: Vec<Arc<Object>>,
}

impl Source {
    /// Reads what changed, and answers the keys of that.
    fn refresh<S: Kind>(&mut self, store: &Store, resources: &mut Vec<Resource<S>>) -> Vec<Key> {
        // Asked before the list: what changes in between is looked at next time, too.
        let version = Some(store.latest_of(&[S::PLURAL]));
        if std::mem::replace(&mut self.version, version) == version {
            return vec![];
        }
        let mut changed = Vec::new();
        let (objects, _) = store.list(S::PLURAL, None);
        let mut known =
            std::mem::take(&mut self.objects).into_iter().zip(std::mem::take(resources)).peekable();
        // There may be many of them, and they are large.
        self.objects.reserve_exact(objects.len());
        resources.reserve_exact(objects.len());
        for object in objects {
            let unchanged = loop {
                // Most are as they were: those are not even looked into.
                if let Some(same) = known.next_if(|(was, _)| Arc::ptr_eq(was, &object)) {
                    break Some(same);
                }
                let Some((gone, _)) = known.next_if(|(was, _)| was.key < object.key) else { break None };
                changed.push(gone.key.clone());
            };
            let read = unchanged.map(|(_, resource)| resource).or_else(|| {
                changed.push(object.key.clone());
                object.resource().ok()
            });
            if let Some(resource) = read {
                resources.push(resource);
                self.objects.push(object);
            }
        }
        changed.extend(known.map(|(gone, _)| gone.key.clone()));
        changed
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use store::{Deletion, Ledger};
    use types::SiteSpec;

    use super::*;

    async fn create(store: &Store, name: &str, spec: Value) {
        let manifest = json!({"apiVersion": "avocet.dev/v1alpha1", "kind": "Site", "metadata": {"name": name}, "spec": spec});
        store.create(Key::new(SiteSpec::PLURAL, "", name), manifest, daemon::now()).await.unwrap();
    }

    fn seen(reader: &mut Reader, store: &Store) -> Vec<(String, String)> {
        let (snapshot, _) = reader.read(store);
        let sites = snapshot.sites.iter();
        sites.map(|site| (site.name().to_owned(), site.metadata.resource_version.clone())).collect()
    }

    /// What a list shows, but for what can't be read.
    fn listed(store: &Store) -> Vec<(String, String)> {
        let (objects, _) = store.list(SiteSpec::PLURAL, None);
        let readable = objects.iter().filter(|object| object.parse::<Site>().is_ok());
        readable.map(|object| (object.key.name.clone(), object.metadata.resource_version.clone())).collect()
    }

    #[tokio::test]
    async fn what_is_kept_is_what_a_new_reader_reads() {
        let store = Store::open(Ledger::memory().unwrap(), &[SiteSpec::PLURAL]).unwrap();
        let mut reader = Reader::default();
        assert_eq!(seen(&mut reader, &store), []);
        for name in ["b", "d", "f"] {
            create(&store, name, json!({"tier": "edge"})).await;
        }
        assert_eq!(seen(&mut reader, &store).len(), 3);
        assert_eq!(seen(&mut reader, &store), listed(&store), "nothing changed");
        create(&store, "a", json!({"tier": "edge"})).await;
        create(&store, "c", json!({"tier": 1})).await;
        create(&store, "e", json!({"tier": "edge"})).await;
        let key = Key::new(SiteSpec::PLURAL, "", "d");
        let mut changed = store.get(&key).unwrap().manifest();
        changed["spec"]["tier"] = json!("cloud");
        store.update(key, changed, false).await.unwrap();
        let last = Key::new(SiteSpec::PLURAL, "", "f");
        store.delete(last, Deletion::at(daemon::now())).await.unwrap();
        let names: Vec<String> = seen(&mut reader, &store).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "b", "d", "e"], "the unreadable and the deleted are left out");
        assert_eq!(seen(&mut reader, &store), listed(&store));
        let deleted = Key::new(SiteSpec::PLURAL, "", "a");
        store.delete(deleted, Deletion::at(daemon::now())).await.unwrap();
        assert_eq!(seen(&mut reader, &store), listed(&store));
    }
}
