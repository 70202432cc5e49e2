//! What is not here is asked for at the registry above, and kept.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tracing::debug;

use crate::uploads::Chunk;
use crate::{Blob, ContentDigest, Descriptor, Error, Manifest, Reference, Registry, Repository};

/// A manifest from elsewhere.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its media type.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Bytes,
}

/// The bytes of a blob, and its size in bytes.
pub type Incoming = (u64, BoxStream<'static, io::Result<Bytes>>);

/// Another registry, nearer to where things come from.
pub trait Origin: Send + Sync {
    /// A manifest; `None` if there is none, an error if nobody can be asked now.
    fn manifest<'a>(
        &'a self,
        repository: &'a Repository,
        reference: &'a Reference,
    ) -> BoxFuture<'a, io::Result<Option<Found>>>;

    /// A blob from byte `offset` on; `None` if there is none.
    fn blob<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &'a ContentDigest,
        offset: u64,
    ) -> BoxFuture<'a, io::Result<Option<Incoming>>>;

    /// The manifests that are about another one, as far as one answer tells them.
    fn referrers<'a>(
        &'a self,
        repository: &'a Repository,
        subject: &'a ContentDigest,
    ) -> BoxFuture<'a, io::Result<Vec<Descriptor>>> {
        let _ = (repository, subject);
        Box::pin(async { Ok(vec![]) })
    }
}

/// Who fetches what: the others wait for them.
#[derive(Clone, Default)]
pub(crate) struct Flights(Arc<Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>>);

impl Flights {
    fn of(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, flight| flight.strong_count() > 0);
        if let Some(flight) = flights.get(key).and_then(Weak::upgrade) {
            return flight;
        }
        let flight = Arc::default();
        flights.insert(key.to_owned(), Arc::downgrade(&flight));
        flight
    }
}

impl Registry {
    /// What the registry above says of a manifest, which is kept here; `None` to answer with what is here: tags that
    /// were pushed here, digests that are here already, and whatever is here if nobody can be asked.
    pub(crate) async fn manifest_from_origin(
        &self,
        origin: &dyn Origin,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Option<Manifest>, Error> {
        let here = self.local_manifest(repository, reference)?;
        let may_move = matches!((&here, reference), (None, _) | (Some((_, true)), Reference::Tag(_)));
        if !may_move {
            return Ok(None);
        }
        let found = match origin.manifest(repository, reference).await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(None),
            Err(error) if here.is_some() => {
                debug!(%repository, %reference, %error, "the registry above can't be asked; answering with the copy");
                return Ok(None);
            }
            Err(error) => return Err(Error::Origin(error.to_string())),
        };
        let kept =
            self.keep_manifest(repository, reference, &found.media_type, found.bytes, vec![], true).await?;
        Ok(self.local_manifest(repository, &Reference::Digest(kept.digest))?.map(|(manifest, _)| manifest))
    }

    /// Fetches a blob from the registry above, once for all who want it.
    pub(crate) async fn blob_from_origin(
        &self,
        repository: &Repository,
        digest: &ContentDigest,
    ) -> Result<Option<Blob>, Error> {
        let Some(origin) = &self.origin else { return Ok(None) };
        let flight = self.flights.of(&digest.to_string());
        let _turn = flight.lock().await;
        if let Some(blob) = self.local_blob(repository, digest)? {
            return Ok(Some(blob));
        }
        match digest {
            ContentDigest::Sha256(wanted) => loop {
                let offset = if self.blobs.has(wanted) { 0 } else { self.blobs.partial_len(wanted) };
                // Asked even if the bytes are here: the registry above knows whether the repository shows them.
                let incoming = origin.blob(repository, digest, offset).await;
                let Some((size, stream)) = incoming.map_err(|error| Error::Origin(error.to_string()))? else {
                    return Ok(None);
                };
                if size > self.limits.blob {
                    return Err(Error::TooLarge { what: "the blob", limit: self.limits.blob });
                }
                if !self.blobs.has(wanted) {
                    self.blobs.append(wanted, size, stream).await?;
                    self.blobs.finish(wanted, size).await?;
                }
                let _open = self.gate.read().await;
                // Garbage may have been collected until now: it is fetched once more then.
                if self.blobs.has(wanted) {
                    return self.link(repository, *digest, *wanted, size).await.map(Some);
                }
            },
            ContentDigest::Sha512(_) => {
                let incoming = origin.blob(repository, digest, 0).await;
                let Some((size, stream)) = incoming.map_err(|error| Error::Origin(error.to_string()))? else {
                    return Ok(None);
                };
                let upload = self.start_upload(repository, None).await?;
                let chunk = Chunk { start: Some(0), length: Some(size) };
                if let Err(error) = self.append(repository, upload.id, chunk, stream).await {
                    self.cancel_upload(repository, upload.id).await?;
                    return Err(error);
                }
                self.finish_upload(repository, upload.id, digest).await.map(Some)
            }
        }
    }
}
