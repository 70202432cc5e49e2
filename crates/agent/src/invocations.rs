//! Every run of a function: what it was for, how far it is, how it ended.
//!
//! An invocation's id is a hash of what it is for, so the same event makes the same invocation however often it
//! is told, and its outputs appear once (promise 3).

mod departed;
mod ended;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use store::ledger::{self, Ledger, Tables};
use tokio::sync::watch;
use types::{Assignment, Digest, InvocationCounts, Time};

use crate::assignments::application_of;
use crate::tally::Tally;
pub(crate) use departed::depart;
pub(crate) use ended::Bounds;

const TABLE: &str = "invocations";
/// Ids of invocations that have not ended, so that a start does not read the whole history.
const OPEN: &str = "open-invocations";
const COUNTS: &str = "invocation-counts";
const ARMED: &str = "armed-triggers";
const CURSOR: &str = "cursors";

/// Why an invocation failed whose component left the site before it ran.
pub(crate) const UNASSIGNED_REASON: &str = "Unassigned";

/// How far an invocation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Waits for its turn.
    Pending,
    /// Its process runs.
    Running,
    /// Another site has it.
    Offloaded,
    /// Its process succeeded; its outputs are being published.
    Publishing,
    /// Ended well, and its outputs are published.
    Succeeded,
    /// Ended badly; it can be replayed.
    Failed,
}

/// One output of an invocation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// The bucket that it goes to.
    pub bucket: String,
    /// The key that it gets.
    pub key: String,
    /// The sites that it goes to.
    pub sites: Vec<String>,
    /// Path below the invocation's output folder.
    pub file: String,
    /// Size in bytes.
    pub size: u64,
}

/// Who has an invocation that another site runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Handover {
    /// The other site.
    pub site: String,
    /// What the attempt goes by: a result of any other is dropped.
    pub attempt: String,
}

/// One run of a function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Invocation {
    /// A hash of what it is for.
    pub id: String,
    /// The site where it runs.
    pub site: String,
    /// The assignment that it belongs to.
    pub assignment: String,
    /// The application.
    pub application: String,
    /// Tells the application from another one of the same name; empty in records of older versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub application_uid: String,
    /// The component.
    pub component: String,
    /// The function.
    pub function: String,
    /// The bucket of its input; empty for a request.
    pub bucket: String,
    /// The key of its input, or for a request the name of the file.
    pub key: String,
    /// The input's ETag.
    pub etag: String,
    /// How far it is.
    pub state: State,
    /// How many times it was started and ended by itself.
    pub attempts: u32,
    /// How many times it was cut off by the end of the agent.
    pub interruptions: u32,
    /// Why it failed: a word for programs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why it failed: a sentence for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When the event arrived.
    pub created: Time,
    /// Grows from each invocation of the site to the next: tells the order within a second.
    #[serde(default)]
    pub sequence: u64,
    /// When it last began or ended.
    pub changed: Time,
    /// How long its process took, in milliseconds.
    pub duration_milliseconds: u64,
    /// What it made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<Output>,
    /// Who has it while it is `Offloaded`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handover: Option<Handover>,
    /// How many times another site was handed it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub handovers: u32,
    /// The other site that ran it last; empty if this one did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ran_at: String,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// What an object is for a trigger.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub bucket: String,
    pub key: String,
    pub etag: String,
}

impl Invocation {
    /// The invocation of an assignment's function for an input; `None` if it has no function.
    pub(crate) fn new(assignment: &Assignment, input: Input, now: Time) -> Option<Self> {
        let function = assignment.spec.function.as_ref()?;
        let spec = &assignment.spec;
        let revision = serde_json::to_string(&function.spec).unwrap_or_default();
        let identity =
            [&spec.application_uid, &spec.component, &revision, &input.bucket, &input.key, &input.etag];
        let hash = Digest::of(identity.map(String::as_str).join("\0").as_bytes());
        Some(Self {
            id: hash.hex().chars().take(40).collect(),
            site: assignment.namespace().to_owned(),
            assignment: assignment.name().to_owned(),
            application: spec.application.clone(),
            application_uid: spec.application_uid.clone(),
            component: spec.component.clone(),
            function: function.name.clone(),
            bucket: input.bucket,
            key: input.key,
            etag: input.etag,
            state: State::Pending,
            attempts: 0,
            interruptions: 0,
            reason: String::new(),
            message: String::new(),
            created: now,
            sequence: 0,
            changed: now,
            duration_milliseconds: 0,
            outputs: vec![],
            handover: None,
            handovers: 0,
            ran_at: String::new(),
        })
    }

