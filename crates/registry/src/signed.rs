//! Who vouches for what a repository shows, in cosign's form.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use artifacts::signature::TrustedKeys;
use artifacts::signature::cosign::{self, LARGEST, Signed, holds_signatures, is_signature};
use serde::Deserialize;
use tracing::debug;
use types::Digest;

use crate::records::{self, MANIFESTS, ManifestRecord};
use crate::{ContentDigest, Error, Manifest, Reference, Registry, Repository};

/// How many signatures of one manifest are looked at.
const MOST_SIGNATURES: usize = 64;
/// How many manifests are remembered that are signed; of more, all are looked at again.
const MOST_REMEMBERED: usize = 10_000;

#[derive(Deserialize, Default)]
struct Layers {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: ContentDigest,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// Whose signatures manifests need before they are shown; put into the extensions of requests. Cheap to clone.
#[derive(Clone)]
pub struct Demand {
    keys: TrustedKeys,
    /// Repositories and digests that were found signed: they stay so.
    signed: Arc<Mutex<HashSet<String>>>,
}

impl Demand {
    /// Signatures by one of these keys, as cosign makes them.
    pub fn new(keys: TrustedKeys) -> Self {
        Self { keys, signed: Arc::default() }
    }

    /// Lets a manifest pass that is signed.
    ///
    /// # Errors
    /// [`Error::Unsigned`], or that of the disk.
    pub(crate) async fn check(
        &self,
        registry: &Registry,
        repository: &Repository,
        manifest: &Manifest,
    ) -> Result<(), Error> {
        let name = format!("{repository}@{}", manifest.digest);
        if self.signed.lock().unwrap_or_else(PoisonError::into_inner).contains(&name) {
            return Ok(());
        }
        if !registry.is_vouched_for(repository, manifest, &self.keys).await? {
            return Err(Error::Unsigned(name));
        }
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        if signed.len() >= MOST_REMEMBERED {
            signed.clear();
        }
        signed.insert(name);
        Ok(())
    }
}

impl Registry {
    /// Whether one of the keys signed a manifest, or an index of the same repository that names it. Manifests that hold
    /// nothing but signatures need none.
    ///
    /// # Errors
    /// That of the disk. What can't be fetched now from the registry above counts as not there.
    async fn is_vouched_for(
        &self,
        repository: &Repository,
        manifest: &Manifest,
        keys: &TrustedKeys,
    ) -> Result<bool, Error> {
        let layers = self.layers(manifest).await?;
        if !layers.is_empty() && layers.iter().all(|layer| is_signature(&layer.media_type)) {
            return Ok(true);
        }
        if self.is_signed(repository, &manifest.stored, keys).await? {
            return Ok(true);
        }
        for index in self.indexes_of(repository, &manifest.digest)? {
            if self.is_signed(repository, &index, keys).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn layers(&self, manifest: &Manifest) -> Result<Vec<Layer>, Error> {
        let bytes = self.manifest_bytes(manifest).await?;
        Ok(serde_json::from_slice::<Layers>(&bytes).unwrap_or_default().layers)
    }

    async fn is_signed(
        &self,
        repository: &Repository,
        manifest: &Digest,
        keys: &TrustedKeys,
    ) -> Result<bool, Error> {
        let mut holders: Vec<Reference> =
            cosign::tag(manifest).parse().map(Reference::Tag).into_iter().collect();
        let subject = (*manifest).into();
        let mut referrers = self.referrers(repository, &subject, None, "")?.entries;
        if let Some(origin) = &self.origin {
            // Those that it can't tell now may be here.
            referrers.extend(origin.referrers(repository, &subject).await.unwrap_or_default());
        }
        referrers.retain(|referrer| referrer.artifact_type.as_deref().is_some_and(holds_signatures));
        holders.extend(referrers.into_iter().map(|referrer| Reference::Digest(referrer.digest)));
        let mut left = MOST_SIGNATURES;
        for holder in holders {
            let Some(holder) = passing(self.manifest(repository, &holder).await)? else { continue };
            for layer in self.layers(&holder).await? {
                if !is_signature(&layer.media_type) || layer.size > LARGEST || left == 0 {
                    continue;
                }
                left -= 1;
                let Some(blob) = passing(self.blob(repository, &layer.digest).await)? else { continue };
                if blob.size > LARGEST {
                    continue;
                }
                let content = tokio::fs::read(self.file(&blob.stored)).await?;
                let signed = Signed::of_layer(&layer.media_type, &layer.annotations, content);
                if signed.is_some_and(|signed| keys.have_signed(manifest, &signed)) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The manifests of a repository that name another one, by what their bytes are kept under.
    fn indexes_of(&self, repository: &Repository, digest: &ContentDigest) -> Result<Vec<Digest>, Error> {
        let mut found = Vec::new();
        self.ledger.read(|tables| {
            records::each(tables, MANIFESTS, &format!("{repository}@"), |_, record: ManifestRecord| {
                if record.manifests.contains(digest) {
                    found.push(record.blob);
                }
            })
        })?;
        Ok(found)
    }
}

/// What is there; what is not, or can't be fetched now, is none.
fn passing<T>(found: Result<T, Error>) -> Result<Option<T>, Error> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Error::ManifestUnknown { .. } | Error::BlobUnknown { .. } | Error::NameUnknown(_)) => Ok(None),
        Err(Error::Origin(problem)) => {
            debug!(problem, "a signature can't be fetched now");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
