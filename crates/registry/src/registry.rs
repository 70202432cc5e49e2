//! The state: what is pulled, pushed and deleted.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use artifacts::Blobs;
use bytes::Bytes;
use store::Ledger;
use store::ledger::Tables;
use tokio::sync::{RwLock, RwLockReadGuard};
use types::Digest;

use crate::manifest;
use crate::origin::{Flights, Origin};
use crate::records::{self, LINKS, LinkRecord, MANIFESTS, ManifestRecord, REFERRERS, TAGS, TagRecord};
use crate::{ContentDigest, Descriptor, Error, Reference, Repository, Tag};

/// For how long a look at a blob is not noted again, in seconds.
const RENEWED: i64 = 3600;

/// What a stranger may make a registry hold.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a manifest.
    pub manifest: u64,
    /// Bytes of a blob.
    pub blob: u64,
    /// Uploads under way.
    pub uploads: u64,
    /// Those of one user; of one repository, where users aren't told apart.
    pub uploads_of_one: u64,
    /// How long an upload may rest before it is given up.
    pub upload_rest: Duration,
    /// How long one may that has no bytes yet.
    pub empty_rest: Duration,
    /// How long an upload may take, from its beginning.
    pub upload_age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest: 4 << 20,
            blob: 64 << 30,
            uploads: 1000,
            uploads_of_one: 100,
            upload_rest: Duration::from_secs(24 * 3600),
            empty_rest: Duration::from_secs(600),
            upload_age: Duration::from_secs(3 * 24 * 3600),
        }
    }
}

/// Repositories over blobs. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    pub(crate) blobs: Blobs,
    pub(crate) ledger: Ledger,
    /// Where the bytes of uploads are until they are complete.
    pub(crate) uploads: Arc<Path>,
    pub(crate) limits: Limits,
    /// Taken for writing by the collection of garbage, so that nothing goes between a push's look and its record.
    pub(crate) gate: Arc<RwLock<()>>,
    pub(crate) origin: Option<Arc<dyn Origin>>,
    pub(crate) flights: Flights,
}

/// A blob that a repository shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// What it was asked by.
    pub digest: ContentDigest,
    /// What its bytes are kept under.
    pub stored: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// A manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The digest that it was pushed with.
    pub digest: ContentDigest,
    /// What its bytes are kept under.
    pub stored: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
}

/// A manifest that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Its digest.
    pub digest: ContentDigest,
    /// The manifest that it is about.
    pub subject: Option<ContentDigest>,
}

impl Registry {
    /// Over blobs and a ledger; the bytes of uploads are kept in `folder`, on the file system of the blobs.
    ///
    /// # Errors
    /// If the folder can't be made.
    pub fn open(folder: &Path, blobs: Blobs, ledger: Ledger, limits: Limits) -> Result<Self, Error> {
        std::fs::create_dir_all(folder)?;
        Ok(Self {
            blobs,
            ledger,
            uploads: folder.into(),
            limits,
            gate: Arc::default(),
            origin: None,
            flights: Flights::default(),
        })
    }

    /// The same, which asks another registry for what it lacks, and keeps a copy.
    #[must_use]
    pub fn with_origin(self, origin: Arc<dyn Origin>) -> Self {
        Self { origin: Some(origin), ..self }
    }

    /// All blobs, those of repositories among them.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// The file with the bytes.
    pub fn file(&self, stored: &Digest) -> PathBuf {
        self.blobs.path(stored)
    }

    /// As long as what this answers lives, no garbage is collected.
    pub async fn hold(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().await
    }

    /// Keeps a blob from the next collections of garbage for their minimum age: somebody is about to need it. Answers
    /// whether it is here.
    ///
    /// # Errors
    /// That of the disk.
    pub async fn touch(&self, stored: &Digest) -> Result<bool, Error> {
        let _open = self.gate.read().await;
        Ok(self.blobs.touch(stored)?)
    }

