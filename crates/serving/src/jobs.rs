//! Requests that are answered later: accepted durably, computed when there is time, kept until they are fetched.
//!
//! An inference request with `Prefer: respond-async` (RFC 7240) becomes a job: its body goes to a file, a commit in
//! the ledger makes it accepted, and from then on it survives a crash. A job is computed by the same routes that
//! would have answered at once, so its response is the very same. A job that was being computed when the process
//! died begins anew, a few times at most.

mod accept;
mod callback;
mod deliver;
mod front;
mod line;
mod pauses;
mod record;
mod room;
mod run;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use inference::Repository;
use store::{Ledger, ledger};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use callback::{InvalidOrigin, Origins};
pub use record::Status;

use crate::Guard;
use crate::bodies::Bodies;
use line::Line;
use pauses::Pauses;
use record::Job;
use room::Room;

const TABLE: &str = "inference-jobs";

/// Bounds of [`Jobs`], and where results may be sent.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most jobs, finished ones included.
    pub jobs: usize,
    /// Most bytes of requests and responses. A response for which there is no room waits for some.
    pub bytes: u64,
    /// Largest request in bytes.
    pub body_limit: usize,
    /// How many are computed at once.
    pub at_once: usize,
    /// How long a response is kept.
    pub keep: Duration,
    /// How long a job waits for a model that isn't ready, an overload to pass, or room for its response.
    pub patience: Duration,
    /// Where results may be sent.
    pub origins: Origins,
    /// Signs what is sent.
    pub secret: String,
}

impl Default for Options {
    /// 10,000 jobs of 1 GiB together, two at once, kept for a day; nothing is sent anywhere.
    fn default() -> Self {
        Options {
            jobs: 10_000,
            bytes: 1 << 30,
            body_limit: 64 << 20,
            at_once: 2,
            keep: Duration::from_secs(24 * 3600),
            patience: Duration::from_secs(3600),
            origins: Origins::default(),
            secret: String::new(),
        }
    }
}

/// Why jobs can't be kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The records failed.
    #[error("the records of jobs can't be read or written")]
    Ledger(#[from] ledger::Error),
    /// The files failed.
    #[error("the files of jobs can't be read or written; check the disk's space and health")]
    Disk(#[from] std::io::Error),
    /// No client for callbacks.
    #[error("results can't be sent: {0}")]
    Client(String),
}

/// The jobs of a server. Cheap to clone.
#[derive(Clone)]
pub struct Jobs {
    inner: Arc<Inner>,
}

struct Inner {
    ledger: Ledger,
    folder: PathBuf,
    options: Options,
    repository: Repository,
    guard: Arc<dyn Guard>,
    http: reqwest::Client,
    /// Requests that are being accepted.
    bodies: Bodies,
    table: Mutex<Table>,
    /// Tells that some job changed.
    saved: watch::Sender<()>,
    /// Those to be computed.
    runs: Line,
    /// Those whose senders are to be told.
    calls: Line,
}

/// What is known of all jobs, and what is going on.
#[derive(Default)]
struct Table {
    jobs: BTreeMap<String, Job>,
    /// Stops those that are being computed.
    running: HashMap<String, CancellationToken>,
    /// Addresses that can't answer now.
    pauses: Pauses,
    /// Jobs and bytes that are about to be added.
    reserved: (usize, u64),
}

impl Table {
    fn bytes(&self) -> u64 {
        self.jobs.values().map(Job::bytes).sum()
    }
}

impl Jobs {
    /// Opens the jobs whose files are in `folder`. Those that were accepted and have no response are computed once
    /// [`Jobs::run`] is called. Blocks.
    ///
    /// # Errors
    /// When records or files can't be read.
    pub fn open(
        folder: &Path,
        ledger: Ledger,
        repository: Repository,
        guard: Arc<dyn Guard>,
        options: Options,
    ) -> Result<Jobs, Error> {
        std::fs::create_dir_all(folder)?;
        let jobs: Vec<(String, Job)> = ledger.read(|tables| tables.range(TABLE, "", "", usize::MAX))?;
        let jobs: BTreeMap<String, Job> = jobs.into_iter().map(|(id, job)| (id, job.reopened())).collect();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let (id, kind) = name.to_str().and_then(|name| name.split_once('.')).unwrap_or_default();
            if jobs.get(id).is_none_or(|job| job.file_kind() != kind) {
                std::fs::remove_file(entry.path())?;
            }
        }
        let table = Mutex::new(Table { jobs, ..Table::default() });
        let (runs, calls) = (Line::default(), Line::default());
        let (folder, bodies) = (folder.to_owned(), Bodies::of(options.body_limit));
        let http = deliver::client().map_err(Error::Client)?;
        Ok(Jobs {
            inner: Arc::new(Inner {
                ledger,
                folder,
                options,
                repository,
                guard,
                http,
                bodies,
                table,
                saved: watch::Sender::default(),
                runs,
                calls,
            }),
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.inner.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: &str) -> Option<Job> {
        self.table().jobs.get(id).cloned()
    }

    /// The file of a request or response.
    fn file(&self, id: &str, kind: &str) -> PathBuf {
        self.inner.folder.join(format!("{id}.{kind}"))
    }

    /// Writes a changed job, and then shows it; one that was deleted meanwhile stays deleted, and what was to be kept
    /// with it goes.
    async fn save(&self, job: Job, response: Option<Room>) -> Result<(), Error> {
        let (record, jobs) = (job.clone(), self.clone());
        let change = move |tables: &ledger::Tables| {
            if tables.get::<Job>(TABLE, &record.id)?.is_some() {
                tables.put(TABLE, &record.id, &record)?;
            }
            Ok::<_, Error>(())
        };
        let show = move |()| {
            let known = jobs.table().jobs.get_mut(&job.id).map(|known| *known = job);
            if let (Some(()), Some(response)) = (known, response) {
                response.keep();
            }
            jobs.inner.saved.send_replace(());
        };
        self.inner.ledger.write_then(change, show).await
    }

    /// Forgets a job and what belongs to it; one that is being computed is stopped. Once the commit has begun all of
    /// it is done even if nobody waits for it any more.
    async fn delete(&self, id: &str) -> Result<(), Error> {
        let (key, jobs) = (id.to_owned(), self.clone());
        let change = move |tables: &ledger::Tables| Ok::<_, Error>(tables.delete(TABLE, &key).map(drop)?);
        let (name, runtime) = (id.to_owned(), tokio::runtime::Handle::current());
        let hide = move |()| {
            let mut table = jobs.table();
            table.jobs.remove(&name);
            if let Some(running) = table.running.remove(&name) {
                running.cancel();
            }
            drop(table);
            jobs.inner.saved.send_replace(());
            let files = ["request", "response"].map(|kind| jobs.file(&name, kind));
            // Those that aren't there needn't go, and the next start sweeps.
            runtime.spawn_blocking(move || files.map(std::fs::remove_file))
        };
        let removed = self.inner.ledger.write_then(change, hide).await?;
        let _ = removed.await;
        Ok(())
    }
}
