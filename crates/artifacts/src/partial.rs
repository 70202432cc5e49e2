//! The beginning of a blob that is still being fetched. A file lock makes sure that one fetch at a time writes
//! it, whichever task or process the other is in.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use types::Digest;

use crate::Error;
use crate::blobs::{Blobs, CHUNK_BYTES, blocking, hash};
use crate::chunks::PIECE;

impl Blobs {
    /// How many bytes of an unfinished fetch are here.
    pub fn partial_len(&self, digest: &Digest) -> u64 {
        fs::metadata(self.named("partial", digest)).map_or(0, |metadata| metadata.len())
    }

    /// What is here of a blob, and how many bytes of it others may have: all, or the whole pieces of a fetch under way.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Io`].
    pub fn arrived(&self, digest: &Digest) -> Result<(File, u64), Error> {
        let (blob, partial) = (self.path(digest), self.named("partial", digest));
        if let Ok(file) = File::open(&blob) {
            let size = file.metadata().map_err(Error::io("read", &blob))?.len();
            return Ok((file, size));
        }
        // The file stays the same when it becomes a blob.
        let file = File::open(&partial).map_err(|_| Error::Missing { digest: *digest })?;
        let len = file.metadata().map_err(Error::io("read", &partial))?.len();
        Ok((file, len - len % PIECE))
    }

    /// Appends to the partial until the stream ends; answers its length in bytes then. Dropping the future keeps
    /// what was written.
    ///
    /// # Errors
    /// [`Error::TooLong`] past `size` bytes in all, and the partial is gone; [`Error::Source`] when the stream
    /// fails, and what came before is kept; [`Error::Busy`]; [`Error::Io`].
    pub async fn append(
        &self,
        digest: &Digest,
        size: u64,
        stream: impl Stream<Item = std::io::Result<Bytes>> + Send,
    ) -> Result<u64, Error> {
        self.append_at(digest, None, size, stream).await
    }

    /// The same, if the partial is `offset` bytes long: the stream begins there.
    ///
    /// # Errors
    /// As [`Blobs::append`]; [`Error::Busy`] if the partial has another length.
    pub async fn append_at(
        &self,
        digest: &Digest,
        offset: Option<u64>,
        size: u64,
        stream: impl Stream<Item = std::io::Result<Bytes>> + Send,
    ) -> Result<u64, Error> {
        let (path, digest) = (self.named("partial", digest), *digest);
        let mut partial = blocking(move || Partial::open(path, &digest)).await?;
        if offset.is_some_and(|offset| offset != partial.len) {
            return Err(Error::Busy { digest });
        }
        let mut stream = std::pin::pin!(stream);
        loop {
            let (mut chunk, mut ended) = (Vec::new(), None);
            while chunk.len() < CHUNK_BYTES && ended.is_none() {
                match stream.next().await {
                    Some(Ok(bytes)) => chunk.extend_from_slice(&bytes),
                    Some(Err(source)) => ended = Some(Err(Error::Source { digest, source })),
                    None => ended = Some(Ok(())),
                }
                if partial.len + chunk.len() as u64 > size {
                    partial.discard()?;
                    return Err(Error::TooLong { digest, size });
                }
            }
            partial = blocking(move || partial.write(&chunk)).await?;
            if let Some(ended) = ended {
                return ended.map(|()| partial.len);
            }
        }
    }

    /// Cuts the partial back to whole pieces: what is beyond was never checked.
    pub(crate) async fn cut_to_pieces(&self, digest: &Digest) -> Result<u64, Error> {
        let (path, digest) = (self.named("partial", digest), *digest);
        blocking(move || {
            let partial = Partial::open(path, &digest)?;
            let whole = partial.len - partial.len % PIECE;
            partial.file.set_len(whole).map_err(Error::io("cut", &partial.path))?;
            Ok(whole)
        })
        .await
    }

