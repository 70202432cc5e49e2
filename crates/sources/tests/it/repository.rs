//! A repository to follow.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use avocet_sources::{Checkout, Credential, Error, Limits, Options, Signers, Wanted, fetch};
use tempfile::TempDir;
use types::{GitReference, GitSource, VerificationMode};

/// Work tree, the bare repository that it pushes to, and caches.
pub struct Repository {
    pub folder: TempDir,
}

impl Repository {
    pub fn new() -> Self {
        let repository = Self { folder: tempfile::tempdir().unwrap() };
        let bare = repository.bare().display().to_string();
        repository.git(&["init", "--quiet", "--bare", "-b", "main", &bare]);
        let work = repository.work().display().to_string();
        repository.git(&["init", "--quiet", "-b", "main", &work]);
        repository
    }

    pub fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    pub fn bare(&self) -> PathBuf {
        self.folder.path().join("deploy.git")
    }

    pub fn url(&self) -> String {
        format!("file://{}", self.bare().display())
    }

    #[track_caller]
    pub fn git(&self, arguments: &[&str]) -> String {
        let work = self.work();
        let folder = if work.exists() { work } else { self.folder.path().to_owned() };
        let output = Command::new("git")
            .args(["-c", "user.name=Anna", "-c", "user.email=anna@example.com"])
            .args(arguments)
            .current_dir(folder)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.work().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Commits and pushes all that is written; answers the commit.
    #[track_caller]
    pub fn push(&self, options: &[&str]) -> String {
        self.git(&["add", "--all"]);
        let commit: Vec<&str> =
            options.iter().copied().chain(["commit", "--quiet", "--allow-empty", "-m", "change"]).collect();
        self.git(&commit);
        self.git(&["push", "--quiet", "--tags", "--force", &self.url(), "HEAD:main"]);
        self.git(&["rev-parse", "HEAD"])
    }

    pub fn options(&self) -> Options {
        let protocols = ["https", "http", "ssh", "file"].map(str::to_owned).to_vec();
        let folder = self.folder.path().join("caches");
        Options { folder, protocols, hosts: vec![], limits: Limits::default() }
    }

    pub async fn fetch(&self, reference: GitReference) -> Result<Checkout, Error> {
        self.fetch_from(&self.url(), reference, Credential::default(), None).await
    }

    pub async fn fetch_from(
        &self,
        url: &str,
        reference: GitReference,
        credential: Credential,
        verify: Option<(VerificationMode, Signers)>,
    ) -> Result<Checkout, Error> {
        let git = GitSource { url: url.to_owned(), reference, ..GitSource::default() };
        let timeout = Duration::from_secs(60);
        fetch(&self.options(), Wanted { cache: "one", git: &git, credential, verify, timeout }).await
    }
}

pub fn branch(name: &str) -> GitReference {
    GitReference { branch: Some(name.to_owned()), ..GitReference::default() }
}

pub fn tag(name: &str) -> GitReference {
    GitReference { tag: Some(name.to_owned()), ..GitReference::default() }
}

pub fn secret(pairs: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect()
}

/// Whether a program is there; says that a test is skipped where it isn't.
pub fn has(program: &str, path: &Path) -> bool {
    let found = path.exists() || Command::new(program).arg("--version").output().is_ok();
    if !found {
        println!("skipped: there is no {program} here");
    }
    found
}
