//! Bringing a blob from elsewhere.

use std::future::Future;
use std::io;

use bytes::Bytes;
use futures::stream::BoxStream;
use tracing::debug;
use types::Digest;

use crate::chunks::{self, PIECE};
use crate::{Blobs, Error};

/// How often a piece may break until the list of pieces is no longer believed.
const BREAKS: u32 = 3;

/// Where blobs come from: the parent site, an HTTP server, a disk.
pub trait Source: Send + Sync {
    /// Opens the content of `digest` from byte `offset` on. A source that can't start there must fail rather
    /// than start elsewhere.
    fn open(
        &self,
        digest: &Digest,
        offset: u64,
    ) -> impl Future<Output = io::Result<BoxStream<'static, io::Result<Bytes>>>> + Send;

    /// The digests of the blob's pieces of [`PIECE`](crate::PIECE) bytes, if the source tells them. Asked for blobs
    /// of more than one.
    fn pieces(&self, digest: &Digest) -> impl Future<Output = io::Result<Option<Vec<Digest>>>> + Send {
        let _ = digest;
        async { Ok(None) }
    }
}

/// Makes sure that the blob is here: goes on from where an earlier fetch stopped and lets in no more than `size`
/// bytes and only the right ones. Where the source tells the digests of pieces, one that breaks on its way is fetched
/// again alone. Retrying otherwise is the caller's choice: after [`Error::Source`] or [`Error::Incomplete`] it goes
/// on, after [`Error::Corrupt`] it starts anew. Dropping the future keeps the partial.
///
/// # Errors
/// All of [`Error`] but [`Error::Missing`].
pub async fn fetch(blobs: &Blobs, digest: &Digest, size: u64, source: &impl Source) -> Result<(), Error> {
    if blobs.has(digest) {
        return Ok(());
    }
    let mut pieces = None;
    if size > PIECE && blobs.partial_len(digest) < size {
        // A source that can't tell is one without pieces.
        pieces =
            source.pieces(digest).await.unwrap_or_default().filter(|pieces| chunks::is_whole(pieces, size));
    }
    let mut broken = 0;
    while let Some(list) = pieces.clone() {
        match fetch_pieces(blobs, digest, size, source, list).await {
            Err(error) if error.is_broken_piece() => {
                broken += 1;
                debug!(%digest, broken, error = daemon::chain(&error), "a piece broke on its way");
                if broken >= BREAKS {
                    pieces = None;
                }
            }
            Err(error) => return Err(error),
            Ok(()) => return blobs.finish(digest, size).await,
        }
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

/// The same in one attempt, from a source that is trusted less than who told the digests of the pieces: nothing but right
/// pieces is kept. A blob of up to [`PIECE`](crate::PIECE) bytes is its own only piece.
///
/// # Errors
/// All of [`Error`] but [`Error::Missing`]; what came before stays, and a later fetch from anywhere goes on from there.
pub async fn fetch_checked(
    blobs: &Blobs,
    digest: &Digest,
    size: u64,
    pieces: Vec<Digest>,
    source: &impl Source,
) -> Result<(), Error> {
    if blobs.has(digest) {
        return Ok(());
    }
    fetch_pieces(blobs, digest, size, source, pieces).await?;
    blobs.finish(digest, size).await
}

async fn fetch_pieces(
    blobs: &Blobs,
    digest: &Digest,
    size: u64,
    source: &impl Source,
    pieces: Vec<Digest>,
) -> Result<(), Error> {
    let offset = blobs.cut_to_pieces(digest).await?;
    if offset >= size {
        return Ok(());
    }
    debug!(%digest, offset, size, "fetching in pieces");
    let stream = source.open(digest, offset).await;
    let stream = stream.map_err(|source| Error::Source { digest: *digest, source })?;
    let checked = chunks::checked(stream, pieces, offset);
    blobs.append_at(digest, Some(offset), size, checked).await.map(drop)
}
