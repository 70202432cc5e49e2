//! Small records in named tables, durable once acknowledged.
//!
//! All writes go through one thread. It runs whatever waits as one SQLite transaction (each write in a savepoint
//! of its own, so that one that fails takes nothing with it) and commits once: the cost of an `fsync` is shared
//! by all who wait for it. Reads have a connection of their own and never wait for writers (WAL).

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use crate::{backup, format};

/// Why a ledger could not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite or the disk failed.
    #[error("the database failed; check the disk's space and health")]
    Database(#[from] rusqlite::Error),
    /// A file could not be read or written.
    #[error("the database's files can't be read or written; check the disk's space and health")]
    Disk(#[from] std::io::Error),
    /// The file is not as it was written.
    #[error(
        "{path} is damaged: {found}; restore a backup with `avocet restore BACKUP --data FOLDER --force`, which keeps \
         the damaged state aside"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
    },
    /// The file was written by a newer version.
    #[error(
        "the database is of format {format}, and this Avocet reads formats up to {known}; use Avocet {needs} or newer, or \
         restore a backup that an older one made"
    )]
    Newer {
        /// Its format.
        format: usize,
        /// The newest that is known.
        known: usize,
        /// The version that reads it.
        needs: String,
    },
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
/// A write, or what is left of it where its group can't be written.
type Job = Box<dyn FnOnce(Result<&Tables, &str>) -> Completion + Send>;

/// How many writes may wait; beyond it writers wait to enter, in the order in which they came, which is the backpressure.
const QUEUE: usize = 4096;
/// How many writes share one commit at most; bounds how long the first of them waits.
const GROUP: usize = 512;

/// A durable set of tables. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    jobs: mpsc::Sender<Job>,
    reader: Arc<Mutex<Connection>>,
    path: Arc<Path>,
}

/// The tables, inside a read or a write.
pub struct Tables<'a> {
    connection: &'a Connection,
    group: u64,
    /// Whether the write has changed anything yet; its savepoint is made just before.
    changed: Cell<bool>,
    /// Why what the write changed could not be taken back, which ends its group.
    stuck: Cell<Option<rusqlite::Error>>,
}

impl Ledger {
    /// Opens or creates the file, and brings one of an older format up to date.
    ///
    /// # Errors
    /// If it can't be opened, is damaged, or was written by a newer version.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let writer = Connection::open(path)?;
        check(&writer, path, "quick_check")?;
        writer.pragma_update(None, "journal_mode", "WAL")?;
        writer.pragma_update(None, "synchronous", "FULL")?;
        writer.pragma_update(None, "cache_size", -1024)?;
        format::prepare(&writer, Some(path))?;
        let reader = Connection::open(path)?;
        reader.pragma_update(None, "query_only", true)?;
        reader.pragma_update(None, "cache_size", -1024)?;
        reader.busy_timeout(Duration::from_secs(10))?;
        Ok(Self::start(writer, reader, path))
    }

    /// A ledger that lives and dies with the process.
    ///
    /// # Errors
    /// If SQLite has no memory for it.
    pub fn memory() -> Result<Self, Error> {
        // A shared cache gives the reader the writer's tables; the name keeps ledgers apart.
        let name = format!("file:{}?mode=memory&cache=shared", uuid::Uuid::new_v4());
        let writer = Connection::open(&name)?;
        format::prepare(&writer, None)?;
        let reader = Connection::open(&name)?;
        reader.pragma_update(None, "read_uncommitted", true)?;
        Ok(Self::start(writer, reader, Path::new(&name)))
    }

    fn start(writer: Connection, reader: Connection, path: &Path) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        std::thread::spawn(move || write_groups(&writer, queue));
        Self { jobs, reader: Arc::new(Mutex::new(reader)), path: path.into() }
    }

    /// Copies the ledger as it is at one moment, while it is read and written. Blocks.
    ///
    /// # Errors
    /// If the copy can't be written; no half copy is left under that name.
    pub fn backup(&self, to: &Path) -> Result<(), Error> {
        backup::copy_database(&self.path, to, |_, _| {})
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
        self.begin(change, after).await?.made().await
    }

    /// The same as far as the write's place among all writes goes: it is after all that began before. Those that begin
    /// without waiting for each other to be made share commits.
    ///
    /// # Errors
    /// If the ledger is closed.
    pub async fn begin<D, T, E>(
        &self,
        change: impl FnOnce(&Tables) -> Result<D, E> + Send + 'static,
        after: impl FnOnce(D) -> T + Send + 'static,
    ) -> Result<Begun<T, E>, Error>
    where
        D: Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |tables| {
            let outcome = match tables {
                Ok(tables) => change(tables).inspect_err(|_| tables.undo()),
                Err(failure) => Err(Error::Commit(failure.to_owned()).into()),
            };
            Box::new(move |committed| {
                let outcome = match (outcome, committed) {
                    (Ok(done), Ok(())) => Ok(after(done)),
                    (Ok(_), Err(failure)) => Err(E::from(Error::Commit(failure))),
                    (Err(error), _) => Err(error),
                };
                let _ = answer.send(outcome);
            })
        });
        self.jobs.send(job).await.map_err(|_| Error::Closed)?;
        Ok(Begun(answered))
    }

    /// Reads a consistent view. Short reads only: readers wait for each other.
    ///
    /// # Errors
    /// Those of `look`.
    pub fn read<T, E: From<Error>>(&self, look: impl FnOnce(&Tables) -> Result<T, E>) -> Result<T, E> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let view = reader.unchecked_transaction().map_err(Error::from)?;
        look(&Tables::of(&view, 0))
    }
}

