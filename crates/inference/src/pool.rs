//! The threads that run models: a fixed few, fed by one bounded queue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::queue::{Capacity, Entry, Queue, Refused};
use crate::repository::Served;
use crate::{EngineError, Engines, Tensor};

/// What a run gives back.
pub(crate) struct Done {
    pub outputs: Result<Vec<Tensor>, EngineError>,
    /// From submission to a free thread.
    pub queue: Duration,
    /// In the engine.
    pub compute: Duration,
}

pub(crate) struct Job {
    pub model: Arc<Served>,
    pub inputs: Vec<Tensor>,
    pub outputs: Vec<String>,
    pub submitted: Instant,
    pub reply: oneshot::Sender<Done>,
}

/// Dropping it stops the threads after the runs they are in; waiting jobs are given up.
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue<Job>>,
    wake: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue<Job>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    pub fn start(workers: usize, capacity: Capacity, engines: &Engines) -> std::io::Result<Pool> {
        let shared = Arc::new(Shared { queue: Mutex::new(Queue::new(capacity)), wake: Condvar::new() });
        let pool = Pool { shared };
        for index in 0..workers.max(1) {
            let (shared, engines) = (Arc::clone(&pool.shared), engines.clone());
            std::thread::Builder::new()
                .name(format!("infer-{index}"))
                .spawn(move || engines.enter(Box::new(|| work(&shared))))?;
        }
        Ok(pool)
    }

    pub fn submit(&self, job: Job) -> Result<(), Refused> {
        let entry = Entry {
            key: job.model.key,
            instances: job.model.model.instances(),
            weight: job.inputs.iter().map(|tensor| tensor.data().len()).sum(),
            item: job,
        };
        self.shared.lock().push(entry)?;
        self.shared.wake.notify_one();
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        drop(self.shared.lock().close());
        self.shared.wake.notify_all();
    }
}

fn work(shared: &Shared) {
    let mut queue = shared.lock();
    loop {
        if let Some((key, job)) = queue.take() {
            if !queue.is_empty() {
                shared.wake.notify_one();
            }
            drop(queue);
            run(job);
            queue = shared.lock();
            queue.finish(key);
        } else if queue.is_closed() {
            return;
        } else {
            queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn run(job: Job) {
    let Job { model, inputs, outputs, submitted, reply } = job;
    if reply.is_closed() {
        return;
    }
    let started = Instant::now();
    let names: Vec<&str> = outputs.iter().map(String::as_str).collect();
    let outputs = catch_unwind(AssertUnwindSafe(|| model.model.run(&inputs, &names)))
        .unwrap_or_else(|payload| Err(EngineError::panicked(payload.as_ref())));
    let (queue, compute) = (started - submitted, started.elapsed());
    match &outputs {
        Ok(_) => model.stats.succeeded(model.model.signature().batch(&inputs), queue, compute),
        Err(_) => model.stats.failed(queue + compute),
    }
    drop(inputs);
    // The caller may have gone: then nobody wants the answer.
    let _ = reply.send(Done { outputs, queue, compute });
}
