//! What the site is to run, as last heard from the hub, on disk and in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use serde::Deserialize;
use store::ledger::Tables;
use store::{Ledger, ledger};
use tokio::sync::watch;
use types::Assignment;

use crate::invocations::{depart, trigger_key};

/// What the hub wants.
const TABLE: &str = "assignments";
/// What was ready last: it outlives a restart, whatever the hub wants meanwhile.
const RUNNING: &str = "running-assignments";

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
    /// What the hub wants.
    pub assignment: Arc<Assignment>,
    /// What was ready last; it goes on until all of what is wanted is there.
    pub running: Option<Arc<Assignment>>,
    pub progress: Progress,
}

impl Assigned {
    /// What the site works by now.
    pub(crate) fn effective(&self) -> &Arc<Assignment> {
        match (&self.progress, &self.running) {
            (Progress::Ready { .. }, _) | (_, None) => &self.assignment,
            (_, Some(running)) => running,
        }
    }

    /// What goes on although something else is wanted.
    pub(crate) fn kept(&self) -> Option<&Arc<Assignment>> {
        self.running.as_ref().filter(|running| running.spec != self.assignment.spec)
    }
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
        type Rows = Vec<(String, Assignment)>;
        let rows: Rows = ledger.read(|tables| tables.range(TABLE, "", "", usize::MAX))?;
        let running: Rows = ledger.read(|tables| tables.range(RUNNING, "", "", usize::MAX))?;
        let mut running: BTreeMap<String, Arc<Assignment>> =
            running.into_iter().map(|(name, assignment)| (name, Arc::new(assignment))).collect();
        let all = rows.into_iter().map(|(name, assignment)| {
            let running = running.remove(&name).filter(|running| is_of_one_object(running, &assignment));
            (name, Assigned { running, ..new(assignment) })
        });
        let all = all.collect();
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

    /// Adds an assignment or replaces it; progress survives while the spec stays the same. Answers whether it is news.
    pub(crate) async fn put(&self, mut assignment: Assignment) -> Result<bool, ledger::Error> {
        // What the site itself reported is no news.
        assignment.status = types::AssignmentStatus::default();
        let name = assignment.name().to_owned();
        let known = self.get(&name).map(|known| known.assignment);
        if known
            .as_ref()
            .is_some_and(|known| known.spec == assignment.spec && same_object(known, &assignment))
        {
            return Ok(false);
        }
        let (key, row) = (name.clone(), assignment.clone());
        let gone = known.filter(|known| trigger_key(known) != trigger_key(&assignment));
        self.ledger
            .write(move |tables| {
                gone.iter().try_for_each(|gone| depart(tables, gone))?;
                tables.put(TABLE, &key, &row)
            })
            .await?;
        self.write(|all| {
            let mut assigned = new(assignment);
            // What ran for an object that is gone is none of this one's business.
            let same = |known: &&Assigned| is_of_one_object(&known.assignment, &assigned.assignment);
            if let Some(known) = all.get(&name).filter(same) {
                assigned.running.clone_from(&known.running);
                if let Some(bundle) = known.progress.bundle().cloned() {
                    let message = "a new generation is being prepared".to_owned();
                    assigned.progress =
                        Progress::Blocked { reason: "Preparing", message, bundle: Some(bundle) };
                }
            }
            all.insert(name, assigned);
        });
        Ok(true)
    }

    pub(crate) async fn remove(&self, name: &str) -> Result<(), ledger::Error> {
        let (key, gone) = (name.to_owned(), self.get(name).map(|known| known.assignment));
        self.ledger
            .write(move |tables| {
                gone.iter().try_for_each(|gone| depart(tables, gone))?;
                tables.delete(RUNNING, &key)?;
                tables.delete(TABLE, &key).map(drop)
            })
            .await?;
        self.write(|all| all.remove(name));
        Ok(())
    }

