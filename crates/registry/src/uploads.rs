//! Uploads under way: a file that grows, and a record that says whose it is.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use daemon::Shutdown;
use futures::{Stream, StreamExt};
use tokio::task::spawn_blocking;
use uuid::Uuid;

use crate::content::Hasher;
use crate::records::{self, UPLOADS, UploadRecord};
use crate::{Blob, ContentDigest, Error, Registry, Repository};

/// Large enough that the hop to a thread that may block is cheap beside the write.
const BATCH: usize = 256 << 10;

/// How often uploads are swept.
const SWEEP: Duration = Duration::from_secs(300);

/// Names an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadId(Uuid);

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for UploadId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = |_| Error::UploadUnknown(text.chars().take(80).collect());
        text.parse().map(Self).map_err(unknown)
    }
}

/// An upload under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upload {
    /// Its name.
    pub id: UploadId,
    /// How many bytes are here.
    pub received: u64,
}

/// Where a chunk begins and how long it is, as far as it was announced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) start: Option<u64>,
    pub(crate) length: Option<u64>,
}

impl Registry {
    /// Begins an upload for a user, or for whoever, where users aren't told apart.
    ///
    /// # Errors
    /// [`Error::TooManyUploads`], [`Error::TooManyOfOne`], or that of the disk.
    pub async fn start_upload(&self, repository: &Repository, user: Option<&str>) -> Result<Upload, Error> {
        let id = UploadId(Uuid::new_v4());
        let by = user.map_or_else(|| repository.to_string(), |user| format!("user {user}"));
        let record = UploadRecord { repository: repository.to_string(), started: daemon::now(), by };
        let (most, most_of_one) = (self.limits.uploads, self.limits.uploads_of_one);
        self.ledger
            .write(move |tables| {
                let (mut all, mut own) = (0, 0);
                records::each(tables, UPLOADS, "", |_, other: UploadRecord| {
                    all += 1;
                    own += u64::from(other.by == record.by);
                })?;
                if own >= most_of_one {
                    return Err(Error::TooManyOfOne(most_of_one));
                }
                if all >= most {
                    return Err(Error::TooManyUploads(most));
                }
                Ok(tables.put(UPLOADS, &id.to_string(), &record)?)
            })
            .await?;
        Ok(Upload { id, received: 0 })
    }

    /// How far an upload is.
    ///
    /// # Errors
    /// [`Error::UploadUnknown`], or that of the disk.
    pub fn upload(&self, repository: &Repository, id: UploadId) -> Result<Upload, Error> {
        let record: Option<UploadRecord> = self.ledger.read(|tables| tables.get(UPLOADS, &id.to_string()))?;
        if record.is_none_or(|record| record.repository != repository.as_str()) {
            return Err(Error::UploadUnknown(id.to_string()));
        }
        let received = std::fs::metadata(self.upload_file(id)).map_or(0, |metadata| metadata.len());
        Ok(Upload { id, received })
    }

    /// Appends to an upload; answers how many bytes it has then, which survive a crash. A body that breaks off leaves
    /// what arrived.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`], [`Error::ChunkInvalid`] and [`Error::TooLarge`], and nothing is kept of the chunk;
    /// [`Error::Body`], [`Error::UploadBusy`], [`Error::UploadUnknown`], or that of the disk.
    pub(crate) async fn append(
        &self,
        repository: &Repository,
        id: UploadId,
        chunk: Chunk,
        body: impl Stream<Item = io::Result<Bytes>> + Send,
    ) -> Result<u64, Error> {
        self.upload(repository, id)?;
        let path = self.upload_file(id);
        let (file, before) = blocking(move || open(&path)).await?;
        if let Some(start) = chunk.start
            && start != before
        {
            return Err(Error::OutOfOrder { received: before, start });
        }
        let announced = chunk.length.unwrap_or(u64::MAX);
        let room = self.limits.blob.saturating_sub(before);
        let refuse = |error| {
            file.set_len(before)?;
            Err(error)
        };
        let (mut body, mut taken, mut ended) = (std::pin::pin!(body), 0_u64, None);
        while ended.is_none() {
            let mut batch = Vec::new();
            while batch.len() < BATCH && ended.is_none() {
                match body.next().await {
                    Some(Ok(bytes)) => batch.extend_from_slice(&bytes),
                    Some(Err(error)) => ended = Some(Err(Error::Body(error))),
                    None => ended = Some(Ok(())),
                }
            }
            taken += batch.len() as u64;
            if taken > room {
                return refuse(Error::TooLarge { what: "the blob", limit: self.limits.blob });
            }
            if taken > announced
                || (taken < announced && chunk.length.is_some() && matches!(ended, Some(Ok(()))))
            {
                let problem = format!("it has not the {announced} bytes that its range says");
                return refuse(Error::ChunkInvalid(problem));
            }
            let mut writer = file.try_clone()?;
            blocking(move || Ok(writer.write_all(&batch)?)).await?;
        }
        ended.unwrap_or(Ok(()))?;
        blocking(move || Ok(file.sync_data()?)).await?;
        Ok(before + taken)
    }