    /// Whether it is of what is assigned, and not of another application of the same name.
    pub(crate) fn is_of(&self, assignment: &Assignment) -> bool {
        let uid = &self.application_uid;
        self.assignment == assignment.name() && (uid.is_empty() || *uid == assignment.spec.application_uid)
    }

    /// The [`trigger_key`] of its component.
    fn trigger(&self) -> String {
        format!("{}/{}", self.application_uid, self.component)
    }

    /// Whether it has come to its end.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Succeeded | State::Failed)
    }
}

/// All invocations of a site, and the queue of those that wait. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Invocations {
    ledger: Ledger,
    waiting: Arc<Mutex<BTreeMap<String, VecDeque<String>>>>,
    /// How many of each assignment have not ended.
    open: Tally,
    /// Failures that were forgotten since the start.
    forgotten: Arc<AtomicU64>,
    changed: watch::Sender<u64>,
    logs: PathBuf,
    /// What ran when the agent last ended, until it runs again.
    cut_off: Arc<Mutex<BTreeSet<String>>>,
}

impl Invocations {
    /// Takes up what was open when the agent last ended; the logs of invocations are in that folder.
    pub(crate) fn load(ledger: Ledger, logs: PathBuf) -> Result<Self, ledger::Error> {
        let mut open: Vec<Invocation> = ledger.read(|tables| {
            let ids: Vec<(String, String)> = tables.range(OPEN, "", "", usize::MAX)?;
            let found: Result<Vec<Option<Invocation>>, _> =
                ids.iter().map(|(id, _)| tables.get(TABLE, id)).collect();
            Ok::<_, ledger::Error>(found?.into_iter().flatten().collect())
        })?;
        open.sort_by_key(|invocation| invocation.sequence);
        let running = open.iter().filter(|invocation| invocation.state == State::Running);
        let cut_off = Arc::new(Mutex::new(running.map(|invocation| invocation.id.clone()).collect()));
        let tally = Tally::default();
        open.iter().for_each(|invocation| tally.change(&invocation.assignment, 1));
        let mut waiting: BTreeMap<String, VecDeque<String>> = BTreeMap::new();
        for invocation in open.into_iter().filter(|invocation| invocation.state != State::Offloaded) {
            waiting.entry(invocation.assignment).or_default().push_back(invocation.id);
        }
        Ok(Self {
            ledger,
            waiting: Arc::new(Mutex::new(waiting)),
            open: tally,
            forgotten: Arc::default(),
            changed: watch::Sender::new(0),
            logs,
            cut_off,
        })
    }

