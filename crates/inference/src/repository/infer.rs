//! One request: check, look into the cache, queue or run, wait.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::AcqRel;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::catalog::Chosen;
use super::reading::Desk;
use super::shadow::Comparison;
use super::{Served, Shared};
use crate::cache::{self, Body, Found, RequestKey};
use crate::drift::FeatureDrift;
use crate::pool::{Done, Job, Reply};
use crate::queue::Refused;
use crate::stats::Failure;
use crate::{EngineError, Error, Limits, Name, Signature, StatsSnapshot, Tensor, steps};

/// A run that is expected to take less than this is not worth two switches of threads (5 to 10 µs each and a cold
/// cache): it is computed where it is asked for.
const AT_ONCE: Duration = Duration::from_micros(100);
/// Priority of a request that doesn't say, and of a model that doesn't say: in the middle.
const MIDDLE: u32 = 16;
/// The least urgent.
const LAST: u32 = 32;

/// What to compute.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// In any order.
    pub inputs: Vec<Tensor>,
    /// Names of the outputs wanted; none stands for all.
    pub outputs: Vec<String>,
    /// 1 is the most urgent, 32 the least; 0 is the model's default.
    pub priority: u32,
    /// Longest wait for a thread; `None` is the model's default.
    pub timeout: Option<Duration>,
}

impl Request {
    /// All outputs for these inputs.
    pub fn new(inputs: impl Into<Vec<Tensor>>) -> Self {
        Request { inputs: inputs.into(), ..Request::default() }
    }
}

/// Outputs in the order asked for, and where the time went.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub outputs: Vec<Tensor>,
    pub timing: Timing,
}

/// Where the time of a request went.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// When the request was accepted.
    pub begun: Instant,
    /// From there to the answer.
    pub took: Duration,
    /// Of that, until it was known whether the cache has the answer; zero where the model keeps none.
    pub cache: Duration,
    /// From `begun` to the run: waiting for a thread and for company. Zero for an answer out of the cache.
    pub queue: Duration,
    /// In the engine; zero for an answer out of the cache.
    pub compute: Duration,
    /// Whether it was computed for an earlier request.
    pub cached: bool,
    /// Samples of all requests in the same run; 0 for an answer out of the cache.
    pub samples: u64,
    /// Those of an ensemble, in the order in which they ended.
    pub steps: Vec<StepTiming>,
}

/// Where the time of an ensemble's step went.
#[derive(Clone, Debug, PartialEq)]
pub struct StepTiming {
    /// The step's name.
    pub name: String,
    /// The model that it ran.
    pub model: String,
    pub version: String,
    pub timing: Timing,
}

impl Timing {
    pub(super) fn begun(begun: Instant) -> Timing {
        let zero = Duration::ZERO;
        let (took, cache, queue, compute) = (zero, zero, zero, zero);
        Timing { begun, took, cache, queue, compute, cached: false, samples: 0, steps: Vec::new() }
    }
}

/// A model version to send requests to. Holding it keeps the model in memory: take it per request.
#[derive(Clone)]
pub struct Model {
    chosen: Chosen,
    shared: Arc<Shared>,
}

/// A request that fits the model.
pub(super) struct Checked {
    pub inputs: Vec<Tensor>,
    pub outputs: Arc<[String]>,
    /// As the request or the model says it; 0 is neither.
    pub asked_priority: u32,
    pub timeout: Option<Duration>,
    pub submitted: Instant,
}

impl Model {
    pub(super) fn new(chosen: Chosen, shared: &Arc<Shared>) -> Model {
        Model { chosen, shared: Arc::clone(shared) }
    }

    pub(super) fn served(&self) -> &Served {
        &self.chosen.served
    }

    pub(super) fn desk(&self) -> &Desk {
        &self.shared.desk
    }

    pub fn name(&self) -> &str {
        &self.served().name
    }

    pub fn version(&self) -> &str {
        &self.served().version
    }

    /// The engine that runs it.
    pub fn engine(&self) -> Name {
        self.served().engine
    }

    pub fn signature(&self) -> &Signature {
        self.served().model.signature()
    }

