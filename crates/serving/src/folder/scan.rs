//! What is in a repository's folders, by looking.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use types::Ensemble;

use super::declared::{self, Declared};
use super::find::{self, Kind, MOST, entries, file_name, metadata, model_name};
use crate::model_config::{ModelConfig, VersionPolicy};

pub(super) const CONFIG: &str = "config.pbtxt";
/// Largest configuration or list of labels in bytes.
const LARGEST_TEXT: u64 = 1 << 20;
/// How deep the folders of a model's own files are looked into for changes.
const DEEPEST: usize = 8;

/// A model on disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Found {
    /// As its `config.pbtxt` says, or the default.
    pub config: ModelConfig,
    /// As its `avocet.yaml` says.
    pub declared: Declared,
    /// Where labels are; `None` for a lone file.
    pub folder: Option<PathBuf>,
    /// The model files and folders by version number.
    pub versions: BTreeMap<u64, PathBuf>,
    /// What is wrong with the configuration.
    pub problem: Option<String>,
    /// Versions that hold no model, and why.
    pub skipped: Vec<Skipped>,
}

/// What was named or lies in a repository, and is not served.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Skipped {
    pub path: PathBuf,
    pub why: String,
}

/// All that is in some places.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub models: BTreeMap<String, Found>,
    pub skipped: Vec<Skipped>,
}

/// Every model in these places: model files, models' folders, and folders of both.
///
/// # Errors
/// When a place can't be read.
pub(super) fn scan(paths: &[PathBuf]) -> io::Result<Scan> {
    let mut scan = Scan::default();
    for path in paths {
        if !path.metadata()?.is_dir() {
            scan.add_lone(path);
            continue;
        }
        let inside = entries(path)?;
        if is_one_model(path, &inside) {
            scan.add_folder(path);
            continue;
        }
        for path in inside {
            let metadata = match metadata(&path) {
                Ok(Some(metadata)) => metadata,
                Ok(None) => continue,
                Err(error) => {
                    let problem = Some(format!("can't look at {}: {error}", path.display()));
                    let found = Found { problem, ..Found::default() };
                    // It may have been a file or a folder.
                    for name in [model_name(&path, false), model_name(&path, true)] {
                        scan.models.entry(name).or_insert_with(|| found.clone());
                    }
                    continue;
                }
            };
            match find::kind(&path, &metadata) {
                _ if metadata.is_dir() => scan.add_folder(&path),
                Kind::Model => scan.add_lone(&path),
                Kind::Not(why) => scan.skip(path, why),
            }
        }
    }
    // What lies beside a model and is called as it is, such as the weights of an ONNX file, is its own.
    let lone: Vec<PathBuf> =
        scan.models.values().flat_map(|found| found.versions.values().cloned()).collect();
    scan.skipped.retain(|skipped| !lone.iter().any(|model| is_companion(&skipped.path, model)));
    Ok(scan)
}

/// Whether a folder is a model, not a folder of models.
fn is_one_model(folder: &Path, inside: &[PathBuf]) -> bool {
    let has = |name: &str| inside.iter().any(|path| file_name(path) == name);
    let is_version = |path: &PathBuf| number(path).is_some() && matches!(find::model_in(path), Ok(Ok(_)));
    find::is_saved_model(folder) || has(CONFIG) || has(declared::FILE) || inside.iter().any(is_version)
}

fn is_companion(path: &Path, model: &Path) -> bool {
    let (name, model_name) = (file_name(path), file_name(model));
    let rest = name.strip_prefix(&model_name);
    path.parent() == model.parent() && rest.is_some_and(|rest| rest.starts_with(['.', '_', '-']))
}

impl Scan {
    fn skip(&mut self, path: PathBuf, why: impl Into<String>) {
        self.skipped.push(Skipped { path, why: why.into() });
    }

    fn add(&mut self, path: &Path, mut found: Found) {
        // What is wrong with its configuration is told when it is loaded.
        if found.problem.is_none() {
            self.skipped.append(&mut found.skipped);
        }
        match self.models.entry(model_name(path, path.is_dir())) {
            Entry::Vacant(place) => {
                place.insert(found);
            }
            Entry::Occupied(place) => {
                let why = format!("another model is called `{}`; rename one of them", place.key());
                self.skip(path.to_owned(), why);
            }
        }
    }

    fn add_lone(&mut self, path: &Path) {
        let versions = BTreeMap::from([(1, path.to_owned())]);
        self.add(path, Found { versions, ..Found::default() });
    }

