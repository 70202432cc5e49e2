//! A repository on disk for a server without a hub: model files, and folders in Triton's form
//! (`NAME/[config.pbtxt]`, `NAME/[avocet.yaml]`, `NAME/VERSION/model.onnx`, or another model in its place).
//!
//! Each load goes through a place of its own in a temporary folder, a link to the version's folder or what a client
//! sent, so that changed files under an old name are another model and are swapped in without a gap.

mod declared;
mod find;
mod scan;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use daemon::Shutdown;
use inference::{LoadRequest, Repository, State};
use tempfile::TempDir;

use crate::control::{Control, ControlError, LoadModel};
use crate::model_config::{ConfigError, ModelConfig};
use scan::{Found, Scan};

/// Who decides what is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlMode {
    /// What is there at the start, for good.
    None,
    /// Clients, by load and unload.
    Explicit,
    /// The folder: what changes in it is followed.
    Poll,
}

/// Most things at once that are told to be skipped.
const MOST_TOLD: usize = 50;
/// Where a model's warm-up data lie beside its configuration.
const WARM_UP: &str = "warmup";
/// Largest file of them in bytes.
const MOST_WARM_UP: u64 = 64 << 20;
/// Most files that a client may send with one model.
const MOST_FILES: usize = 256;

/// The names of an output's classes.
type Labels = Arc<[String]>;

/// Whether a name belongs to somebody else.
type IsTheirs = dyn Fn(&str) -> bool + Send + Sync;

/// The models in some places on disk.
pub struct Folder {
    paths: Vec<PathBuf>,
    repository: Repository,
    mode: ControlMode,
    /// Whether every model is loaded when the first request asks for it.
    lazy: bool,
    stage: TempDir,
    /// Held while something is loaded or unloaded, so that this happens in one order.
    known: Mutex<Known>,
    /// By model and output.
    labels: RwLock<HashMap<(String, String), Labels>>,
    /// As the models were loaded with them.
    configs: RwLock<HashMap<String, Arc<ModelConfig>>>,
    /// Says which names belong to others.
    others: OnceLock<Box<IsTheirs>>,
}

#[derive(Default)]
struct Known {
    models: BTreeMap<String, Staged>,
    /// Counts places in the stage.
    places: u64,
    /// What was told already of what is skipped.
    told: BTreeSet<String>,
}

/// A model that was loaded, or that failed to.
struct Staged {
    /// Of what was found on disk.
    fingerprint: u64,
    /// What its versions are loaded from.
    places: Vec<PathBuf>,
}

impl Folder {
    /// Looks at these places; nothing is loaded yet.
    ///
    /// # Errors
    /// When one can't be read, or there is no room for temporary files.
    pub fn open(paths: Vec<PathBuf>, repository: Repository, mode: ControlMode) -> io::Result<Folder> {
        let paths: Vec<PathBuf> = paths.iter().map(std::path::absolute).collect::<io::Result<_>>()?;
        scan::scan(&paths)?;
        let stage = tempfile::Builder::new().prefix("avocet-models-").tempdir()?;
        let (known, labels, others) = (Mutex::default(), RwLock::default(), OnceLock::new());
        Ok(Folder {
            paths,
            repository,
            mode,
            lazy: false,
            stage,
            known,
            labels,
            configs: RwLock::default(),
            others,
        })
    }

    /// Loads every model when the first request asks for it, whatever its own settings say.
    #[must_use]
    pub fn lazy(mut self, lazy: bool) -> Folder {
        self.lazy = lazy;
        self
    }

    /// Leaves models alone that somebody else has loaded under these names. Only the first call counts.
    pub fn leave(&self, others: impl Fn(&str) -> bool + Send + Sync + 'static) {
        let _ = self.others.set(Box::new(others));
    }

    fn belongs_to_others(&self, name: &str) -> bool {
        self.others.get().is_some_and(|others| others(name))
    }

    /// Names of all models on disk, sorted.
    pub fn names(&self) -> Vec<String> {
        scan::scan(&self.paths).map(|scan| scan.models.into_keys().collect()).unwrap_or_default()
    }

    /// What was named, or lies where models are, and is not served: each with the reason, and told once.
    pub fn skipped(&self) -> Vec<String> {
        scan::scan(&self.paths).map(|scan| self.tell(&scan)).unwrap_or_default()
    }

    fn tell(&self, scan: &Scan) -> Vec<String> {
        let lines = scan.skipped.iter().map(|skipped| format!("{}: {}", skipped.path.display(), skipped.why));
        let told = std::mem::replace(&mut self.lock().told, lines.clone().collect());
        lines.filter(|line| !told.contains(line)).take(MOST_TOLD).collect()
    }

