//! Tasks that are named, supervised and end together.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, error, info_span, warn};

use crate::Backoff;

/// Tells that it is time to end.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// Waits until it is time to end. Cancel safe.
    pub async fn wait(&self) {
        self.0.cancelled().await;
    }

    /// Whether it is time to end.
    pub fn is_due(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Sleeps, but not past the end; answers whether to go on.
    pub async fn sleep(&self, duration: Duration) -> bool {
        tokio::select! {
            () = self.0.cancelled() => false,
            () = tokio::time::sleep(duration) => true,
        }
    }
}

/// The tasks of one process.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    shutdown: Shutdown,
    tracker: TaskTracker,
}

impl Tasks {
    /// What tasks watch to know when to end.
    pub fn shutdown(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// Runs a task that ends by itself, at the latest after a shutdown.
    #[expect(clippy::disallowed_methods, reason = "this is where tasks are spawned")]
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let span = info_span!(parent: None, "task", name);
        let supervised = async move {
            // The inner task catches a panic, so that it is told instead of lost.
            if let Err(failure) = tokio::spawn(task.in_current_span()).await
                && failure.is_panic()
            {
                error!(name, "task panicked; this is a bug, please report it");
            }
        };
        tokio::spawn(self.tracker.track_future(supervised.instrument(span)));
    }

    /// Runs `work` again and again until the shutdown: after a failure (or a panic) it waits and tries anew.
    pub fn supervise<W, F, E>(&self, name: &'static str, mut work: W)
    where
        W: FnMut(Shutdown) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::fmt::Display + Send + 'static,
    {
        let shutdown = self.shutdown();
        self.spawn(name, async move {
            let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));
            while !shutdown.is_due() {
                let started = tokio::time::Instant::now();
                let ended = std::panic::AssertUnwindSafe(work(shutdown.clone()));
                let ended = futures::FutureExt::catch_unwind(ended).await;
                if shutdown.is_due() {
                    return;
                }
                if started.elapsed() > Duration::from_secs(30) {
                    backoff.reset();
                }
                let wait = backoff.next_wait();
                match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => warn!(name, %error, ?wait, "task failed; it is tried again"),
                    Err(_) => error!(name, ?wait, "task panicked; this is a bug, please report it"),
                }
                shutdown.sleep(wait).await;
            }
        });
    }

    /// Tells all tasks to end and waits for them, at most `patience`; answers whether all ended.
    pub async fn end(self, patience: Duration) -> bool {
        self.shutdown.0.cancel();
        self.tracker.close();
        tokio::time::timeout(patience, self.tracker.wait()).await.is_ok()
    }
}

/// Waits for SIGINT or SIGTERM.
pub async fn wait_for_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn a_failing_or_panicking_task_is_tried_again_until_the_end() {
        let tasks = Tasks::default();
        let tries = Arc::new(AtomicU32::new(0));
        let counted = tries.clone();
        let (third, reached) = tokio::sync::oneshot::channel();
        let mut third = Some(third);
        tasks.supervise("test", move |_| {
            let attempt = counted.fetch_add(1, Ordering::SeqCst);
            let third = if attempt == 2 { third.take() } else { None };
            async move {
                assert!(attempt != 0, "a panic");
                if let Some(third) = third {
                    let _ = third.send(());
                }
                Err::<(), _>("no luck")
            }
        });
        reached.await.unwrap();
        assert!(tasks.end(Duration::from_secs(5)).await);
        assert!(tries.load(Ordering::SeqCst) >= 3);
    }
}