/// A write that has its place among all others.
pub struct Begun<T, E>(oneshot::Receiver<Result<T, E>>);

impl<T, E: From<Error>> Begun<T, E> {
    /// Waits until it is durable. It goes on where nobody waits.
    ///
    /// # Errors
    /// Those of the change, or of the commit.
    pub async fn made(self) -> Result<T, E> {
        self.0.await.unwrap_or_else(|_| Err(Error::Closed.into()))
    }
}

/// Lets SQLite look for damage with one of its pragmas.
pub(crate) fn check(connection: &Connection, path: &Path, pragma: &str) -> Result<(), Error> {
    let damaged = |found: String| Error::Damaged { path: path.to_owned(), found };
    let found = connection.query_row(&format!("PRAGMA {pragma}(1)"), [], |row| row.get::<_, String>(0));
    match found {
        Ok(found) if found == "ok" => Ok(()),
        Ok(found) => Err(damaged(found)),
        Err(error) => match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Err(damaged(error.to_string())),
            _ => Err(error.into()),
        },
    }
}

/// Changes a database that no ledger has open.
pub(crate) fn with_tables<T>(
    connection: &Connection,
    change: impl FnOnce(&Tables) -> Result<T, Error>,
) -> Result<T, Error> {
    let transaction = connection.unchecked_transaction()?;
    let tables = Tables::of(&transaction, 0);
    let done = change(&tables)?;
    tables.close()?;
    transaction.commit()?;
    Ok(done)
}

fn write_groups(writer: &Connection, mut queue: mpsc::Receiver<Job>) {
    let mut group = 0;
    while let Some(first) = queue.blocking_recv() {
        group += 1;
        let more = std::iter::from_fn(|| queue.try_recv().ok());
        let jobs = std::iter::once(first).chain(more.take(GROUP - 1));
        let (completions, outcome) = write_group(writer, jobs, group);
        let outcome = outcome.map_err(|error| error.to_string());
        for completion in completions {
            completion(outcome.clone());
        }
    }
}

/// Runs jobs as one transaction. Either all that did not fail by themselves are durable then, or none.
fn write_group(
    writer: &Connection,
    jobs: impl Iterator<Item = Job>,
    group: u64,
) -> (Vec<Completion>, rusqlite::Result<()>) {
    let mut completions = Vec::new();
    let mut sound = execute(writer, "BEGIN IMMEDIATE");
    for job in jobs {
        match &sound {
            Ok(()) => {
                let tables = Tables::of(writer, group);
                completions.push(job(Ok(&tables)));
                sound = tables.close();
            }
            Err(error) => completions.push(job(Err(&error.to_string()))),
        }
    }
    let outcome = sound.and_then(|()| execute(writer, "COMMIT"));
    if outcome.is_err() && !writer.is_autocommit() {
        let _ = execute(writer, "ROLLBACK");
    }
    (completions, outcome)
}