    /// Tells of every change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn get(&self, id: &str) -> Result<Option<Invocation>, ledger::Error> {
        self.ledger.read(|tables| tables.get(TABLE, id))
    }

    /// All invocations, newest first, up to a limit.
    pub(crate) fn list(&self, limit: usize) -> Result<Vec<Invocation>, ledger::Error> {
        let rows: Vec<(String, Invocation)> =
            self.ledger.read(|tables| tables.range(TABLE, "", "", usize::MAX))?;
        let mut all: Vec<Invocation> = rows.into_iter().map(|(_, invocation)| invocation).collect();
        all.sort_by_key(|invocation| std::cmp::Reverse(invocation.sequence));
        all.truncate(limit);
        Ok(all)
    }

    /// How many of an assignment's invocations are in which state. Costs the same however many there are.
    pub(crate) fn counts(&self, assignment: &Assignment) -> Result<InvocationCounts, ledger::Error> {
        let (name, uid) = (assignment.name(), &assignment.spec.application_uid);
        let mut counts = self.ledger.read(|tables| counts_of(tables, name, uid))?;
        counts.pending = self.open.of(name);
        Ok(counts)
    }

    /// Ids of invocations that have not ended and wait for their turn: at the start, all that have not ended.
    pub(crate) fn open_ids(&self) -> HashSet<String> {
        self.lock().values().flatten().cloned().collect()
    }

    /// Whether an invocation ran when the agent last ended; answers so once.
    pub(crate) fn was_cut_off(&self, id: &str) -> bool {
        self.cut_off.lock().unwrap_or_else(PoisonError::into_inner).remove(id)
    }

    /// Whether an invocation of an assignment waits.
    pub(crate) fn has_waiting(&self, assignment: &str) -> bool {
        self.lock().get(assignment).is_some_and(|waiting| !waiting.is_empty())
    }

    /// The oldest invocation of an assignment that waits.
    pub(crate) fn take_waiting(&self, assignment: &str) -> Option<String> {
        self.lock().get_mut(assignment)?.pop_front()
    }

    /// Takes all out of the queue that waits for assignments other than these; answers it by assignment.
    pub(crate) fn take_others(&self, assignments: &BTreeSet<String>) -> Vec<(String, Vec<String>)> {
        let mut waiting = self.lock();
        let others = waiting.extract_if(.., |name, _| !assignments.contains(name));
        others.map(|(name, ids)| (name, ids.into())).collect()
    }

    /// How many invocations of an assignment wait.
    pub(crate) fn waiting(&self, assignment: &str) -> usize {
        self.lock().get(assignment).map_or(0, VecDeque::len)
    }

    /// How many invocations wait at all.
    pub(crate) fn all_waiting(&self) -> usize {
        self.lock().values().map(VecDeque::len).sum()
    }

    /// The invocations of an assignment that would wait longest, up to a limit, the last first.
    pub(crate) fn last_waiting(&self, assignment: &str, limit: usize) -> Vec<String> {
        let waiting = self.lock();
        waiting.get(assignment).into_iter().flat_map(|ids| ids.iter().rev().take(limit).cloned()).collect()
    }

    /// Takes an invocation out of the queue; answers whether it was there.
    pub(crate) fn withdraw(&self, assignment: &str, id: &str) -> bool {
        let mut waiting = self.lock();
        let Some(ids) = waiting.get_mut(assignment) else { return false };
        let found = ids.iter().rposition(|known| known == id);
        found.is_some_and(|index| ids.remove(index).is_some())
    }

    /// The invocations that other sites have.
    pub(crate) fn offloaded(&self) -> Result<Vec<Invocation>, ledger::Error> {
        self.ledger.read(|tables| {
            let ids: Vec<(String, String)> = tables.range(OPEN, "", "", usize::MAX)?;
            let found: Result<Vec<Option<Invocation>>, _> =
                ids.iter().map(|(id, _)| tables.get(TABLE, id)).collect();
            let open = found?.into_iter().flatten();
            Ok(open.filter(|invocation: &Invocation| invocation.state == State::Offloaded).collect())
        })
    }

    /// Puts an invocation (back) into the queue.
    pub(crate) fn wait(&self, assignment: &str, id: String) {
        self.lock().entry(assignment.to_owned()).or_default().push_back(id);
        self.tell();
    }

    /// Up to which change of the objects events were taken.
    pub(crate) fn cursor(&self) -> Result<u64, ledger::Error> {
        Ok(self.ledger.read(|tables| tables.get(CURSOR, "objects"))?.unwrap_or(0))
    }

    /// Takes events in: those that are new become waiting invocations; one that is open or succeeded stays as it is. One
    /// that failed before waits again, unless a trigger is armed: then its input is nothing new. What is of components that
    /// left meanwhile is not taken. Notes how far the events were read, or that a trigger was armed, in the same commit.
    pub(crate) async fn admit(&self, new: Vec<Invocation>, mark: Mark) -> Result<(), ledger::Error> {
        let queue = self.clone();
        let now = daemon::now();
        let write = move |tables: &Tables| {
            let mut admitted = Vec::new();
            let mut sequence: u64 = tables.get(CURSOR, "invocations")?.unwrap_or(0);
            let mut assigned = BTreeMap::new();
            for mut invocation in new {
                let name = &invocation.assignment;
                let application = match assigned.get(name) {
                    Some(known) => known,
                    None => assigned.entry(name.clone()).or_insert(application_of(tables, name)?),
                };
                if application.as_ref().is_none_or(|uid| *uid != invocation.application_uid) {
                    continue;
                }
                sequence += 1;
                invocation.sequence = sequence;
                match tables.get::<Invocation>(TABLE, &invocation.id)? {
                    None => drop(put(tables, &invocation)?),
                    Some(known) if known.state == State::Failed && !mark.is_armed() => {
                        reopen(tables, known, now)?;
                    }
                    Some(_) => continue,
                }
                admitted.push((invocation.assignment, invocation.id));
            }
            tables.put(CURSOR, "invocations", &sequence)?;
            match mark {
                Mark::Cursor(sequence) => tables.put(CURSOR, "objects", &sequence)?,
                Mark::Armed { assignment, application, trigger } => {
                    if application_of(tables, &assignment)? == Some(application) {
                        departed::arm(tables, &trigger)?;
                    }
                }
                Mark::None => {}
            }
            Ok::<_, ledger::Error>(admitted)
        };
        let after = move |admitted: Vec<(String, String)>| {
            for (assignment, id) in admitted {
                queue.open.change(&assignment, 1);
                queue.wait(&assignment, id);
            }
        };
        self.ledger.write_then(write, after).await
    }

    /// Runs a failed invocation anew. Answers `None` if there is none of that id, and it unchanged if it has not
    /// failed, or its component is not at the site.
    pub(crate) async fn replay(&self, id: &str) -> Result<Option<Invocation>, ledger::Error> {
        let Some(known) = self.get(id)? else { return Ok(None) };
        self.admit(vec![known], Mark::None).await?;
        self.get(id)
    }

    /// The log of an invocation.
    pub(crate) fn log_file(&self, id: &str) -> PathBuf {
        self.logs.join(format!("{id}.log"))
    }

    /// Notes that an invocation is taken back from the site that had it, and lets it wait.
    pub(crate) async fn reclaim(&self, invocation: Invocation) -> Result<(), ledger::Error> {
        let queue = self.clone();
        let (assignment, id) = (invocation.assignment.clone(), invocation.id.clone());
        let write = move |tables: &Tables| {
            let mut counts = read_counts(tables, &invocation)?;
            counts.reclaimed += 1;
            write_counts(tables, &invocation, &counts)?;
            put(tables, &invocation)
        };
        let after = move |opened| {
            queue.open.change(&assignment, opened);
            queue.wait(&assignment, id);
        };
        self.ledger.write_then(write, after).await
    }

    /// Notes how far an invocation is.
    pub(crate) async fn update(&self, invocation: &Invocation) -> Result<(), ledger::Error> {
        let invocation = invocation.clone();
        let (told, assignment) = (self.clone(), invocation.assignment.clone());
        let write = move |tables: &Tables| {
            if invocation.has_ended() { end(tables, &invocation) } else { put(tables, &invocation) }
        };
        let after = move |opened| {
            told.open.change(&assignment, opened);
            told.tell();
        };
        self.ledger.write_then(write, after).await
    }

    /// In Prometheus' text format.
    pub(crate) fn text(&self) -> String {
        format!(
            "# HELP avocet_forgotten_failures_total Failed invocations that were forgotten, as there were too many\n\
             # TYPE avocet_forgotten_failures_total counter\n\
             avocet_forgotten_failures_total {}\n",
            self.forgotten.load(Relaxed)
        )
    }

    pub(crate) fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, VecDeque<String>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is noted together with new invocations.
