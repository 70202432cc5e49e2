//! Bringing a blob from elsewhere.

use std::future::Future;
use std::io;

use bytes::Bytes;
use futures::stream::BoxStream;
use tracing::debug;
use types::Digest;

use crate::{Blobs, Error};

/// Where blobs come from: the parent site, an HTTP server, a disk.
pub trait Source: Send + Sync {
    /// Opens the content of `digest` from byte `offset` on. A source that can't start there must fail rather
    /// than start elsewhere.
    fn open(
        &self,
        digest: &Digest,
        offset: u64,
    ) -> impl Future<Output = io::Result<BoxStream<'static, io::Result<Bytes>>>> + Send;
}

/// Makes sure that the blob is here: goes on from where an earlier fetch stopped and lets in no more than `size`
/// bytes and only the right ones. Retrying is the caller's choice: after [`Error::Source`] or
/// [`Error::Incomplete`] it goes on, after [`Error::Corrupt`] it starts anew. Dropping the future keeps the
/// partial.
///
/// # Errors
/// All of [`Error`] but [`Error::Missing`].
pub async fn fetch(blobs: &Blobs, digest: &Digest, size: u64, source: &impl Source) -> Result<(), Error> {
    if blobs.has(digest) {
        return Ok(());
    }
    let offset = blobs.partial_len(digest);
    if offset < size {
        debug!(%digest, offset, size, "fetching");
        let stream = source.open(digest, offset).await;
        let stream = stream.map_err(|source| Error::Source { digest: *digest, source })?;
        blobs.append_at(digest, Some(offset), size, stream).await?;
    }
    blobs.finish(digest, size).await
}
