//! Where ONNX Runtime's shared library may lie: pure over its arguments, except for looking into folders.

use std::fs;
use std::path::{Path, PathBuf};

/// What the search looks at, gathered once so that the search itself reads no environment.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    /// Named by the operator: this one or none.
    pub named: Option<(&'static str, PathBuf)>,
    /// Folders to look into, in order.
    pub folders: Vec<PathBuf>,
}

impl Places {
    /// The option, then `AVOCET_ONNXRUNTIME`, then `ORT_DYLIB_PATH`, else the program's and the system's folders.
    pub fn of_this_process(option: Option<&Path>) -> Places {
        let variable = |name: &'static str| {
            std::env::var_os(name).filter(|value| !value.is_empty()).map(|value| (name, PathBuf::from(value)))
        };
        let named = option
            .map(|path| ("the configured path", path.to_path_buf()))
            .or_else(|| variable("AVOCET_ONNXRUNTIME"))
            .or_else(|| variable("ORT_DYLIB_PATH"));
        let mut folders = Vec::new();
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
            PathBuf::from("/opt/onnxruntime/lib"),
        ]);
        Places { named, folders }
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
            let found = libraries(path);
            if found.is_empty() {
                return Err(format!(
                    "{source} names `{}`, which is no library and holds no {}; correct or unset it",
                    path.display(),
                    file_name()
                ));
            }
            return Ok(found);
        }
        let found: Vec<PathBuf> = self.folders.iter().flat_map(|folder| libraries(folder)).collect();
        if found.is_empty() {
            let folders: Vec<String> =
                self.folders.iter().map(|folder| folder.display().to_string()).collect();
            return Err(format!(
                "{} not found; looked in {}; install it or set AVOCET_ONNXRUNTIME to the file",
                file_name(),
                folders.join(", ")
            ));
        }
        Ok(found)
    }
}

fn file_name() -> String {
    format!("{}onnxruntime{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

/// `libonnxruntime.so` or a versioned name in a folder, the plain name first, then the highest version.
fn libraries(folder: &Path) -> Vec<PathBuf> {
    let wanted = file_name();
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<(bool, Vec<u32>, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let suffix = name.to_str()?.strip_prefix(&wanted)?;
            let path = entry.path();
            let named = suffix.is_empty() || suffix.starts_with('.');
            (named && path.is_file()).then(|| (suffix.is_empty(), numbers(suffix), path))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, _, path)| path).collect()
}

/// The version in a file name such as `libonnxruntime.so.1.31.1`, following a link to where it points.
pub(super) fn version(path: &Path) -> Option<String> {
    let target = fs::canonicalize(path).ok()?;
    let name = target.file_name()?.to_str()?.to_owned();
    let (_, version) = name.split_once(&format!("{}.", file_name()))?;
    (numbers(version).len() >= 2).then(|| version.to_owned())
}

fn numbers(text: &str) -> Vec<u32> {
    text.split('.').filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(folder.path().join(name), "").unwrap();
        }
        folder
    }

    #[test]
    fn the_plain_name_wins_and_then_the_highest_version() {
        let lib = file_name();
        let (nine, thirty) = (format!("{lib}.1.9.0"), format!("{lib}.1.30.0"));
        let folder = folder_with(&[&nine, &thirty, &lib, "libonnxruntime_providers_shared.so"]);
        let places = Places { named: None, folders: vec![folder.path().into()] };
        let names: Vec<_> = places.candidates().unwrap();
        assert_eq!(names, [&lib, &thirty, &nine].map(|name| folder.path().join(name)));
        assert_eq!(version(&names[1]).as_deref(), Some("1.30.0"));
    }

    #[test]
    fn nothing_found_says_where_it_looked_and_what_to_do() {
        let folder = folder_with(&[]);
        let places = Places { named: None, folders: vec![folder.path().into()] };
        let reason = places.candidates().unwrap_err();
        assert!(reason.contains(&folder.path().display().to_string()), "{reason}");
        assert!(reason.ends_with("install it or set AVOCET_ONNXRUNTIME to the file"), "{reason}");
    }

    #[test]
    fn a_named_place_is_the_only_one_looked_at() {
        let lib = file_name();
        let folder = folder_with(&[&lib]);
        let missing = folder.path().join("elsewhere");
        let folders = vec![folder.path().to_path_buf()];
        let places = Places { named: Some(("AVOCET_ONNXRUNTIME", missing)), folders: folders.clone() };
        assert!(places.candidates().unwrap_err().starts_with("AVOCET_ONNXRUNTIME names"));
        let places = Places { named: Some(("AVOCET_ONNXRUNTIME", "off".into())), folders };
        assert_eq!(places.candidates().unwrap_err(), "switched off by AVOCET_ONNXRUNTIME");
        let places = Places { named: Some(("x", folder.path().into())), folders: vec![] };
        assert_eq!(places.candidates().unwrap(), [folder.path().join(lib)]);
    }
}
