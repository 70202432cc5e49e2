use std::collections::HashSet;
use std::fs;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use avocet_artifacts::{Blobs, Error, PIECE, Source, fetch};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use types::Digest;

fn store() -> (tempfile::TempDir, Blobs) {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(folder.path()).unwrap();
    (folder, blobs)
}

/// Serves `content` in pieces, `per_fetch` bytes and then a failure; remembers the offsets that were asked for.
struct Flaky {
    content: Vec<u8>,
    per_fetch: usize,
    offsets: Mutex<Vec<u64>>,
}

impl Flaky {
    fn new(content: &[u8], per_fetch: usize) -> Self {
        Self { content: content.to_vec(), per_fetch, offsets: Mutex::default() }
    }
}

impl Source for Flaky {
    async fn open(&self, _: &Digest, offset: u64) -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
        self.offsets.lock().unwrap().push(offset);
        let rest = &self.content[offset as usize..];
        let now = &rest[..rest.len().min(self.per_fetch)];
        let mut pieces: Vec<io::Result<Bytes>> =
            now.chunks(1000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        if now.len() < rest.len() {
            pieces.push(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Ok(stream::iter(pieces).boxed())
    }
}

fn content() -> Vec<u8> {
    (0..1_000_000_u32).map(|i| (i * 7 + i / 256) as u8).collect()
}

#[tokio::test]
async fn what_is_put_is_found_under_its_digest() {
    let (folder, blobs) = store();
    let content = content();
    let (digest, size) = blobs.put_reader(&content[..]).await.unwrap();
    assert_eq!((digest, size), (Digest::of(&content), 1_000_000));
    assert!(blobs.has(&digest));
    assert_eq!(fs::read(blobs.path(&digest)).unwrap(), content);
    assert_eq!(blobs.put_file(&blobs.path(&digest)).await.unwrap(), (digest, size));
    assert_eq!(blobs.list().unwrap().len(), 1);
    assert_eq!(fs::read_dir(folder.path().join("temporary")).unwrap().count(), 0);
    assert!(blobs.remove(&digest).unwrap());
    assert!(matches!(blobs.size(&digest), Err(Error::Missing { .. })));
}

#[tokio::test]
async fn what_is_not_the_expected_content_is_not_kept() {
    let (_folder, blobs) = store();
    let digest = Digest::of(b"this");
    let refused = blobs.put_expected(&digest, &b"that"[..]).await.unwrap_err();
    assert!(matches!(refused, Error::Corrupt { actual, .. } if actual == Digest::of(b"that")));
    assert!(!blobs.has(&digest));
    assert_eq!(blobs.put_expected(&digest, &b"this"[..]).await.unwrap(), 4);
}

#[tokio::test]
async fn an_interrupted_fetch_goes_on_where_it_stopped_even_after_a_restart() {
    let (folder, blobs) = store();
    let source = Flaky::new(&content(), 400_000);
    let digest = Digest::of(&source.content);
    let stopped = fetch(&blobs, &digest, 1_000_000, &source).await.unwrap_err();
    assert!(matches!(stopped, Error::Source { .. }), "{stopped}");
    let blobs = Blobs::open(folder.path()).unwrap();
    assert_eq!(blobs.partial_len(&digest), 400_000);
    fetch(&blobs, &digest, 1_000_000, &source).await.unwrap_err();
    fetch(&blobs, &digest, 1_000_000, &source).await.unwrap();
    fetch(&blobs, &digest, 1_000_000, &source).await.unwrap();
    assert_eq!(*source.offsets.lock().unwrap(), [0, 400_000, 800_000]);
    blobs.verify(&digest).await.unwrap();
    assert_eq!(blobs.partial_len(&digest), 0);
}

#[tokio::test]
async fn wrong_bytes_never_become_a_blob_and_are_not_resumed_from() {
    let (_folder, blobs) = store();
    let digest = Digest::of(b"right");
    let corrupt = fetch(&blobs, &digest, 5, &Flaky::new(b"wrong", 9)).await.unwrap_err();
    assert!(matches!(corrupt, Error::Corrupt { .. }));
    assert!(!blobs.has(&digest));
    assert_eq!(blobs.partial_len(&digest), 0);
    fetch(&blobs, &digest, 5, &Flaky::new(b"right", 9)).await.unwrap();
}

#[tokio::test]
async fn a_source_can_send_neither_more_nor_less_than_declared() {
    let (_folder, blobs) = store();
    let digest = Digest::of(b"right");
    let long = fetch(&blobs, &digest, 4, &Flaky::new(b"right", 9)).await.unwrap_err();
    assert!(matches!(long, Error::TooLong { size: 4, .. }));
    assert_eq!(blobs.partial_len(&digest), 0);
    let short = fetch(&blobs, &digest, 6, &Flaky::new(b"right", 9)).await.unwrap_err();
    assert!(matches!(short, Error::Incomplete { received: 5, size: 6, .. }));
}

#[tokio::test]
async fn two_fetches_of_one_blob_do_not_mix() {
    let (_folder, blobs) = store();
    let digest = Digest::of(b"right");
    let (started, starts) = tokio::sync::oneshot::channel();
    let (go_on, goes_on) = tokio::sync::oneshot::channel();
    let slow = stream::once(async {
        started.send(()).unwrap();
        goes_on.await.unwrap();
        Ok(Bytes::from_static(b"right"))
    });
    let second = async {
        starts.await.unwrap();
        let appended = blobs.append(&digest, 5, stream::empty::<io::Result<Bytes>>()).await;
        assert!(matches!(appended, Err(Error::Busy { .. })));
        let finished = blobs.finish(&digest, 5).await;
        assert!(matches!(finished, Err(Error::Busy { .. })));
        go_on.send(()).unwrap();
    };
    let (first, ()) = tokio::join!(blobs.append(&digest, 5, slow), second);
    assert_eq!(first.unwrap(), 5);
    blobs.finish(&digest, 5).await.unwrap();
    blobs.verify(&digest).await.unwrap();
}

#[tokio::test]
async fn a_flipped_bit_on_disk_is_found_named_and_healed() {
    let (_folder, blobs) = store();
    let (digest, _) = blobs.put_reader(&b"content"[..]).await.unwrap();
    let path = blobs.path(&digest);
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"contenu").unwrap();
    let corrupt = blobs.verify(&digest).await.unwrap_err().to_string();
    assert!(corrupt.contains(&digest.to_string()) && corrupt.contains("remove it"), "{corrupt}");
    let aside = blobs.quarantine(&digest).unwrap();
    assert_eq!(fs::read(aside).unwrap(), b"contenu");
    fetch(&blobs, &digest, 7, &Flaky::new(b"content", 9)).await.unwrap();
    blobs.verify(&digest).await.unwrap();
}

#[tokio::test]
async fn leftovers_go_and_garbage_goes_but_not_what_is_kept_or_new() {
    let (folder, blobs) = store();
    fs::write(folder.path().join("temporary/left"), b"over").unwrap();
    let blobs_again = Blobs::open(folder.path()).unwrap();
    assert!(!folder.path().join("temporary/left").exists());
    let (kept, _) = blobs.put_reader(&b"kept"[..]).await.unwrap();
    let (garbage, _) = blobs.put_reader(&b"garbage"[..]).await.unwrap();
    let keep = HashSet::from([kept]);
    let none = blobs_again.collect_garbage(&keep, Duration::from_secs(60)).unwrap();
    assert_eq!(none.blobs, 0);
    let collected = blobs_again.collect_garbage(&keep, Duration::ZERO).unwrap();
    assert_eq!((collected.blobs, collected.bytes), (1, 7));
    assert!(blobs.has(&kept) && !blobs.has(&garbage));
}

/// A source that tells the digests of pieces, and breaks some on their way.
struct Pieces {
    content: Vec<u8>,
    list: Vec<Digest>,
    /// At which byte the content breaks, once each.
    breaks: std::sync::Mutex<Vec<usize>>,
    opened_at: std::sync::Mutex<Vec<u64>>,
}

impl Pieces {
    fn new(content: Vec<u8>, breaks: &[usize]) -> Self {
        let list = content.chunks(usize::try_from(PIECE).unwrap()).map(Digest::of).collect();
        Self { content, list, breaks: breaks.to_vec().into(), opened_at: Vec::new().into() }
    }
}

impl Source for Pieces {
    async fn open(
        &self,
        _digest: &Digest,
        offset: u64,
    ) -> std::io::Result<BoxStream<'static, std::io::Result<Bytes>>> {
        self.opened_at.lock().unwrap().push(offset);
        let from = usize::try_from(offset).unwrap();
        let mut rest = self.content[from..].to_vec();
        if let Some(at) = self.breaks.lock().unwrap().pop() {
            rest[at - from] ^= 1;
        }
        let parts: Vec<_> = rest.chunks(100_000).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
        Ok(stream::iter(parts).boxed())
    }

