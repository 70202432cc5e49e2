//! Large blobs are checked piece by piece as they arrive, so that a piece that broke on its way costs one piece.
//!
//! What the pieces are is the word of the source. It is trusted no further than that: the whole is checked against
//! its own digest in the end, whatever the pieces were.

use std::fs::{self, File};
use std::io::{self, Read};
use std::sync::PoisonError;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use types::Digest;

use crate::blobs::blocking;
use crate::{Blobs, Error};

/// How long a piece is, in bytes; the last may be shorter.
pub const PIECE: u64 = 4 << 20;

/// A piece is not what the list of pieces says.
#[derive(Debug, thiserror::Error)]
#[error("the piece at byte {at} hashes to `{actual}`, not to `{expected}`; it broke on its way")]
pub(crate) struct BrokenPiece {
    at: u64,
    expected: Digest,
    actual: Digest,
}

impl Error {
    /// Whether a fetch ended because a piece was not what the list of pieces says.
    pub fn is_broken_piece(&self) -> bool {
        let is_piece = |source: &io::Error| source.get_ref().is_some_and(|cause| cause.is::<BrokenPiece>());
        matches!(self, Self::Source { source, .. } if is_piece(source))
    }
}

impl Blobs {
    /// The digests of a blob's pieces, in their order. Worked out at the first time and kept beside the blob.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Io`].
    pub async fn pieces(&self, digest: &Digest) -> Result<Vec<Digest>, Error> {
        let (blobs, digest) = (self.clone(), *digest);
        blocking(move || {
            let size = blobs.size(&digest)?;
            let (blob, list) = (blobs.path(&digest), blobs.named("pieces", &digest));
            let _alone = blobs.hashing.lock().unwrap_or_else(PoisonError::into_inner);
            let known = fs::read_to_string(&list).unwrap_or_default();
            let known: Option<Vec<Digest>> = known.lines().map(|line| line.parse().ok()).collect();
            if let Some(known) = known.filter(|known| is_whole(known, size)) {
                return Ok(known);
            }
            let pieces = hash_pieces(&blob).map_err(Error::io("read", &blob))?;
            let text: String = pieces.iter().map(|piece| format!("{piece}\n")).collect();
            // It may be lost in a crash: it is worked out again then.
            fs::write(&list, text).map_err(Error::io("write", &list))?;
            Ok(pieces)
        })
        .await
    }
}

/// Whether these are as many pieces as a blob of that size, in bytes, has.
pub fn is_whole(pieces: &[Digest], size: u64) -> bool {
    pieces.len() as u64 == size.div_ceil(PIECE)
}

fn hash_pieces(blob: &std::path::Path) -> io::Result<Vec<Digest>> {
    let (mut file, mut pieces) = (File::open(blob)?, Vec::new());
    loop {
        let mut piece = Vec::new();
        file.by_ref().take(PIECE).read_to_end(&mut piece)?;
        if piece.is_empty() {
            return Ok(pieces);
        }
        pieces.push(Digest::of(&piece));
    }
}

/// Lets whole pieces pass that are right, from the one that begins at byte `at` on. The first that is wrong ends the
/// stream with [`BrokenPiece`]; where the source breaks off, the rest of a piece is dropped.
pub(crate) fn checked(
    source: impl Stream<Item = io::Result<Bytes>> + Send + Unpin,
    pieces: Vec<Digest>,
    at: u64,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::unfold(Some((source, BytesMut::new(), at)), move |state| {
        let pieces = pieces.clone();
        async move {
            let (mut source, mut piece, at) = state?;
            let length = usize::try_from(PIECE).unwrap_or(usize::MAX);
            let mut ended = false;
            while piece.len() < length && !ended {
                match source.next().await {
                    Some(Ok(bytes)) => piece.extend_from_slice(&bytes),
                    Some(Err(error)) => return Some((Err(error), None)),
                    None => ended = true,
                }
            }
            if piece.is_empty() {
                return None;
            }
            let whole = piece.split_to(piece.len().min(length)).freeze();
            let expected = *usize::try_from(at / PIECE).ok().and_then(|number| pieces.get(number))?;
            let actual = Digest::of(&whole);
            if actual != expected {
                let broken = BrokenPiece { at, expected, actual };
                return Some((Err(io::Error::new(io::ErrorKind::InvalidData, broken)), None));
            }
            let next = at + whole.len() as u64;
            Some((Ok(whole), (!ended || !piece.is_empty()).then_some((source, piece, next))))
        }
    })
}
