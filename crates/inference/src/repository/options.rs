//! How large the machinery is.

use store::Ledger;

use crate::Limits;
use crate::isolation::WorkerCommand;
use crate::queue::Capacity;

/// Size of the machinery, fixed at start.
#[derive(Clone)]
pub struct Options {
    /// Threads that run models; each may use [`crate::EngineOptions::threads_per_run`] threads of its engine.
    pub workers: usize,
    /// Most requests that wait for a thread; more are refused as overload.
    pub queue: usize,
    /// Most bytes of inputs that wait for a thread.
    pub queue_bytes: usize,
    /// Most bytes of answers that are kept for equal requests, over all models that keep any.
    pub cache_bytes: u64,
    /// Most bytes in which pictures and tables are read at once; a larger one is read alone.
    pub reading_bytes: u64,
    /// Most bytes of models that are loaded on request; those not used for the longest time make room. What is
    /// loaded for good counts, too, but stays.
    pub model_bytes: u64,
    /// Whether a version is run on zeros before it gets requests.
    pub warm_up: bool,
    /// How to start processes for models that run in their own; `None` refuses such models, and loads all others
    /// without a rehearsal.
    pub worker: Option<WorkerCommand>,
    /// Loads files here that are new, without a rehearsal in a process of their own.
    pub trust_models: bool,
    /// Where what is learnt about models outlives this process: files that were rehearsed, what drift is measured against,
    /// versions that were rolled back. `None` forgets it.
    pub ledger: Option<Ledger>,
    /// Bounds of one request.
    pub limits: Limits,
}

impl Default for Options {
    /// A worker per core. 256 waiting requests are over a second of work for a 5 ms model on one core: who comes
    /// later is better off elsewhere. 512 MiB of waiting inputs are two requests of the largest size. Half of the memory
    /// that this process may use for models leaves as much for everything else, and an eighth reads two or three of the
    /// largest pictures where there are 8 GiB.
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let memory = daemon::usable_memory();
        Options {
            workers,
            queue: 256,
            queue_bytes: 512 << 20,
            cache_bytes: 64 << 20,
            reading_bytes: memory.map_or(1 << 30, |bytes| bytes / 8),
            model_bytes: memory.map_or(u64::MAX, |bytes| bytes / 2),
            warm_up: true,
            worker: None,
            trust_models: false,
            ledger: None,
            limits: Limits::default(),
        }
    }
}

impl Options {
    /// What may wait for the threads that compute.
    pub(super) fn capacity(&self) -> Capacity {
        Capacity { entries: self.queue, weight: self.queue_bytes }
    }

    /// What may wait for a model with threads of its own, of which there may be many: as many requests, and an eighth of
    /// the bytes. A larger request is taken where no other waits.
    pub(super) fn capacity_of_one(&self) -> Capacity {
        Capacity { entries: self.queue, weight: self.queue_bytes / 8 }
    }
}
