//! What the site is to run, as last heard from the hub, on disk and in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use store::{Ledger, ledger};
use tokio::sync::watch;
use types::Assignment;

const TABLE: &str = "assignments";

/// How far the site is with an assignment.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Progress {
    /// Nothing was tried yet.
    #[default]
    New,
    /// All is there; the function's unpacked bundle, if it has one.
    Ready { bundle: Option<PathBuf> },
    /// Something is missing: a word for programs and a sentence for people. If an earlier generation was ready,
    /// its bundle goes on being used.
    Blocked { reason: &'static str, message: String, bundle: Option<PathBuf> },
}

impl Progress {
    /// The bundle to run, whether newest or not.
    pub(crate) fn bundle(&self) -> Option<&PathBuf> {
        match self {
            Self::New => None,
            Self::Ready { bundle } | Self::Blocked { bundle, .. } => bundle.as_ref(),
        }
    }
}

/// One assignment and how far the site is with it.
#[derive(Debug, Clone)]
pub(crate) struct Assigned {
    pub assignment: Arc<Assignment>,
    pub progress: Progress,
}

/// All assignments of the site. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Assignments {
    ledger: Ledger,
    all: Arc<RwLock<BTreeMap<String, Assigned>>>,
    changed: watch::Sender<u64>,
}

impl Assignments {
    pub(crate) fn load(ledger: Ledger) -> Result<Self, ledger::Error> {
        let rows: Vec<(String, Assignment)> =
            ledger.read(|tables| tables.range(TABLE, "", "", usize::MAX))?;
        let all = rows.into_iter().map(|(name, assignment)| (name, new(assignment))).collect();
        Ok(Self { ledger, all: Arc::new(RwLock::new(all)), changed: watch::Sender::new(0) })
    }

    /// Tells of every change, of assignments and of progress.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn all(&self) -> Vec<Assigned> {
        self.read(|all| all.values().cloned().collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<Assigned> {
        self.read(|all| all.get(name).cloned())
    }

    /// Makes these the assignments: what is not among them is no longer assigned.
    pub(crate) async fn replace(&self, list: Vec<Assignment>) -> Result<(), ledger::Error> {
        let kept: BTreeSet<String> = list.iter().map(|assignment| assignment.name().to_owned()).collect();
        let gone: Vec<String> =
            self.read(|all| all.keys().filter(|name| !kept.contains(*name)).cloned().collect());
        for name in gone {
            self.remove(&name).await?;
        }
        for assignment in list {
            self.put(assignment).await?;
        }
        Ok(())
    }

    /// Adds an assignment or replaces it; progress survives while the spec stays the same.
    pub(crate) async fn put(&self, mut assignment: Assignment) -> Result<(), ledger::Error> {
        // What the site itself reported is no news.
        assignment.status = types::AssignmentStatus::default();
        let name = assignment.name().to_owned();
        let known = self.get(&name).map(|known| known.assignment);
        if known.is_some_and(|known| known.spec == assignment.spec && same_object(&known, &assignment)) {
            return Ok(());
        }
        let (key, row) = (name.clone(), assignment.clone());
        self.ledger.write(move |tables| tables.put(TABLE, &key, &row)).await?;
        self.write(|all| {
            let bundle = all.get(&name).and_then(|known| known.progress.bundle().cloned());
            let mut assigned = new(assignment);
            if bundle.is_some() {
                let message = "a new generation is being prepared".to_owned();
                assigned.progress = Progress::Blocked { reason: "Preparing", message, bundle };
            }
            all.insert(name, assigned);
        });
        Ok(())
    }

    pub(crate) async fn remove(&self, name: &str) -> Result<(), ledger::Error> {
        let key = name.to_owned();
        self.ledger.write(move |tables| tables.delete(TABLE, &key).map(drop)).await?;
        self.write(|all| all.remove(name));
        Ok(())
    }

    /// Notes how far the site is with this very generation of an assignment.
    pub(crate) fn note(&self, assignment: &Arc<Assignment>, progress: Progress) {
        let is_news = self.read(|all| {
            all.get(assignment.name())
                .is_some_and(|known| Arc::ptr_eq(&known.assignment, assignment) && known.progress != progress)
        });
        if is_news {
            self.write(|all| {
                if let Some(known) = all.get_mut(assignment.name()) {
                    known.progress = progress;
                }
            });
        }
    }

    fn read<T>(&self, look: impl FnOnce(&BTreeMap<String, Assigned>) -> T) -> T {
        look(&self.all.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut BTreeMap<String, Assigned>) -> T) -> T {
        let result = change(&mut self.all.write().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_modify(|count| *count += 1);
        result
    }
}

fn new(assignment: Assignment) -> Assigned {
    Assigned { assignment: Arc::new(assignment), progress: Progress::New }
}

fn same_object(left: &Assignment, right: &Assignment) -> bool {
    left.metadata.uid == right.metadata.uid && left.metadata.generation == right.metadata.generation
}
