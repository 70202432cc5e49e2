//! Small records in named tables, durable once acknowledged.
//!
//! All writes go through one thread. It runs whatever waits as one SQLite transaction (each write in a savepoint
//! of its own, so that one that fails takes nothing with it) and commits once: the cost of an `fsync` is shared
//! by all who wait for it. Reads have a connection of their own and never wait for writers (WAL).

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

/// Why a ledger could not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite or the disk failed.
    #[error("the database failed; check the disk's space and health")]
    Database(#[from] rusqlite::Error),
    /// The commit that would have made the write durable failed; nothing of it was kept.
    #[error("the write could not be made durable: {0}; check the disk's space and health")]
    Commit(String),
    /// A record is not what its reader expects.
    #[error("record `{key}` of table `{table}` can't be read; was it written by a newer version?")]
    Record {
        table: String,
        key: String,
        #[source]
        source: serde_json::Error,
    },
    /// The ledger's thread has ended.
    #[error("the database is closed")]
    Closed,
}

/// What a write job leaves to be done once its fate is known.
type Completion = Box<dyn FnOnce(Result<(), String>) + Send>;
type Job = Box<dyn FnOnce(&Tables) -> (bool, Completion) + Send>;

/// How many writes may wait; beyond it writers wait to enter, which is the backpressure.
const QUEUE: usize = 4096;
/// How many writes share one commit at most; bounds how long the first of them waits.
const GROUP: usize = 512;

/// A durable set of tables. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    jobs: mpsc::SyncSender<Job>,
    reader: Arc<Mutex<Connection>>,
}

/// The tables, inside a read or a write.
pub struct Tables<'a>(&'a Connection);

impl Ledger {
    /// Opens or creates the file.
    ///
    /// # Errors
    /// If it can't be opened, or is damaged.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|error| Error::Commit(format!("{}: {error}", folder.display())))?;
        }
        let writer = Connection::open(path)?;
        writer.pragma_update(None, "journal_mode", "WAL")?;
        writer.pragma_update(None, "synchronous", "FULL")?;
        writer.pragma_update(None, "cache_size", -1024)?;
        let sound: String = writer.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if sound != "ok" {
            return Err(Error::Commit(format!("{} is damaged: {sound}; restore a backup", path.display())));
        }
        prepare(&writer)?;
        let reader = Connection::open(path)?;
        reader.pragma_update(None, "query_only", true)?;
        reader.pragma_update(None, "cache_size", -1024)?;
        reader.busy_timeout(Duration::from_secs(10))?;
        Ok(Self::start(writer, reader))
    }

    /// A ledger that lives and dies with the process.
    ///
    /// # Errors
    /// If SQLite has no memory for it.
    pub fn memory() -> Result<Self, Error> {
        // A shared cache gives the reader the writer's tables; the name keeps ledgers apart.
        let name = format!("file:{}?mode=memory&cache=shared", uuid::Uuid::new_v4());
        let writer = Connection::open(&name)?;
        prepare(&writer)?;
        let reader = Connection::open(&name)?;
        reader.pragma_update(None, "read_uncommitted", true)?;
        Ok(Self::start(writer, reader))
    }

    fn start(writer: Connection, reader: Connection) -> Self {
        let (jobs, queue) = mpsc::sync_channel(QUEUE);
        std::thread::spawn(move || write_groups(&writer, &queue));
        Self { jobs, reader: Arc::new(Mutex::new(reader)) }
    }

    /// Runs `change` in a transaction; once this answers `Ok`, the change survives a crash. If `change` answers
    /// `Err`, nothing of it is kept.
    ///
    /// # Errors
    /// Those of `change`, or of the commit.
    ///
    /// Not undone if the future is dropped.
    pub async fn write<T, E>(
        &self,
        change: impl FnOnce(&Tables) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.write_then(change, |done| done).await
    }

    /// The same, and once durable runs `after` on the writer's thread: in the order of the commits, before any
    /// later write begins to be answered.
    ///
    /// # Errors
    /// Those of `change`, or of the commit.
    pub async fn write_then<D, T, E>(
        &self,
        change: impl FnOnce(&Tables) -> Result<D, E> + Send + 'static,
        after: impl FnOnce(D) -> T + Send + 'static,
    ) -> Result<T, E>
    where
        D: Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let mut job: Job = Box::new(move |tables| {
            let outcome = change(tables);
            let keep = outcome.is_ok();
            let completion: Completion = Box::new(move |committed| {
                let outcome = match (outcome, committed) {
                    (Ok(done), Ok(())) => Ok(after(done)),
                    (Ok(_), Err(failure)) => Err(E::from(Error::Commit(failure))),
                    (Err(error), _) => Err(error),
                };
                let _ = answer.send(outcome);
            });
            (keep, completion)
        });
        loop {
            match self.jobs.try_send(job) {
                Ok(()) => break,
                Err(mpsc::TrySendError::Full(back)) => {
                    job = back;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(mpsc::TrySendError::Disconnected(_)) => return Err(Error::Closed.into()),
            }
        }
        answered.await.unwrap_or_else(|_| Err(Error::Closed.into()))
    }

    /// Reads a consistent view. Short reads only: readers wait for each other.
    ///
    /// # Errors
    /// Those of `look`.
    pub fn read<T, E: From<Error>>(&self, look: impl FnOnce(&Tables) -> Result<T, E>) -> Result<T, E> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let view = reader.unchecked_transaction().map_err(Error::from)?;
        look(&Tables(&view))
    }
}

