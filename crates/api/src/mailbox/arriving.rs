//! What is large comes in parts: each goes on where the last one broke off, also days later and after a restart.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use artifacts::Blobs;
use bytes::Bytes;
use futures::Stream;
use objects::{Info, Objects, PutOptions};
use types::Digest;

/// After what time a beginning that nobody goes on with is given up.
const GIVEN_UP: Duration = Duration::from_secs(7 * 24 * 3600);

/// Why a beginning could not be kept, or made whole.
#[derive(Debug, thiserror::Error)]
pub enum ArrivingError {
    /// The beginning.
    #[error("what arrived can't be kept")]
    Beginning(#[from] artifacts::Error),
    /// The object that it was to become.
    #[error(transparent)]
    Object(#[from] objects::Error),
}

/// The beginnings of what is arriving, in a folder on the file system of the objects that they become. Cheap to clone.
#[derive(Clone)]
pub struct Arriving {
    partials: Blobs,
}

impl Arriving {
    /// Opens the beginnings in a folder, which is made if need be.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn open(folder: &Path) -> Result<Self, artifacts::Error> {
        Ok(Self { partials: Blobs::open(folder)? })
    }

    /// How many bytes of something are here; `what` tells it from everything else that may arrive.
    pub fn received(&self, what: &str) -> u64 {
        self.partials.partial_len(&name(what))
    }

    /// Appends to what is here, if that is `offset` bytes; answers how many are here then, of `size` at most.
    ///
    /// # Errors
    /// If the disk fails, somebody else is at it, or more comes than was to.
    pub async fn append(
        &self,
        what: &str,
        offset: u64,
        size: u64,
        body: impl Stream<Item = io::Result<Bytes>> + Send,
    ) -> Result<u64, artifacts::Error> {
        let name = name(what);
        match self.partials.append_at(&name, Some(offset), size, body).await {
            // What came before it broke off is kept.
            Err(artifacts::Error::Source { .. }) => Ok(self.partials.partial_len(&name)),
            appended => appended,
        }
    }

    /// Forgets what is here of something.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn forget(&self, what: &str) -> Result<(), artifacts::Error> {
        self.partials.remove(&name(what)).map(drop)
    }

    /// Makes an object of what is complete. What turns out to be something else than `options` expect is gone then, and
    /// has to come anew.
    ///
    /// # Errors
    /// Those of [`Objects::put_file`], or if not all is here.
    pub async fn put(
        &self,
        what: &str,
        size: u64,
        objects: &Objects,
        (bucket, key): (&str, &str),
        options: PutOptions,
    ) -> Result<Info, ArrivingError> {
        let held = self.partials.hold(&name(what), size).await?;
        Ok(objects.put_file(bucket, key, held.path(), options).await?)
    }

    /// Moves what is complete, durably, to a place on the same file system. What turns out to be something else than
    /// `expected` is gone then, and has to come anew.
    ///
    /// # Errors
    /// If not all is here, or it is wrong, or the disk fails.
    pub async fn take(
        &self,
        what: &str,
        size: u64,
        expected: &Digest,
        into: &Path,
    ) -> Result<(), artifacts::Error> {
        self.partials.release(&name(what), size, expected, into).await
    }

    /// Gives up what nobody went on with for a week; answers how many bytes that freed.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn give_up_old(&self) -> Result<u64, artifacts::Error> {
        Ok(self.partials.collect_garbage(&HashSet::new(), GIVEN_UP)?.bytes)
    }
}

fn name(what: &str) -> Digest {
    Digest::of(what.as_bytes())
}