    async fn pieces(&self, _digest: &Digest) -> std::io::Result<Option<Vec<Digest>>> {
        Ok(Some(self.list.clone()))
    }
}

fn long_content() -> Vec<u8> {
    (0..PIECE * 2 + 77).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

#[tokio::test]
async fn a_piece_that_breaks_on_its_way_costs_one_piece() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(folder.path()).unwrap();
    let content = long_content();
    let (digest, size) = (Digest::of(&content), content.len() as u64);
    let source = Pieces::new(content, &[usize::try_from(PIECE).unwrap() + 5]);
    fetch(&blobs, &digest, size, &source).await.unwrap();
    assert_eq!(*source.opened_at.lock().unwrap(), [0, PIECE], "what came before it was kept");
    blobs.verify(&digest).await.unwrap();
    assert_eq!(blobs.pieces(&digest).await.unwrap(), source.list);
    assert_eq!(blobs.pieces(&digest).await.unwrap(), source.list, "and again, from what was noted");
}

#[tokio::test]
async fn a_list_of_pieces_that_lies_keeps_no_good_blob_out() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(folder.path()).unwrap();
    let content = long_content();
    let (digest, size) = (Digest::of(&content), content.len() as u64);
    let mut source = Pieces::new(content, &[]);
    source.list[1] = Digest::of(b"a lie");
    fetch(&blobs, &digest, size, &source).await.unwrap();
    blobs.verify(&digest).await.unwrap();
}

#[tokio::test]
async fn a_fetch_that_was_cut_off_within_a_piece_goes_on_at_its_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(folder.path()).unwrap();
    let content = long_content();
    let (digest, size) = (Digest::of(&content), content.len() as u64);
    let begun = usize::try_from(PIECE).unwrap() + 1000;
    let mut damaged = content[..begun].to_vec();
    damaged[begun - 1] ^= 1;
    let cut = stream::iter([Ok(Bytes::from(damaged))]);
    blobs.append(&digest, size, cut).await.unwrap();
    let source = Pieces::new(content, &[]);
    fetch(&blobs, &digest, size, &source).await.unwrap();
    assert_eq!(*source.opened_at.lock().unwrap(), [PIECE]);
    blobs.verify(&digest).await.unwrap();
}
