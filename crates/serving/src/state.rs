//! What every handler sees.

use std::sync::Arc;

use inference::Repository;

/// The models, and what this server thinks of itself. Cheap to clone.
#[derive(Clone)]
pub struct ServerState {
    pub(crate) repository: Repository,
    pub(crate) ready: Arc<dyn Fn() -> bool + Send + Sync>,
    pub(crate) body_limit: usize,
}

impl ServerState {
    /// Ready at once, bodies up to 64 MiB (a 4K RGB image as FP32 is 95 MiB: raise it for those).
    pub fn new(repository: Repository) -> ServerState {
        ServerState { repository, ready: Arc::new(|| true), body_limit: 64 << 20 }
    }

    /// When `/v2/health/ready` says yes: for an agent, once every model assigned to the site is loaded. Called
    /// on each such request, so it must be quick.
    #[must_use]
    pub fn ready_when(mut self, ready: impl Fn() -> bool + Send + Sync + 'static) -> ServerState {
        self.ready = Arc::new(ready);
        self
    }

    /// Largest request body in bytes, before and after decompression.
    #[must_use]
    pub fn body_limit(mut self, bytes: usize) -> ServerState {
        self.body_limit = bytes;
        self
    }
}
