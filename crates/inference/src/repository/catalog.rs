//! What is loaded, loading and failed: plain state behind the repository's lock.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{LoadRequest, Served, file_bytes};
use crate::{Error, Name, Signature};

/// Where a version is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Loading,
    Ready,
    /// The last load failed and nothing is served under this version.
    Failed {
        reason: String,
    },
}

/// One version of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelStatus {
    pub name: String,
    pub version: String,
    pub state: State,
    /// Whether requests without a version come here.
    pub default: bool,
    /// The file that is served, or that was to be.
    pub path: PathBuf,
    /// Size of that file.
    pub file_bytes: u64,
    /// The engine that runs it; `None` unless ready.
    pub engine: Option<Name>,
    /// Why that engine, with what others said about the model; empty unless ready.
    pub why: String,
    /// How long loading took.
    pub load_time: Duration,
    /// Inputs and outputs; `None` unless ready.
    pub signature: Option<Signature>,
    /// Why a later attempt to replace this version failed while it goes on serving.
    pub last_error: Option<String>,
}

#[derive(Default)]
pub(super) struct Catalog {
    models: BTreeMap<String, Versions>,
    /// Counts loads, to know which version came last.
    loads: u64,
}

#[derive(Default)]
struct Versions {
    default: Option<String>,
    versions: BTreeMap<String, Version>,
}

#[derive(Default)]
struct Version {
    served: Option<Arc<Served>>,
    /// Loads going on.
    pending: usize,
    error: Option<String>,
    path: PathBuf,
    order: u64,
}

impl Catalog {
    /// Makes the version visible as loading.
    pub fn begin(&mut self, request: &LoadRequest) {
        let version = self.version(request);
        version.pending += 1;
        if version.served.is_none() {
            version.path.clone_from(&request.path);
        }
    }

    /// Ends a load at once if what is served is what is asked for.
    pub fn already(&mut self, request: &LoadRequest) -> Option<ModelStatus> {
        let served = self.version(request).served.as_ref()?;
        if served.path != request.path || served.wanted != request.engine {
            return None;
        }
        let version = self.version(request);
        version.pending = version.pending.saturating_sub(1);
        self.choose_default(request);
        self.status(&request.name, &request.version)
    }

    /// Swaps the new model in; gives back the old one, to be dropped outside the lock.
    pub fn loaded(
        &mut self,
        request: &LoadRequest,
        served: Arc<Served>,
    ) -> (ModelStatus, Option<Arc<Served>>) {
        self.loads += 1;
        let order = self.loads;
        let version = self.version(request);
        version.pending = version.pending.saturating_sub(1);
        version.error = None;
        version.order = order;
        version.path.clone_from(&request.path);
        let old = version.served.replace(Arc::clone(&served));
        self.choose_default(request);
        let status = self.status(&request.name, &request.version);
        (status.unwrap_or_else(|| status_of(&served, false, None)), old)
    }

    pub fn failed(&mut self, request: &LoadRequest, reason: String) {
        let version = self.version(request);
        version.pending = version.pending.saturating_sub(1);
        version.error = Some(reason);
    }

    pub fn remove(&mut self, name: &str, version: &str) -> Result<Option<Arc<Served>>, Error> {
        let unknown = || Error::UnknownModel { name: name.into() };
        let model = self.models.get_mut(name).ok_or_else(unknown)?;
        let removed = model.versions.remove(version).ok_or_else(|| model.unknown_version(name, version))?;
        if model.default.as_deref() == Some(version) {
            let last = model.versions.iter().filter(|(_, version)| version.served.is_some());
            model.default = last.max_by_key(|(_, version)| version.order).map(|(name, _)| name.clone());
        }
        if model.versions.is_empty() {
            self.models.remove(name);
        }
        Ok(removed.served)
    }

    pub fn set_default(&mut self, name: &str, version: &str) -> Result<(), Error> {
        self.get(name, Some(version))?;
        if let Some(model) = self.models.get_mut(name) {
            model.default = Some(version.into());
        }
        Ok(())
    }

    pub fn get(&self, name: &str, version: Option<&str>) -> Result<Arc<Served>, Error> {
        let model = self.models.get(name).ok_or_else(|| Error::UnknownModel { name: name.into() })?;
        let chosen = version.or(model.default.as_deref());
        let entry = match chosen {
            Some(version) => {
                let entry = model.versions.get(version);
                Some((version, entry.ok_or_else(|| model.unknown_version(name, version))?))
            }
            None => model.versions.iter().next_back().map(|(version, entry)| (version.as_str(), entry)),
        };
        let (version, entry) = entry.ok_or_else(|| Error::UnknownModel { name: name.into() })?;
        entry.served.clone().ok_or_else(|| Error::NotReady {
            name: name.into(),
            version: version.into(),
            reason: match &entry.error {
                Some(reason) if entry.pending == 0 => format!("loading failed: {reason}"),
                _ => "it is being loaded; try again in a moment".into(),
            },
        })
    }

    pub fn list(&self) -> Vec<ModelStatus> {
        let names =
            self.models.iter().flat_map(|(name, model)| model.versions.keys().map(move |v| (name, v)));
        names.filter_map(|(name, version)| self.status(name, version)).collect()
    }

    pub fn served(&self) -> Vec<Arc<Served>> {
        self.models
            .values()
            .flat_map(|model| model.versions.values())
            .filter_map(|v| v.served.clone())
            .collect()
    }

    fn version(&mut self, request: &LoadRequest) -> &mut Version {
        let model = self.models.entry(request.name.clone()).or_default();
        model.versions.entry(request.version.clone()).or_default()
    }

    fn choose_default(&mut self, request: &LoadRequest) {
        let Some(model) = self.models.get_mut(&request.name) else { return };
        if request.default || model.default.is_none() {
            model.default = Some(request.version.clone());
        }
    }

    fn status(&self, name: &str, version: &str) -> Option<ModelStatus> {
        let model = self.models.get(name)?;
        let entry = model.versions.get(version)?;
        let default = model.default.as_deref() == Some(version);
        if let Some(served) = &entry.served {
            return Some(status_of(served, default, entry.error.clone()));
        }
        let state = match &entry.error {
            Some(reason) if entry.pending == 0 => State::Failed { reason: reason.clone() },
            _ => State::Loading,
        };
        Some(ModelStatus {
            name: name.into(),
            version: version.into(),
            state,
            default,
            path: entry.path.clone(),
            file_bytes: file_bytes(&entry.path),
            engine: None,
            why: String::new(),
            load_time: Duration::ZERO,
            signature: None,
            last_error: None,
        })
    }
}

fn status_of(served: &Served, default: bool, last_error: Option<String>) -> ModelStatus {
    ModelStatus {
        name: served.name.clone(),
        version: served.version.clone(),
        state: State::Ready,
        default,
        path: served.path.clone(),
        file_bytes: file_bytes(&served.path),
        engine: Some(served.engine),
        why: served.why.clone(),
        load_time: served.took,
        signature: Some(served.model.signature().clone()),
        last_error,
    }
}

impl Versions {
    fn unknown_version(&self, name: &str, version: &str) -> Error {
        let loaded: Vec<&str> = self
            .versions
            .iter()
            .filter(|(_, version)| version.served.is_some())
            .map(|(name, _)| name.as_str())
            .collect();
        let loaded = if loaded.is_empty() { "none".into() } else { loaded.join(", ") };
        Error::UnknownVersion { name: name.into(), version: version.into(), loaded }
    }
}