    /// The same for what a repository shows: who looks before a push may push only the rest.
    ///
    /// # Errors
    /// That of the disk.
    pub(crate) async fn renew(
        &self,
        repository: &Repository,
        digest: &ContentDigest,
    ) -> Result<Option<Blob>, Error> {
        let _open = self.gate.read().await;
        let Some(blob) = self.local_blob(repository, digest)? else { return Ok(None) };
        self.blobs.touch(&blob.stored)?;
        let (key, now) = (records::link_key(repository, digest), daemon::now());
        let is_young = |link: &LinkRecord| now.0.as_second() - link.linked.0.as_second() < RENEWED;
        if self.ledger.read(|tables| tables.get(LINKS, &key))?.as_ref().is_some_and(is_young) {
            return Ok(Some(blob));
        }
        self.link(repository, *digest, blob.stored, blob.size).await.map(Some)
    }

    /// A blob of a repository.
    ///
    /// # Errors
    /// [`Error::BlobUnknown`], or that of the disk.
    pub async fn blob(&self, repository: &Repository, digest: &ContentDigest) -> Result<Blob, Error> {
        if let Some(blob) = self.local_blob(repository, digest)? {
            return Ok(blob);
        }
        if let Some(blob) = self.blob_from_origin(repository, digest).await? {
            return Ok(blob);
        }
        Err(Error::BlobUnknown { repository: repository.to_string(), digest: *digest })
    }

    pub(crate) fn local_blob(
        &self,
        repository: &Repository,
        digest: &ContentDigest,
    ) -> Result<Option<Blob>, Error> {
        let link = self.ledger.read(|tables| records::link(tables, repository, digest))?;
        // What the disk lost is as good as never pushed: it can be pushed again.
        let link = link.filter(|link| self.blobs.has(&link.blob));
        Ok(link.map(|link| Blob { digest: *digest, stored: link.blob, size: link.size }))
    }

    /// Makes a repository show a blob whose bytes are here.
    pub(crate) async fn link(
        &self,
        repository: &Repository,
        digest: ContentDigest,
        blob: Digest,
        size: u64,
    ) -> Result<Blob, Error> {
        let (repository, now) = (repository.clone(), daemon::now());
        self.ledger
            .write(move |tables| {
                records::furnish(tables, &repository, now)?;
                let link = LinkRecord { blob, size, linked: now };
                tables.put(LINKS, &records::link_key(&repository, &digest), &link)?;
                Ok::<_, Error>(Blob { digest, stored: blob, size })
            })
            .await
    }

    /// Shows a blob in a further repository, if one that the caller may read has it: `from`, or any that `readable`
    /// allows. Answers whether there was one.
    ///
    /// # Errors
    /// That of the disk.
    pub async fn mount(
        &self,
        repository: &Repository,
        digest: &ContentDigest,
        from: Option<&Repository>,
        readable: impl Fn(&Repository) -> bool,
    ) -> Result<Option<Blob>, Error> {
        let _open = self.gate.read().await;
        let source = match from {
            Some(from) => readable(from).then(|| from.clone()),
            None => self.holders(digest)?.into_iter().find(|holder| readable(holder)),
        };
        let Some(source) = source else { return Ok(None) };
        let Some(blob) = self.local_blob(&source, digest)? else { return Ok(None) };
        self.link(repository, *digest, blob.stored, blob.size).await.map(Some)
    }

    /// The repositories that show a blob, at most 1000.
    fn holders(&self, digest: &ContentDigest) -> Result<Vec<Repository>, Error> {
        let prefix = format!("{digest} ");
        let links: Vec<(String, LinkRecord)> =
            self.ledger.read(|tables| tables.range(LINKS, &prefix, "", 1000))?;
        Ok(links.iter().filter_map(|(key, _)| key.strip_prefix(&prefix)?.parse().ok()).collect())
    }

    /// Takes a blob out of a repository. Its bytes go when nobody shows them and garbage is collected.
    ///
    /// # Errors
    /// [`Error::BlobUnknown`], or that of the disk.
    pub async fn delete_blob(&self, repository: &Repository, digest: &ContentDigest) -> Result<(), Error> {
        let (repository, digest) = (repository.clone(), *digest);
        self.ledger
            .write(move |tables| {
                if tables.delete(LINKS, &records::link_key(&repository, &digest))? {
                    return Ok(());
                }
                Err(Error::BlobUnknown { repository: repository.to_string(), digest })
            })
            .await
    }

