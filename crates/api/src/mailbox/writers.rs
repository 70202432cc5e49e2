//! Who may deliver what: what an Assignment of theirs writes, or wrote not long ago.
//!
//! A site that is cut off for weeks sends what it made meanwhile when it is back. By then the component may have moved,
//! the application may be gone, or write elsewhere; what was made is good all the same. So which paths the Assignments of
//! a site write is remembered when they are seen, which no site can bring about but by being assigned.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daemon::Shutdown;
use store::ledger::{self, Ledger};
use store::{Event, EventKind, Object, Store};
use types::{AssignmentSpec, BucketPath, Kind, Time};

use crate::Hub;
use crate::nesting::next_hop;

/// `sender path` → [`Written`].
const TABLE: &str = "mailbox-writers";
/// For how long what a site may write is remembered after it was last assigned, in seconds: 90 days.
const REMEMBERED: i64 = 90 * 24 * 3600;
/// How often it is noted that it still is, and what is older is forgotten.
const NOTED: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Written {
    sender: String,
    to: BucketPath,
    /// When it was last seen that an Assignment writes it.
    seen: Time,
}

impl Written {
    fn key(&self) -> String {
        format!("{} {} {}", self.sender, self.to.path, self.to.suffixes.join(" "))
    }

    fn is_fresh(&self, now: Time) -> bool {
        now.0.as_second() - self.seen.0.as_second() < REMEMBERED
    }
}

/// By sender and bucket.
type Known = HashMap<String, HashMap<String, Vec<Written>>>;

/// What sites may deliver. Cheap to clone.
#[derive(Clone)]
pub(super) struct Writers {
    ledger: Ledger,
    known: Arc<Mutex<Known>>,
}

impl Writers {
    pub fn open(ledger: Ledger) -> Result<Self, ledger::Error> {
        let rows: Vec<(String, Written)> = ledger.read(|tables| tables.range(TABLE, "", "", usize::MAX))?;
        let writers = Self { ledger, known: Arc::default() };
        rows.into_iter().for_each(|(_, written)| writers.put(written));
        Ok(writers)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, written: Written) {
        let mut known = self.known();
        let bucket = known.entry(written.sender.clone()).or_default();
        let bucket = bucket.entry(written.to.bucket().to_owned()).or_default();
        match bucket.iter_mut().find(|known| known.to == written.to) {
            Some(known) => *known = written,
            None => bucket.push(written),
        }
    }

    /// Whether a site, or one that is reached by it, was assigned not long ago to write there.
    pub fn allow(&self, sender: &str, bucket: &str, key: &str, now: Time) -> bool {
        let known = self.known();
        let written = known.get(sender).and_then(|buckets| buckets.get(bucket));
        written.into_iter().flatten().any(|written| written.is_fresh(now) && written.to.matches(bucket, key))
    }

    /// Forgets a site: one that gets its name is another.
    pub async fn forget(&self, sender: &str) -> Result<(), ledger::Error> {
        let Some(buckets) = self.known().remove(sender) else { return Ok(()) };
        let keys: Vec<String> = buckets.into_values().flatten().map(|written| written.key()).collect();
        self.ledger
            .write(move |tables| keys.iter().try_for_each(|key| tables.delete(TABLE, key).map(drop)))
            .await
    }

    /// Notes what Assignments write, or wrote until now, and forgets what is too old.
    async fn note(&self, news: Vec<Written>, now: Time) -> Result<(), ledger::Error> {
        let news: Vec<Written> = {
            let known = self.known();
            let is_noted = |written: &Written| {
                let there = known.get(&written.sender).and_then(|buckets| buckets.get(written.to.bucket()));
                there.into_iter().flatten().any(|known| {
                    let age = written.seen.0.as_second() - known.seen.0.as_second();
                    known.to == written.to && age < i64::try_from(NOTED.as_secs() / 2).unwrap_or(i64::MAX)
                })
            };
            news.into_iter().filter(|written| !is_noted(written)).collect()
        };
        let mut old = Vec::new();
        for written in self.known().values_mut().flat_map(HashMap::values_mut) {
            old.extend(written.extract_if(.., |written| !written.is_fresh(now)).map(|written| written.key()));
        }
        if news.is_empty() && old.is_empty() {
            return Ok(());
        }
        let rows = news.clone();
        self.ledger
            .write(move |tables| {
                old.iter().try_for_each(|key| tables.delete(TABLE, key).map(drop))?;
                rows.iter().try_for_each(|written| tables.put(TABLE, &written.key(), written))
            })
            .await?;
        news.into_iter().for_each(|written| self.put(written));
        Ok(())
    }