    fn add_folder(&mut self, folder: &Path) {
        let mut found = read_model(folder, None);
        if found.problem.is_some() || !found.versions.is_empty() {
            return self.add(folder, found);
        }
        self.skipped.append(&mut found.skipped);
        let of_it = |skipped: &Skipped| skipped.path.starts_with(folder);
        if !self.skipped.iter().any(of_it) {
            self.skip(folder.to_owned(), "it holds neither a model nor NUMBER/model.onnx or the like");
        }
    }
}

/// One model's folder: `[config.pbtxt]` and `VERSION/model.onnx`, or a model without versions; perhaps with another
/// configuration than its own.
pub(super) fn read_model(folder: &Path, config: Option<ModelConfig>) -> Found {
    let mut model = Found { folder: Some(folder.to_owned()), ..Found::default() };
    match config.map_or_else(|| read_config(&folder.join(CONFIG)), Ok) {
        Ok(config) => model.config = config,
        Err(problem) => model.problem = Some(problem),
    }
    match Declared::read(folder) {
        Ok(declared) => model.declared = declared,
        Err(problem) => {
            model.problem.get_or_insert(problem);
        }
    }
    if let Err(error) = model.read_versions(folder) {
        model.problem.get_or_insert(format!("can't read {}: {error}", folder.display()));
    }
    if model.ensemble().is_some() && model.versions.is_empty() {
        model.versions.insert(1, folder.to_owned());
    }
    model
}

/// The version that a folder is named for.
fn number(folder: &Path) -> Option<u64> {
    file_name(folder).parse().ok().filter(|number| *number > 0)
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
    /// Finds the models of a folder by version number; those of an ensemble are folders with nothing in them. What
    /// can't be read is not taken for gone.
    fn read_versions(&mut self, folder: &Path) -> io::Result<()> {
        let is_ensemble = self.ensemble().is_some();
        let named = self.config.default_model_filename.clone();
        if !named.is_empty() && !is_plain_name(&named) {
            let why =
                format!("default_model_filename `{named}` is not the name of a file in a version's folder");
            self.skipped.push(Skipped { path: folder.into(), why });
            return Ok(());
        }
        let mut numbered = false;
        for path in entries(folder)? {
            let Some(number) = number(&path) else { continue };
            if !metadata(&path)?.is_some_and(|metadata| metadata.is_dir()) {
                continue;
            }
            numbered = true;
            let model = if is_ensemble { Ok(path.clone()) } else { model_of(&path, &named)? };
            match model {
                Ok(model) => {
                    self.versions.insert(number, model);
                }
                Err(why) => self.skipped.push(Skipped { path, why }),
            }
        }
        if !numbered && !is_ensemble {
            match model_of(folder, &named)? {
                Ok(model) => {
                    self.versions.insert(1, model);
                }
                Err(why) => self.skipped.push(Skipped { path: folder.into(), why }),
            }
        }
        Ok(())
    }

    /// The ensemble that it is, if it is one.
    pub fn ensemble(&self) -> Option<Ensemble> {
        self.declared.ensemble().or_else(|| self.config.ensemble())
    }

    /// The versions that the policy picks, without one the newest alone, as in Triton; and those that `avocet.yaml`
    /// names.
    pub fn chosen(&self) -> BTreeMap<u64, PathBuf> {
        let named = self.declared.versions();
        let latest = match &self.config.version_policy {
            Some(VersionPolicy::All {}) => usize::MAX,
            Some(VersionPolicy::Specific { .. }) => 0,
            Some(VersionPolicy::Latest { num_versions }) => {
                usize::try_from(*num_versions).unwrap_or(usize::MAX).max(1)
            }
            None => 1,
        };
        let oldest = self.versions.keys().rev().take(latest).min();
        let is_picked = |number: &u64| match &self.config.version_policy {
            Some(VersionPolicy::Specific { versions }) => versions.contains(number),
            _ => oldest.is_some_and(|oldest| number >= oldest),
        };
        let chosen = self.versions.iter();
        let chosen = chosen.filter(|(number, _)| is_picked(number) || named.contains(&number.to_string()));
        chosen.map(|(number, path)| (*number, path.clone())).collect()
    }

    /// Changes when a file that matters does.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for model in self.chosen().values() {
            match (model.is_dir(), model.parent()) {
                (true, _) => hash_folder(model, DEEPEST, &mut hasher),
                // Its data lie beside it.
                (false, Some(folder)) if self.folder.is_some() => hash_folder(folder, 0, &mut hasher),
                (false, _) => hash_file(model, &mut hasher),
            }
        }
        if let Some(folder) = &self.folder {
            hash_folder(folder, 0, &mut hasher);
        }
        hasher.finish()
    }
}