pub(crate) enum Mark {
    /// Changes of objects were read up to this one.
    Cursor(u64),
    /// A trigger has seen what was there before it.
    Armed { assignment: String, application: String, trigger: String },
    /// Nothing.
    None,
}

impl Mark {
    pub(crate) fn armed(assignment: &Assignment) -> Self {
        Self::Armed {
            assignment: assignment.name().to_owned(),
            application: assignment.spec.application_uid.clone(),
            trigger: trigger_key(assignment),
        }
    }

    fn is_armed(&self) -> bool {
        matches!(self, Self::Armed { .. })
    }
}

/// Names the trigger of one component of one application.
pub(crate) fn trigger_key(assignment: &Assignment) -> String {
    format!("{}/{}", assignment.spec.application_uid, assignment.spec.component)
}

/// Keeps an invocation that has not ended; answers by how many more are open now.
fn put(tables: &Tables, invocation: &Invocation) -> Result<i64, ledger::Error> {
    tables.put(TABLE, &invocation.id, invocation)?;
    if tables.get::<IgnoredAny>(OPEN, &invocation.id)?.is_some() {
        return Ok(0);
    }
    tables.put(OPEN, &invocation.id, &invocation.assignment)?;
    Ok(1)
}

/// Keeps an invocation that has ended, and counts it; answers by how many more are open now.
fn end(tables: &Tables, invocation: &Invocation) -> Result<i64, ledger::Error> {
    tables.put(TABLE, &invocation.id, invocation)?;
    let was_open = tables.delete(OPEN, &invocation.id)?;
    let mut counts = read_counts(tables, invocation)?;
    match invocation.state {
        State::Succeeded => {
            counts.succeeded += 1;
            counts.offloaded += u64::from(!invocation.ran_at.is_empty());
        }
        _ => counts.failed += 1,
    }
    write_counts(tables, invocation, &counts)?;
    ended::note(tables, invocation)?;
    Ok(if was_open { -1 } else { 0 })
}

