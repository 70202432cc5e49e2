//! All resources of our own kinds at one moment.

use store::Store;
use types::{Application, Assignment, Function, Kind, Model, Placement, PlacementDecision, Resource, Site};

/// All resources of our own kinds at one moment. Those that can't be read (written by a newer version) are left out and left alone.
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
