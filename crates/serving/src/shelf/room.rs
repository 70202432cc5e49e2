//! Bounds on what uploaded models take of the disk.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use types::Digest;

use super::{Error, Tag};

/// What all files take together.
pub(super) struct Disk {
    limit: u64,
    kept: AtomicU64,
    /// Of files that are no versions yet.
    coming: AtomicU64,
}

impl Disk {
    pub fn new(limit: u64) -> Disk {
        Disk { limit, kept: AtomicU64::new(0), coming: AtomicU64::new(0) }
    }

    /// Counts the files of all versions; those that share one count it once.
    pub fn count(&self, tags: &BTreeMap<String, Tag>) {
        let versions = tags.values().flat_map(|tag| tag.versions().values());
        let files: BTreeMap<Digest, u64> = versions.map(|version| (version.digest, version.size)).collect();
        self.kept.store(files.values().sum(), Relaxed);
    }
}

/// Room for a file that comes; given back when it is a version or gone.
pub(super) struct Room {
    disk: Arc<Disk>,
    bytes: AtomicU64,
    is_full: AtomicBool,
}

impl Room {
    pub fn on(disk: &Arc<Disk>) -> Arc<Room> {
        Arc::new(Room { disk: Arc::clone(disk), bytes: AtomicU64::new(0), is_full: AtomicBool::new(false) })
    }

    /// Why the file was not read to its end, if that was for want of room.
    pub fn refusal(&self) -> Option<Error> {
        let (kept, limit) = (self.disk.kept.load(Relaxed), self.disk.limit);
        self.is_full.load(Relaxed).then_some(Error::Full { kept, limit })
    }

    fn take(&self, bytes: u64) -> io::Result<()> {
        self.bytes.fetch_add(bytes, Relaxed);
        let coming = self.disk.coming.fetch_add(bytes, Relaxed).saturating_add(bytes);
        if self.disk.kept.load(Relaxed).saturating_add(coming) > self.disk.limit {
            self.is_full.store(true, Relaxed);
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.disk.coming.fetch_sub(*self.bytes.get_mut(), Relaxed);
    }
}

/// A file on its way into its room.
pub(super) struct Coming<R> {
    pub content: R,
    pub room: Arc<Room>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Coming<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.content).poll_read(context, buffer))?;
        let bytes = buffer.filled().len().saturating_sub(before);
        Poll::Ready(self.room.take(bytes as u64))
    }
}
