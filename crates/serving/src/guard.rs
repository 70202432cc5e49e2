//! Who may change what a server keeps.

use axum::http::HeaderMap;
use futures::future::BoxFuture;

/// Decides from a request's headers whether its sender may upload, download, change and delete models and list
/// everybody's jobs. Predictions and the jobs that one knows the id of are not asked about.
pub trait Guard: Send + Sync {
    /// Lets the request pass, or says what to send.
    ///
    /// # Errors
    /// The refusal, for the client.
    fn admit<'a>(&'a self, headers: &'a HeaderMap) -> BoxFuture<'a, Result<(), String>>;
}

/// Lets everybody do everything: for a server that only its owner reaches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unguarded;

impl Guard for Unguarded {
    fn admit<'a>(&'a self, _: &'a HeaderMap) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}
