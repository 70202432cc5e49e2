//! What every handler sees.

use std::sync::{Arc, OnceLock};

use daemon::Logs;
use inference::Repository;

use crate::bodies::Bodies;
use crate::control::{Control, ControlError, NoControl};
use crate::error::ApiError;
use crate::metrics::Processors;
use crate::mlbuffet::Operations;
use crate::payloads::PayloadLog;
use crate::settings::Settings;
use crate::trace::Tracer;

const BODY_LIMIT: usize = 64 << 20;

/// The models, and what this server thinks of itself. Cheap to clone.
#[derive(Clone)]
pub struct ServerState {
    pub(crate) repository: Repository,
    pub(crate) ready: Arc<dyn Fn() -> bool + Send + Sync>,
    pub(crate) body_limit: usize,
    pub(crate) bodies: Bodies,
    pub(crate) control: Arc<dyn Control>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) logs: Option<Logs>,
    pub(crate) payloads: Option<PayloadLog>,
    pub(crate) tracer: Option<Tracer>,
    pub(crate) processors: Arc<Processors>,
    /// Set where MLBuffet's clients are answered.
    pub(crate) operations: Arc<OnceLock<Operations>>,
    pub(crate) further: Option<Arc<dyn Fn() -> String + Send + Sync>>,
}

impl ServerState {
    /// Ready at once, bodies up to 64 MiB (a 4K RGB image as FP32 is 95 MiB: raise it for those), and no client may
    /// load or unload models.
    pub fn new(repository: Repository) -> ServerState {
        ServerState {
            repository,
            ready: Arc::new(|| true),
            body_limit: BODY_LIMIT,
            bodies: Bodies::of(BODY_LIMIT),
            control: Arc::new(NoControl),
            settings: Arc::default(),
            logs: None,
            payloads: None,
            tracer: None,
            processors: Arc::new(Processors::begin()),
            operations: Arc::default(),
            further: None,
        }
    }

    /// The models.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// When `/v2/health/ready` says yes: for an agent, once every model assigned to the site is loaded. Called
    /// on each such request, so it must be quick.
    #[must_use]
    pub fn ready_when(mut self, ready: impl Fn() -> bool + Send + Sync + 'static) -> ServerState {
        self.ready = Arc::new(ready);
        self
    }

    /// Largest request body in bytes, before and after decompression; over gRPC the largest message. All that come at
    /// once, over whichever protocol, may be eight times as large together, or 64 MiB where that is more.
    #[must_use]
    pub fn body_limit(mut self, bytes: usize) -> ServerState {
        (self.body_limit, self.bodies) = (bytes, Bodies::of(bytes));
        self
    }

    /// Who loads and unloads models when clients ask for it.
    #[must_use]
    pub fn control(mut self, control: Arc<dyn Control>) -> ServerState {
        self.control = control;
        self
    }

    /// The process's logs, which clients may change where they may load models; without it nobody may.
    #[must_use]
    pub fn logs(mut self, logs: Logs) -> ServerState {
        self.logs = Some(logs);
        self
    }

    /// Where requests are logged whose model says so; without it none is.
    #[must_use]
    pub fn payloads(mut self, log: PayloadLog) -> ServerState {
        self.payloads = Some(log);
        self
    }

    /// What `/metrics` tells beside what this crate knows, in Prometheus' text format.
    #[must_use]
    pub fn further_metrics(mut self, tell: Arc<dyn Fn() -> String + Send + Sync>) -> ServerState {
        self.further = Some(tell);
        self
    }

    /// Who is told what was done for requests; without it nobody is.
    #[must_use]
    pub fn traces(mut self, tracer: Tracer) -> ServerState {
        self.tracer = Some(tracer);
        self
    }

    /// For what clients may only do where they may load models, too.
    pub(crate) fn may_control(&self) -> Result<&ServerState, ApiError> {
        if self.control.is_on() { Ok(self) } else { Err(ControlError::Off.into()) }
    }
}