    /// How it takes pictures or tables as they are; `None` for one that takes tensors alone.
    pub fn input_steps(&self) -> Option<&steps::Input> {
        self.served().input_steps.as_ref()
    }

    /// How its outputs are read as classes or boxes; `None` where that isn't declared.
    pub fn output_steps(&self) -> Option<&steps::Output> {
        self.served().output_steps.as_ref()
    }

    /// The classes that the columns of an output stand for, as declared or as the model's file names them.
    pub fn labels(&self, output: &str) -> Option<&[String]> {
        self.served().labels(output)
    }

    /// How it is run.
    pub fn serving(&self) -> &types::Serving {
        &self.served().serving
    }

    /// Runs that may go on at once: no more than there are threads for.
    pub fn instances(&self) -> usize {
        self.served().policy.instances.min(self.shared.options.workers.max(1))
    }

    /// The models that answer together as this one; `None` for one with a file of its own.
    pub fn ensemble(&self) -> Option<&types::Ensemble> {
        self.served().request.ensemble.as_ref()
    }

    /// The file that it was loaded from.
    pub fn path(&self) -> &Path {
        &self.served().path
    }

    /// Bounds of one request, for a front to apply while it still parses.
    pub fn limits(&self) -> Limits {
        self.shared.options.limits
    }

    pub fn stats(&self) -> StatsSnapshot {
        self.served().stats.snapshot()
    }

    /// How far its inputs have moved from those that came first, feature by feature; empty where that isn't watched.
    pub fn drift(&self) -> Vec<FeatureDrift> {
        self.served().drift()
    }

    /// The key under which a front may keep a whole response, so that it needn't even read an equal request;
    /// `parts` are whatever makes the response what it is. `None` where the model keeps no answers.
    pub fn body_key(&self, parts: &[&[u8]], body: &[impl AsRef<[u8]>]) -> Option<RequestKey> {
        self.served().serving.cache.as_ref()?;
        // A version on trial, with a shadow, or whose inputs are watched sees every request.
        let Chosen { served, trial, shadow } = &self.chosen;
        let watched = trial.is_some() || shadow.is_some() || served.drift.is_some();
        (!watched).then(|| self.shared.cache.body_key(self.served().answers, parts, body))
    }

    /// The response kept under a key.
    pub fn body(&self, key: &RequestKey) -> Option<Body> {
        let asked = Instant::now();
        let body = self.shared.cache.body(key, asked)?;
        self.served().stats.hit(asked.elapsed());
        Some(body)
    }

    /// Keeps a response as long as the model's answers are kept.
    pub fn keep_body(&self, key: RequestKey, body: Body) {
        if let Some(policy) = &self.served().serving.cache {
            self.shared.cache.keep_body(key, body, cache::expiry(Instant::now(), policy.ttl_seconds));
        }
    }

    /// Answers a request: out of the cache where the model has one and an equal request came before, else by a run.
    /// Dropping the future gives the request up if it hasn't started. Must be awaited inside a tokio runtime.
    ///
    /// A model that declares how it takes plain content takes that as the input `picture` or `table`, too: BYTES, one
    /// element. One whose outputs can be read gives `classes.labels`, `boxes.places` and what else
    /// [`steps::Output::specs`] lists where a request names them.
    ///
    /// # Errors
    /// When the request doesn't fit the model or the limits, too many are waiting, it waited for too long, or the
    /// engine fails.
    pub async fn answer(&self, request: Request) -> Result<Answer, Error> {
        match self.is_of_tensors(&request) {
            true => self.answer_tensors(request).await,
            false => self.answer_plain(request).await,
        }
    }

