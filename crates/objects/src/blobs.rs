//! The files that hold objects' bytes.
//!
//! A file is written once, under a random name, and belongs to the one record that names it; a file that no record
//! names is garbage, whatever left it. So a file needs no temporary name: until its record is committed nobody looks
//! for it, and [`Blobs::sweep`] removes what a crash left.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use md5::{Digest as _, Md5};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Sha256;
use tracing::warn;
use types::Digest;

use crate::{Error, PutOptions};

/// How many bytes of an upload wait in memory before they are hashed and written together, off the async threads.
const BATCH: usize = 1 << 20;
/// How many files may wait to be removed; beyond it they are left for the next sweep.
const REMOVALS: usize = 4096;

/// A file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BlobId(u128);

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl BlobId {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        u128::from_str_radix(name, 16).ok().map(Self).filter(|id| id.to_string() == name)
    }
}

impl Serialize for BlobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::parse(&name).ok_or_else(|| serde::de::Error::custom(format!("`{name}` is not a blob's name")))
    }
}

/// A folder of blobs.
pub(crate) struct Blobs {
    path: PathBuf,
    /// Held open to make new names durable, and locked against a second process.
    folder: File,
    removals: mpsc::SyncSender<PathBuf>,
}

impl Blobs {
    pub(crate) fn open(path: PathBuf) -> Result<Arc<Self>, Error> {
        let failed = |source| Error::disk(&path, source);
        fs::create_dir_all(&path).map_err(failed)?;
        let folder = File::open(&path).map_err(failed)?;
        match folder.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(Error::InUse(path)),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
            Ok(()) => {}
        }
        if let Some(parent) = path.parent() {
            daemon::sync_folder(parent).map_err(failed)?;
        }
        let (removals, queue) = mpsc::sync_channel(REMOVALS);
        let remover = std::thread::Builder::new().name("objects-remover".to_owned());
        remover.spawn(move || remove_all(&queue)).map_err(failed)?;
        Ok(Arc::new(Self { path, folder, removals }))
    }

    /// Removes the files that `kept` does not name; answers how many.
    pub(crate) fn sweep(&self, kept: &HashSet<BlobId>) -> Result<usize, Error> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.path).map_err(|source| Error::disk(&self.path, source))? {
            let entry = entry.map_err(|source| Error::disk(&self.path, source))?;
            let is_kept =
                entry.file_name().to_str().and_then(BlobId::parse).is_some_and(|id| kept.contains(&id));
            if !is_kept {
                match fs::remove_file(entry.path()) {
                    Ok(()) => removed += 1,
                    // The remover of the owner before us was still at it.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(source) => return Err(Error::disk(entry.path(), source)),
                }
            }
        }
        Ok(removed)
    }

    pub(crate) fn path(&self, id: BlobId) -> PathBuf {
        self.path.join(id.to_string())
    }

    /// Removes a file soon; readers that have it open go on reading.
    pub(crate) fn remove(&self, id: BlobId) {
        let _ = self.removals.try_send(self.path(id));
    }

    /// Takes in a finished file on the same file system by renaming it. Blocks.
    pub(crate) fn adopt(self: &Arc<Self>, from: &Path) -> Result<NewBlob, Error> {
        let failed = |source| Error::disk(from, source);
        let id = BlobId(uuid::Uuid::new_v4().as_u128());
        let mut file = File::open(from).map_err(failed)?;
        let (mut size, mut md5, mut sha256) = (0, Md5::new(), Sha256::new());
        let mut buffer = vec![0; BATCH];
        loop {
            let read = file.read(&mut buffer).map_err(failed)?;
            let Some(chunk) = buffer.get(..read).filter(|chunk| !chunk.is_empty()) else { break };
            md5.update(chunk);
            sha256.update(chunk);
            size += chunk.len() as u64;
        }
        let draft = Draft { id, blobs: self.clone(), kept: false };
        fs::rename(from, self.path(id)).map_err(failed)?;
        let synced = file.sync_all().and_then(|()| self.folder.sync_all());
        synced.map_err(|source| Error::disk(&self.path, source))?;
        Ok(NewBlob { id, size, md5: md5.finalize().into(), digest: Digest::from_hasher(sha256), draft })
    }

    /// Writes what comes to a new file and makes it durable. At most `limit` bytes.
    pub(crate) async fn receive(
        self: &Arc<Self>,
        body: impl Stream<Item = io::Result<Bytes>> + Send,
        limit: u64,
    ) -> Result<NewBlob, Error> {
        let mut body = pin!(body);
        let mut writer: Option<Writer> = None;
        let mut size = 0_u64;
        loop {
            let mut batch = Vec::new();
            let mut waiting = 0;
            let mut ended = false;
            while waiting < BATCH && !ended {
                match body.next().await {
                    Some(chunk) => {
                        let chunk = chunk.map_err(Error::Body)?;
                        waiting += chunk.len();
                        batch.push(chunk);
                    }
                    None => ended = true,
                }
            }
            size = size.saturating_add(waiting as u64);
            if size > limit {
                return Err(Error::TooLarge { size, limit });
            }
            let blobs = self.clone();
            let advanced = blocking(move || {
                let mut writer = writer.map_or_else(|| Writer::create(&blobs), Ok)?;
                for chunk in &batch {
                    writer.append(chunk)?;
                }
                if ended { writer.finish().map(Advanced::Done) } else { Ok(Advanced::More(writer)) }
            });
            match advanced.await? {
                Advanced::Done(blob) => return Ok(blob),
                Advanced::More(more) => writer = Some(more),
            }
        }
    }
}

