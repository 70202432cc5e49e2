//! Blobs in a folder.
//!
//! ```text
//! blobs/<hex>        complete: written elsewhere, fsynced, renamed here; never written again
//! partial/<hex>      the beginning of a blob that is being fetched
//! temporary/…        being written; leftovers are swept when the store opens
//! pieces/<hex>       the digests of a blob's pieces, one a line, once somebody asked for them
//! quarantine/<hex>   found corrupt and set aside for a person to look at
//! ```

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use sha2::Sha256;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::spawn_blocking;
use types::Digest;

use crate::Error;

/// Large enough that the hop to a thread that may block is cheap beside the write.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;

/// A folder of content-addressed blobs. Cheap to clone; every method may be called from many tasks at once.
#[derive(Debug, Clone)]
pub struct Blobs {
    folder: Arc<Path>,
    /// Held by who works out pieces: the others read them from the disk then.
    pub(crate) hashing: Arc<Mutex<()>>,
}

/// A complete blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// What a garbage collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// How many blobs and partials.
    pub blobs: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Blobs {
    /// Opens the store in `folder`, which is made if need be. Leftovers of interrupted writes go; partials of
    /// interrupted fetches stay. One process at a time.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder can't be made or read.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, Error> {
        let folder = folder.as_ref();
        for name in ["blobs", "partial", "pieces", "temporary", "quarantine"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).map_err(Error::io("create folder", &path))?;
        }
        let temporary = folder.join("temporary");
        for entry in fs::read_dir(&temporary).map_err(Error::io("read folder", &temporary))? {
            let path = entry.map_err(Error::io("read folder", &temporary))?.path();
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(Self { folder: folder.into(), hashing: Arc::default() })
    }

    /// Where the blob is or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.named("blobs", digest)
    }

    /// Whether the blob is here in full. Its content was right when it came; [`Blobs::verify`] looks again.
    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// The blob's size in bytes.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Io`].
    pub fn size(&self, digest: &Digest) -> Result<u64, Error> {
        let path = self.path(digest);
        fs::metadata(&path)
            .map(|metadata| metadata.len())
            .map_err(|error| missing_or_io(digest, &path, error))
    }

    /// Copies a file in; answers its digest and size in bytes.
    ///
    /// # Errors
    /// [`Error::Io`] when the file can't be read or the store can't be written.
    pub async fn put_file(&self, path: &Path) -> Result<(Digest, u64), Error> {
        let file = tokio::fs::File::open(path).await.map_err(Error::io("open", path))?;
        self.put_reader(file).await
    }

    /// Stores all that `reader` gives; answers its digest and size in bytes. The caller bounds the reader.
    /// Dropping the future leaves nothing behind but a temporary that the next opening sweeps.
    ///
    /// # Errors
    /// [`Error::Io`] when reading or writing fails.
    pub async fn put_reader(&self, reader: impl AsyncRead + Send + Unpin) -> Result<(Digest, u64), Error> {
        let (temporary, digest, size) = self.write_temporary(reader).await?;
        let blobs = self.clone();
        blocking(move || blobs.admit(temporary, &digest)).await?;
        Ok((digest, size))
    }

    /// Stores what `reader` gives if it is `digest`; answers its size in bytes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is not, and nothing is stored; [`Error::Io`].
    pub async fn put_expected(
        &self,
        digest: &Digest,
        reader: impl AsyncRead + Send + Unpin,
    ) -> Result<u64, Error> {
        let (temporary, actual, size) = self.write_temporary(reader).await?;
        if actual != *digest {
            return Err(Error::Corrupt { digest: *digest, actual });
        }
        let blobs = self.clone();
        blocking(move || blobs.admit(temporary, &actual)).await?;
        Ok(size)
    }

    /// Makes a finished file on the same file system a blob by renaming it. The caller has hashed it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn adopt(&self, path: &Path, digest: &Digest) -> Result<(), Error> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        self.publish(&file, path, digest)
    }

    /// Makes the blob as young as if it had come just now, for the collection of garbage; answers whether it is here.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn touch(&self, digest: &Digest) -> Result<bool, Error> {
        let path = self.path(digest);
        let touched = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        match touched {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("touch", &path)(error)),
        }
    }

    /// Reads the whole blob again and compares.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it changed on disk, [`Error::Missing`], [`Error::Io`].
    pub async fn verify(&self, digest: &Digest) -> Result<(), Error> {
        let (path, digest) = (self.path(digest), *digest);
        blocking(move || {
            let file = File::open(&path).map_err(|error| missing_or_io(&digest, &path, error))?;
            let actual = hash(&file).map_err(Error::io("read", &path))?;
            if actual == digest { Ok(()) } else { Err(Error::Corrupt { digest, actual }) }
        })
        .await
    }

    /// Sets a corrupt blob aside, so that it is fetched again; answers where it is now.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Io`].
    pub fn quarantine(&self, digest: &Digest) -> Result<PathBuf, Error> {
        let (from, to) = (self.path(digest), self.named("quarantine", digest));
        fs::rename(&from, &to).map_err(|error| missing_or_io(digest, &from, error))?;
        self.sync("blobs")?;
        Ok(to)
    }

    /// Removes the blob and its partial, if any; answers whether there was one. Those who hold it open keep it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove(&self, digest: &Digest) -> Result<bool, Error> {
        let mut any = false;
        for path in [self.path(digest), self.named("partial", digest), self.named("pieces", digest)] {
            match fs::remove_file(&path) {
                Ok(()) => any = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("remove", &path)(error)),
            }
        }
        Ok(any)
    }

    /// All complete blobs, in the order of their digests.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn list(&self) -> Result<Vec<Stored>, Error> {
        let mut stored: Vec<Stored> = self
            .files("blobs")?
            .into_iter()
            .map(|(digest, file)| Stored { digest, size: file.len() })
            .collect();
        stored.sort_by_key(|blob| blob.digest);
        Ok(stored)
    }

    /// What [`Blobs::collect_garbage`] would remove.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn garbage(&self, keep: &HashSet<Digest>, minimum_age: Duration) -> Result<Vec<Stored>, Error> {
        Ok(self.unneeded(keep, minimum_age)?.into_iter().map(|(_, blob)| blob).collect())
    }

    /// Removes the blobs, partials and quarantined blobs that are not in `keep`, except those changed within
    /// `minimum_age`: they may have come since `keep` was worked out.
    ///
    /// # Errors
    /// [`Error::Io`]; what was removed until then is gone.
    pub fn collect_garbage(&self, keep: &HashSet<Digest>, minimum_age: Duration) -> Result<Collected, Error> {
        let mut collected = Collected::default();
        for (path, blob) in self.unneeded(keep, minimum_age)? {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            collected.blobs += 1;
            collected.bytes += blob.size;
        }
        Ok(collected)
    }

    fn unneeded(
        &self,
        keep: &HashSet<Digest>,
        minimum_age: Duration,
    ) -> Result<Vec<(PathBuf, Stored)>, Error> {
        let (mut unneeded, now) = (Vec::new(), SystemTime::now());
        for kind in ["blobs", "partial", "pieces", "quarantine"] {
            for (digest, file) in self.files(kind)? {
                let changed = file.modified().unwrap_or(now);
                // A clock that was set back makes a file look new, which only keeps it longer.
                let old_enough = now.duration_since(changed).is_ok_and(|age| age >= minimum_age);
                if !keep.contains(&digest) && old_enough {
                    unneeded.push((self.named(kind, &digest), Stored { digest, size: file.len() }));
                }
            }
        }
        Ok(unneeded)
    }

    pub(crate) fn named(&self, kind: &str, digest: &Digest) -> PathBuf {
        self.folder.join(kind).join(digest.hex())
    }

    /// Makes a finished file the blob: durable, read-only, under its name. One that was there is replaced, which
    /// heals it if it had gone bad.
    pub(crate) fn publish(&self, file: &File, path: &Path, digest: &Digest) -> Result<(), Error> {
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o444))
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(path, self.path(digest)))
            .map_err(Error::io("keep", path))?;
        self.sync("blobs")
    }

    fn sync(&self, kind: &str) -> Result<(), Error> {
        let folder = self.folder.join(kind);
        daemon::sync_folder(&folder).map_err(Error::io("fsync", &folder))
    }

    fn files(&self, kind: &str) -> Result<Vec<(Digest, fs::Metadata)>, Error> {
        let folder = self.folder.join(kind);
        let mut files = Vec::new();
        for entry in fs::read_dir(&folder).map_err(Error::io("read folder", &folder))? {
            let entry = entry.map_err(Error::io("read folder", &folder))?;
            let name = entry.file_name();
            // A name that is no digest is not ours, and a file may go between two looks.
            let digest = name.to_str().and_then(|hex| format!("sha256:{hex}").parse().ok());
            if let (Some(digest), Ok(metadata)) = (digest, entry.metadata()) {
                files.push((digest, metadata));
            }
        }
        Ok(files)
    }

    async fn write_temporary(
        &self,
        mut reader: impl AsyncRead + Send + Unpin,
    ) -> Result<(Temporary, Digest, u64), Error> {
        let folder = self.folder.join("temporary");
        let mut temporary = blocking(move || Temporary::create(&folder)).await?;
        let (mut hasher, mut size) = (<Sha256 as sha2::Digest>::new(), 0);
        loop {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            while chunk.len() < CHUNK_BYTES {
                let room = (CHUNK_BYTES - chunk.len()) as u64;
                let read = (&mut reader).take(room).read_buf(&mut chunk).await;
                if read.map_err(Error::io("read the content for", &temporary.path))? == 0 {
                    break;
                }
            }
            if chunk.is_empty() {
                return Ok((temporary, Digest::from_hasher(hasher), size));
            }
            size += chunk.len() as u64;
            (temporary, hasher) = blocking(move || {
                sha2::Digest::update(&mut hasher, &chunk);
                temporary.file.write_all(&chunk).map_err(Error::io("write", &temporary.path))?;
                Ok((temporary, hasher))
            })
            .await?;
        }
    }

    fn admit(&self, temporary: Temporary, digest: &Digest) -> Result<(), Error> {
        self.publish(&temporary.file, &temporary.path, digest)
    }
}

/// A file that goes when it is dropped, unless it was renamed before.
struct Temporary {
    file: File,
    path: PathBuf,
}

impl Temporary {
    fn create(folder: &Path) -> Result<Self, Error> {
        let name = daemon::random_hex(16).map_err(Error::io("name a temporary in", folder))?;
        let path = folder.join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        Ok(Self { file: file.map_err(Error::io("create", &path))?, path })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

pub(crate) fn hash(mut file: &File) -> io::Result<Digest> {
    let mut hasher = <Sha256 as sha2::Digest>::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = file.read(&mut chunk)?;
        let Some(filled) = chunk.get(..read).filter(|filled| !filled.is_empty()) else {
            return Ok(Digest::from_hasher(hasher));
        };
        sha2::Digest::update(&mut hasher, filled);
    }
}

/// Runs on a thread that may wait for the disk.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(failure) => {
            Err(Error::io("finish the work on", Path::new("the disk"))(io::Error::other(failure)))
        }
    }
}

fn missing_or_io(digest: &Digest, path: &Path, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::NotFound {
        Error::Missing { digest: *digest }
    } else {
        Error::io("read", path)(error)
    }
}