    /// A manifest of a repository.
    ///
    /// # Errors
    /// [`Error::ManifestUnknown`], or that of the disk.
    pub async fn manifest(&self, repository: &Repository, reference: &Reference) -> Result<Manifest, Error> {
        if let Some(origin) = &self.origin
            && let Some(manifest) = self.manifest_from_origin(origin.as_ref(), repository, reference).await?
        {
            return Ok(manifest);
        }
        let Some((manifest, _)) = self.local_manifest(repository, reference)? else {
            return Err(manifest_unknown(repository, reference));
        };
        if self.origin.is_some() {
            self.note_pull(repository, &manifest.digest).await?;
        }
        Ok(manifest)
    }

    /// Copies go that nobody pulled for long: this one was pulled. Noted no more often than once an hour.
    async fn note_pull(&self, repository: &Repository, digest: &ContentDigest) -> Result<(), Error> {
        let (key, now) = (records::manifest_key(repository, digest), daemon::now());
        let is_old = |record: &ManifestRecord| now.0.as_second() - record.pushed.0.as_second() >= RENEWED;
        if !self.ledger.read(|tables| tables.get(MANIFESTS, &key))?.as_ref().is_some_and(is_old) {
            return Ok(());
        }
        self.ledger
            .write(move |tables| match tables.get::<ManifestRecord>(MANIFESTS, &key)? {
                Some(record) => Ok(tables.put(MANIFESTS, &key, &ManifestRecord { pushed: now, ..record })?),
                None => Ok(()),
            })
            .await
    }

    /// A manifest that is here, and whether its tag was heard from the registry above.
    pub(crate) fn local_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Option<(Manifest, bool)>, Error> {
        let found = self.ledger.read(|tables| find_manifest(tables, repository, reference))?;
        Ok(found.filter(|(_, record, _)| self.blobs.has(&record.blob)).map(|(digest, record, cached)| {
            let ManifestRecord { blob, size, media_type, .. } = record;
            (Manifest { digest, stored: blob, media_type, size }, cached)
        }))
    }

    /// The bytes of a manifest.
    ///
    /// # Errors
    /// [`Error::Lost`] or that of the disk.
    pub async fn manifest_bytes(&self, manifest: &Manifest) -> Result<Bytes, Error> {
        match tokio::fs::read(self.file(&manifest.stored)).await {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::Lost(manifest.stored)),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes a manifest, and lets `reference`, if it is a tag, and further tags point at it.
    ///
    /// # Errors
    /// [`Error::ManifestInvalid`], [`Error::ManifestBlobUnknown`], [`Error::DigestMismatch`], [`Error::TooLarge`], or
    /// that of the disk; nothing was changed then.
    pub async fn put_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
        tags: Vec<Tag>,
    ) -> Result<Pushed, Error> {
        self.keep_manifest(repository, reference, media_type, bytes, tags, false).await
    }