/// Runs a statement that is prepared once.
fn execute(connection: &Connection, statement: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(statement)?.execute([]).map(drop)
}

impl<'a> Tables<'a> {
    fn of(connection: &'a Connection, group: u64) -> Self {
        Self { connection, group, changed: Cell::new(false), stuck: Cell::new(None) }
    }

    fn before_change(&self) -> rusqlite::Result<()> {
        if !self.changed.replace(true) {
            execute(self.connection, "SAVEPOINT one")?;
        }
        Ok(())
    }

    /// Takes back what the write changed.
    fn undo(&self) {
        if self.changed.get() {
            self.stuck.set(execute(self.connection, "ROLLBACK TO one").err());
        }
    }

    /// Ends the write.
    fn close(self) -> rusqlite::Result<()> {
        match self.stuck.into_inner() {
            Some(error) => Err(error),
            None if self.changed.get() => execute(self.connection, "RELEASE one"),
            None => Ok(()),
        }
    }
}

impl Tables<'_> {
    /// The record of that key.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn get<T: DeserializeOwned>(&self, table: &str, key: &str) -> Result<Option<T>, Error> {
        let mut query =
            self.connection.prepare_cached("SELECT value FROM records WHERE tab = ? AND key = ?")?;
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
        let mut query = self.connection.prepare_cached(
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

    /// Shows each record of a table as its key and its JSON, in the order of keys, without holding all of them.
    ///
    /// # Errors
    /// Those of `look`, or of the database.
    pub fn each_json<E: From<Error>>(
        &self,
        table: &str,
        mut look: impl FnMut(&str, &str) -> Result<(), E>,
    ) -> Result<(), E> {
        let query = "SELECT key, value FROM records WHERE tab = ? ORDER BY key";
        let mut query = self.connection.prepare_cached(query).map_err(Error::from)?;
        let mut rows = query.query([table]).map_err(Error::from)?;
        while let Some(row) = rows.next().map_err(Error::from)? {
            let text = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
            look(text(0).map_err(Error::from)?, text(1).map_err(Error::from)?)?;
        }
        Ok(())
    }

    /// Which commit a write will be part of; the same for all writes that become durable together.
    pub fn group(&self) -> u64 {
        self.group
    }

    /// The greatest key of a table.
    ///
    /// # Errors
    /// If the database fails.
    pub fn last_key(&self, table: &str) -> Result<Option<String>, Error> {
        let mut query = self.connection.prepare_cached("SELECT max(key) FROM records WHERE tab = ?")?;
        Ok(query.query_row(params![table], |row| row.get(0))?)
    }

    /// How many records have keys that begin with `prefix`.
    ///
    /// # Errors
    /// If the database fails.
    pub fn count(&self, table: &str, prefix: &str) -> Result<u64, Error> {
        let mut query = self
            .connection
            .prepare_cached("SELECT count(*) FROM records WHERE tab = ? AND key >= ? AND key < ?")?;
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
        self.put_json(table, key, &value)
    }

    /// The same for a record that is JSON already.
    ///
    /// # Errors
    /// If the database fails.
    pub fn put_json(&self, table: &str, key: &str, json: &str) -> Result<(), Error> {
        self.before_change()?;
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO records (tab, key, value) VALUES (?, ?, ?)")?
            .execute(params![table, key, json])?;
        Ok(())
    }

    /// Deletes a record; answers whether it was there.
    ///
    /// # Errors
    /// If the database fails.
    pub fn delete(&self, table: &str, key: &str) -> Result<bool, Error> {
        self.before_change()?;
        let deleted = self
            .connection
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
    async fn writes_are_made_in_the_order_in_which_they_began() {
        let ledger = Ledger::memory().unwrap();
        let made: Arc<Mutex<Vec<usize>>> = Arc::default();
        let mut begun = Vec::new();
        for index in 0..2 * QUEUE {
            let made = made.clone();
            let note = move |_: &Tables| {
                made.lock().unwrap().push(index);
                Ok::<_, Error>(())
            };
            begun.push(ledger.begin(note, move |()| index).await.unwrap());
        }
        for (index, begun) in begun.into_iter().enumerate() {
            assert_eq!(begun.made().await.unwrap(), index);
        }
        assert_eq!(*made.lock().unwrap(), (0..2 * QUEUE).collect::<Vec<_>>());
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