    /// Makes an upload a blob of its repository, if it has the digest; if not, it is gone.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`], [`Error::UploadUnknown`], [`Error::UploadBusy`], or that of the disk.
    pub async fn finish_upload(
        &self,
        repository: &Repository,
        id: UploadId,
        digest: &ContentDigest,
    ) -> Result<Blob, Error> {
        self.upload(repository, id)?;
        let (path, announced) = (self.upload_file(id), *digest);
        let (held, stored, actual, size) = blocking(move || {
            let (mut file, size) = open(&path)?;
            let (stored, actual) = hash(&mut file, &announced)?;
            Ok((file, stored, actual, size))
        })
        .await?;
        if actual != announced {
            self.cancel_upload(repository, id).await?;
            return Err(Error::mismatch(announced, actual));
        }
        let (blobs, path) = (self.blobs.clone(), self.upload_file(id));
        // From being a blob to being shown, nobody may take it for garbage.
        let _open = self.gate.read().await;
        // The lock goes along: should the request be dropped, nobody appends before this is done.
        blocking(move || {
            let adopted = blobs.adopt(&path, &stored);
            drop(held);
            Ok(adopted?)
        })
        .await?;
        let blob = self.link(repository, announced, stored, size).await?;
        // Should we end before this: an upload without bytes is left, which is swept one day.
        self.forget_upload(id).await?;
        Ok(blob)
    }

    /// Gives an upload up.
    ///
    /// # Errors
    /// [`Error::UploadUnknown`], or that of the disk.
    pub async fn cancel_upload(&self, repository: &Repository, id: UploadId) -> Result<(), Error> {
        self.upload(repository, id)?;
        self.forget_upload(id).await
    }

    async fn forget_upload(&self, id: UploadId) -> Result<(), Error> {
        self.ledger.write(move |tables| tables.delete(UPLOADS, &id.to_string())).await?;
        remove(&self.upload_file(id))
    }

    /// Sweeps uploads every few minutes until the shutdown.
    ///
    /// # Errors
    /// That of the disk.
    pub async fn keep_tidy(self, shutdown: Shutdown) -> Result<(), Error> {
        loop {
            let swept = self.sweep_uploads().await?;
            if swept > 0 {
                tracing::info!(swept, "uploads that had rested too long were given up");
            }
            if !shutdown.sleep(SWEEP).await {
                return Ok(());
            }
        }
    }

    /// Gives up the uploads that have rested or taken for as long as [`crate::Limits`] allow, and removes files
    /// without a record; answers how many uploads went.
    ///
    /// # Errors
    /// That of the disk.
    pub async fn sweep_uploads(&self) -> Result<u64, Error> {
        let mut known = Vec::new();
        self.ledger.read(|tables| {
            records::each(tables, UPLOADS, "", |key, record: UploadRecord| {
                known.push((key.to_owned(), record));
            })
        })?;
        let (now, mut swept) = (SystemTime::now(), 0);
        for (key, record) in &known {
            let Ok(id) = key.parse::<UploadId>() else { continue };
            if self.is_given_up(id, record) {
                self.forget_upload(id).await?;
                swept += 1;
            }
        }
        for entry in std::fs::read_dir(&self.uploads)? {
            let entry = entry?;
            let name = entry.file_name();
            let is_known = known.iter().any(|(key, _)| name.to_str() == Some(key));
            let age = entry.metadata().and_then(|metadata| metadata.modified()).ok();
            let is_old =
                age.and_then(|changed| now.duration_since(changed).ok()) >= Some(self.limits.upload_rest);
            if !is_known && is_old {
                remove(&entry.path())?;
            }
        }
        Ok(swept)
    }

    fn is_given_up(&self, id: UploadId, record: &UploadRecord) -> bool {
        let age = age(record, daemon::now());
        if age >= self.limits.upload_age {
            return true;
        }
        let Ok(file) = File::open(self.upload_file(id)) else { return age >= self.limits.empty_rest };
        // Somebody sends now, be it ever so slowly.
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            return false;
        }
        let Ok(metadata) = file.metadata() else { return false };
        let rest =
            metadata.modified().ok().and_then(|changed| SystemTime::now().duration_since(changed).ok());
        let most = if metadata.len() == 0 { self.limits.empty_rest } else { self.limits.upload_rest };
        rest >= Some(most)
    }

    fn upload_file(&self, id: UploadId) -> PathBuf {
        self.uploads.join(id.to_string())
    }
}

fn age(record: &UploadRecord, now: types::Time) -> Duration {
    let seconds = now.0.as_second().saturating_sub(record.started.0.as_second());
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// Opens the file of an upload, locked for us alone until it is dropped; answers its length in bytes.
pub(crate) fn open(path: &Path) -> Result<(File, u64), Error> {
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    lock(file, path)
}

/// Locks a file that was opened at a path, if it still is there.
pub(crate) fn lock(file: File, path: &Path) -> Result<(File, u64), Error> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(Error::UploadBusy),
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    let ours = file.metadata()?;
    // Between opening and locking, another request may have finished this very file: it is a blob now.
    if !std::fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
        return Err(Error::UploadBusy);
    }
    Ok((file, ours.len()))
}

/// Reads an upload from its beginning.
fn hash(file: &mut File, announced: &ContentDigest) -> Result<(types::Digest, ContentDigest), Error> {
    file.rewind()?;
    let (mut hasher, mut buffer) = (Hasher::for_digest(announced), vec![0; BATCH]);
    loop {
        let read = file.read(&mut buffer)?;
        match buffer.get(..read).filter(|filled| !filled.is_empty()) {
            Some(filled) => hasher.update(filled),
            None => return Ok(hasher.finish()),
        }
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Runs on a thread that may wait for the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}
