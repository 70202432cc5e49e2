//! Loaded models by name and version, swapped without a gap.
//!
//! A request holds the model that it started with: replacing or unloading one never breaks what is running, and
//! its memory goes when its last request ends.

mod catalog;
mod infer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

pub use catalog::{ModelStatus, State};
pub use infer::{Answer, Model, Pending, Request};

use crate::engine::chain;
use crate::pool::Pool;
use crate::queue::Capacity;
use crate::stats::Stats;
use crate::{EngineChoice, Engines, Error, Limits, LoadError, LoadOptions, LoadedModel, Name, StatsSnapshot};
use catalog::Catalog;
use types::Serving;

/// Size of the machinery, fixed at start.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads that run models; each may use [`crate::EngineOptions::threads_per_run`] threads of its engine.
    pub workers: usize,
    /// Most requests that wait for a thread; more are refused as overload.
    pub queue: usize,
    /// Most bytes of inputs that wait for a thread.
    pub queue_bytes: usize,
    /// Bounds of one request.
    pub limits: Limits,
}

impl Default for Options {
    /// A worker per core. 256 waiting requests are over a second of work for a 5 ms model on one core: who comes
    /// later is better off elsewhere. 512 MiB of waiting inputs are two requests of the largest size.
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Options { workers, queue: 256, queue_bytes: 512 << 20, limits: Limits::default() }
    }
}

/// What to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadRequest {
    pub name: String,
    /// Never reuse a version for other content: a version that is loaded from the same path is not read again.
    pub version: String,
    /// The `.onnx` file; external data lies beside it.
    pub path: PathBuf,
    pub engine: EngineChoice,
    /// How it is run.
    pub serving: Serving,
    /// Whether requests without a version go to this one once it is loaded.
    pub default: bool,
}

impl LoadRequest {
    /// With any engine, as the default version.
    pub fn new(name: impl Into<String>, version: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        let (name, version, path) = (name.into(), version.into(), path.into());
        LoadRequest {
            name,
            version,
            path,
            engine: EngineChoice::Auto,
            serving: Serving::default(),
            default: true,
        }
    }
}

/// A loaded model version, alive while the catalog or a request holds it.
pub(crate) struct Served {
    /// Unique in the process, so that a queue tells a reloaded model from the one before.
    pub key: u64,
    pub name: String,
    pub version: String,
    pub engine: Name,
    pub why: String,
    pub path: PathBuf,
    pub wanted: EngineChoice,
    pub serving: Serving,
    pub took: Duration,
    pub model: Arc<dyn LoadedModel>,
    pub stats: Stats,
}

/// The models of a site and the threads that run them. Cheap to clone; the last clone stops the threads.
#[derive(Clone)]
pub struct Repository {
    inner: Arc<Inner>,
}

struct Inner {
    engines: Engines,
    options: Options,
    catalog: RwLock<Catalog>,
    /// One load at a time: the peak of memory is one model, and two equal requests load once.
    loading: Mutex<()>,
    next_key: AtomicU64,
    pool: Arc<Pool>,
}

impl Repository {
    /// Starts the inference threads.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn new(engines: Engines, options: Options) -> Result<Repository, Error> {
        let capacity = Capacity { entries: options.queue, weight: options.queue_bytes };
        let pool = Arc::new(Pool::start(options.workers, capacity, &engines).map_err(Error::Thread)?);
        let inner = Inner {
            engines,
            options,
            catalog: RwLock::default(),
            loading: Mutex::new(()),
            next_key: AtomicU64::new(0),
            pool,
        };
        Ok(Repository { inner: Arc::new(inner) })
    }

    pub fn engines(&self) -> &Engines {
        &self.inner.engines
    }

    /// Loads a version, or finds it loaded, and then makes it the default if asked. Blocks for as long as the
    /// engine needs; other loads wait. A version that was loaded under the same name from another path is
    /// swapped when the new one is ready; on failure it stays.
    ///
    /// # Errors
    /// When nothing was loaded; [`Repository::list`] then shows why.
    pub fn load(&self, request: LoadRequest) -> Result<ModelStatus, LoadError> {
        check_name(&request.name)?;
        check_name(&request.version)?;
        self.write(|catalog| catalog.begin(&request));
        let _one_at_a_time = self.inner.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(status) = self.write(|catalog| catalog.already(&request)) {
            return Ok(status);
        }
        let started = Instant::now();
        let options = LoadOptions { workers: self.inner.options.workers };
        match self.inner.engines.load(request.engine, &request.path, &options) {
            Ok(loaded) => {
                let served = Served {
                    key: self.inner.next_key.fetch_add(1, Relaxed),
                    name: request.name.clone(),
                    version: request.version.clone(),
                    engine: loaded.engine,
                    why: loaded.why,
                    path: request.path.clone(),
                    wanted: request.engine,
                    serving: request.serving.clone(),
                    took: started.elapsed(),
                    model: loaded.model,
                    stats: Stats::default(),
                };
                let (model, engine, why) = (&served.name, served.engine, &served.why);
                tracing::info!(model, version = served.version, engine, why, "model loaded");
                let (status, old) = self.write(|catalog| catalog.loaded(&request, Arc::new(served)));
                drop(old);
                Ok(status)
            }
            Err(error) => {
                let reason = chain(&error);
                tracing::warn!(
                    model = request.name,
                    version = request.version,
                    error = reason,
                    "load failed"
                );
                self.write(|catalog| catalog.failed(&request, reason));
                Err(error)
            }
        }
    }

    /// Forgets a version; running requests finish first. If it was the default, the version loaded last of the
    /// remaining ones becomes it.
    ///
    /// # Errors
    /// When there is no such model or version.
    pub fn unload(&self, name: &str, version: &str) -> Result<(), Error> {
        let removed = self.write(|catalog| catalog.remove(name, version))?;
        tracing::info!(model = name, version, "model unloaded");
        drop(removed);
        Ok(())
    }

    /// Sends requests without a version to this loaded one: promotion and roll-back at no cost.
    ///
    /// # Errors
    /// When it isn't loaded.
    pub fn set_default(&self, name: &str, version: &str) -> Result<(), Error> {
        self.write(|catalog| catalog.set_default(name, version))
    }

    /// Every version that is loaded, loading or failed, by name and version.
    pub fn list(&self) -> Vec<ModelStatus> {
        self.read(Catalog::list)
    }

    /// A loaded model; no version stands for the default one.
    ///
    /// # Errors
    /// When it is unknown or not ready.
    pub fn get(&self, name: &str, version: Option<&str>) -> Result<Model, Error> {
        let served = self.read(|catalog| catalog.get(name, version))?;
        Ok(Model::new(served, &self.inner.pool, self.inner.options.limits))
    }

    /// Counters of every loaded version: name, version, counters.
    pub fn stats(&self) -> Vec<(String, String, StatsSnapshot)> {
        let served = self.read(Catalog::served);
        let line =
            |served: &Arc<Served>| (served.name.clone(), served.version.clone(), served.stats.snapshot());
        served.iter().map(line).collect()
    }

    fn read<T>(&self, look: impl FnOnce(&Catalog) -> T) -> T {
        look(&self.inner.catalog.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut Catalog) -> T) -> T {
        change(&mut self.inner.catalog.write().unwrap_or_else(PoisonError::into_inner))
    }
}

fn check_name(given: &str) -> Result<(), LoadError> {
    let first = given.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = given.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if first && rest && given.len() <= 128 {
        return Ok(());
    }
    Err(LoadError::Name { given: given.chars().take(128).collect() })
}

/// Bytes of a model file on disk; 0 when it is gone.
fn file_bytes(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}
