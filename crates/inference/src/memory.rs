//! How much memory processes hold, and giving back what a model held.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How long what is gone is gathered, to give it back together.
const GATHER: Duration = Duration::from_millis(200);
/// How long a model may be held by its last requests until others' memory is no longer kept waiting for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of memory that a process holds; 0 where the system doesn't say.
pub(crate) fn resident(process: u32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{process}/statm")).unwrap_or_default();
    let pages: Option<u64> = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or_default() * 4096
}

/// Gives memory back to the system once models are gone. The C library keeps what was freed for later, which after
/// a model is much, and in many pieces.
pub(crate) struct Returns<T> {
    gone: mpsc::Sender<Weak<T>>,
}

impl<T: Send + Sync + 'static> Returns<T> {
    /// Starts the thread that waits until nobody holds a model any more.
    pub fn start() -> std::io::Result<Returns<T>> {
        let (gone, models) = mpsc::channel();
        std::thread::Builder::new().name("give-back".into()).spawn(move || give_back(&models))?;
        Ok(Returns { gone })
    }

    /// A model was taken out; requests may still hold it.
    pub fn after(&self, model: Arc<T>) {
        // Without that thread nobody is left to need memory.
        let _ = self.gone.send(Arc::downgrade(&model));
    }
}

fn give_back<T>(models: &mpsc::Receiver<Weak<T>>) {
    while let Ok(first) = models.recv() {
        let (mut leaving, since) = (vec![first], Instant::now());
        loop {
            match models.recv_timeout(GATHER) {
                Ok(next) => leaving.push(next),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            leaving.retain(|model| model.strong_count() > 0);
            if leaving.is_empty() || since.elapsed() > PATIENCE {
                break;
            }
        }
        heap::give_back();
    }
}
