//! What is recorded, and the functions on [`Tables`] that change it inside a transaction.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use store::ledger::{self, Tables};
use types::{Digest, Time};

use crate::{ContentDigest, Error, Repository, Tag};

/// `repository` → [`RepositoryRecord`].
pub(crate) const REPOSITORIES: &str = "registry-repositories";
/// `digest repository` → [`LinkRecord`]: which blobs a repository shows, and which repositories show a blob.
pub(crate) const LINKS: &str = "registry-blobs";
/// `repository@digest` → [`ManifestRecord`].
pub(crate) const MANIFESTS: &str = "registry-manifests";
/// `repository:tag` → [`TagRecord`].
pub(crate) const TAGS: &str = "registry-tags";
/// `repository@subject@digest` → [`crate::Descriptor`].
pub(crate) const REFERRERS: &str = "registry-referrers";
/// `upload` → [`UploadRecord`].
pub(crate) const UPLOADS: &str = "registry-uploads";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RepositoryRecord {
    pub(crate) created: Time,
}

/// A blob that a repository shows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LinkRecord {
    /// What its bytes are kept under.
    pub(crate) blob: Digest,
    pub(crate) size: u64,
    pub(crate) linked: Time,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ManifestRecord {
    /// What its bytes are kept under.
    pub(crate) blob: Digest,
    pub(crate) size: u64,
    pub(crate) media_type: String,
    /// The blobs that it names.
    pub(crate) blobs: Vec<ContentDigest>,
    /// The manifests that it names.
    pub(crate) manifests: Vec<ContentDigest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<ContentDigest>,
    pub(crate) pushed: Time,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TagRecord {
    pub(crate) digest: ContentDigest,
    /// Whether it was heard from the registry above, where it may move.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) cached: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct UploadRecord {
    pub(crate) repository: String,
    pub(crate) started: Time,
    /// Who began it, as limits count them.
    #[serde(default)]
    pub(crate) by: String,
}

pub(crate) fn link_key(repository: &Repository, digest: &ContentDigest) -> String {
    format!("{digest} {repository}")
}

pub(crate) fn manifest_key(repository: &Repository, digest: &ContentDigest) -> String {
    format!("{repository}@{digest}")
}

pub(crate) fn tag_key(repository: &Repository, tag: &Tag) -> String {
    format!("{repository}:{tag}")
}

pub(crate) fn referrers_prefix(repository: &Repository, subject: &ContentDigest) -> String {
    format!("{repository}@{subject}@")
}

pub(crate) fn link(
    tables: &Tables,
    repository: &Repository,
    digest: &ContentDigest,
) -> Result<Option<LinkRecord>, ledger::Error> {
    tables.get(LINKS, &link_key(repository, digest))
}

/// The repository, which is there from its first content on.
pub(crate) fn furnish(tables: &Tables, repository: &Repository, now: Time) -> Result<(), ledger::Error> {
    if is_known(tables, repository)? {
        return Ok(());
    }
    tables.put(REPOSITORIES, repository.as_str(), &RepositoryRecord { created: now })
}

pub(crate) fn is_known(tables: &Tables, repository: &Repository) -> Result<bool, ledger::Error> {
    Ok(tables.get::<IgnoredAny>(REPOSITORIES, repository.as_str())?.is_some())
}

pub(crate) fn expect_known(tables: &Tables, repository: &Repository) -> Result<(), Error> {
    if is_known(tables, repository)? { Ok(()) } else { Err(Error::NameUnknown(repository.to_string())) }
}

/// How many records are read at a time when all are.
const PAGE: usize = 1000;

/// Shows all records of a table whose keys begin with `prefix`.
pub(crate) fn each<T: serde::de::DeserializeOwned>(
    tables: &Tables,
    table: &str,
    prefix: &str,
    mut show: impl FnMut(&str, T),
) -> Result<(), ledger::Error> {
    let mut after = String::new();
    loop {
        let page: Vec<(String, T)> = tables.range(table, prefix, &after, PAGE)?;
        let ended = page.len() < PAGE;
        for (key, record) in page {
            show(&key, record);
            after = key;
        }
        if ended {
            return Ok(());
        }
    }
}
