//! The authority that a hub signs with, and the next one while it is replaced: for a while both are trusted.
//!
//! Until the old one is retired servers show what it signed, which all know still, and clients get what the next one
//! signed. So nobody meets a certificate that they can't know yet.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::watch;

use super::Authority;

/// The files of the authority, and those of the next one, are called so, with `.crt` and `.key`.
const CURRENT: &str = "ca";
const NEXT: &str = "ca-next";

/// Who signs, and who is trusted, at one time.
pub struct Stage {
    /// Signs what servers show.
    pub current: Arc<Authority>,
    /// Takes its place.
    pub next: Option<Arc<Authority>>,
    /// The ids of those that were retired since the start: connections from before are there still.
    retired: Vec<String>,
}

impl Stage {
    /// Signs what clients show.
    pub fn signing(&self) -> &Arc<Authority> {
        self.next.as_ref().unwrap_or(&self.current)
    }

    /// Whether an authority is one that was retired.
    pub fn is_retired(&self, id: &str) -> bool {
        self.retired.iter().any(|retired| retired == id)
    }

    /// The certificates of all that are trusted, in PEM.
    pub fn trusted(&self) -> String {
        let next = self.next.as_ref().map_or("", |next| next.certificate());
        self.current.certificate().to_owned() + next
    }
}

/// A hub's authorities, in its folder. They change while it runs.
pub struct Authorities {
    folder: Option<PathBuf>,
    stage: RwLock<Arc<Stage>>,
    changed: watch::Sender<()>,
    /// Held by who changes them.
    changing: Mutex<()>,
}

impl std::fmt::Debug for Authorities {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str("Authorities")
    }
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str("Stage")
    }
}

/// Why a step of a rotation is none now.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// There is a next authority already.
    #[error("the authority is being replaced already; `avocet authority retire` ends that")]
    UnderWay,
    /// There is none.
    #[error("there is no next authority to take its place; `avocet authority rotate` makes one")]
    NotBegun,
    /// The disk.
    #[error("the files of the authorities can't be written")]
    Disk(#[from] io::Error),
}

impl Authorities {
    /// Those kept in a folder; if there is none, a new one. A retirement that broke off goes on.
    ///
    /// # Errors
    /// If the files can't be read or written.
    pub fn open(folder: &Path) -> io::Result<Arc<Self>> {
        // Its certificate comes last and goes first.
        let is_there = file(folder, NEXT, "crt").try_exists()?;
        if is_there && read(folder, NEXT, "key")? == read(folder, CURRENT, "key")? {
            take_over(folder)?;
        }
        let next = if file(folder, NEXT, "crt").try_exists()? {
            Some(Arc::new(Authority::open_as(folder, NEXT)?))
        } else {
            None
        };
        let current = Arc::new(Authority::open(folder)?);
        Ok(Arc::new(Self::at(Some(folder.to_owned()), Stage { current, next, retired: vec![] })))
    }

    /// One that is never replaced.
    pub fn only(authority: Arc<Authority>) -> Arc<Self> {
        Arc::new(Self::at(None, Stage { current: authority, next: None, retired: vec![] }))
    }

    fn at(folder: Option<PathBuf>, stage: Stage) -> Self {
        Self {
            folder,
            stage: RwLock::new(Arc::new(stage)),
            changed: watch::Sender::default(),
            changing: Mutex::new(()),
        }
    }

    /// As they are now.
    pub fn stage(&self) -> Arc<Stage> {
        self.stage.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hears of each change.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Makes the next authority: from now on both are trusted, and it signs for clients. Blocks.
    ///
    /// # Errors
    /// If there is one already, or the disk fails.
    pub fn rotate(&self) -> Result<Arc<Stage>, RotationError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let stage = self.stage();
        if stage.next.is_some() {
            return Err(RotationError::UnderWay);
        }
        let next = Arc::new(Authority::open_as(self.folder()?, NEXT)?);
        let (current, retired) = (stage.current.clone(), stage.retired.clone());
        Ok(self.become_like(Stage { current, next: Some(next), retired }))
    }

