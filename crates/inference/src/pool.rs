//! The threads that run models: a fixed few, fed by one bounded queue.
//!
//! A model in a process of its own has threads and a queue of its own, too: they only wait, and where its process hangs
//! nobody else waits with them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Acquire};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::engine::panic_text;
use crate::queue::{Capacity, Entry, Next, Queue, Refused};
use crate::repository::{Comparison, Served, Trial};
use crate::stats::Failure;
use crate::stats::Spent;
use crate::{EngineError, Engines, Tensor, batch};

/// What a run gives back.
pub(crate) struct Done {
    pub outputs: Result<Vec<Tensor>, EngineError>,
    /// When the request was submitted.
    pub begun: Instant,
    /// From submission to the beginning of the run.
    pub queue: Duration,
    /// From there to the end.
    pub compute: Duration,
    /// Samples in the run.
    pub samples: u64,
}

/// One request on its way to a thread.
pub(crate) struct Job {
    pub model: Arc<Served>,
    /// In the signature's order.
    pub inputs: Vec<Tensor>,
    pub outputs: Arc<[String]>,
    pub submitted: Instant,
    /// When it is too late to begin, and who says so: the first to set the flag, the thread or the caller.
    pub deadline: Option<(Instant, Arc<AtomicBool>)>,
    /// Compares the outputs with those of another version.
    pub comparison: Option<Comparison>,
    /// Judges the run, whether or not anybody waits for the answer still.
    pub trial: Option<Arc<Trial>>,
    /// Dropped without a word where nobody began in time.
    pub reply: Reply,
}

/// Who gets the answer.
pub(crate) enum Reply {
    Caller(oneshot::Sender<Done>),
    /// A copy of a request, whose answer is only compared.
    Nobody,
}

/// Dropping it stops the threads after the runs they are in; waiting jobs are given up.
pub(crate) struct Pool {
    shared: Shared,
}

#[derive(Clone)]
struct Shared(Arc<Mutex<State>>);

struct State {
    queue: Queue<Job>,
    /// Threads with nothing to do, the one that was busy last at the end: it is woken first, because a model that runs
    /// again on the same core finds its weights in that core's cache.
    idle: Vec<Thread>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits to be woken or for the moment.
    fn rest<'a>(&'a self, mut state: MutexGuard<'a, State>, until: Option<Instant>) -> MutexGuard<'a, State> {
        let own = thread::current();
        state.idle.push(own.clone());
        drop(state);
        match until {
            Some(until) => thread::park_timeout(until.saturating_duration_since(Instant::now())),
            None => thread::park(),
        }
        let mut state = self.lock();
        // Who wakes a thread takes it out; this one may have woken by itself.
        state.idle.retain(|idle| idle.id() != own.id());
        state
    }
}

/// Wakes the thread that was taken out of the idle ones, if there was any. Not under the lock, which it needs first.
fn wake(idle: Option<Thread>) {
    if let Some(thread) = idle {
        thread.unpark();
    }
}

impl Pool {
    /// Threads that compute.
    pub fn start(workers: usize, capacity: Capacity, engines: &Engines) -> std::io::Result<Pool> {
        Pool::spawn(workers, capacity, "infer", |shared| {
            let engines = engines.clone();
            Box::new(move || engines.enter(Box::new(|| work(&shared))))
        })
    }

    /// Threads that wait for the processes of one model.
    pub fn of_waiters(instances: usize, capacity: Capacity) -> std::io::Result<Pool> {
        Pool::spawn(instances, capacity, "await", |shared| Box::new(move || work(&shared)))
    }

    fn spawn(
        threads: usize,
        capacity: Capacity,
        name: &str,
        life: impl Fn(Shared) -> Box<dyn FnOnce() + Send>,
    ) -> std::io::Result<Pool> {
        let state = State { queue: Queue::new(capacity), idle: Vec::new() };
        let pool = Pool { shared: Shared(Arc::new(Mutex::new(state))) };
        for index in 0..threads.max(1) {
            thread::Builder::new().name(format!("{name}-{index}")).spawn(life(pool.shared.clone()))?;
        }
        Ok(pool)
    }

