//! One hub, or one restore, in a data folder at a time.

use std::fs::{File, TryLockError};
use std::path::Path;

use anyhow::{Context, bail};

/// Locks a data folder's hub until the answer is dropped, or the process ends in whatever way.
pub fn lock_hub(data: &Path) -> anyhow::Result<File> {
    let path = data.join("hub.lock");
    let file = File::create(&path).with_context(|| format!("can't write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("a hub runs in {}; end it first, or name another folder with --data", data.display())
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("can't lock {}", path.display()))
        }
    }
}