fn reopen(tables: &Tables, mut failed: Invocation, now: Time) -> Result<(), ledger::Error> {
    ended::take_back(tables, &failed)?;
    if failed.reason == UNASSIGNED_REASON {
        failed.reason.clear();
        failed.message.clear();
    }
    failed.state = State::Pending;
    failed.attempts = 0;
    failed.interruptions = 0;
    failed.handovers = 0;
    failed.ran_at.clear();
    failed.changed = now;
    let mut counts = read_counts(tables, &failed)?;
    counts.failed = counts.failed.saturating_sub(1);
    write_counts(tables, &failed, &counts)?;
    put(tables, &failed).map(drop)
}

/// Counts of one application are none of another of the same name. Older versions counted by the name alone.
fn counts_key(assignment: &str, application_uid: &str) -> String {
    format!("{assignment}/{application_uid}")
}

fn counts_of(tables: &Tables, assignment: &str, uid: &str) -> Result<InvocationCounts, ledger::Error> {
    let counts = tables.get(COUNTS, &counts_key(assignment, uid))?;
    Ok(counts.map_or_else(|| tables.get(COUNTS, assignment), |counts| Ok(Some(counts)))?.unwrap_or_default())
}

fn read_counts(tables: &Tables, invocation: &Invocation) -> Result<InvocationCounts, ledger::Error> {
    counts_of(tables, &invocation.assignment, &invocation.application_uid)
}

fn write_counts(
    tables: &Tables,
    invocation: &Invocation,
    counts: &InvocationCounts,
) -> Result<(), ledger::Error> {
    let Invocation { assignment, application_uid, .. } = invocation;
    // What an older version counted goes on under the new key alone.
    tables.delete(COUNTS, assignment)?;
    tables.put(COUNTS, &counts_key(assignment, application_uid), counts)
}