    pub(super) async fn answer_tensors(&self, request: Request) -> Result<Answer, Error> {
        let checked = self.check(request)?;
        let Some(policy) = &self.served().serving.cache else { return self.run(checked).await };
        let (asked, cache) = (checked.submitted, &self.shared.cache);
        let key = cache.request_key(self.served().answers, &checked.inputs, &checked.outputs);
        // Whoever computes the same already may take longer than this request may wait.
        let found = match checked.timeout {
            Some(timeout) => tokio::time::timeout_at((asked + timeout).into(), cache.outputs(&key, asked))
                .await
                .map_err(|_| late(self.served(), asked))?,
            None => cache.outputs(&key, asked).await,
        };
        match found {
            Found::Outputs(outputs) => {
                let took = asked.elapsed();
                self.served().stats.hit(took);
                let timing = Timing { took, cache: took, cached: true, ..Timing::begun(asked) };
                Ok(Answer { outputs: outputs.to_vec(), timing })
            }
            // Together with others who waited in vain, instead of one after the other.
            Found::Failed => self.run(checked).await,
            Found::Nothing(vacancy) => {
                let looked = asked.elapsed();
                let mut answer = self.run(checked).await?;
                answer.timing.cache = looked;
                let done = Instant::now();
                vacancy.fill(answer.outputs.clone().into(), cache::expiry(done, policy.ttl_seconds));
                self.served().stats.missed(looked + done.elapsed());
                Ok(answer)
            }
        }
    }

    async fn run(&self, checked: Checked) -> Result<Answer, Error> {
        match &self.served().steps {
            Some(steps) => self.run_steps(steps, self.chosen.trial.as_deref(), checked).await,
            None => self.submit(checked)?.within_deadline().await,
        }
    }

    /// Checks a request and queues it, past the cache; a run of some microseconds is done at once instead.
    /// Dropping the returned future gives the request up if it hasn't started.
    ///
    /// # Errors
    /// When the request doesn't fit the model or the limits, too many are waiting, or the model is an ensemble.
    pub fn infer(&self, request: Request) -> Result<Pending, Error> {
        self.submit(self.check(request)?)
    }

    fn submit(&self, checked: Checked) -> Result<Pending, Error> {
        if self.served().steps.is_some() {
            return Err(Error::Ensemble { model: self.name().into() });
        }
        let Checked { inputs, outputs, asked_priority, timeout, submitted } = checked;
        let priority = or(asked_priority, MIDDLE).min(LAST);
        let (reply, answer) = oneshot::channel();
        let deadline = timeout.map(|timeout| (submitted + timeout, Arc::new(AtomicBool::new(false))));
        let comparison = self.chosen.shadow.clone().map(Comparison::with);
        let model = Arc::clone(&self.chosen.served);
        let reply = Reply::Caller(reply);
        if let (Some(shadow), Some(comparison)) = (&self.chosen.shadow, &comparison) {
            self.copy(shadow, comparison, &inputs, &outputs, submitted);
        }
        let pending = Pending { answer, submitted, deadline: deadline.clone(), model: Arc::clone(&model) };
        let trial = self.chosen.trial.clone();
        let job = Job { model, inputs, outputs, submitted, deadline, comparison, trial, reply };
        if self.served().runs_at_once(job.input_bytes(), AT_ONCE) {
            job.run_here();
            return Ok(pending);
        }
        let refused = |error| {
            self.served().stats.failed(Failure::Rejected, submitted.elapsed());
            Err(error)
        };
        match self.shared.pool_of(self.served()).submit(job, priority) {
            Ok(()) => Ok(pending),
            Err(Refused::Full { waiting }) => refused(Error::Overloaded { waiting }),
            Err(Refused::Closed) => refused(Error::Stopped),
        }
    }

    /// Sends a copy of a request to another version, if it takes such a request and there is room.
    fn copy(
        &self,
        shadow: &Arc<Served>,
        comparison: &Comparison,
        inputs: &[Tensor],
        outputs: &Arc<[String]>,
        submitted: Instant,
    ) {
        let fits = shadow.model.signature().check(inputs, outputs);
        if fits.and_then(|()| shadow.check_batch(inputs)).is_err() {
            shadow.stats.compared(false);
            return;
        }
        let job = Job {
            model: Arc::clone(shadow),
            inputs: shadow.in_order(inputs.to_vec()),
            outputs: Arc::clone(outputs),
            submitted,
            deadline: None,
            comparison: Some(comparison.clone()),
            trial: None,
            reply: Reply::Nobody,
        };
        self.shared.pool_of(shadow).submit_spare(job, LAST);
    }