    /// Makes the partial a blob if it is complete and right.
    ///
    /// # Errors
    /// [`Error::Incomplete`] when bytes are missing; [`Error::Corrupt`] or [`Error::TooLong`] when it is wrong,
    /// and the partial is gone; [`Error::Busy`]; [`Error::Io`].
    pub async fn finish(&self, digest: &Digest, size: u64) -> Result<(), Error> {
        let (blobs, digest) = (self.clone(), *digest);
        blocking(move || {
            let mut partial = Partial::open(blobs.named("partial", &digest), &digest)?;
            partial.check(&digest, size)?;
            blobs.publish(&partial.file, &partial.path, &digest)
        })
        .await
    }

    /// Moves the partial of this name, durably, to another place on its file system if it is complete and `expected`.
    ///
    /// # Errors
    /// As [`Blobs::finish`].
    pub async fn release(
        &self,
        name: &Digest,
        size: u64,
        expected: &Digest,
        into: &Path,
    ) -> Result<(), Error> {
        let (path, name, expected, into) = (self.named("partial", name), *name, *expected, into.to_owned());
        blocking(move || {
            let mut partial = Partial::open(path, &name)?;
            partial.check(&expected, size)?;
            partial.file.sync_all().map_err(Error::io("sync", &partial.path))?;
            fs::rename(&partial.path, &into).map_err(Error::io("move", &into))
        })
        .await
    }

    /// The partial's file, which nobody writes to while this is held: who renames it has it for good.
    ///
    /// # Errors
    /// [`Error::Incomplete`] when bytes are missing, [`Error::Busy`]; [`Error::Io`].
    pub async fn hold(&self, digest: &Digest, size: u64) -> Result<HeldPartial, Error> {
        let (path, digest) = (self.named("partial", digest), *digest);
        blocking(move || {
            let partial = Partial::open(path, &digest)?;
            if partial.len < size {
                return Err(Error::Incomplete { digest, received: partial.len, size });
            }
            Ok(HeldPartial(partial))
        })
        .await
    }
}

/// A partial that nobody writes to; see [`Blobs::hold`].
pub struct HeldPartial(Partial);

impl HeldPartial {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0.path
    }
}

struct Partial {
    file: File,
    path: PathBuf,
    len: u64,
}

impl Partial {
    /// Opens or creates the file, locked for us alone until it is dropped.
    fn open(path: PathBuf, digest: &Digest) -> Result<Self, Error> {
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path);
        let file = file.map_err(Error::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Busy { digest: *digest }),
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
        }
        let ours = file.metadata().map_err(Error::io("read", &path))?;
        // Between opening and locking, another fetch may have finished this very file: it is a blob now.
        if !fs::metadata(&path).is_ok_and(|there| there.ino() == ours.ino()) {
            return Err(Error::Busy { digest: *digest });
        }
        Ok(Self { len: ours.len(), file, path })
    }

    fn write(mut self, chunk: &[u8]) -> Result<Self, Error> {
        self.file.write_all(chunk).map_err(Error::io("write", &self.path))?;
        self.len += chunk.len() as u64;
        Ok(self)
    }

    /// Whether all is here, and right; what is wrong is gone then.
    fn check(&mut self, expected: &Digest, size: u64) -> Result<(), Error> {
        let digest = *expected;
        if self.len < size {
            return Err(Error::Incomplete { digest, received: self.len, size });
        }
        if self.len > size {
            self.discard()?;
            return Err(Error::TooLong { digest, size });
        }
        self.file.seek(SeekFrom::Start(0)).map_err(Error::io("read", &self.path))?;
        let actual = hash(&self.file).map_err(Error::io("read", &self.path))?;
        if actual != digest {
            self.discard()?;
            return Err(Error::Corrupt { digest, actual });
        }
        Ok(())
    }

    fn discard(&self) -> Result<(), Error> {
        fs::remove_file(&self.path).map_err(Error::io("remove", &self.path))
    }
}
