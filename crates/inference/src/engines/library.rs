//! Where an engine's shared library may lie, and its opening when a model first needs it.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::engine::panic_text;

/// What is looked for.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The library's names without prefix and suffix, best first.
    pub stems: &'static [&'static str],
    /// Variables that name the file or its folder.
    pub variables: &'static [&'static str],
    /// A folder that its own installations use.
    pub home: &'static str,
}

/// What the search looks at, gathered once so that the search itself reads no environment.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub wanted: &'static Wanted,
    /// Named by the operator: this one or none.
    pub named: Option<(&'static str, PathBuf)>,
    /// Folders to look into, in order.
    pub folders: Vec<PathBuf>,
}

impl Places {
    /// The option, then the variables, else the user's, the program's and the system's folders.
    pub fn of_this_process(wanted: &'static Wanted, option: Option<&Path>) -> Places {
        let variable = |name: &&'static str| {
            let value = std::env::var_os(name).filter(|value| !value.is_empty());
            value.map(|value| (*name, PathBuf::from(value)))
        };
        let named = option
            .map(|path| ("the configured path", path.to_path_buf()))
            .or_else(|| wanted.variables.iter().find_map(variable));
        let mut folders: Vec<PathBuf> = user_folder().into_iter().collect();
        if let Some(folder) = std::env::current_exe().ok().as_deref().and_then(Path::parent) {
            folders.push(folder.to_path_buf());
            folders.extend(folder.parent().map(|prefix| prefix.join("lib")));
        }
        let search = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        folders.extend(std::env::split_paths(&search).filter(|folder| folder.is_absolute()));
        let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
        folders.extend([
            PathBuf::from("/usr/local/lib"),
            PathBuf::from("/usr/local/lib").join(&triplet),
            PathBuf::from("/usr/lib").join(&triplet),
            PathBuf::from("/usr/lib64"),
            PathBuf::from("/usr/lib"),
            PathBuf::from(wanted.home),
        ]);
        Places { wanted, named, folders }
    }

    /// Files to try, best first, or why there is none.
    pub fn candidates(&self) -> Result<Vec<PathBuf>, String> {
        if let Some((source, path)) = &self.named {
            if path.as_os_str() == "off" {
                return Err(format!("switched off by {source}"));
            }
            if path.is_file() {
                return Ok(vec![path.clone()]);
            }
            let found = self.libraries(path);
            if found.is_empty() {
                return Err(format!(
                    "{source} names `{}`, which is no library and holds no {}; correct or unset it",
                    path.display(),
                    self.wanted.file_name()
                ));
            }
            return Ok(found);
        }
        let found: Vec<PathBuf> = self.folders.iter().flat_map(|folder| self.libraries(folder)).collect();
        if found.is_empty() {
            let folders: Vec<String> =
                self.folders.iter().map(|folder| folder.display().to_string()).collect();
            return Err(format!(
                "{} not found; looked in {}; install it or set {} to the file",
                self.wanted.file_name(),
                folders.join(", "),
                self.wanted.variables.first().unwrap_or(&"")
            ));
        }
        Ok(found)
    }

    /// `libonnxruntime.so` or a versioned name in a folder: by stem, the plain name first, then the highest version.
    fn libraries(&self, folder: &Path) -> Vec<PathBuf> {
        let names: Vec<PathBuf> =
            fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
        let mut found = Vec::new();
        for stem in self.wanted.stems {
            let wanted = file_name(stem);
            let mut fitting: Vec<(bool, Vec<u32>, &PathBuf)> = names
                .iter()
                .filter_map(|path| {
                    let suffix = path.file_name()?.to_str()?.strip_prefix(&wanted)?;
                    let named = suffix.is_empty() || suffix.starts_with('.');
                    (named && path.is_file()).then(|| (suffix.is_empty(), numbers(suffix), path))
                })
                .collect();
            fitting.sort_by(|a, b| b.cmp(a));
            found.extend(fitting.into_iter().map(|(_, _, path)| path.clone()));
        }
        found
    }
}

/// Where `avocet engines install` puts libraries for one user: below `$XDG_DATA_HOME` or `~/.local/share`.
pub fn user_folder() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = folder("XDG_DATA_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/share")))?;
    Some(data.join("avocet/engines"))
}

/// A library that was found and is opened when it is first needed; whatever came of that stays.
pub(super) struct Lazy<T> {
    candidates: Vec<PathBuf>,
    opened: OnceLock<Result<T, String>>,
}