    /// The same; a copy of another registry's may name what is not here yet.
    pub(crate) async fn keep_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
        mut tags: Vec<Tag>,
        is_copy: bool,
    ) -> Result<Pushed, Error> {
        if bytes.len() as u64 > self.limits.manifest {
            return Err(Error::TooLarge { what: "the manifest", limit: self.limits.manifest });
        }
        let contents = manifest::read(media_type, &bytes)?;
        let digest = match reference {
            Reference::Tag(tag) => {
                tags.push(tag.clone());
                Digest::of(&bytes).into()
            }
            Reference::Digest(announced) => {
                let actual = announced.again(&bytes);
                if actual != *announced {
                    return Err(Error::mismatch(*announced, actual));
                }
                *announced
            }
        };
        let _open = self.gate.read().await;
        let (blob, size) = self.blobs.put_reader(&*bytes).await?;
        let subject = contents.subject;
        let (repository, now, blobs) = (repository.clone(), daemon::now(), self.blobs.clone());
        self.ledger
            .write(move |tables| {
                if !is_copy {
                    expect_blobs(tables, &blobs, &repository, &contents.blobs)?;
                }
                records::furnish(tables, &repository, now)?;
                let descriptor = Descriptor {
                    media_type: contents.media_type.clone(),
                    digest,
                    size,
                    artifact_type: contents.artifact_type,
                    annotations: contents.annotations,
                };
                if let Some(subject) = &subject {
                    let key = records::referrers_prefix(&repository, subject) + &digest.to_string();
                    tables.put(REFERRERS, &key, &descriptor)?;
                }
                let record = ManifestRecord {
                    blob,
                    size,
                    media_type: contents.media_type,
                    blobs: contents.blobs,
                    manifests: contents.manifests,
                    subject,
                    pushed: now,
                };
                tables.put(MANIFESTS, &records::manifest_key(&repository, &digest), &record)?;
                for tag in &tags {
                    let record = TagRecord { digest, cached: is_copy };
                    tables.put(TAGS, &records::tag_key(&repository, tag), &record)?;
                }
                Ok(Pushed { digest, subject })
            })
            .await
    }

    /// Deletes a tag, or a manifest with all tags that point at it.
    ///
    /// # Errors
    /// [`Error::ManifestUnknown`], or that of the disk.
    pub async fn delete_manifest(&self, repository: &Repository, reference: &Reference) -> Result<(), Error> {
        let (repository, reference) = (repository.clone(), reference.clone());
        self.ledger
            .write(move |tables| {
                let was_there = match &reference {
                    Reference::Tag(tag) => tables.delete(TAGS, &records::tag_key(&repository, tag))?,
                    Reference::Digest(digest) => forget_manifest(tables, &repository, digest)?,
                };
                if was_there { Ok(()) } else { Err(manifest_unknown(&repository, &reference)) }
            })
            .await
    }
}

pub(crate) fn manifest_unknown(repository: &Repository, reference: &Reference) -> Error {
    Error::ManifestUnknown { repository: repository.to_string(), reference: reference.to_string() }
}

fn find_manifest(
    tables: &Tables,
    repository: &Repository,
    reference: &Reference,
) -> Result<Option<(ContentDigest, ManifestRecord, bool)>, Error> {
    let (digest, cached) = match reference {
        Reference::Digest(digest) => (*digest, false),
        Reference::Tag(tag) => match tables.get(TAGS, &records::tag_key(repository, tag))? {
            Some(TagRecord { digest, cached }) => (digest, cached),
            None => return Ok(None),
        },
    };
    let record = tables.get(MANIFESTS, &records::manifest_key(repository, &digest))?;
    Ok(record.map(|record| (digest, record, cached)))
}

fn expect_blobs(
    tables: &Tables,
    blobs: &Blobs,
    repository: &Repository,
    named: &[ContentDigest],
) -> Result<(), Error> {
    for digest in named {
        let link = records::link(tables, repository, digest)?;
        if !link.is_some_and(|link| blobs.has(&link.blob)) {
            return Err(Error::ManifestBlobUnknown(*digest));
        }
    }
    Ok(())
}

/// Removes a manifest, the tags that point at it and its place among the referrers; answers whether it was there.
pub(crate) fn forget_manifest(
    tables: &Tables,
    repository: &Repository,
    digest: &ContentDigest,
) -> Result<bool, Error> {
    let key = records::manifest_key(repository, digest);
    let Some(record) = tables.get::<ManifestRecord>(MANIFESTS, &key)? else { return Ok(false) };
    tables.delete(MANIFESTS, &key)?;
    if let Some(subject) = &record.subject {
        let key = records::referrers_prefix(repository, subject) + &digest.to_string();
        tables.delete(REFERRERS, &key)?;
    }
    let mut tags = Vec::new();
    records::each(tables, TAGS, &format!("{repository}:"), |key, tag: TagRecord| {
        if tag.digest == *digest {
            tags.push(key.to_owned());
        }
    })?;
    for key in tags {
        tables.delete(TAGS, &key)?;
    }
    Ok(true)
}