enum Advanced {
    More(Writer),
    Done(NewBlob),
}

fn remove_all(queue: &mpsc::Receiver<PathBuf>) {
    while let Ok(path) = queue.recv() {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(path = %path.display(), %error, "a file is left until the next start");
            }
            _ => {}
        }
    }
}

/// A file that is removed unless its record is committed.
pub(crate) struct NewBlob {
    pub(crate) id: BlobId,
    pub(crate) size: u64,
    pub(crate) md5: [u8; 16],
    pub(crate) digest: Digest,
    draft: Draft,
}

impl NewBlob {
    /// Whether what arrived is what was announced.
    pub(crate) fn check(&self, options: &PutOptions) -> Result<(), Error> {
        if let Some(expected) = options.expected_length.filter(|expected| *expected != self.size) {
            return Err(Error::Incomplete { expected, actual: self.size });
        }
        if let Some(expected) = options.expected_md5.filter(|expected| *expected != self.md5) {
            return Err(Error::Mismatch { what: "MD5", expected: hex(&expected), actual: hex(&self.md5) });
        }
        if let Some(expected) = options.expected_digest.filter(|expected| *expected != self.digest) {
            let (expected, actual) = (expected.to_string(), self.digest.to_string());
            return Err(Error::Mismatch { what: "digest", expected, actual });
        }
        Ok(())
    }

    /// A record names the file now.
    pub(crate) fn keep(mut self) {
        self.draft.kept = true;
    }
}

struct Draft {
    id: BlobId,
    blobs: Arc<Blobs>,
    kept: bool,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            self.blobs.remove(self.id);
        }
    }
}

/// A file as it is written. Blocks.
pub(crate) struct Writer {
    file: File,
    draft: Draft,
    size: u64,
    md5: Md5,
    sha256: Sha256,
}

impl Writer {
    pub(crate) fn create(blobs: &Arc<Blobs>) -> Result<Self, Error> {
        let id = BlobId(uuid::Uuid::new_v4().as_u128());
        let path = blobs.path(id);
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = file.map_err(|source| Error::disk(path, source))?;
        let draft = Draft { id, blobs: blobs.clone(), kept: false };
        Ok(Self { file, draft, size: 0, md5: Md5::new(), sha256: Sha256::new() })
    }

    pub(crate) fn append(&mut self, chunk: &[u8]) -> Result<(), Error> {
        self.md5.update(chunk);
        self.sha256.update(chunk);
        self.size += chunk.len() as u64;
        self.file.write_all(chunk).map_err(|source| Error::disk(&self.draft.blobs.path, source))
    }

    /// Appends all of another file.
    pub(crate) fn append_file(&mut self, path: &Path, buffer: &mut [u8]) -> Result<(), Error> {
        let failed = |source| Error::disk(path, source);
        let mut file = File::open(path).map_err(failed)?;
        loop {
            let read = file.read(buffer).map_err(failed)?;
            match buffer.get(..read) {
                Some(chunk) if !chunk.is_empty() => self.append(chunk)?,
                _ => return Ok(()),
            }
        }
    }

    pub(crate) fn finish(self) -> Result<NewBlob, Error> {
        let blobs = &self.draft.blobs;
        // The file's own sync usually carries its name along; then the folder's has nothing left to do.
        let synced = self.file.sync_all().and_then(|()| blobs.folder.sync_all());
        synced.map_err(|source| Error::disk(&blobs.path, source))?;
        Ok(NewBlob {
            id: self.draft.id,
            size: self.size,
            md5: self.md5.finalize().into(),
            digest: Digest::from_hasher(self.sha256),
            draft: self.draft,
        })
    }
}

/// Runs what blocks off the async threads. Runs to its end even if the future is dropped.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(failure) => match failure.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Ending),
        },
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