impl<T> Lazy<T> {
    /// At least one candidate.
    pub fn new(candidates: Vec<PathBuf>) -> Self {
        Lazy { candidates, opened: OnceLock::new() }
    }

    /// The first candidate, which is what will be opened if it works.
    pub fn first(&self) -> Option<&Path> {
        self.candidates.first().map(PathBuf::as_path)
    }

    /// What was opened, if it was and works.
    pub fn opened(&self) -> Option<&T> {
        self.opened.get()?.as_ref().ok()
    }

    /// Why it does not work, if that was tried.
    pub fn defect(&self) -> Option<String> {
        self.opened.get()?.as_ref().err().cloned()
    }

    /// Tries the candidates in turn, once in the life of this value; a panic is a failure.
    pub fn open(&self, open: fn(&[PathBuf], &Path) -> Result<T, String>) -> Result<&T, String> {
        let attempt = || {
            let mut failures = Vec::new();
            for path in &self.candidates {
                match catch_unwind(AssertUnwindSafe(|| open(&self.candidates, path))) {
                    Ok(Ok(library)) => return Ok(library),
                    Ok(Err(failure)) => failures.push(failure),
                    Err(payload) => {
                        let text = panic_text(payload.as_ref());
                        failures.push(format!("`{}` is unusable: {text}", path.display()));
                    }
                }
            }
            Err(failures.join("; "))
        };
        self.opened.get_or_init(attempt).as_ref().map_err(String::clone)
    }
}

impl Wanted {
    fn file_name(&self) -> String {
        file_name(self.stems.first().unwrap_or(&""))
    }

    /// The version in a file name such as `libonnxruntime.so.1.31.1`, following a link to where it points.
    pub fn version(&self, path: &Path) -> Option<String> {
        let target = fs::canonicalize(path).ok()?;
        let name = target.file_name()?.to_str()?.to_owned();
        let (_, version) = name.split_once(&format!("{}.", self.file_name()))?;
        (numbers(version).len() >= 2).then(|| version.to_owned())
    }
}

fn file_name(stem: &str) -> String {
    format!("{}{stem}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

fn numbers(text: &str) -> Vec<u32> {
    text.split('.').filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted =
        Wanted { stems: &["onnxruntime"], variables: &["AVOCET_ONNXRUNTIME"], home: "/nowhere" };

    fn folder_with(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(folder.path().join(name), "").unwrap();
        }
        folder
    }

    #[test]
    fn the_plain_name_wins_and_then_the_highest_version() {
        let lib = WANTED.file_name();
        let (nine, thirty) = (format!("{lib}.1.9.0"), format!("{lib}.1.30.0"));
        let folder = folder_with(&[&nine, &thirty, &lib, "libonnxruntime_providers_shared.so"]);
        let places = Places { wanted: &WANTED, named: None, folders: vec![folder.path().into()] };
        let names: Vec<_> = places.candidates().unwrap();
        assert_eq!(names, [&lib, &thirty, &nine].map(|name| folder.path().join(name)));
        assert_eq!(WANTED.version(&names[1]).as_deref(), Some("1.30.0"));
    }

    #[test]
    fn nothing_found_says_where_it_looked_and_what_to_do() {
        let folder = folder_with(&[]);
        let places = Places { wanted: &WANTED, named: None, folders: vec![folder.path().into()] };
        let reason = places.candidates().unwrap_err();
        assert!(reason.contains(&folder.path().display().to_string()), "{reason}");
        assert!(reason.ends_with("install it or set AVOCET_ONNXRUNTIME to the file"), "{reason}");
    }

    #[test]
    fn a_named_place_is_the_only_one_looked_at() {
        let lib = WANTED.file_name();
        let folder = folder_with(&[&lib]);
        let missing = folder.path().join("elsewhere");
        let folders = vec![folder.path().to_path_buf()];
        let places = Places {
            wanted: &WANTED,
            named: Some(("AVOCET_ONNXRUNTIME", missing)),
            folders: folders.clone(),
        };
        assert!(places.candidates().unwrap_err().starts_with("AVOCET_ONNXRUNTIME names"));
        let places = Places { wanted: &WANTED, named: Some(("AVOCET_ONNXRUNTIME", "off".into())), folders };
        assert_eq!(places.candidates().unwrap_err(), "switched off by AVOCET_ONNXRUNTIME");
        let places = Places { wanted: &WANTED, named: Some(("x", folder.path().into())), folders: vec![] };
        assert_eq!(places.candidates().unwrap(), [folder.path().join(lib)]);
    }
}