fn prepare(connection: &Connection) -> Result<(), Error> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS records (
             tab TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (tab, key)
         ) WITHOUT ROWID",
    )?;
    Ok(())
}

fn write_groups(writer: &Connection, queue: &mpsc::Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        let waiting = queue.try_iter().take(GROUP - 1);
        let mut completions = Vec::new();
        let began = writer.execute_batch("BEGIN IMMEDIATE").map_err(|error| error.to_string());
        for job in std::iter::once(first).chain(waiting) {
            completions.push(run_in_savepoint(writer, job));
        }
        let committed =
            began.and_then(|()| writer.execute_batch("COMMIT").map_err(|error| error.to_string()));
        if committed.is_err() {
            let _ = writer.execute_batch("ROLLBACK");
        }
        for completion in completions {
            completion(committed.clone());
        }
    }
}

fn run_in_savepoint(writer: &Connection, job: Job) -> Completion {
    let opened = writer.execute_batch("SAVEPOINT one");
    let (keep, completion) = job(&Tables(writer));
    let closed = match (&opened, keep) {
        (Ok(()), true) => writer.execute_batch("RELEASE one"),
        (Ok(()), false) => writer.execute_batch("ROLLBACK TO one; RELEASE one"),
        (Err(_), _) => Ok(()),
    };
    match opened.and(closed) {
        Ok(()) => completion,
        Err(error) => {
            let failure = error.to_string();
            Box::new(move |_| completion(Err(failure)))
        }
    }
}

