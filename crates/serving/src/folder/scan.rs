//! What is in a repository's folders, by looking.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use crate::model_config::{ModelConfig, VersionPolicy};

/// The file in a version's folder where the configuration names none.
const DEFAULT_FILE: &str = "model.onnx";
const CONFIG: &str = "config.pbtxt";
/// Most entries of one folder that are looked at.
const MOST: usize = 10_000;
/// Largest configuration or list of labels in bytes.
const LARGEST_TEXT: u64 = 1 << 20;

/// A model on disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Found {
    /// As its `config.pbtxt` says, or the default.
    pub config: ModelConfig,
    /// Where labels are; `None` for a lone file.
    pub folder: Option<PathBuf>,
    /// The model files by version number.
    pub versions: BTreeMap<u64, PathBuf>,
    /// What is wrong with the configuration.
    pub problem: Option<String>,
}

/// Every model in these places: model files, and folders of models.
///
/// # Errors
/// When a place can't be read.
pub(super) fn scan(paths: &[PathBuf]) -> io::Result<BTreeMap<String, Found>> {
    let mut found = BTreeMap::new();
    for path in paths {
        if !path.is_dir() {
            path.metadata()?;
            add_file(&mut found, path);
            continue;
        }
        for entry in path.read_dir()?.take(MOST) {
            let path = entry?.path();
            let name = file_name(&path);
            if name.starts_with('.') {
                continue;
            }
            let is_model_file = path.extension().is_some_and(|end| end == "onnx");
            match metadata(&path) {
                Ok(Some(metadata)) if metadata.is_dir() => {
                    let model = read_model(&path, None);
                    if model.problem.is_some() || !model.versions.is_empty() {
                        found.insert(name, model);
                    }
                }
                Ok(_) if is_model_file => add_file(&mut found, &path),
                Ok(_) => {}
                Err(error) => {
                    let problem = Some(format!("can't look at {}: {error}", path.display()));
                    let name = if is_model_file { model_name(&path) } else { name };
                    found.insert(name, Found { problem, ..Found::default() });
                }
            }
        }
    }
    Ok(found)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The name of the model in a lone file.
fn model_name(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn add_file(found: &mut BTreeMap<String, Found>, file: &Path) {
    let name = model_name(file);
    let versions = BTreeMap::from([(1, file.to_owned())]);
    found.entry(name).or_insert(Found { versions, ..Found::default() });
}

/// One model's folder, `[config.pbtxt]` and `VERSION/model.onnx`, perhaps with another configuration than its own.
pub(super) fn read_model(folder: &Path, config: Option<ModelConfig>) -> Found {
    let mut model = Found { folder: Some(folder.to_owned()), ..Found::default() };
    match config.map_or_else(|| read_config(&folder.join(CONFIG)), Ok) {
        Ok(config) => model.config = config,
        Err(problem) => model.problem = Some(problem),
    }
    let file = match model.config.default_model_filename.as_str() {
        "" => DEFAULT_FILE,
        named => named,
    };
    if is_plain_name(file) {
        match read_versions(folder, file, model.config.ensemble_scheduling.is_some()) {
            Ok(versions) => model.versions = versions,
            Err(error) => {
                model.problem.get_or_insert(format!("can't read {}: {error}", folder.display()));
            }
        }
    }
    let is_ensemble = model.config.ensemble_scheduling.is_some();
    if is_ensemble && model.versions.is_empty() {
        model.versions.insert(1, folder.to_owned());
    }
    model
}

/// The model files of a folder by version number; the folders of an ensemble's versions are empty. What can't be read
/// is not taken for gone.
fn read_versions(folder: &Path, file: &str, is_ensemble: bool) -> io::Result<BTreeMap<u64, PathBuf>> {
    let mut versions = BTreeMap::new();
    for entry in folder.read_dir()?.take(MOST) {
        let version = entry?.path();
        let Some(number) = file_name(&version).parse::<u64>().ok().filter(|number| *number > 0) else {
            continue;
        };
        let path = if is_ensemble { version } else { version.join(file) };
        if metadata(&path)?.is_some_and(|metadata| metadata.is_file() != is_ensemble) {
            versions.insert(number, path);
        }
    }
    Ok(versions)
}

/// Of what a path leads to; `None` where nothing is there.
fn metadata(path: &Path) -> io::Result<Option<Metadata>> {
    match path.metadata() {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn read_config(path: &Path) -> Result<ModelConfig, String> {
    match read_text(path) {
        Ok(text) => ModelConfig::from_text(&text).map_err(|error| format!("{CONFIG}: {error}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(ModelConfig::default()),
        Err(error) => Err(format!("can't read {}: {error}", path.display())),
    }
}

/// Whether this names a file and no way to another folder.
pub(super) fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

/// A text file of up to 1 MiB.
///
/// # Errors
/// When it can't be read or is larger.
pub(super) fn read_text(path: &Path) -> io::Result<Vec<u8>> {
    let length = path.metadata()?.len();
    if length > LARGEST_TEXT {
        return Err(io::Error::other(format!("it has {length} bytes; at most {LARGEST_TEXT} are read")));
    }
    std::fs::read(path)
}

impl Found {
    /// The versions that the policy picks; without one the newest alone, as in Triton.
    pub fn chosen(&self) -> BTreeMap<u64, PathBuf> {
        let latest = match &self.config.version_policy {
            Some(VersionPolicy::All {}) => usize::MAX,
            Some(VersionPolicy::Specific { versions }) => {
                let picked = self.versions.iter().filter(|(number, _)| versions.contains(number));
                return picked.map(|(number, path)| (*number, path.clone())).collect();
            }
            Some(VersionPolicy::Latest { num_versions }) => {
                usize::try_from(*num_versions).unwrap_or(usize::MAX).max(1)
            }
            None => 1,
        };
        self.versions.iter().rev().take(latest).map(|(number, path)| (*number, path.clone())).collect()
    }

    /// Changes when a file that matters does.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let chosen = self.chosen();
        let folders = chosen.values().filter_map(|file| match self.folder {
            Some(_) => file.parent(),
            None => Some(file.as_path()),
        });
        for place in folders.chain(self.folder.as_deref()) {
            hash_files(place, &mut hasher);
        }
        hasher.finish()
    }
}

fn hash_files(place: &Path, hasher: &mut DefaultHasher) {
    let mut files = vec![place.to_owned()];
    if let Ok(entries) = place.read_dir() {
        files =
            entries.take(MOST).flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    }
    files.sort();
    for file in files {
        if let Ok(metadata) = file.metadata() {
            (file, metadata.len(), metadata.modified().ok()).hash(hasher);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, content) in [
            ("iris/1/model.onnx", ""),
            ("iris/3/model.onnx", ""),
            ("iris/notes/model.onnx", ""),
            ("named/config.pbtxt", "default_model_filename: \"net.onnx\" version_policy { all {} }"),
            ("named/1/net.onnx", ""),
            ("named/2/net.onnx", ""),
            ("broken/config.pbtxt", "max_batch_size: {"),
            ("escaping/config.pbtxt", "default_model_filename: \"../../lone.onnx\""),
            ("escaping/1/model.onnx", ""),
            ("empty/readme", ""),
            ("lone.onnx", ""),
            ("notes.txt", ""),
        ] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        folder
    }

    #[test]
    fn models_are_files_and_folders_with_numbered_versions() {
        let folder = repository();
        let found = scan(&[folder.path().to_owned()]).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["broken", "iris", "lone", "named"]);
        let chosen = |name: &str| found[name].chosen().into_keys().collect::<Vec<_>>();
        assert_eq!((chosen("iris"), chosen("named"), chosen("lone")), (vec![3], vec![1, 2], vec![1]));
        assert!(found["broken"].problem.as_ref().unwrap().starts_with("config.pbtxt: line 1"));
        assert!(scan(&[folder.path().join("gone")]).is_err());
    }

    #[test]
    fn a_fingerprint_changes_with_the_files_that_are_chosen() {
        let folder = repository();
        let print = || scan(&[folder.path().to_owned()]).unwrap()["iris"].fingerprint();
        let before = print();
        assert_eq!(before, print());
        std::fs::write(folder.path().join("iris/1/model.onnx"), "an old version").unwrap();
        assert_eq!(before, print());
        std::fs::write(folder.path().join("iris/3/model.onnx"), "longer").unwrap();
        assert_ne!(before, print());
    }
}