    /// Loads models from disk by name; blocks until all are loaded. Gives what could not be.
    pub fn load_all(&self, names: &[String]) -> Vec<ControlError> {
        // The models of an ensemble come with it, perhaps before their turn.
        let is_there = |name: &String| self.lock().models.contains_key(name);
        let load = |name: &String| self.load_now(name, LoadModel::default(), false).err();
        names.iter().filter(|name| !is_there(name)).filter_map(load).collect()
    }

    /// Follows the folder until the shutdown, where that is the mode.
    pub async fn follow(self: Arc<Self>, every: Duration, shutdown: Shutdown) {
        if self.mode != ControlMode::Poll {
            return;
        }
        while shutdown.sleep(every).await {
            let folder = Arc::clone(&self);
            let _ = tokio::task::spawn_blocking(move || folder.poll()).await;
        }
    }

    /// Loads what is new or changed, and unloads what is gone. A folder that can't be read takes nothing away.
    pub fn poll(&self) {
        let scan = match scan::scan(&self.paths) {
            Ok(scan) => scan,
            Err(error) => return tracing::warn!(%error, "can't look into the model repository"),
        };
        self.tell(&scan).iter().for_each(|skipped| tracing::warn!("skipped {skipped}"));
        let found = scan.models;
        let gone: Vec<String> = {
            let known = self.lock();
            known.models.keys().filter(|name| !found.contains_key(*name)).cloned().collect()
        };
        for name in gone {
            // It may never have loaded.
            let _ = self.unload_now(&name);
        }
        for (name, model) in found {
            let seen = self.lock().models.get(&name).map(|staged| staged.fingerprint);
            if seen != Some(model.fingerprint())
                && let Err(error) = self.load_now(&name, LoadModel::default(), false)
            {
                tracing::warn!(%error, "a changed model is not served");
            }
        }
    }

    /// Loads a model; before an ensemble those of its models that are on disk and not loaded yet. With `now` what is lazy
    /// is loaded, too.
    fn load_now(&self, name: &str, request: LoadModel, now: bool) -> Result<(), ControlError> {
        self.load_members(name, request.config.as_ref(), &mut Vec::new())?;
        self.load_alone(name, request, now)
    }

    fn load_members(
        &self,
        name: &str,
        config: Option<&ModelConfig>,
        within: &mut Vec<String>,
    ) -> Result<(), ControlError> {
        let found = scan::scan(&self.paths).unwrap_or_default().models;
        let on_disk = || found.get(name).and_then(Found::ensemble);
        let Some(ensemble) = config.map_or_else(on_disk, ModelConfig::ensemble) else { return Ok(()) };
        within.push(name.to_owned());
        for step in ensemble.steps {
            let member = step.model;
            // A circle is told of by the repository.
            let is_wanted = found.contains_key(&member) && !within.contains(&member);
            if is_wanted && !self.lock().models.contains_key(&member) {
                self.load_members(&member, None, within)?;
                self.load_alone(&member, LoadModel::default(), false)?;
            }
        }
        within.pop();
        Ok(())
    }

    fn load_alone(&self, name: &str, request: LoadModel, now: bool) -> Result<(), ControlError> {
        let refused = |reason: String| ControlError::Refused { name: name.to_owned(), reason };
        let failed =
            |error: io::Error| ControlError::Failed { name: name.to_owned(), reason: error.to_string() };
        if !scan::is_plain_name(name) {
            return Err(ControlError::Unknown { action: "load", name: name.chars().take(128).collect() });
        }
        if self.belongs_to_others(name) {
            let problem = "a model of that name was uploaded; delete that, or name this one otherwise";
            return Err(refused(problem.into()));
        }
        let mut known = self.lock();
        let LoadModel { config, files } = request;
        let mut staged = Staged { fingerprint: 0, places: Vec::new() };
        let found = match files.is_empty() {
            true => self.stage_from_disk(name, config, &mut known, &mut staged)?,
            false => {
                check_files(&files).map_err(refused)?;
                self.stage_files(config, &files, &mut known, &mut staged).map_err(failed)?
            }
        };
        let loaded = self.load_versions(name, &found, now);
        staged.places.extend(known.models.remove(name).into_iter().flat_map(|old| old.places));
        self.clean(name, &mut staged.places);
        known.models.insert(name.to_owned(), staged);
        loaded.map_err(refused)
    }

