//! One loaded version.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use types::Serving;

use super::{LoadRequest, Steps, WarmUp};
use crate::cache::{Cache, ModelKey};
use crate::drift::{Drift, FeatureDrift};
use crate::engine::{chain, panic_text};
use crate::engines::{Loaded, Tried};
use crate::pool::Pool;
use crate::queue::{Capacity, Policy};
use crate::stats::Stats;
use crate::{InvalidInput, LoadError, LoadedModel, Name, Request, Signature, Tensor, batch, steps};

/// A loaded model version, alive while the catalog or a request holds it.
pub(crate) struct Served {
    /// Unique in the process, so that a queue tells a reloaded model from the one before.
    pub key: u64,
    /// Under which its answers are kept.
    pub answers: ModelKey,
    pub name: String,
    pub version: String,
    pub engine: Name,
    pub why: String,
    pub tried: Vec<Tried>,
    pub path: PathBuf,
    pub request: LoadRequest,
    pub serving: Serving,
    pub took: Duration,
    /// Bytes that the process grew by, with those of the model's own processes; at least the file's size.
    pub memory: u64,
    pub model: Arc<dyn LoadedModel>,
    /// What an ensemble asks in its place.
    pub steps: Option<Steps>,
    /// How it takes plain content, where it does.
    pub input_steps: Option<steps::Input>,
    /// How its outputs are read, where they can be.
    pub output_steps: Option<steps::Output>,
    /// Threads and a queue of its own, where its runs only wait; they end with it.
    pub own_pool: Option<Pool>,
    pub stats: Stats,
    /// What it and earlier loads of the same version saw.
    pub drift: Option<Arc<Mutex<Drift>>>,
    /// Whether its requests can be merged.
    pub batchable: bool,
    pub policy: Policy,
    /// The names of all outputs, in order.
    pub all_outputs: Arc<[String]>,
    /// Milliseconds from `born` to the last request.
    used: AtomicU64,
    born: Instant,
}

impl Served {
    /// `waiting` bounds what may wait for a model with threads of its own.
    ///
    /// # Errors
    /// When what it declares doesn't fit the model, or the system refuses a thread.
    pub fn new(
        key: u64,
        request: &LoadRequest,
        loaded: Loaded,
        took: Duration,
        memory: u64,
        waiting: Capacity,
    ) -> Result<Served, LoadError> {
        let signature = loaded.model.signature();
        let serving = request.serving.clone();
        let input_steps = serving.preprocessing.as_deref();
        let input_steps =
            input_steps.map(|declared| steps::Input::compile(declared, signature)).transpose()?;
        let output_steps = serving.postprocessing.as_deref();
        let output_steps = output_steps
            .map(|declared| {
                steps::Output::compile(declared, signature)
                    .map(|steps| steps.name_classes(|output| loaded.model.labels(output)))
            })
            .transpose()?;
        let batchable = serving.batching.is_some() && batch::batchable(signature);
        let policy = policy(&serving, loaded.model.instances(), batchable);
        let mut why = loaded.why;
        if let Ok(asked @ 1..) = usize::try_from(serving.instances)
            && asked > policy.instances
        {
            let (model, version, instances) = (&request.name, &request.version, policy.instances);
            tracing::warn!(model, version, "runs in {instances} instances, though {asked} are asked for");
            why = format!("{why}; in {instances} of {asked} instances: more would only wait for each other");
        }
        let own_pool = loaded.model.waits().then(|| Pool::of_waiters(policy.instances, waiting));
        let own_pool = own_pool.transpose().map_err(LoadError::Thread)?;
        let all_outputs = signature.outputs.iter().map(|spec| spec.name.clone()).collect();
        Ok(Served {
            key,
            answers: Cache::load_key(key),
            name: request.name.clone(),
            version: request.version.clone(),
            engine: loaded.engine,
            why,
            tried: loaded.tried,
            path: request.path.clone(),
            request: LoadRequest { warm_up: Vec::new(), ..request.clone() },
            serving,
            took,
            memory: memory.saturating_add(loaded.model.outside_memory()).max(file_bytes(&request.path)),
            model: loaded.model,
            steps: None,
            input_steps,
            output_steps,
            own_pool,
            stats: Stats::default(),
            drift: None,
            batchable,
            policy,
            all_outputs,
            used: AtomicU64::new(0),
            born: Instant::now(),
        })
    }

    /// The classes that the columns of an output stand for: as declared, else as the model's file has them.
    pub fn labels(&self, output: &str) -> Option<&[String]> {
        let declared = self.output_steps.as_ref().and_then(|steps| steps.labels(output));
        declared.or_else(|| self.model.labels(output))
    }

    /// Checks that a request has no more samples than the model is declared to take at once.
    pub fn check_batch(&self, inputs: &[Tensor]) -> Result<(), InvalidInput> {
        let limit = self.policy.max_batch;
        let given = inputs.iter().filter_map(|tensor| tensor.shape().first().copied()).max().unwrap_or(0);
        if self.batchable && given > limit { Err(InvalidInput::Batch { given, limit }) } else { Ok(()) }
    }

    /// Whether it is what this request asks for.
    pub fn answers(&self, request: &LoadRequest) -> bool {
        let LoadRequest { path, engine, serving, ensemble, signature, fil, .. } = &self.request;
        let same_file = *path == request.path && *engine == request.engine && *fil == request.fil;
        let same_use = *serving == request.serving && *signature == request.signature;
        same_file && same_use && *ensemble == request.ensemble
    }

