//! Unpacked functions: which of them run, and making room by taking away what nobody needs.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a folder is called while it is taken away: no half of a function is ever found under its name.
const GOING: &str = ".going";

/// The folder of unpacked functions, each in a folder that its digest names. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Bundles {
    folder: PathBuf,
    /// How many runs each is held by.
    held: Arc<Mutex<HashMap<PathBuf, usize>>>,
}

/// An unpacked function that stays as long as this lives.
pub(crate) struct Held {
    bundle: PathBuf,
    bundles: Bundles,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.bundles.lock();
        if let Some(count) = held.get_mut(&self.bundle) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.bundle);
            }
        }
    }
}

impl Bundles {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, held: Arc::default() }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an unpacked function where it is; none if it was taken away.
    pub(crate) fn hold(&self, bundle: &Path) -> Option<Held> {
        let mut held = self.lock();
        if !bundle.is_dir() {
            return None;
        }
        *held.entry(bundle.to_owned()).or_default() += 1;
        Some(Held { bundle: bundle.to_owned(), bundles: self.clone() })
    }

    /// Takes away what neither is needed nor runs; answers how many there were. Blocks.
    ///
    /// # Errors
    /// If the folder can't be read, or something in it can't be removed.
    pub(crate) fn remove_others(&self, needed: &HashSet<String>) -> io::Result<usize> {
        let mut going = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if name.ends_with(GOING) {
                going.push(path);
            } else if is_digest(&name) && !needed.contains(&name) {
                let held = self.lock();
                if !held.contains_key(&path) {
                    let aside = self.folder.join(format!("{name}{GOING}"));
                    std::fs::rename(&path, &aside)?;
                    going.push(aside);
                }
            }
        }
        going.iter().try_for_each(std::fs::remove_dir_all)?;
        Ok(going.len())
    }
}

/// Folders of other names are those that are being unpacked.
fn is_digest(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_runs_or_is_being_unpacked_stays() {
        let folder = tempfile::tempdir().unwrap();
        let bundles = Bundles::new(folder.path().to_owned());
        let name = |letter: &str| letter.repeat(64);
        let make = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.join("code")).unwrap();
            path
        };
        let [needed, runs, twice, gone] = ["a", "b", "c", "d"].map(|letter| make(&name(letter)));
        let [unpacked, left] = [".unpacking-1".to_owned(), name("e") + GOING].map(|name| make(&name));
        let held = bundles.hold(&runs).unwrap();
        let both = [bundles.hold(&twice).unwrap(), bundles.hold(&twice).unwrap()];
        let keep = HashSet::from([name("a")]);
        assert_eq!(bundles.remove_others(&keep).unwrap(), 2);
        assert!([&needed, &runs, &twice, &unpacked].iter().all(|path| path.exists()));
        assert!(!gone.exists() && !left.exists() && bundles.hold(&gone).is_none());
        drop(held);
        let [one, other] = both;
        drop(one);
        assert_eq!(bundles.remove_others(&keep).unwrap(), 1);
        assert!(!runs.exists() && twice.exists());
        drop(other);
        assert_eq!(bundles.remove_others(&keep).unwrap(), 1);
        assert_eq!(bundles.remove_others(&keep).unwrap(), 0);
    }
}
