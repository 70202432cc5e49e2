//! What nobody can reach any more goes.
//!
//! Reached is what a tag points at, what a resource names, what came within the minimum age, and from there on what
//! manifests name, and the manifests that are about one that is reached.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use types::{Digest, Time};

use crate::records::{self, LINKS, LinkRecord, MANIFESTS, ManifestRecord, TAGS, TagRecord};
use crate::registry::forget_manifest;
use crate::{ContentDigest, Error, Registry, Repository};

/// How garbage is collected.
#[derive(Debug, Clone, Copy, Default)]
pub struct Garbage {
    /// What came since is kept, whoever needs it: a push ends with the manifest.
    pub minimum_age: Duration,
    /// Only tells what would go.
    pub dry_run: bool,
    /// For how long a tag that was heard from the registry above keeps what it points at after that was last pulled or
    /// heard of; for ever if absent. It comes again when it is asked for again.
    pub copies_rest: Option<Duration>,
}

/// What went, or would go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Swept {
    /// Manifests.
    pub manifests: u64,
    /// Places of blobs in repositories.
    pub links: u64,
    /// Files.
    pub blobs: u64,
    /// Bytes of those files.
    pub bytes: u64,
}

/// A manifest or blob of a repository.
type Place = (String, ContentDigest);

struct Census {
    manifests: HashMap<Place, ManifestRecord>,
    /// What tags of this registry's own point at, and what those point at that were heard from above.
    tagged: HashSet<Place>,
    copied: HashSet<Place>,
    links: Vec<(Place, LinkRecord)>,
}

impl Registry {
    /// Collects garbage. Pushes wait meanwhile where they would meet it. What others need, blobs and manifests by the
    /// digest of their bytes, is asked for once they do: nothing comes between that look and the end.
    ///
    /// # Errors
    /// That of the disk; what was removed until then is gone.
    pub async fn collect_garbage(
        &self,
        garbage: Garbage,
        needed: impl FnOnce() -> HashSet<Digest> + Send,
    ) -> Result<Swept, Error> {
        let _closed = self.gate.write().await;
        let needed = needed();
        let census = self.census()?;
        let now = daemon::now();
        let kept = census.reached(garbage, &needed, now);
        let mut blobs = needed.clone();
        blobs.extend(kept.iter().filter_map(|place| Some(census.manifests.get(place)?.blob)));
        let named: HashSet<Place> = kept
            .iter()
            .filter_map(|place| Some((place, census.manifests.get(place)?)))
            .flat_map(|((repository, _), record)| {
                record.blobs.iter().map(move |blob| (repository.clone(), *blob))
            })
            .collect();
        let mut links = Vec::new();
        for (place, link) in &census.links {
            let is_kept = named.contains(place)
                || needed.contains(&link.blob)
                || !is_old(link.linked, now, garbage.minimum_age);
            if is_kept {
                blobs.insert(link.blob);
            } else {
                links.push(place.clone());
            }
        }
        let manifests: Vec<Place> =
            census.manifests.keys().filter(|place| !kept.contains(*place)).cloned().collect();
        let mut swept =
            Swept { manifests: manifests.len() as u64, links: links.len() as u64, ..Swept::default() };
        if garbage.dry_run {
            for blob in self.blobs.garbage(&blobs, garbage.minimum_age)? {
                swept.blobs += 1;
                swept.bytes += blob.size;
            }
            return Ok(swept);
        }
        // Records first: should we end here, files are left that the next collection takes.
        self.forget(manifests, links).await?;
        let collected = self.blobs.collect_garbage(&blobs, garbage.minimum_age)?;
        Ok(Swept { blobs: collected.blobs, bytes: collected.bytes, ..swept })
    }

    fn census(&self) -> Result<Census, Error> {
        let (mut manifests, mut links) = (HashMap::new(), Vec::new());
        let (mut tagged, mut copied) = (HashSet::new(), HashSet::new());
        self.ledger.read(|tables| {
            records::each(tables, MANIFESTS, "", |key, record: ManifestRecord| {
                if let Some(place) = split(key, '@') {
                    manifests.insert(place, record);
                }
            })?;
            records::each(tables, TAGS, "", |key, tag: TagRecord| {
                if let Some((repository, _)) = key.rsplit_once(':') {
                    let tagged = if tag.cached { &mut copied } else { &mut tagged };
                    tagged.insert((repository.to_owned(), tag.digest));
                }
            })?;
            records::each(tables, LINKS, "", |key, link: LinkRecord| {
                if let Some((digest, repository)) = key.split_once(' ')
                    && let Ok(digest) = digest.parse()
                {
                    links.push(((repository.to_owned(), digest), link));
                }
            })
        })?;
        Ok(Census { manifests, tagged, copied, links })
    }

    async fn forget(&self, manifests: Vec<Place>, links: Vec<Place>) -> Result<(), Error> {
        self.ledger
            .write(move |tables| {
                for (repository, digest) in manifests {
                    forget_manifest(tables, &repository.parse()?, &digest)?;
                }
                for (repository, digest) in links {
                    let repository: Repository = repository.parse()?;
                    tables.delete(LINKS, &records::link_key(&repository, &digest))?;
                }
                Ok(())
            })
            .await
    }
}

impl Census {
    /// The manifests that are to stay.
    fn reached(&self, garbage: Garbage, needed: &HashSet<Digest>, now: Time) -> HashSet<Place> {
        let mut about: HashMap<Place, Vec<&Place>> = HashMap::new();
        for (place, record) in &self.manifests {
            if let Some(subject) = record.subject {
                about.entry((place.0.clone(), subject)).or_default().push(place);
            }
        }
        let is_root = |(place, record): &(&Place, &ManifestRecord)| {
            let rests = || garbage.copies_rest.is_some_and(|rest| is_old(record.pushed, now, rest));
            self.tagged.contains(*place)
                || (self.copied.contains(*place) && !rests())
                || needed.contains(&record.blob)
                || !is_old(record.pushed, now, garbage.minimum_age)
        };
        let mut open: Vec<Place> =
            self.manifests.iter().filter(is_root).map(|(place, _)| place.clone()).collect();
        let mut reached = HashSet::new();
        while let Some(place) = open.pop() {
            let Some(record) = self.manifests.get(&place) else { continue };
            if !reached.insert(place.clone()) {
                continue;
            }
            open.extend(record.manifests.iter().map(|child| (place.0.clone(), *child)));
            open.extend(about.get(&place).into_iter().flatten().map(|&place| place.clone()));
        }
        reached
    }
}

fn split(key: &str, between: char) -> Option<Place> {
    let (repository, digest) = key.split_once(between)?;
    Some((repository.to_owned(), digest.parse().ok()?))
}

/// A clock that was set back makes a thing look new, which only keeps it longer.
fn is_old(since: Time, now: Time, minimum_age: Duration) -> bool {
    let age = now.0.as_second().saturating_sub(since.0.as_second());
    u64::try_from(age).is_ok_and(|age| age >= minimum_age.as_secs())
}
