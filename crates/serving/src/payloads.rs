//! Requests and their answers as lines of JSON, for models that ask for it (`serving.payloads`).
//!
//! A request only leaves its tensors, uncopied, in a bounded queue; a task of its own writes them down. What finds
//! the queue full is dropped and counted: serving never waits for the log.

mod file;
mod line;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use daemon::{Shutdown, Tasks};
use inference::Tensor;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use types::{Payloads, Time};

use crate::scramble;
use crate::trace::TraceParent;
use file::LogFile;

/// How many requests wait to be written.
const QUEUE: usize = 1024;
/// How many bytes of tensors wait to be written, except that one request may always wait.
const QUEUE_BYTES: u64 = 64 << 20;
/// How many requests are written at once.
const BATCH: usize = 64;

/// A log that models may write to. Cheap to clone; the file is made when the first request is logged.
#[derive(Clone)]
pub struct PayloadLog {
    queue: Sender<(Arc<Payloads>, Record)>,
    otherwise: Option<Payloads>,
    /// Names of inputs and outputs that are never written, whatever models say.
    redact: Arc<[String]>,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Counters {
    asked: AtomicU64,
    waiting_bytes: AtomicU64,
    logged: AtomicU64,
    dropped: AtomicU64,
}

/// One request with its answer.
pub(crate) struct Record {
    pub time: Time,
    pub model: String,
    pub version: String,
    pub trace: Option<TraceParent>,
    pub took: Duration,
    pub inputs: Vec<Tensor>,
    pub outcome: Outcome,
}

pub(crate) enum Outcome {
    Answered { outputs: Vec<Tensor>, cached: bool },
    Failed(String),
}

impl Record {
    fn bytes(&self) -> u64 {
        let outputs = match &self.outcome {
            Outcome::Answered { outputs, .. } => outputs.as_slice(),
            Outcome::Failed(_) => &[],
        };
        self.inputs.iter().chain(outputs).map(|tensor| tensor.data().len() as u64).sum()
    }
}

/// The right of one request to be logged.
pub(crate) struct Ticket {
    log: PayloadLog,
    settings: Arc<Payloads>,
}

impl Ticket {
    pub fn hand_in(self, record: Record) {
        let counters = &self.log.counters;
        let bytes = record.bytes();
        let before = counters.waiting_bytes.fetch_add(bytes, Relaxed);
        let heavy = before > 0 && before.saturating_add(bytes) > QUEUE_BYTES;
        if heavy || self.log.queue.try_send((self.settings, record)).is_err() {
            counters.waiting_bytes.fetch_sub(bytes, Relaxed);
            counters.dropped.fetch_add(1, Relaxed);
        }
    }
}

impl PayloadLog {
    /// Writes to a file until the tasks end; full files of 16 MiB get the endings `.1` to `.3`, and older ones go.
    /// Models that don't say are logged as `otherwise` says.
    pub fn start(file: PathBuf, otherwise: Option<Payloads>, tasks: &Tasks) -> PayloadLog {
        let (queue, records) = channel(QUEUE);
        let counters: Arc<Counters> = Arc::default();
        tasks
            .spawn("payload-log", write_all(LogFile::new(file), records, counters.clone(), tasks.shutdown()));
        PayloadLog { queue, otherwise, redact: Arc::default(), counters }
    }

    /// Never writes the values of inputs and outputs of these names, whatever models say.
    #[must_use]
    pub fn redact(mut self, names: Vec<String>) -> PayloadLog {
        self.redact = names.into();
        self
    }

    /// Whether to log this request, of a model with these settings.
    pub(crate) fn sample(&self, settings: Option<&Payloads>) -> Option<Ticket> {
        let settings = settings.or(self.otherwise.as_ref())?;
        let number = self.counters.asked.fetch_add(1, Relaxed);
        let picked = scramble(number) % 100 < u64::from(settings.percent);
        picked.then(|| {
            let mut settings = settings.clone();
            settings.redact.extend_from_slice(&self.redact);
            Ticket { log: self.clone(), settings: Arc::new(settings) }
        })
    }

    /// Requests written, and dropped.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.counters.logged.load(Relaxed), self.counters.dropped.load(Relaxed))
    }
}

async fn write_all(
    mut file: LogFile,
    mut records: Receiver<(Arc<Payloads>, Record)>,
    counters: Arc<Counters>,
    shutdown: Shutdown,
) {
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            _ = records.recv_many(&mut batch, BATCH) => {}
            () = shutdown.wait() => {
                records.close();
                records.recv_many(&mut batch, BATCH).await;
            }
        }
        if batch.is_empty() {
            return;
        }
        let told = counters.clone();
        let written = tokio::task::spawn_blocking(move || {
            let mut problem = None;
            for (settings, record) in batch {
                told.waiting_bytes.fetch_sub(record.bytes(), Relaxed);
                match file.write(&line::of(&settings, record)) {
                    Ok(()) => told.logged.fetch_add(1, Relaxed),
                    Err(error) => {
                        problem = Some(error);
                        told.dropped.fetch_add(1, Relaxed)
                    }
                };
            }
            (file, problem)
        });
        let Ok((back, problem)) = written.await else { return };
        file = back;
        if let Some(error) = problem {
            tracing::error!(%error, "the payload log can't be written; free space or turn it off");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tenth_is_a_tenth_and_who_does_not_ask_is_not_logged() {
        let tasks = Tasks::default();
        let log = PayloadLog::start("never-made".into(), None, &tasks);
        let settings = Payloads { percent: 10, ..Payloads::default() };
        let picked = (0..10_000).filter(|_| log.sample(Some(&settings)).is_some()).count();
        assert!((900..1100).contains(&picked), "{picked}");
        assert!(log.sample(None).is_none());
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (queue, _records) = channel(1);
        let log = PayloadLog {
            queue,
            otherwise: Some(Payloads::default()),
            redact: Arc::default(),
            counters: Arc::default(),
        };
        for _ in 0..3 {
            let inputs = vec![Tensor::from_vec("x", [2], vec![1_u8, 2]).unwrap()];
            let (model, version) = ("m".to_owned(), "1".to_owned());
            let outcome = Outcome::Failed("no".into());
            let (time, trace, took) = (daemon::now(), None, Duration::ZERO);
            log.sample(None).unwrap().hand_in(Record { time, model, version, trace, took, inputs, outcome });
        }
        assert_eq!(log.counts(), (0, 2));
        assert_eq!(log.counters.waiting_bytes.load(Relaxed), 2);
    }
}
