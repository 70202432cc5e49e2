//! Lists, a page at a time.

use crate::records::{self, REFERRERS, REPOSITORIES, RepositoryRecord, TAGS, TagRecord};
use crate::{ContentDigest, Descriptor, Error, Registry, Repository};

/// How many entries a page has at most.
const LONGEST_PAGE: usize = 1000;
/// How many bytes of referrers a page has at most, about.
const LARGEST_PAGE: usize = 4 << 20;

/// A part of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// In the order of their names.
    pub entries: Vec<T>,
    /// Whether there are more after these.
    pub more: bool,
}

impl Registry {
    /// Up to `limit` tags after `last`, in the order of their bytes.
    ///
    /// # Errors
    /// [`Error::NameUnknown`], or that of the disk.
    pub fn tags(&self, repository: &Repository, last: &str, limit: usize) -> Result<Page<String>, Error> {
        let prefix = format!("{repository}:");
        let (after, limit) = (start(&prefix, last), limit.min(LONGEST_PAGE));
        let found: Vec<(String, TagRecord)> = self.ledger.read(|tables| {
            records::expect_known(tables, repository)?;
            Ok::<_, Error>(tables.range(TAGS, &prefix, &after, limit + 1)?)
        })?;
        let names = found.into_iter().filter_map(|(key, _)| key.strip_prefix(&prefix).map(str::to_owned));
        Ok(page(names.collect(), limit))
    }

    /// Up to `limit` names of repositories after `last`.
    ///
    /// # Errors
    /// That of the disk.
    pub fn repositories(&self, last: &str, limit: usize) -> Result<Page<String>, Error> {
        let limit = limit.min(LONGEST_PAGE);
        let found: Vec<(String, RepositoryRecord)> =
            self.ledger.read(|tables| tables.range(REPOSITORIES, "", last, limit + 1))?;
        Ok(page(found.into_iter().map(|(name, _)| name).collect(), limit))
    }

    /// The manifests that are about another one, which need not be there, after the one with the digest `last`; only
    /// those of a type, if one is given.
    ///
    /// # Errors
    /// That of the disk.
    pub fn referrers(
        &self,
        repository: &Repository,
        subject: &ContentDigest,
        artifact_type: Option<&str>,
        last: &str,
    ) -> Result<Page<Descriptor>, Error> {
        let prefix = records::referrers_prefix(repository, subject);
        let (mut entries, mut bytes, mut after) = (Vec::new(), 0, start(&prefix, last));
        loop {
            // One at a time: each may be as large as a manifest.
            let next: Vec<(String, Descriptor)> =
                self.ledger.read(|tables| tables.range(REFERRERS, &prefix, &after, 1))?;
            let Some((key, descriptor)) = next.into_iter().next() else {
                return Ok(Page { entries, more: false });
            };
            after = key;
            if artifact_type.is_some_and(|wanted| descriptor.artifact_type.as_deref() != Some(wanted)) {
                continue;
            }
            bytes +=
                descriptor.annotations.iter().map(|(key, value)| key.len() + value.len() + 8).sum::<usize>();
            if !entries.is_empty() && (bytes > LARGEST_PAGE || entries.len() >= LONGEST_PAGE) {
                return Ok(Page { entries, more: true });
            }
            entries.push(descriptor);
        }
    }
}

fn start(prefix: &str, last: &str) -> String {
    if last.is_empty() { String::new() } else { format!("{prefix}{last}") }
}

fn page<T>(mut entries: Vec<T>, limit: usize) -> Page<T> {
    let more = entries.len() > limit;
    entries.truncate(limit);
    Page { entries, more }
}