    /// Takes no more jobs and gives up those that wait.
    pub fn close(&self) {
        let mut state = self.shared.lock();
        let (given_up, idle) = (state.queue.close(), std::mem::take(&mut state.idle));
        drop(state);
        drop(given_up);
        idle.into_iter().for_each(|thread| thread.unpark());
    }

    /// Jobs of one model that wait for a thread.
    pub fn waiting(&self, key: u64) -> usize {
        self.shared.lock().queue.waiting(key)
    }

    /// Queues a job; a lower priority is more urgent.
    pub fn submit(&self, job: Job, priority: u32) -> Result<(), Refused> {
        let entry = job.entry(priority);
        let mut state = self.shared.lock();
        let queue = &mut state.queue;
        let unwanted = if queue.is_full(&entry) { queue.extract(|job| !job.wanted()) } else { Vec::new() };
        let pushed = queue.push(entry);
        let woken = if pushed.is_ok() { state.idle.pop() } else { None };
        drop(state);
        wake(woken);
        // Jobs may hold the last of a model, which takes a while to end: not under the lock.
        for job in unwanted {
            job.count_canceled();
        }
        pushed
    }

    /// Queues a job that nobody asked for, if little else waits.
    pub fn submit_spare(&self, job: Job, priority: u32) {
        let entry = job.entry(priority);
        let mut state = self.shared.lock();
        let pushed = state.queue.has_room_to_spare(&entry) && state.queue.push(entry).is_ok();
        let woken = if pushed { state.idle.pop() } else { None };
        drop(state);
        wake(woken);
    }
}