    fn stage_from_disk(
        &self,
        name: &str,
        config: Option<ModelConfig>,
        known: &mut Known,
        staged: &mut Staged,
    ) -> Result<Found, ControlError> {
        let failed =
            |error: io::Error| ControlError::Failed { name: name.to_owned(), reason: error.to_string() };
        let found = scan::scan(&self.paths).map_err(failed)?.models.remove(name);
        let mut found =
            found.ok_or_else(|| ControlError::Unknown { action: "load", name: name.to_owned() })?;
        staged.fingerprint = found.fingerprint();
        match (config, &found.folder) {
            (None, _) => {}
            (config, Some(folder)) => found = scan::read_model(&folder.clone(), config),
            (Some(config), None) => found.config = config,
        }
        for file in found.versions.values_mut() {
            let (Some(folder), Some(file_name)) = (file.parent(), file.file_name()) else { continue };
            let place = self.place(known);
            std::os::unix::fs::symlink(folder, &place).map_err(failed)?;
            *file = place.join(file_name);
            staged.places.push(place);
        }
        Ok(found)
    }

    fn stage_files(
        &self,
        config: Option<ModelConfig>,
        files: &BTreeMap<String, Bytes>,
        known: &mut Known,
        staged: &mut Staged,
    ) -> io::Result<Found> {
        let place = self.place(known);
        for (name, content) in files {
            let path = place.join(name);
            std::fs::create_dir_all(path.parent().unwrap_or(&place))?;
            std::fs::write(path, content)?;
        }
        let found = scan::read_model(&place, config);
        staged.places.push(place);
        Ok(found)
    }

    /// Removes the places that nothing is served from.
    fn clean(&self, name: &str, places: &mut Vec<PathBuf>) {
        let all = self.repository.list().into_iter();
        let served: Vec<PathBuf> = all
            .filter(|status| status.name == name && !matches!(status.state, State::Failed { .. }))
            .map(|status| status.path)
            .collect();
        places.retain(|place| {
            let used = served.iter().any(|path| path.starts_with(place));
            if !used {
                remove(place);
            }
            used
        });
    }