    /// Notes that all of this very generation of an assignment is there: from now on the site works by it.
    pub(crate) async fn ready(
        &self,
        assignment: &Arc<Assignment>,
        bundle: Option<PathBuf>,
    ) -> Result<(), ledger::Error> {
        let known = self.get(assignment.name());
        if known.and_then(|known| known.running).is_none_or(|running| running != *assignment) {
            let row = assignment.clone();
            self.ledger.write(move |tables| tables.put(RUNNING, row.name(), &*row)).await?;
            self.write(|all| {
                if let Some(known) =
                    all.get_mut(assignment.name()).filter(|known| Arc::ptr_eq(&known.assignment, assignment))
                {
                    known.running = Some(assignment.clone());
                    known.progress = Progress::Ready { bundle: bundle.clone() };
                }
            });
        }
        self.note(assignment, Progress::Ready { bundle });
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

/// The uid of the application that an assignment of this name is of; `None` if there is none.
pub(crate) fn application_of(tables: &Tables, name: &str) -> Result<Option<String>, ledger::Error> {
    #[derive(Deserialize)]
    struct Row {
        spec: Spec,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Spec {
        application_uid: String,
    }
    Ok(tables.get::<Row>(TABLE, name)?.map(|row| row.spec.application_uid))
}

fn new(assignment: Assignment) -> Assigned {
    Assigned { assignment: Arc::new(assignment), running: None, progress: Progress::New }
}

fn is_of_one_object(left: &Assignment, right: &Assignment) -> bool {
    left.metadata.uid == right.metadata.uid
}

fn same_object(left: &Assignment, right: &Assignment) -> bool {
    is_of_one_object(left, right) && left.metadata.generation == right.metadata.generation
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn assignment(uid: &str, generation: i64, handler: &str) -> Assignment {
        let artifact = json!({"digest": types::Digest::of(handler.as_bytes()), "size": 1});
        let function =
            json!({"name": "f", "spec": {"runtime": "shell", "handler": handler, "artifact": artifact}});
        serde_json::from_value(json!({
            "apiVersion": types::API_VERSION, "kind": "Assignment",
            "metadata": {"name": "a", "namespace": "edge", "uid": uid, "generation": generation},
            "spec": {"applicationNamespace": "default", "application": "app", "applicationUid": "u",
                "component": "c", "function": function},
        }))
        .unwrap()
    }

    fn handler(known: &Assigned) -> String {
        known.effective().spec.function.clone().unwrap().spec.handler
    }

    fn known(assignments: &Assignments) -> Assigned {
        assignments.get("a").unwrap()
    }

    #[tokio::test]
    async fn promise_1_what_runs_goes_on_over_a_restart_until_all_of_what_is_new_is_there() {
        let ledger = Ledger::memory().unwrap();
        let assignments = Assignments::load(ledger.clone()).unwrap();
        assignments.put(assignment("1", 1, "old")).await.unwrap();
        assert_eq!(handler(&known(&assignments)), "old", "nothing else is there to go on");
        let bundle = Some(PathBuf::from("old"));
        assignments.ready(&known(&assignments).assignment, bundle.clone()).await.unwrap();

        assignments.put(assignment("1", 2, "new")).await.unwrap();
        assert_eq!(handler(&known(&assignments)), "old");
        assert_eq!(known(&assignments).progress.bundle(), bundle.as_ref());
        let restarted = Assignments::load(ledger.clone()).unwrap();
        assert_eq!(handler(&known(&restarted)), "old");
        assert!(known(&restarted).kept().is_some());

        let superseded = known(&restarted).assignment;
        restarted.put(assignment("1", 3, "newer")).await.unwrap();
        restarted.note(&superseded, Progress::Ready { bundle: None });
        assert_eq!(handler(&known(&restarted)), "old", "what was prepared is no longer wanted");
        restarted.ready(&known(&restarted).assignment, Some("newer".into())).await.unwrap();
        assert_eq!(handler(&known(&restarted)), "newer");
        assert!(known(&restarted).kept().is_none());
        assert_eq!(handler(&known(&Assignments::load(ledger).unwrap())), "newer");
    }

    #[tokio::test]
    async fn what_ran_for_an_object_that_is_gone_is_forgotten() {
        let ledger = Ledger::memory().unwrap();
        let assignments = Assignments::load(ledger.clone()).unwrap();
        assignments.put(assignment("1", 1, "old")).await.unwrap();
        assignments.ready(&known(&assignments).assignment, None).await.unwrap();
        assignments.put(assignment("2", 1, "another")).await.unwrap();
        assert_eq!(handler(&known(&assignments)), "another");
        assert_eq!(handler(&known(&Assignments::load(ledger.clone()).unwrap())), "another");
        assignments.remove("a").await.unwrap();
        assignments.put(assignment("3", 1, "third")).await.unwrap();
        assert_eq!(handler(&known(&Assignments::load(ledger).unwrap())), "third");
    }
}