    /// Follows what is assigned, until the end.
    pub async fn follow(&self, hub: &Hub, shutdown: &Shutdown) -> Result<(), ledger::Error> {
        let (store, here) = (&hub.store, &hub.site);
        loop {
            let (objects, version) = store.list(AssignmentSpec::PLURAL, None);
            let now = daemon::now();
            let all = objects.iter().flat_map(|object| written(store, here, object, now)).collect();
            self.note(all, now).await?;
            let Ok(mut changes) = store.watch_kind(AssignmentSpec::PLURAL, version) else { continue };
            let again = tokio::time::sleep(NOTED);
            tokio::pin!(again);
            loop {
                let changes = tokio::select! {
                    () = shutdown.wait() => return Ok(()),
                    () = &mut again => break,
                    changes = changes.next() => changes,
                };
                let Ok(changes) = changes else { break };
                let now = daemon::now();
                let news = changes.iter().flat_map(concerned);
                let news = news.flat_map(|object| written(store, here, object, now)).collect();
                self.note(news, now).await?;
            }
        }
    }
}

/// The states of an Assignment that a change tells something new of.
fn concerned(change: &Event) -> impl Iterator<Item = &Object> {
    let before = change.previous.as_deref();
    let is_status = change.kind == EventKind::Modified
        && before.is_some_and(|before| before.metadata.generation == change.object.metadata.generation);
    [Some(&*change.object), before].into_iter().flatten().filter(move |_| !is_status)
}

/// What an Assignment writes, and who delivers it: its site, and the child of this hub by which that is reached.
fn written(store: &Store, here: &str, object: &Object, now: Time) -> Vec<Written> {
    let Ok(assignment) = object.resource::<AssignmentSpec>() else { return vec![] };
    let site = assignment.namespace().to_owned();
    let mut senders = vec![next_hop(store, here, &site).unwrap_or_else(|| site.clone()), site];
    senders.dedup();
    let outputs = assignment.spec.outputs.into_iter().map(|output| output.to);
    let written = outputs.flat_map(|to| {
        let each = senders.iter().map(|sender| Written { sender: sender.clone(), to: to.clone(), seen: now });
        each.collect::<Vec<_>>()
    });
    written.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        Time(jiff::Timestamp::from_second(second).unwrap())
    }

    fn written_at(second: i64) -> Written {
        let to = BucketPath { path: "photos/out".into(), suffixes: vec![".png".into()] };
        Written { sender: "plant".into(), to, seen: at(second) }
    }

    #[tokio::test]
    async fn what_a_site_was_to_write_is_remembered_for_its_time_and_over_a_restart() {
        let ledger = Ledger::memory().unwrap();
        let writers = Writers::open(ledger.clone()).unwrap();
        writers.note(vec![written_at(0)], at(0)).await.unwrap();
        for writers in [writers, Writers::open(ledger.clone()).unwrap()] {
            assert!(writers.allow("plant", "photos", "out/a.png", at(REMEMBERED - 1)));
            assert!(!writers.allow("plant", "photos", "out/a.png", at(REMEMBERED)));
            assert!(!writers.allow("plant", "photos", "out/a.gif", at(1)));
            assert!(!writers.allow("plant", "photos", "in/a.png", at(1)));
            assert!(!writers.allow("shop", "photos", "out/a.png", at(1)));
            // Noted again, it is good for longer.
            writers.note(vec![written_at(REMEMBERED / 2)], at(REMEMBERED / 2)).await.unwrap();
            assert!(writers.allow("plant", "photos", "out/a.png", at(REMEMBERED)));
        }
        let writers = Writers::open(ledger.clone()).unwrap();
        writers.note(vec![], at(2 * REMEMBERED)).await.unwrap();
        assert_eq!(ledger.read(|tables| tables.count(TABLE, "")).unwrap(), 0, "too old to be kept");
        writers.note(vec![written_at(0)], at(0)).await.unwrap();
        writers.forget("plant").await.unwrap();
        assert!(!writers.allow("plant", "photos", "out/a.png", at(1)));
        assert_eq!(ledger.read(|tables| tables.count(TABLE, "")).unwrap(), 0);
    }
}
