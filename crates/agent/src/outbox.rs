//! Outputs for other sites, kept until the hub has them.

mod sending;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use store::ledger::{self, Ledger, Tables};
use tokio::sync::watch;
use types::{Digest, OutputsStatus, Time};

use crate::Error;
use crate::parts::Pace;
use crate::tally::Tally;
pub(crate) use sending::send_all;

/// Id → [`Parcel`].
const TABLE: &str = "outbox";
/// `turn id` → [`Turn`]: the same in the order in which they came.
const ORDER: &str = "outbox-order";
/// What the hub refused: id → [`Parcel`]. It is kept, told of and tried again.
const REFUSED: &str = "outbox-refused";

/// From how many bytes on a parcel is a large one, beside which small ones pass.
const LARGE: u64 = 1 << 20;
/// How long an output may wait before that is worth telling.
const LATE: Duration = Duration::from_secs(600);
/// How old what is told of the outbox may be: to look through it takes time where much is in it.
const LOOK: Duration = Duration::from_secs(30);
/// How long a reason for a refusal may be, in characters.
const LONGEST_REASON: usize = 500;
/// By which factor the number of late outputs must have changed to be told again.
const CHANGED: f64 = 1.5;

/// One output on its way to one site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Parcel {
    /// The same however often it is made; also the name of its file.
    pub id: String,
    pub assignment: String,
    pub site: String,
    pub bucket: String,
    pub key: String,
    pub digest: Digest,
    pub size: u64,
    /// Set where it is no output but what became of an attempt that was run for the other site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<ResultOf>,
}

/// A parcel as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    parcel: Parcel,
    /// Its place in the order: when it came, in microseconds. Of those of older versions it is 0.
    #[serde(default)]
    turn: u64,
    /// Why the hub refused it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
}

impl Kept {
    fn turn_key(&self) -> String {
        format!("{:020} {}", self.turn, self.parcel.id)
    }

    /// Puts it where it has its turn.
    fn put(&self, tables: &Tables) -> Result<(), ledger::Error> {
        let Parcel { id, site, size, .. } = &self.parcel;
        let turn = Turn { id: id.clone(), site: site.clone(), size: *size };
        tables.delete(REFUSED, id)?;
        tables.put(ORDER, &self.turn_key(), &turn)?;
        tables.put(TABLE, id, self)
    }

    /// Whether another is for the same site, and made by the same component.
    fn is_like(&self, other: &Self) -> bool {
        let (one, other) = (&self.parcel, &other.parcel);
        (&one.site, &one.assignment) == (&other.site, &other.assignment)
    }

    fn remove(&self, tables: &Tables) -> Result<(), ledger::Error> {
        tables.delete(ORDER, &self.turn_key())?;
        tables.delete(TABLE, &self.parcel.id).map(drop)
    }
}

/// Whose result a parcel is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ResultOf {
    /// This site.
    pub site: String,
    /// What the hub gave it to prove that it was asked to.
    pub ticket: String,
}

/// What decides whose turn it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Turn {
    id: String,
    site: String,
    size: u64,
}

/// Parcels of the one size don't wait for those of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Size {
    Small,
    Large,
}

impl Size {
    fn of(bytes: u64) -> Self {
        if bytes < LARGE { Self::Small } else { Self::Large }
    }
}

/// The outbox. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Outbox {
    ledger: Ledger,
    folder: PathBuf,
    /// How many parcels of each assignment have not reached the hub.
    undelivered: Tally,
    changed: watch::Sender<u64>,
    pace: Pace,
    memory: Arc<Mutex<Memory>>,
}

/// What need not outlive the process.
#[derive(Default)]
struct Memory {
    /// After which turn to go on, so that what failed comes again only after all others.
    after: HashMap<Size, String>,
    /// Sites whose boxes take nothing until then.
    full: HashMap<String, Instant>,
    told: Option<(Instant, OutputsStatus)>,
}

fn all_of(tables: &Tables, table: &str) -> Result<Vec<Kept>, ledger::Error> {
    let all: Vec<(String, Kept)> = tables.range(table, "", "", usize::MAX)?;
    Ok(all.into_iter().map(|(_, kept)| kept).collect())
}

fn microseconds(time: Time) -> u64 {
    u64::try_from(time.0.as_microsecond()).unwrap_or_default()
}