/// The file or folder that a version's folder holds, by its name if it is `named`.
fn model_of(folder: &Path, named: &str) -> io::Result<Result<PathBuf, String>> {
    if named.is_empty() {
        return find::model_in(folder);
    }
    let model = folder.join(named);
    let is_there = metadata(&model)?.is_some();
    Ok(is_there.then_some(model).ok_or_else(|| format!("it has no `{named}`, the default_model_filename")))
}

fn hash_folder(folder: &Path, deep: usize, hasher: &mut DefaultHasher) {
    for path in entries(folder).unwrap_or_default().into_iter().take(MOST) {
        match path.is_dir() {
            true if deep > 0 => hash_folder(&path, deep - 1, hasher),
            true => {}
            false => hash_file(&path, hasher),
        }
    }
}

fn hash_file(file: &Path, hasher: &mut DefaultHasher) {
    if let Ok(metadata) = file.metadata() {
        (file, metadata.len(), metadata.modified().ok()).hash(hasher);
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
        let Scan { models: found, skipped } = scan(&[folder.path().to_owned()]).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["broken", "iris", "lone", "named"]);
        let chosen = |name: &str| found[name].chosen().into_keys().collect::<Vec<_>>();
        assert_eq!((chosen("iris"), chosen("named"), chosen("lone")), (vec![3], vec![1, 2], vec![1]));
        assert!(found["broken"].problem.as_ref().unwrap().starts_with("config.pbtxt: line 1"));
        let skipped: Vec<(String, &str)> =
            skipped.iter().map(|skipped| (file_name(&skipped.path), skipped.why.as_str())).collect();
        assert_eq!(skipped[0], ("empty".into(), "it holds no model"));
        assert_eq!(skipped[1].0, "escaping");
        assert!(skipped[1].1.contains("`../../lone.onnx` is not the name of a file"));
        assert_eq!((skipped[2].0.as_str(), skipped.len()), ("notes.txt", 3));
        assert!(scan(&[folder.path().join("gone")]).is_err());
    }

    #[test]
    fn a_named_folder_may_be_one_model() {
        let folder = repository();
        let write = |path: &str, content: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        write("saved/saved_model.pb", "");
        write("saved/variables/variables.index", "");
        write("flat/model.onnx", "");
        write("flat/model.onnx.data", "");
        write("lone.onnx.data", "");
        let one = |name: &str| scan(&[folder.path().join(name)]).unwrap().models;
        assert_eq!(one("saved")["saved"].versions[&1], folder.path().join("saved"));
        assert_eq!(one("named")["named"].versions.len(), 2);
        let all = scan(&[folder.path().to_owned()]).unwrap();
        assert_eq!(all.models["flat"].versions[&1], folder.path().join("flat/model.onnx"));
        assert_eq!(all.models["saved"].versions[&1], folder.path().join("saved"));
        assert!(!all.skipped.iter().any(|skipped| skipped.path.ends_with("lone.onnx.data")));
        let before = all.models["saved"].fingerprint();
        write("saved/variables/variables.index", "changed");
        assert_ne!(scan(&[folder.path().to_owned()]).unwrap().models["saved"].fingerprint(), before);
    }

    #[test]
    fn a_name_is_one_models() {
        let folder = repository();
        std::fs::write(folder.path().join("iris.onnx"), "").unwrap();
        let found = scan(&[folder.path().to_owned()]).unwrap();
        assert!(found.models["iris"].folder.is_some());
        let told = found.skipped.iter().find(|skipped| skipped.path.ends_with("iris.onnx")).unwrap();
        assert_eq!(told.why, "another model is called `iris`; rename one of them");
    }

    #[test]
    fn a_fingerprint_changes_with_the_files_that_are_chosen() {
        let folder = repository();
        let print = || scan(&[folder.path().to_owned()]).unwrap().models["iris"].fingerprint();
        let before = print();
        assert_eq!(before, print());
        std::fs::write(folder.path().join("iris/1/model.onnx"), "an old version").unwrap();
        assert_eq!(before, print());
        std::fs::write(folder.path().join("iris/3/model.onnx"), "longer").unwrap();
        assert_ne!(before, print());
    }
}