impl Job {
    fn entry(self, priority: u32) -> Entry<Job> {
        let job = self;
        let samples = if job.model.batchable { batch::samples(&job.inputs) } else { None };
        let policy = job.model.policy;
        Entry {
            key: job.model.key,
            policy,
            priority,
            arrived: job.submitted,
            deadline: job.deadline.as_ref().map(|(deadline, _)| *deadline),
            bucket: if samples.is_some() { batch::bucket(&job.inputs, &job.outputs) } else { 0 },
            // What can't be merged fills a run by itself.
            samples: samples.unwrap_or(policy.max_batch),
            weight: job.input_bytes(),
            item: job,
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}

fn work(shared: &Shared) {
    let mut state = shared.lock();
    loop {
        match state.queue.next(Instant::now()) {
            Next::Run { key, batch } => {
                let another = if state.queue.is_empty() { None } else { state.idle.pop() };
                drop(state);
                wake(another);
                // Whatever happens, the thread and the model's instance go on.
                if let Err(payload) = catch_unwind(AssertUnwindSafe(|| run(batch))) {
                    tracing::error!("a run's bookkeeping panicked: {}", panic_text(payload.as_ref()));
                }
                state = shared.lock();
                state.queue.finish(key);
            }
            Next::Wait(_) if state.queue.is_closed() => return,
            Next::Wait(until) => state = shared.rest(state, until),
        }
    }
}

/// Runs what still is wanted; together where that works, and one by one where it doesn't, so that no request fails
/// for another one's sake.
fn run(batch: Vec<Job>) {
    let now = Instant::now();
    let mut jobs: Vec<Job> = batch.into_iter().filter(|job| job.begin(now)).collect();
    if jobs.len() > 1 {
        jobs = run_together(jobs);
    }
    jobs.into_iter().for_each(run_alone);
}

/// Gives the jobs back if they couldn't be run together.
fn run_together(jobs: Vec<Job>) -> Vec<Job> {
    let Some(first) = jobs.first() else { return jobs };
    let model = Arc::clone(&first.model);
    let started = Instant::now();
    let requests: Vec<&[Tensor]> = jobs.iter().map(|job| job.inputs.as_slice()).collect();
    let Some(inputs) = batch::merge(&requests) else { return jobs };
    let sizes: Vec<usize> = jobs.iter().filter_map(|job| batch::samples(&job.inputs)).collect();
    let merged = Instant::now();
    let Ok(outputs) = compute(&model, &inputs, &first.outputs) else { return jobs };
    let computed = Instant::now();
    let Some(answers) = batch::split(&outputs, &sizes) else {
        let name = &model.name;
        tracing::warn!(model = name, "outputs don't have one row a sample: its requests are run one by one");
        return jobs;
    };
    let spent = Spent { input: merged - started, infer: computed - merged, output: computed.elapsed() };
    let bytes = inputs.iter().map(|tensor| tensor.data().len()).sum();
    let samples = sizes.iter().sum::<usize>() as u64;
    model.stats.ran(samples, bytes, spent);
    for (job, outputs) in jobs.into_iter().zip(answers) {
        job.finish(Ok(outputs), started, spent, samples);
    }
    Vec::new()
}

fn run_alone(job: Job) {
    let started = Instant::now();
    let outputs = compute(&job.model, &job.inputs, &job.outputs);
    let spent = Spent { infer: started.elapsed(), ..Spent::default() };
    let samples = job.model.model.signature().batch(&job.inputs);
    if outputs.is_ok() {
        job.model.stats.ran(samples, job.input_bytes(), spent);
    }
    job.finish(outputs, started, spent, samples);
}

fn compute(model: &Served, inputs: &[Tensor], outputs: &[String]) -> Result<Vec<Tensor>, EngineError> {
    let names: Vec<&str> = outputs.iter().map(String::as_str).collect();
    catch_unwind(AssertUnwindSafe(|| model.model.run(inputs, &names)))
        .unwrap_or_else(|payload| Err(EngineError::panicked(payload.as_ref())))
}

impl Job {
    /// Runs on the calling thread, past the queue.
    pub fn run_here(self) {
        run_alone(self);
    }

    pub fn input_bytes(&self) -> usize {
        self.inputs.iter().map(|tensor| tensor.data().len()).sum()
    }

    fn wanted(&self) -> bool {
        match &self.reply {
            Reply::Caller(reply) => !reply.is_closed(),
            Reply::Nobody => true,
        }
    }

    /// Whether it is still to be run.
    fn begin(&self, now: Instant) -> bool {
        let in_time =
            |(deadline, decided): &(Instant, Arc<AtomicBool>)| now < *deadline && !decided.swap(true, AcqRel);
        if !self.wanted() {
            return self.count_canceled();
        }
        self.deadline.as_ref().is_none_or(in_time)
    }

    /// Counts a request whose sender went away, unless it went because the time was over. It isn't run.
    fn count_canceled(&self) -> bool {
        let is_late = self.deadline.as_ref().is_some_and(|(_, decided)| decided.load(Acquire));
        if !is_late {
            self.model.stats.failed(Failure::Canceled, self.submitted.elapsed());
        }
        false
    }

    fn finish(self, outputs: Result<Vec<Tensor>, EngineError>, started: Instant, spent: Spent, samples: u64) {
        let Job { model, inputs, submitted, comparison, trial, reply, .. } = self;
        drop(inputs);
        let queue = started.saturating_duration_since(submitted);
        let took = queue + spent.total();
        // What doesn't fit is the request's fault.
        if let (Some(trial), true) = (trial, !matches!(outputs, Err(EngineError::Input(_)))) {
            trial.hear(&model, outputs.is_ok(), took);
        }
        match &outputs {
            Ok(outputs) => {
                model.stats.succeeded(took, queue, spent);
                if let Some(comparison) = comparison {
                    comparison.offer(outputs);
                }
            }
            Err(EngineError::Input(_)) => model.stats.failed(Failure::Invalid, took),
            Err(_) => model.stats.failed(Failure::Engine, took),
        }
        if let Reply::Caller(reply) = reply {
            // The caller may have gone: then nobody wants the answer.
            let _ = reply.send(Done { outputs, begun: submitted, queue, compute: spent.total(), samples });
        }
    }
}