    fn check(&self, request: Request) -> Result<Checked, Error> {
        let submitted = Instant::now();
        self.check_against_limits(&request).inspect_err(|_| {
            self.served().stats.failed(Failure::Invalid, submitted.elapsed());
        })?;
        let Request { inputs, outputs, priority, timeout } = request;
        let policy = &self.served().serving.queue;
        let outputs =
            if outputs.is_empty() { Arc::clone(&self.served().all_outputs) } else { outputs.into() };
        let asked_priority = or(priority, policy.default_priority);
        let default = Duration::from_millis(policy.timeout_milliseconds.into());
        let timeout = timeout.or(Some(default)).filter(|timeout| !timeout.is_zero());
        let inputs = self.served().in_order(inputs);
        self.served().observe(&inputs);
        Ok(Checked { inputs, outputs, asked_priority, timeout, submitted })
    }

    fn check_against_limits(&self, request: &Request) -> Result<(), Error> {
        let (limits, mut bytes) = (self.limits(), 0_usize);
        for tensor in &request.inputs {
            limits.check_shape(tensor.shape())?;
            bytes = bytes.saturating_add(tensor.data().len());
        }
        if bytes > limits.bytes {
            let limit = limits.bytes;
            return Err(Error::TooLarge { what: "the inputs' byte count", given: bytes, limit });
        }
        let mut checked = self.signature().check(&request.inputs, &request.outputs);
        checked = checked.and_then(|()| self.served().check_batch(&request.inputs));
        if self.serving().finite_inputs {
            checked = checked.and_then(|()| request.inputs.iter().try_for_each(Tensor::check_finite));
        }
        checked.map_err(|source| Error::Invalid { model: self.name().into(), source })
    }
}

/// The first number, or the second where that is 0.
fn or(first: u32, second: u32) -> u32 {
    if first == 0 { second } else { first }
}

/// The answer to come: a future on any executor, or [`Pending::wait`] on a plain thread.
pub struct Pending {
    answer: oneshot::Receiver<Done>,
    submitted: Instant,
    deadline: Option<(Instant, Arc<AtomicBool>)>,
    model: Arc<Served>,
}

impl Pending {
    /// Blocks until the answer is there. Not for async tasks: await it there.
    ///
    /// # Errors
    /// When the engine fails, the time is over before a thread is free, or the repository stops.
    pub fn wait(self) -> Result<Answer, Error> {
        let Pending { answer, submitted, deadline, model } = self;
        settle(answer.blocking_recv().ok(), submitted, deadline.map(|(deadline, _)| deadline), &model)
    }

    /// Awaits the answer; once the deadline is over and no thread has begun, that is the answer.
    async fn within_deadline(mut self) -> Result<Answer, Error> {
        let Some((deadline, decided)) = self.deadline.clone() else { return self.await };
        match tokio::time::timeout_at(deadline.into(), &mut self).await {
            Ok(answer) => answer,
            Err(_) if decided.swap(true, AcqRel) => self.await,
            Err(_) => settle(None, self.submitted, Some(deadline), &self.model),
        }
    }
}

impl Future for Pending {
    type Output = Result<Answer, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let done = std::task::ready!(Pin::new(&mut self.answer).poll(context));
        let deadline = self.deadline.as_ref().map(|(deadline, _)| *deadline);
        Poll::Ready(settle(done.ok(), self.submitted, deadline, &self.model))
    }
}

fn late(model: &Served, submitted: Instant) -> Error {
    model.stats.failed(Failure::Rejected, submitted.elapsed());
    Error::Late { model: model.name.clone() }
}

fn settle(
    done: Option<Done>,
    submitted: Instant,
    deadline: Option<Instant>,
    model: &Served,
) -> Result<Answer, Error> {
    let name = || model.name.clone();
    let Some(Done { outputs, begun, queue, compute, samples }) = done else {
        let is_late = deadline.is_some_and(|deadline| deadline <= Instant::now());
        return Err(if is_late { late(model, submitted) } else { Error::Stopped });
    };
    match outputs {
        Ok(outputs) => {
            let took = begun.elapsed();
            Ok(Answer { outputs, timing: Timing { took, queue, compute, samples, ..Timing::begun(begun) } })
        }
        Err(EngineError::Input(source)) => Err(Error::Invalid { model: name(), source }),
        Err(source) => {
            let (version, source) = (model.version.clone(), Box::new(source));
            Err(Error::Engine { model: name(), version, source })
        }
    }
}