    /// Whether a run on this many bytes is best done where it is asked for.
    pub fn runs_at_once(&self, bytes: usize, limit: Duration) -> bool {
        let short = || self.stats.expected(bytes).is_some_and(|expected| expected < limit);
        self.policy.max_batch == 1 && self.model.runs_on_caller() && short()
    }

    /// Checked inputs in the signature's order.
    pub fn in_order(&self, mut inputs: Vec<Tensor>) -> Vec<Tensor> {
        let place = |tensor: &Tensor| {
            let specs = &self.model.signature().inputs;
            specs.iter().position(|spec| spec.name == tensor.name())
        };
        if inputs.len() > 1 {
            inputs.sort_by_key(place);
        }
        inputs
    }

    /// Runs it a few times on zeros, so that the first request finds everything in place and its time known. What
    /// such inputs can't be made for, or don't suit, is left cold.
    pub fn warm_up(&self) {
        const RUNS: usize = 3;
        const PATIENCE: Duration = Duration::from_millis(500);
        // The models of an ensemble are warm.
        let zeros = zeros(self.model.signature()).filter(|_| self.steps.is_none());
        let Some(Request { inputs, .. }) = zeros else { return };
        let names: Vec<&str> = self.all_outputs.iter().map(String::as_str).collect();
        let bytes = inputs.iter().map(|tensor| tensor.data().len()).sum();
        let started = Instant::now();
        let mut last = None;
        for _ in 0..RUNS {
            let begun = Instant::now();
            let run = catch_unwind(AssertUnwindSafe(|| self.model.run(&inputs, &names)));
            if !matches!(run, Ok(Ok(_))) {
                return;
            }
            last = Some(begun.elapsed());
            if started.elapsed() > PATIENCE {
                break;
            }
        }
        if let Some(run) = last {
            self.stats.expect(bytes, run);
        }
    }

    /// Answers what it is to be warmed up with. The models of an ensemble have requests of their own.
    ///
    /// # Errors
    /// When it can't answer one of them.
    pub fn answer(&self, requests: &[WarmUp]) -> Result<(), LoadError> {
        let names: Vec<&str> = self.all_outputs.iter().map(String::as_str).collect();
        for WarmUp { name, inputs, times } in requests.iter().filter(|_| self.steps.is_none()) {
            let refused = |reason: String| LoadError::WarmUp { name: name.clone(), reason };
            self.model.signature().check(inputs, &names).map_err(|error| refused(error.to_string()))?;
            let inputs = self.in_order(inputs.clone());
            for _ in 0..*times {
                let run = catch_unwind(AssertUnwindSafe(|| self.model.run(&inputs, &names)));
                let run = run.map_err(|panic| refused(panic_text(panic.as_ref())))?;
                run.map_err(|error| refused(chain(&error)))?;
            }
        }
        Ok(())
    }

    /// Looks at a request's inputs; while another one is looked at, not.
    pub fn observe(&self, inputs: &[Tensor]) {
        if let Some(mut drift) = self.drift.as_ref().and_then(|drift| drift.try_lock().ok()) {
            drift.observe(inputs);
        }
    }

    /// How far its inputs have moved, feature by feature.
    pub fn drift(&self) -> Vec<FeatureDrift> {
        let drift = self.drift.as_ref().map(|drift| drift.lock().unwrap_or_else(PoisonError::into_inner));
        drift.map(|drift| drift.report()).unwrap_or_default()
    }

    /// Notes that a request came.
    pub fn touch(&self) {
        let since = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.used.store(since, Relaxed);
    }

    /// When the last request came, or when it was loaded.
    pub fn last_used(&self) -> Instant {
        self.born + Duration::from_millis(self.used.load(Relaxed))
    }
}

fn policy(serving: &Serving, engine_instances: usize, batchable: bool) -> Policy {
    let asked = usize::try_from(serving.instances).unwrap_or(usize::MAX);
    let instances = if asked == 0 { engine_instances } else { asked.min(engine_instances) };
    let unbounded =
        |count: u32| if count == 0 { usize::MAX } else { usize::try_from(count).unwrap_or(usize::MAX) };
    let batching = serving.batching.as_ref().filter(|_| batchable);
    Policy {
        instances,
        max_batch: batching.map_or(1, |batching| unbounded(batching.max_size)),
        max_delay: batching
            .map_or(Duration::ZERO, |batching| Duration::from_micros(batching.max_delay_microseconds.into())),
        max_waiting: unbounded(serving.queue.max_requests),
    }
}

/// A request of zeros (empty strings), with 1 for every open dimension; `None` where that would be large or the rank
/// is open.
pub(crate) fn zeros(signature: &Signature) -> Option<Request> {
    const MAX_BYTES: usize = 64 << 20;
    let tensors = signature.inputs.iter().map(|spec| {
        let shape = spec.shape.as_ref()?.iter().map(|&size| usize::try_from(size).unwrap_or(1));
        let shape: Vec<usize> = shape.collect();
        let element = spec.datatype.size().unwrap_or(4);
        let bytes = shape.iter().try_fold(element, |product, &size| product.checked_mul(size))?;
        (bytes <= MAX_BYTES).then(|| Tensor::trusted(&spec.name, spec.datatype, shape, vec![0; bytes].into()))
    });
    Some(Request::new(tensors.collect::<Option<Vec<_>>>()?))
}

/// Bytes of a model file on disk; 0 when it is gone.
pub(crate) fn file_bytes(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}
