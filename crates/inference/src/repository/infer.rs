//! One request: check, queue, wait.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use types::Serving;

use super::Served;
use crate::pool::{Done, Job, Pool};
use crate::queue::Refused;
use crate::{EngineError, Error, Limits, Name, Signature, StatsSnapshot, Tensor};

/// What to compute.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// In any order.
    pub inputs: Vec<Tensor>,
    /// Names of the outputs wanted; none stands for all.
    pub outputs: Vec<String>,
    /// 1 is the most urgent, 0 the model's default.
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
    /// Waiting for a thread.
    pub queue: Duration,
    /// In the engine.
    pub compute: Duration,
}

/// A model version to send requests to. Holding it keeps the model in memory: take it per request.
#[derive(Clone)]
pub struct Model {
    served: Arc<Served>,
    pool: Arc<Pool>,
    limits: Limits,
}

impl Model {
    pub(super) fn new(served: Arc<Served>, pool: &Arc<Pool>, limits: Limits) -> Model {
        Model { served, pool: Arc::clone(pool), limits }
    }

    pub fn name(&self) -> &str {
        &self.served.name
    }

    pub fn version(&self) -> &str {
        &self.served.version
    }

    /// The engine that runs it.
    pub fn engine(&self) -> Name {
        self.served.engine
    }

    pub fn signature(&self) -> &Signature {
        self.served.model.signature()
    }

    /// How it is run.
    pub fn serving(&self) -> &Serving {
        &self.served.serving
    }

    /// Runs that may go on at once.
    pub fn instances(&self) -> usize {
        self.served.model.instances()
    }

    /// The file that it was loaded from.
    pub fn path(&self) -> &Path {
        &self.served.path
    }

    /// Bounds of one request, for a front to apply while it still parses.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    pub fn stats(&self) -> StatsSnapshot {
        self.served.stats.snapshot()
    }

    /// Checks a request and queues it; doesn't block. Dropping the returned future gives the request up if it
    /// hasn't started.
    ///
    /// # Errors
    /// When the request doesn't fit the model or the limits, or too many are waiting.
    pub fn infer(&self, request: Request) -> Result<Pending, Error> {
        let submitted = Instant::now();
        let failed = |error| {
            self.served.stats.failed(submitted.elapsed());
            error
        };
        self.check(&request).map_err(failed)?;
        let Request { inputs, mut outputs, .. } = request;
        if outputs.is_empty() {
            outputs = self.signature().outputs.iter().map(|spec| spec.name.clone()).collect();
        }
        let (reply, answer) = oneshot::channel();
        let model = Arc::clone(&self.served);
        match self.pool.submit(Job { model, inputs, outputs, submitted, reply }) {
            Ok(()) => {
                let (model, version) = (self.name().to_owned(), self.version().to_owned());
                Ok(Pending { answer, model, version })
            }
            Err(Refused::Full { waiting }) => Err(failed(Error::Overloaded { waiting })),
            Err(Refused::Closed) => Err(failed(Error::Stopped)),
        }
    }

    fn check(&self, request: &Request) -> Result<(), Error> {
        let mut bytes = 0_usize;
        for tensor in &request.inputs {
            let (given, limit) = (tensor.count(), self.limits.elements);
            if given > limit {
                return Err(Error::TooLarge { what: "a tensor's element count", given, limit });
            }
            bytes = bytes.saturating_add(tensor.data().len());
        }
        if bytes > self.limits.bytes {
            let limit = self.limits.bytes;
            return Err(Error::TooLarge { what: "the inputs' byte count", given: bytes, limit });
        }
        let checked = self.signature().check(&request.inputs, &request.outputs);
        checked.map_err(|source| Error::Invalid { model: self.name().into(), source })
    }
}

/// The answer to come: a future on any executor, or [`Pending::wait`] on a plain thread.
pub struct Pending {
    answer: oneshot::Receiver<Done>,
    model: String,
    version: String,
}

impl Pending {
    /// Blocks until the answer is there. Not for async tasks: await it there.
    ///
    /// # Errors
    /// When the engine fails or the repository stops.
    pub fn wait(self) -> Result<Answer, Error> {
        let Pending { answer, model, version } = self;
        settle(answer.blocking_recv().ok(), &model, &version)
    }
}

impl Future for Pending {
    type Output = Result<Answer, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let done = std::task::ready!(Pin::new(&mut self.answer).poll(context));
        Poll::Ready(settle(done.ok(), &self.model, &self.version))
    }
}

fn settle(done: Option<Done>, model: &str, version: &str) -> Result<Answer, Error> {
    let Done { outputs, queue, compute } = done.ok_or(Error::Stopped)?;
    match outputs {
        Ok(outputs) => Ok(Answer { outputs, queue, compute }),
        Err(EngineError::Input(source)) => Err(Error::Invalid { model: model.into(), source }),
        Err(source) => {
            let source = Box::new(source);
            Err(Error::Engine { model: model.into(), version: version.into(), source })
        }
    }
}
