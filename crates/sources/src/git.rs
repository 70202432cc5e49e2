//! Commits from repositories, by the real `git`.

mod command;
mod objects;
mod remote;
mod session;
mod verify;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::debug;
use types::{GitSource, VerificationMode};

use crate::tree::{Limits, Tree};
use crate::{Error, tree};
use command::Git;
pub(crate) use objects::Objects;
use remote::Followed;
pub use session::Credential;
use session::Session;
pub use verify::Signers;

/// The name under which a fetched commit or tag is kept.
const KEPT: &str = "refs/avocet/kept";
/// How many fetches a cache holds before it is begun anew.
const MOST_PACKS: usize = 64;

/// What a hub's operator decides.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder for caches, one for each source; made when needed.
    pub folder: PathBuf,
    /// The protocols that may be spoken: of https, ssh, http and file.
    pub protocols: Vec<String>,
    /// The hosts that may be asked; empty for all.
    pub hosts: Vec<String>,
    /// How much of a repository is taken.
    pub limits: Limits,
}

/// A commit that is wanted.
pub struct Wanted<'a> {
    /// Names the cache; one path segment.
    pub cache: &'a str,
    /// The repository and what of it.
    pub git: &'a GitSource,
    /// What to show to its server.
    pub credential: Credential,
    /// Who must have signed.
    pub verify: Option<(VerificationMode, Signers)>,
    /// How long all of it may take.
    pub timeout: Duration,
}

/// A commit that is there.
#[derive(Debug)]
pub struct Checkout {
    /// What is followed, and the commit: `main@sha1:…`.
    pub revision: String,
    commit: String,
    repository: PathBuf,
    entries: BTreeMap<String, tree::Entry>,
    limits: Limits,
}

impl Checkout {
    /// The files of the commit. Reads block: call it where that is no harm.
    ///
    /// # Errors
    /// If git can't be started.
    pub fn tree(&self) -> Result<Tree, Error> {
        let objects = Objects::open(&self.repository, self.limits.memory_bytes)?;
        Ok(Tree::of_commit(self.entries.clone(), objects, self.limits))
    }

    /// The commit's hash.
    pub fn commit(&self) -> &str {
        &self.commit
    }
}

/// Brings the commit that is followed now.
///
/// # Errors
/// [`Error`] for what is not allowed, not there, not signed, too much or too slow.
pub async fn fetch(options: &Options, wanted: Wanted<'_>) -> Result<Checkout, Error> {
    let seconds = wanted.timeout.as_secs();
    let action = format!("fetch {}", wanted.git.url);
    let fetched = tokio::time::timeout(wanted.timeout, fetch_now(options, wanted));
    fetched.await.unwrap_or(Err(Error::TimedOut { action, seconds }))
}

async fn fetch_now(options: &Options, wanted: Wanted<'_>) -> Result<Checkout, Error> {
    let url = wanted.git.url.as_str();
    session::check_allowed(options, url)?;
    let session = Session::open(&options.folder, options, url, &wanted.credential)?;
    let git = Git::new(&session);
    let repository = options.folder.join(format!("{}.git", wanted.cache));
    let followed = remote::find(&git, url, &wanted.git.reference).await?;
    prepare(&git, &repository, &followed).await?;
    if !git.has(&repository, &followed.hash).await? {
        debug!(url, hash = followed.hash, "fetching");
        let fetched = download(&git, &repository, url, &followed, options.limits.repository_bytes).await;
        if fetched.is_err() {
            // Whatever is half there would only be in the way of the next try.
            let _ = std::fs::remove_dir_all(&repository);
        }
        fetched?;
    }
    let commit = git.commit_of(&repository, &followed.hash).await?;
    if let Some((mode, signers)) = &wanted.verify {
        verify::verify(&git, &session, &repository, &followed, &commit, *mode, signers).await?;
    }
    let entries = git.list(&repository, &commit, &options.limits).await?;
    let algorithm = if commit.len() == 64 { "sha256" } else { "sha1" };
    let revision = format!("{}@{algorithm}:{commit}", followed.label);
    Ok(Checkout { revision, commit, repository, entries, limits: options.limits })
}

/// An empty repository of the right kind, if there is none that can be used.
async fn prepare(git: &Git<'_>, repository: &Path, followed: &Followed) -> Result<(), Error> {
    let format = if followed.hash.len() == 64 { "sha256" } else { "sha1" };
    let marker = repository.join("avocet-format");
    let packs = std::fs::read_dir(repository.join("objects/pack")).map_or(0, Iterator::count);
    // A pack comes with its index and more.
    let is_usable =
        std::fs::read_to_string(&marker).is_ok_and(|known| known == format) && packs < 3 * MOST_PACKS;
    if is_usable {
        return Ok(());
    }
    if repository.exists() {
        std::fs::remove_dir_all(repository).map_err(Error::io("remove an old cache"))?;
    }
    let format_option = format!("--object-format={format}");
    let path = repository.display().to_string();
    git.run("make a cache", &["init", "--quiet", "--bare", "--template=", &format_option, "--", &path])
        .await?;
    std::fs::write(&marker, format).map_err(Error::io("write to a cache"))
}

async fn download(
    git: &Git<'_>,
    repository: &Path,
    url: &str,
    followed: &Followed,
    limit: u64,
) -> Result<(), Error> {
    let folder = format!("--git-dir={}", repository.display());
    let refspec = format!("+{}:{KEPT}", followed.wanted);
    let arguments = [
        folder.as_str(),
        "fetch",
        "--quiet",
        "--depth=1",
        "--no-tags",
        "--no-recurse-submodules",
        "--no-write-fetch-head",
        "--force",
        "--",
        url,
        &refspec,
    ];
    git.run_watched(&format!("fetch {url}"), &arguments, repository, limit).await.map(drop)
}

/// Removes what is kept of a source.
pub fn forget(options: &Options, cache: &str) {
    let _ = std::fs::remove_dir_all(options.folder.join(format!("{cache}.git")));
}

/// Removes what is kept of sources that are no more.
pub fn forget_all_but(options: &Options, caches: &[String]) {
    for entry in std::fs::read_dir(&options.folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let known = name.to_str().and_then(|name| name.strip_suffix(".git"));
        if !known.is_some_and(|name| caches.iter().any(|cache| cache == name)) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