impl Outbox {
    pub(crate) fn open(ledger: Ledger, folder: PathBuf) -> Result<Self, ledger::Error> {
        let undelivered = Tally::default();
        for table in [TABLE, REFUSED] {
            let all = ledger.read(|tables| all_of(tables, table))?;
            all.iter().for_each(|kept| undelivered.change(&kept.parcel.assignment, 1));
        }
        let (changed, memory) = (watch::Sender::new(0), Arc::default());
        Ok(Self { ledger, folder, undelivered, changed, pace: Pace::default(), memory })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells when something was added or delivered.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Where a parcel's content is.
    pub(crate) fn file(&self, id: &str) -> PathBuf {
        self.folder.join(id)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes, and counts by how many there are more or fewer of which assignment then.
    async fn write(
        &self,
        change: impl FnOnce(&Tables) -> Result<Vec<(String, i64)>, ledger::Error> + Send + 'static,
    ) -> Result<(), ledger::Error> {
        let (changed, undelivered) = (self.changed.clone(), self.undelivered.clone());
        let after = move |changes: Vec<(String, i64)>| {
            changes.iter().for_each(|(assignment, by)| undelivered.change(assignment, *by));
            changed.send_modify(|count| *count += 1);
        };
        self.ledger.write_then(change, after).await
    }

    /// Takes parcels in; their files must be in place, durably.
    pub(crate) async fn add(&self, parcels: Vec<Parcel>) -> Result<(), ledger::Error> {
        let now = daemon::now();
        self.write(move |tables| {
            let mut new = Vec::new();
            for parcel in parcels {
                let known: Option<Kept> = tables.get(TABLE, &parcel.id)?;
                if known.is_none() && tables.get::<IgnoredAny>(REFUSED, &parcel.id)?.is_none() {
                    new.push((parcel.assignment.clone(), 1));
                }
                let turn = known.map_or_else(|| microseconds(now), |known| known.turn);
                Kept { parcel, turn, refusal: None }.put(tables)?;
            }
            Ok(new)
        })
        .await
    }

    /// How many parcels of an assignment have not reached the hub. Costs the same however many there are.
    pub(crate) fn count(&self, assignment: &str) -> u64 {
        self.undelivered.of(assignment)
    }

    /// Ids of all parcels, which are the names of their files.
    pub(crate) fn ids(&self) -> Result<HashSet<String>, ledger::Error> {
        let all = self.ledger.read(|tables| all_of(tables, TABLE))?;
        Ok(all.into_iter().map(|kept| kept.parcel.id).collect())
    }

    /// The next parcel to send: the oldest that was not tried since all others were. None if nothing is to be sent now.
    fn next(&self, size: Size) -> Result<Option<Kept>, ledger::Error> {
        let (after, full) = {
            let mut memory = self.memory();
            memory.full.retain(|_, until| *until > Instant::now());
            (memory.after.get(&size).cloned().unwrap_or_default(), memory.full.clone())
        };
        let fits = |turn: &Turn| Size::of(turn.size) == size && !full.contains_key(&turn.site);
        let found = self.ledger.read(|tables| {
            let mut found = find(tables, &after, &fits)?;
            if found.is_none() && !after.is_empty() {
                found = find(tables, "", &fits)?;
            }
            let Some((key, turn)) = found else { return Ok(None) };
            Ok::<_, ledger::Error>(tables.get::<Kept>(TABLE, &turn.id)?.map(|kept| (key, kept)))
        })?;
        let Some((key, kept)) = found else { return Ok(None) };
        self.memory().after.insert(size, key);
        Ok(Some(kept))
    }

    /// Nothing is sent to a site for a while.
    fn is_full(&self, site: &str, during: Duration) {
        self.memory().full.insert(site.to_owned(), Instant::now() + during);
    }

    async fn done(&self, kept: Kept) -> Result<(), Error> {
        let file = self.file(&kept.parcel.id);
        self.write(move |tables| {
            kept.remove(tables)?;
            // What is taken of one may be taken of its like.
            all_of(tables, REFUSED)?
                .iter()
                .filter(|other| other.is_like(&kept))
                .try_for_each(|like| like.put(tables))?;
            Ok(vec![(kept.parcel.assignment, -1)])
        })
        .await?;
        tokio::fs::remove_file(&file).await.map_err(|error| Error::disk(&file, error))
    }

    async fn refused(&self, kept: Kept, why: &str) -> Result<(), ledger::Error> {
        let kept = Kept { refusal: Some(why.chars().take(LONGEST_REASON).collect()), ..kept };
        self.write(move |tables| {
            kept.remove(tables)?;
            tables.put(REFUSED, &kept.parcel.id, &kept)?;
            Ok(vec![])
        })
        .await?;
        self.memory().told = None;
        Ok(())
    }

    /// After a start: all has its turn, what was refused before, too.
    pub(crate) async fn begin(&self) -> Result<(), ledger::Error> {
        self.write(|tables| {
            all_of(tables, REFUSED)?.iter().try_for_each(|kept| kept.put(tables))?;
            // Older versions kept no order.
            let all = all_of(tables, TABLE)?;
            all.iter().filter(|kept| kept.turn == 0).try_for_each(|kept| kept.put(tables))?;
            Ok(vec![])
        })
        .await
    }

    /// Puts one of what was refused back, for each site and assignment: if it is taken now, its like follow.
    async fn retry_some_refused(&self) -> Result<(), ledger::Error> {
        self.write(|tables| {
            let mut some: Vec<Kept> = Vec::new();
            for kept in all_of(tables, REFUSED)? {
                if !some.iter().any(|other| other.is_like(&kept)) {
                    some.push(kept);
                }
            }
            some.iter().try_for_each(|kept| kept.put(tables))?;
            Ok(vec![])
        })
        .await
    }

    /// What the hub is told of the outbox.
    pub(crate) fn status(&self) -> OutputsStatus {
        if let Some((when, told)) = &self.memory().told
            && when.elapsed() < LOOK
        {
            return told.clone();
        }
        // Where the records can't be read there are others who say so.
        let status = self.look(daemon::now()).unwrap_or_default();
        self.memory().told = Some((Instant::now(), status.clone()));
        status
    }

    fn look(&self, now: Time) -> Result<OutputsStatus, ledger::Error> {
        let late = microseconds(now).saturating_sub(u64::try_from(LATE.as_micros()).unwrap_or(u64::MAX));
        self.ledger.read(|tables| {
            let refused = all_of(tables, REFUSED)?;
            let mut status = OutputsStatus {
                refused: refused.len() as u64,
                reason: refused.last().and_then(|kept| kept.refusal.clone()).unwrap_or_default(),
                ..OutputsStatus::default()
            };
            // Those that were refused once and are tried again are not late, but refused.
            let turns: Vec<(String, Turn)> = tables.range(ORDER, "", "", usize::MAX)?;
            let late = format!("{late:020}");
            for (_, turn) in turns.iter().take_while(|(key, _)| *key < late) {
                status.late += 1;
                status.late_bytes += turn.size;
            }
            Ok(status)
        })
    }

    /// Metrics in the text form of Prometheus.
    pub(crate) fn text(&self) -> String {
        let status = self.status();
        let waiting = self.ledger.read(|tables| tables.count(TABLE, "")).unwrap_or_default();
        let values = BTreeMap::from([
            ("avocet_outbox_outputs", ("Outputs that have yet to reach the hub.", waiting)),
            ("avocet_outbox_late_outputs", ("Of those, how many wait for over ten minutes.", status.late)),
            (
                "avocet_outbox_late_bytes",
                ("Bytes of outputs that wait for over ten minutes.", status.late_bytes),
            ),
            (
                "avocet_outbox_refused_outputs",
                ("Outputs that the hub refused; they are kept.", status.refused),
            ),
        ]);
        let lines = values.iter().map(|(name, (help, value))| {
            format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n")
        });
        lines.collect()
    }
}

/// The first turn after one that `fits`.
fn find(
    tables: &Tables,
    after: &str,
    fits: &impl Fn(&Turn) -> bool,
) -> Result<Option<(String, Turn)>, ledger::Error> {
    /// How many turns are looked at at once.
    const PAGE: usize = 64;
    let mut after = after.to_owned();
    loop {
        let page: Vec<(String, Turn)> = tables.range(ORDER, "", &after, PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(None) };
        after.clone_from(last);
        if let Some(found) = page.into_iter().find(|(_, turn)| fits(turn)) {
            return Ok(Some(found));
        }
    }
}

/// Whether what is told of the outbox changed so much that it matters to anybody.
pub(crate) fn is_news(told: &OutputsStatus, now: &OutputsStatus) -> bool {
    (told.refused, &told.reason) != (now.refused, &now.reason)
        || crate::links::differs(told.late as f64, now.late as f64, CHANGED, 0.0)
}