    /// Loads the chosen versions in the place of all others, or changes nothing.
    fn load_versions(&self, name: &str, found: &Found, now: bool) -> Result<(), String> {
        if let Some(problem) = &found.problem {
            return Err(problem.clone());
        }
        let text = |error: ConfigError| error.to_string();
        let config = &found.config;
        let chosen = found.chosen();
        let newest = chosen.keys().next_back().copied();
        let newest = newest.ok_or_else(|| no_version(found))?.to_string();
        let versions: Vec<String> = chosen.keys().map(u64::to_string).collect();
        let declared = found.declared.check(&versions, config.ensemble().as_ref())?;
        let mut serving = declared.serving(&config.serving().map_err(text)?)?;
        let ensemble = found.ensemble();
        serving.lazy |= self.lazy && ensemble.is_none();
        let default = declared.default_version().unwrap_or(newest);
        let labels = read_labels(found)?;
        let request = LoadRequest {
            engine: declared.engine().map_or_else(|| config.engine().map_err(text), Ok)?,
            serving,
            ensemble,
            signature: match declared.signature() {
                Some(own) => Some(own),
                None => config.signature().map_err(text)?,
            },
            fil: config.fil().map_err(text)?,
            warm_up: config.warm_up(|file| read_warm_up(found, file)).map_err(|error| error.to_string())?,
            ..LoadRequest::new(name, "", "")
        };
        let requests = chosen.iter().map(|(version, path)| {
            let (version, path) = (version.to_string(), path.clone());
            LoadRequest { default: version == default, version, path, ..request.clone() }
        });
        let replaced = self.repository.replace(requests.collect(), declared.routing(), now);
        replaced.map_err(|error| daemon::chain(&error))?;
        for field in config.ignored() {
            tracing::warn!(model = name, field, "config.pbtxt says what is not followed here");
        }
        let mut kept = self.labels.write().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(model, _), _| model != name);
        kept.extend(labels.into_iter().map(|(output, labels)| ((name.to_owned(), output), labels)));
        drop(kept);
        let mut configs = self.configs.write().unwrap_or_else(PoisonError::into_inner);
        configs.insert(name.to_owned(), Arc::new(found.config.clone()));
        Ok(())
    }

    fn unload_now(&self, name: &str) -> Result<(), ControlError> {
        let unknown = || ControlError::Unknown { action: "unload", name: name.chars().take(128).collect() };
        if self.belongs_to_others(name) {
            return Err(unknown());
        }
        let mut known = self.lock();
        let loaded = self.repository.list().into_iter().filter(|status| status.name == name);
        let unloaded = loaded.filter(|status| self.repository.unload(name, &status.version).is_ok()).count();
        if let Some(staged) = known.models.remove(name) {
            staged.places.iter().for_each(|place| remove(place));
        }
        self.labels.write().unwrap_or_else(PoisonError::into_inner).retain(|(model, _), _| model != name);
        self.configs.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        match unloaded {
            0 => Err(unknown()),
            _ => Ok(()),
        }
    }

    fn place(&self, known: &mut Known) -> PathBuf {
        known.places += 1;
        self.stage.path().join(known.places.to_string())
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads an `avocet.yaml` as of a model with one version.
pub(crate) fn check_declared(text: &[u8]) {
    let declared = std::str::from_utf8(text).ok().and_then(|text| declared::Declared::parse(text).ok());
    let checked = declared.and_then(|declared| declared.check(&["1".to_owned()], None).ok());
    let _ = checked.map(|checked| checked.serving(&types::Serving::default()));
}

/// A link or a folder of ours.
fn remove(place: &Path) {
    let removed =
        if place.is_symlink() { std::fs::remove_file(place) } else { std::fs::remove_dir_all(place) };
    if let Err(error) = removed {
        tracing::debug!(%error, place = %place.display(), "can't remove what a model was loaded from");
    }
}

/// Each file is `VERSION/NAME`.
fn check_files(files: &BTreeMap<String, Bytes>) -> Result<(), String> {
    if files.len() > MOST_FILES {
        return Err(format!("{} files were sent; at most {MOST_FILES} are taken", files.len()));
    }
    let bad = files.keys().find(|path| {
        let Some((version, name)) = path.split_once('/') else { return true };
        // As it is written, so that "01" is no second name of "1".
        let numbered = version.parse::<u64>().is_ok_and(|number| number > 0 && number.to_string() == version);
        !numbered || !scan::is_plain_name(name)
    });
    match bad {
        Some(path) => {
            let path: String = path.chars().take(128).collect();
            Err(format!("file '{path}' is not VERSION/NAME, as in 1/model.onnx"))
        }
        None => Ok(()),
    }
}

/// Why there is nothing to load.
fn no_version(found: &Found) -> String {
    let skipped = found.skipped.iter().map(|skipped| format!("{}: {}", skipped.path.display(), skipped.why));
    let skipped: Vec<String> = skipped.take(MOST_TOLD).collect();
    if skipped.is_empty() { "no version of it is there".into() } else { skipped.join("; ") }
}

/// A file that a version is warmed up with.
fn read_warm_up(found: &Found, file: &str) -> Result<Vec<u8>, String> {
    let folder = found.folder.as_ref().filter(|_| scan::is_plain_name(file));
    let path =
        folder.ok_or("it is not the name of a file in the model's folder `warmup`")?.join(WARM_UP).join(file);
    let length = path.metadata().map_err(|error| error.to_string())?.len();
    if length > MOST_WARM_UP {
        return Err(format!("it has {length} bytes; at most {MOST_WARM_UP} are read"));
    }
    std::fs::read(path).map_err(|error| error.to_string())
}

/// The labels of each output that has some.
fn read_labels(found: &Found) -> Result<Vec<(String, Labels)>, String> {
    let mut all = Vec::new();
    for output in found.config.output.iter().filter(|output| !output.label_filename.is_empty()) {
        let file = &output.label_filename;
        if !scan::is_plain_name(file) {
            return Err(format!("label file '{file}' is not the name of a file beside config.pbtxt"));
        }
        let Some(folder) = &found.folder else { continue };
        let text =
            scan::read_text(&folder.join(file)).map_err(|error| format!("label file '{file}': {error}"))?;
        let lines = String::from_utf8_lossy(&text).lines().map(str::to_owned).collect();
        all.push((output.name.clone(), lines));
    }
    Ok(all)
}

impl Control for Folder {
    fn load(&self, name: &str, request: LoadModel) -> Result<(), ControlError> {
        if self.is_on() { self.load_now(name, request, true) } else { Err(ControlError::Off) }
    }

    fn unload(&self, name: &str) -> Result<(), ControlError> {
        if self.is_on() { self.unload_now(name) } else { Err(ControlError::Off) }
    }

    fn available(&self) -> Vec<String> {
        self.names()
    }

    fn labels(&self, model: &str, _version: &str, output: &str) -> Option<Arc<[String]>> {
        let key = (model.to_owned(), output.to_owned());
        self.labels.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }

    fn config(&self, model: &str) -> Option<Arc<ModelConfig>> {
        self.configs.read().unwrap_or_else(PoisonError::into_inner).get(model).cloned()
    }

    fn is_on(&self) -> bool {
        self.mode == ControlMode::Explicit
    }
}