impl Tables<'_> {
    /// The record of that key.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn get<T: DeserializeOwned>(&self, table: &str, key: &str) -> Result<Option<T>, Error> {
        let mut query = self.0.prepare_cached("SELECT value FROM records WHERE tab = ? AND key = ?")?;
        let value: Option<String> = query.query_row(params![table, key], |row| row.get(0)).optional()?;
        value.map(|value| parse(table, key, &value)).transpose()
    }

    /// Up to `limit` records whose keys begin with `prefix` and come after `after`, in the order of keys.
    ///
    /// # Errors
    /// If one can't be read.
    pub fn range<T: DeserializeOwned>(
        &self,
        table: &str,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(String, T)>, Error> {
        let mut query = self.0.prepare_cached(
            "SELECT key, value FROM records WHERE tab = ?1 AND key >= ?2 AND key < ?3 AND key > ?4
             ORDER BY key LIMIT ?5",
        )?;
        let end = format!("{prefix}\u{10ffff}");
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = query.query_map(params![table, prefix, end, after, limit], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })?;
        rows.map(|row| {
            let (key, value) = row?;
            let value = parse(table, &key, &value)?;
            Ok((key, value))
        })
        .collect()
    }

    /// The greatest key of a table.
    ///
    /// # Errors
    /// If the database fails.
    pub fn last_key(&self, table: &str) -> Result<Option<String>, Error> {
        let mut query = self.0.prepare_cached("SELECT max(key) FROM records WHERE tab = ?")?;
        Ok(query.query_row(params![table], |row| row.get(0))?)
    }

    /// How many records have keys that begin with `prefix`.
    ///
    /// # Errors
    /// If the database fails.
    pub fn count(&self, table: &str, prefix: &str) -> Result<u64, Error> {
        let mut query =
            self.0.prepare_cached("SELECT count(*) FROM records WHERE tab = ? AND key >= ? AND key < ?")?;
        let end = format!("{prefix}\u{10ffff}");
        let count: i64 = query.query_row(params![table, prefix, end], |row| row.get(0))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Writes a record, replacing one of the same key.
    ///
    /// # Errors
    /// If the database fails.
    pub fn put<T: Serialize>(&self, table: &str, key: &str, value: &T) -> Result<(), Error> {
        let value = serde_json::to_string(value).map_err(|source| Error::Record {
            table: table.to_owned(),
            key: key.to_owned(),
            source,
        })?;
        self.0
            .prepare_cached("INSERT OR REPLACE INTO records (tab, key, value) VALUES (?, ?, ?)")?
            .execute(params![table, key, value])?;
        Ok(())
    }

    /// Deletes a record; answers whether it was there.
    ///
    /// # Errors
    /// If the database fails.
    pub fn delete(&self, table: &str, key: &str) -> Result<bool, Error> {
        let deleted = self
            .0
            .prepare_cached("DELETE FROM records WHERE tab = ? AND key = ?")?
            .execute(params![table, key])?;
        Ok(deleted > 0)
    }
}

fn parse<T: DeserializeOwned>(table: &str, key: &str, value: &str) -> Result<T, Error> {
    serde_json::from_str(value).map_err(|source| Error::Record {
        table: table.to_owned(),
        key: key.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn put(ledger: &Ledger, key: &str, value: u32) -> Result<(), Error> {
        let key = key.to_owned();
        ledger.write(move |tables| tables.put("t", &key, &value)).await
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_there_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/ledger.db");
        put(&Ledger::open(&path).unwrap(), "a", 7).await.unwrap();
        let again = Ledger::open(&path).unwrap();
        assert_eq!(again.read(|tables| tables.get("t", "a")).unwrap(), Some(7));
    }

    #[tokio::test]
    async fn a_write_that_fails_takes_nothing_with_it() {
        let ledger = Ledger::memory().unwrap();
        let failing = ledger.write(|tables| {
            tables.put("t", "half", &1)?;
            Err::<(), _>(Error::Closed)
        });
        let (failed, kept) = tokio::join!(failing, put(&ledger, "whole", 2));
        assert!(failed.is_err() && kept.is_ok());
        let keys: Vec<(String, u32)> = ledger.read(|tables| tables.range("t", "", "", 10)).unwrap();
        assert_eq!(keys, [("whole".to_owned(), 2)]);
    }

    #[tokio::test]
    async fn ranges_keep_to_their_prefix_and_page_in_order() {
        let ledger = Ledger::memory().unwrap();
        for key in ["a/2", "a/1", "b/1", "a/3", "a0"] {
            put(&ledger, key, 0).await.unwrap();
        }
        let page: Vec<(String, u32)> = ledger.read(|tables| tables.range("t", "a/", "a/1", 10)).unwrap();
        assert_eq!(page.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), ["a/2", "a/3"]);
        assert_eq!(ledger.read(|tables| tables.count("t", "a/")).unwrap(), 3);
        assert_eq!(ledger.read(|tables| tables.last_key("t")).unwrap().as_deref(), Some("b/1"));
    }
}