    /// The next authority takes the place of the one before, which nobody trusts from now on. Blocks.
    ///
    /// # Errors
    /// If there is none, or the disk fails: then it is done at the next start at the latest.
    pub fn retire(&self) -> Result<Arc<Stage>, RotationError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let stage = self.stage();
        let next = stage.next.clone().ok_or(RotationError::NotBegun)?;
        take_over(self.folder()?)?;
        let retired = stage.retired.iter().cloned().chain([stage.current.id()]).collect();
        Ok(self.become_like(Stage { current: next, next: None, retired }))
    }

    fn folder(&self) -> io::Result<&Path> {
        self.folder.as_deref().ok_or_else(|| io::Error::other("they are in no folder"))
    }

    fn become_like(&self, stage: Stage) -> Arc<Stage> {
        let stage = Arc::new(stage);
        *self.stage.write().unwrap_or_else(PoisonError::into_inner) = stage.clone();
        self.changed.send_replace(());
        stage
    }
}

fn file(folder: &Path, name: &str, end: &str) -> PathBuf {
    folder.join(format!("{name}.{end}"))
}

fn read(folder: &Path, name: &str, end: &str) -> io::Result<Option<String>> {
    match std::fs::read_to_string(file(folder, name, end)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The next authority's files become those of the authority. From the first write on the key tells that this goes on.
fn take_over(folder: &Path) -> io::Result<()> {
    let text =
        |end| read(folder, NEXT, end)?.ok_or_else(|| io::Error::other(format!("{NEXT}.{end} is missing")));
    let (key, certificate) = (text("key")?, text("crt")?);
    crate::write_private(&file(folder, CURRENT, "key"), key.as_bytes())?;
    crate::write_durably(&file(folder, CURRENT, "crt"), certificate.as_bytes())?;
    std::fs::remove_file(file(folder, NEXT, "crt"))?;
    crate::sync_folder(folder)?;
    std::fs::remove_file(file(folder, NEXT, "key"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn both_are_trusted_until_the_old_one_is_retired_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let all = Authorities::open(folder.path()).unwrap();
        assert!(matches!(all.retire(), Err(RotationError::NotBegun)));
        let old = all.stage().current.certificate().to_owned();
        let mut heard = all.subscribe();
        let stage = all.rotate().unwrap();
        assert!(heard.has_changed().unwrap());
        heard.mark_unchanged();
        assert!(matches!(all.rotate(), Err(RotationError::UnderWay)));
        let new = stage.signing().certificate().to_owned();
        assert!(new != old && stage.current.certificate() == old);
        assert_eq!(stage.trusted(), format!("{old}{new}"));
        assert_ne!(stage.current.id(), stage.signing().id());
        let again = Authorities::open(folder.path()).unwrap();
        assert_eq!(again.stage().trusted(), stage.trusted());

        assert_eq!(again.retire().unwrap().trusted(), new);
        assert_eq!(names(folder.path()), ["ca.crt", "ca.key"]);
        let after = Authorities::open(folder.path()).unwrap();
        assert_eq!(after.stage().trusted(), new);
        assert_eq!(after.stage().signing().certificate(), new);
        // And once more.
        after.rotate().unwrap();
        assert_ne!(after.retire().unwrap().trusted(), new);
    }

    #[test]
    fn a_step_that_broke_off_anywhere_is_done_or_was_never_begun() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let old = Authorities::open(folder.path()).unwrap().stage().trusted();
        // A key that came without its certificate: nobody was told of it.
        std::fs::write(at("ca-next.key"), daemon_key()).unwrap();
        let all = Authorities::open(folder.path()).unwrap();
        assert_eq!(all.stage().trusted(), old);
        let new = all.rotate().unwrap().signing().certificate().to_owned();
        let (key, certificate) =
            (std::fs::read(at("ca-next.key")).unwrap(), std::fs::read(at("ca-next.crt")).unwrap());
        // The key took its place, and the certificate did not.
        std::fs::write(at("ca.key"), &key).unwrap();
        assert_eq!(Authorities::open(folder.path()).unwrap().stage().trusted(), new);
        assert_eq!(names(folder.path()), ["ca.crt", "ca.key"]);
        // Both did, and the next one's were not gone yet.
        std::fs::write(at("ca-next.key"), &key).unwrap();
        std::fs::write(at("ca-next.crt"), &certificate).unwrap();
        assert_eq!(Authorities::open(folder.path()).unwrap().stage().trusted(), new);
        std::fs::write(at("ca-next.key"), &key).unwrap();
        let left = Authorities::open(folder.path()).unwrap();
        assert_eq!(left.stage().trusted(), new);
        assert!(!left.rotate().unwrap().trusted().is_empty());
        let signing = left.stage().signing().clone();
        assert_ne!(signing.certificate(), new, "a key that is left over is not used again");
    }

    fn daemon_key() -> String {
        crate::tls::new_key().unwrap()
    }
}
