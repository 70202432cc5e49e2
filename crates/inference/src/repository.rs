//! Loaded models by name and version, swapped without a gap.
//!
//! A request holds the model that it started with: replacing or unloading one never breaks what is running, and
//! its memory goes when its last request ends.

mod answers;
mod catalog;
mod ensemble;
mod infer;
mod loads;
mod options;
mod plain;
mod reading;
mod replace;
mod served;
mod shadow;
mod traffic;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use types::{Ensemble, Isolation, ModelSignature, Serving, Traffic};

pub use catalog::{ModelStatus, State};
pub use infer::{Answer, Model, Pending, Request, StepTiming, Timing};
pub use options::Options;

use crate::cache::Cache;
use crate::declared;
use crate::drift::{Drifts, FeatureDrift};
use crate::engine::chain;
use crate::engines::{Loaded, Novices};
use crate::isolation;
use crate::kept::Kept;
use crate::memory::Returns;
use crate::pool::Pool;
use crate::{EngineChoice, Engines, Error, Fil, LoadError, LoadOptions, StatsSnapshot, Tensor};
use catalog::{Catalog, Chosen, Found, Landing, Purpose, Turn};
use ensemble::Steps;
pub(crate) use loads::wait_for;
use loads::{Loads, Slot};
use reading::Desk;
pub(crate) use served::Served;
pub(crate) use served::{file_bytes, zeros};
pub(crate) use shadow::Comparison;
pub(crate) use traffic::Trial;

/// What to load.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadRequest {
    pub name: String,
    /// Never reuse a version for other content: a version that is loaded from the same path is not read again.
    pub version: String,
    /// The `.onnx` file; external data lies beside it.
    pub path: PathBuf,
    pub engine: EngineChoice,
    /// How it is run.
    pub serving: Serving,
    /// The models that answer together as this one; then there is no file.
    pub ensemble: Option<Ensemble>,
    /// What its owner says that it takes and gives.
    pub signature: Option<ModelSignature>,
    /// Whether it is known by the names of Triton's backend `fil`, and what it gives then.
    pub fil: Option<Fil>,
    /// Whether requests without a version go to this one once it is loaded.
    pub default: bool,
    /// Requests that it has to answer before anybody else's, so that these find everything in place.
    pub warm_up: Vec<WarmUp>,
}

/// A request that a version is warmed up with.
#[derive(Clone, Debug, PartialEq)]
pub struct WarmUp {
    /// What messages call it.
    pub name: String,
    pub inputs: Vec<Tensor>,
    /// How often it is asked.
    pub times: u32,
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
            ensemble: None,
            signature: None,
            fil: None,
            default: true,
            warm_up: Vec::new(),
        }
    }
}

/// Which version answers requests that don't name one by its name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routing {
    /// Further names of versions.
    pub aliases: BTreeMap<String, String>,
    /// Shares, shadow and the bounds of trials; `None` sends everything to the default version.
    pub traffic: Option<Traffic>,
}

/// A loaded version, looked at from outside.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    pub name: String,
    pub version: String,
    pub stats: StatsSnapshot,
    /// How far its inputs have moved from those that came first; empty where that isn't watched.
    pub drift: Vec<FeatureDrift>,
    /// Requests that wait for a thread.
    pub waiting: usize,
}

/// What an ensemble is run with, or why it can't be.
type Composed = Result<(Loaded, Steps), LoadError>;

/// The models of a site and the threads that run them. Cheap to clone; the last clone stops the threads.
#[derive(Clone)]
pub struct Repository {
    inner: Arc<Inner>,
}

struct Inner {
    engines: Engines,
    catalog: RwLock<Catalog>,
    loads: Loads,
    drifts: Drifts,
    /// `None` where files are trusted.
    novices: Option<Novices>,
    next_key: AtomicU64,
    returns: Returns<Served>,
    shared: Arc<Shared>,
}

/// What every request needs.
struct Shared {
    options: Options,
    pool: Pool,
    cache: Cache,
    desk: Desk,
}

impl Shared {
    /// The threads that run a model.
    fn pool_of<'a>(&'a self, served: &'a Served) -> &'a Pool {
        served.own_pool.as_ref().unwrap_or(&self.pool)
    }
}

impl Drop for Inner {
    /// What waits for a model holds it, and with it the model's own threads: they are told.
    fn drop(&mut self) {
        let catalog = self.catalog.get_mut().unwrap_or_else(PoisonError::into_inner);
        catalog.served().iter().filter_map(|served| served.own_pool.as_ref()).for_each(Pool::close);
    }
}

impl Repository {
    /// Starts the inference threads.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn new(engines: Engines, options: Options) -> Result<Repository, Error> {
        let capacity = options.capacity();
        let pool = Pool::start(options.workers, capacity, &engines).map_err(Error::Thread)?;
        let cache = Cache::new(options.cache_bytes);
        let kept = Arc::new(Kept::start(options.ledger.clone()).map_err(Error::Thread)?);
        let command = options.worker.clone().filter(|_| !options.trust_models);
        let novices = command.map(|command| Novices::new(command, Arc::clone(&kept)));
        let inner = Inner {
            engines,
            catalog: RwLock::new(Catalog::keeping(Arc::clone(&kept))),
            loads: Loads::new(options.workers),
            drifts: Drifts::keeping(kept),
            novices,
            next_key: AtomicU64::new(0),
            returns: Returns::start().map_err(Error::Thread)?,
            shared: Arc::new(Shared { pool, cache, desk: Desk::new(options.reading_bytes), options }),
        };
        Ok(Repository { inner: Arc::new(inner) })
    }

    pub fn engines(&self) -> &Engines {
        &self.inner.engines
    }

    /// Loads a version, or finds it loaded, and then makes it the default if asked. Blocks for as long as the
    /// engine needs; a few others are loaded at the same time, and the rest waits. A version that was loaded under the same name from another path is
    /// swapped when the new one is ready; on failure it stays.
    ///
    /// # Errors
    /// When nothing was loaded; [`Repository::list`] then shows why.
    pub fn load(&self, request: LoadRequest) -> Result<ModelStatus, LoadError> {
        self.load_for(request, Purpose::ForGood)
    }

    fn load_for(&self, request: LoadRequest, purpose: Purpose) -> Result<ModelStatus, LoadError> {
        let served = self.load_now(request, purpose, None)?;
        self.read(|catalog| catalog.status(&served.name, &served.version)).ok_or(LoadError::Unloaded)
    }

    /// Waits for its turn where the caller hasn't.
    fn load_now(
        &self,
        request: LoadRequest,
        purpose: Purpose,
        slot: Option<Slot>,
    ) -> Result<Arc<Served>, LoadError> {
        check_name(&request.name)?;
        check_name(&request.version)?;
        let file_bytes = file_bytes(&request.path);
        let ticket = self.write(|catalog| catalog.begin(&request, purpose, file_bytes))?;
        // The models of its steps take turns, too: they go first.
        let ensemble = request.ensemble.as_ref().map(|ensemble| self.load_ensemble(&request, ensemble));
        let loads = &self.inner.loads;
        let _slot = slot.unwrap_or_else(|| loads.wait_for_slot(&request));
        let _alone =
            ensemble.is_some().then(|| loads.ensembles.lock().unwrap_or_else(PoisonError::into_inner));
        match self.write(|catalog| catalog.turn(&request, ticket, purpose)) {
            Turn::Load => {}
            Turn::Done(served) => return Ok(served),
            Turn::Failed(reason) => return Err(LoadError::Again { reason }),
            Turn::Void => return Err(LoadError::Unloaded),
        }
        match self.make(&request, ensemble) {
            Ok(served) => {
                let old = self.write(|catalog| catalog.loaded(&request, ticket, purpose, &served))?;
                self.forget(old);
                self.make_room();
                Ok(served)
            }
            Err(error) => {
                self.write(|catalog| catalog.failed(&request, ticket, chain(&error)));
                Err(error)
            }
        }
    }

    /// A version that is ready for requests, and that nobody sees yet.
    fn make(&self, request: &LoadRequest, ensemble: Option<Composed>) -> Result<Arc<Served>, LoadError> {
        let before = answers::Before::loading(request);
        let (started, load) = (Instant::now(), self.inner.loads.begin(request, file_bytes(&request.path)));
        let loaded = match ensemble {
            Some(loaded) => loaded.and_then(|(loaded, steps)| {
                self.refuse_nesting(request)?;
                Ok((loaded, Some(steps)))
            }),
            None => {
                self.make_room();
                self.load_where_it_belongs(request).map(|loaded| (loaded, None))
            }
        };
        let served = loaded.and_then(|(loaded, steps)| {
            let key = self.inner.next_key.fetch_add(1, Relaxed);
            let grown = load.grown();
            let waiting = self.inner.shared.options.capacity_of_one();
            let mut served = Served::new(key, request, loaded, started.elapsed(), grown, waiting)?;
            served.steps = steps;
            let key = before.and_then(|before| before.key(&self.inner.shared.cache, &served));
            served.answers = key.unwrap_or(served.answers);
            served.drift = self.inner.drifts.of(request);
            if self.inner.shared.options.warm_up {
                served.warm_up();
            }
            served.answer(&request.warm_up)?;
            Ok(served)
        });
        match served {
            Ok(served) => {
                let Served { name, version, engine, why, .. } = &served;
                tracing::info!(model = name, version, engine, why, "model loaded");
                Ok(Arc::new(served))
            }
            Err(error) => {
                let LoadRequest { name, version, .. } = request;
                tracing::warn!(model = name, version, error = chain(&error), "load failed");
                Err(error)
            }
        }
    }

    fn load_where_it_belongs(&self, request: &LoadRequest) -> Result<Loaded, LoadError> {
        let declared = request.signature.clone().unwrap_or_default();
        let Some(fil) = request.fil else { return self.load_declared(request, declared) };
        // What is declared is said of the names that it gets.
        let loaded = self.load_declared(request, ModelSignature::default())?;
        let model = fil.of(loaded.model)?;
        declared::check(model.signature(), &declared)?;
        Ok(Loaded { model, ..loaded })
    }

    fn load_declared(&self, request: &LoadRequest, declared: ModelSignature) -> Result<Loaded, LoadError> {
        let Shared { options, .. } = self.inner.shared.as_ref();
        let LoadRequest { engine, path, serving, .. } = request;
        let threads = usize::try_from(serving.threads).unwrap_or(0);
        match (serving.isolation, &options.worker) {
            (Isolation::None, _) => {
                let instances = usize::try_from(serving.instances).unwrap_or(usize::MAX);
                let options = LoadOptions { workers: options.workers, threads, instances };
                let novices = self.inner.novices.as_ref();
                self.inner.engines.load_rehearsed(*engine, path, &options, &declared, novices)
            }
            (Isolation::Process, Some(command)) => {
                let run_limit = match serving.run_timeout_milliseconds {
                    0 => isolation::RUN,
                    milliseconds => Duration::from_millis(milliseconds.into()),
                };
                let instances =
                    usize::try_from(serving.instances).unwrap_or(1).clamp(1, options.workers.max(1));
                let wanted = isolation::Wanted { instances, threads, declared: &declared, run_limit };
                let loaded = isolation::load(command, *engine, path, wanted)?;
                declared::check(loaded.model.signature(), &declared)?;
                Ok(loaded)
            }
            (Isolation::Process, None) => Err(LoadError::NoIsolation),
        }
    }

    /// Makes a version known without loading it: the first request for it does, and it is unloaded again when memory
    /// is short. Costs nothing but its name, so there may be thousands.
    ///
    /// # Errors
    /// When its name or version can't stand in a URL, or it is to replace one that serves and can't be loaded.
    pub fn register(&self, request: LoadRequest) -> Result<ModelStatus, LoadError> {
        check_name(&request.name)?;
        check_name(&request.version)?;
        let file_bytes = file_bytes(&request.path);
        match self.write(|catalog| catalog.register(&request, file_bytes)) {
            Some(status) => Ok(status),
            None => self.load_for(request, Purpose::Registered),
        }
    }

    /// Unloads what wasn't used for the longest time until what is being loaded fits.
    fn make_room(&self) {
        let budget = self.inner.shared.options.model_bytes;
        while self.read(Catalog::memory).saturating_add(self.inner.loads.reserved()) > budget {
            let Some(evicted) = self.write(Catalog::evict_one) else { return };
            let Served { name, version, memory, .. } = evicted.as_ref();
            tracing::info!(model = name, version, memory, "unloaded to make room; a request loads it again");
            self.forget(Some(evicted));
        }
    }

    /// Lets go of a model that was taken out, outside of all locks.
    fn forget(&self, model: Option<Arc<Served>>) {
        if let Some(model) = model {
            self.inner.returns.after(model);
        }
    }

    /// Sets further names of versions and how requests are shared among them; a version on trial keeps its record as
    /// long as its share and bounds stay.
    ///
    /// # Errors
    /// When there is no such model, or no such version as they name.
    pub fn set_routing(&self, name: &str, routing: Routing) -> Result<(), Error> {
        self.write(|catalog| catalog.set_routing(name, routing))
    }

    /// Forgets a version; running requests finish first. If it was the default, the version loaded last of the
    /// remaining ones becomes it.
    ///
    /// # Errors
    /// When there is no such model or version.
    pub fn unload(&self, name: &str, version: &str) -> Result<(), Error> {
        let removed = self.write(|catalog| catalog.remove(name, version))?;
        tracing::info!(model = name, version, "model unloaded");
        self.forget(removed);
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

    /// A loaded model; a version may be named by an alias, and none leaves it to the model's traffic rules.
    ///
    /// # Errors
    /// When it is unknown or not ready; [`Repository::obtain`] loads what is loaded on request.
    pub fn get(&self, name: &str, version: Option<&str>) -> Result<Model, Error> {
        match self.read(|catalog| catalog.find(name, version))? {
            Found::Ready(chosen) => Ok(Model::new(chosen, &self.inner.shared)),
            Found::Idle(request) => {
                let reason = "it is loaded by the first request for it".into();
                Err(Error::NotReady { name: request.name, version: request.version, reason })
            }
        }
    }

    /// A model, loaded first if need be; requests that come meanwhile wait for that one load. Must be awaited inside
    /// a tokio runtime.
    ///
    /// # Errors
    /// When it is unknown, not ready or can't be loaded.
    pub async fn obtain(&self, name: &str, version: Option<&str>) -> Result<Model, Error> {
        const TRIES: usize = 4;
        for _ in 0..TRIES {
            let request = match self.read(|catalog| catalog.find(name, version))? {
                Found::Ready(chosen) => return Ok(Model::new(chosen, &self.inner.shared)),
                Found::Idle(request) => request,
            };
            let not_ready = |reason: String| Error::NotReady {
                name: name.into(),
                version: request.version.clone(),
                reason,
            };
            let Some((mut flight, landing)) = self.write(|catalog| catalog.flight(&request)) else {
                return Err(not_ready("it was unloaded".into()));
            };
            if let Some(landing) = landing {
                self.load_aside(request.as_ref().clone(), landing).await;
            }
            let landed = flight.wait_for(Option::is_some).await;
            match landed.ok().and_then(|landed| landed.clone()) {
                Some(Ok(served)) => return Ok(Model::new(Chosen::only(served), &self.inner.shared)),
                Some(Err(reason)) => return Err(not_ready(format!("loading failed: {reason}"))),
                // Who was to load it gave up before its turn came.
                None => {}
            }
        }
        let (name, version) = (name.into(), version.unwrap_or_default().into());
        Err(Error::NotReady { name, version, reason: "loading was cut off; try again".into() })
    }

    /// Waits for a turn to load what a request asks for, without a thread, and begins.
    async fn load_aside(&self, request: LoadRequest, landing: Landing) {
        let slot = match request.ensemble {
            // The models of its steps may have to take turns first.
            Some(_) => None,
            None => Some(self.inner.loads.slot(&request).await),
        };
        let repository = self.clone();
        let (name, version) = (request.name.clone(), request.version.clone());
        // It goes on if this request is given up: others wait for it.
        tokio::task::spawn_blocking(move || {
            let loaded = repository.load_now(request, Purpose::OnRequest, slot);
            // Who waits holds the flight; the catalog would hold its model for good.
            repository.write(|catalog| catalog.landed(&name, &version));
            landing.send_replace(Some(loaded.map_err(|error| chain(&error).into())));
        });
    }

    /// Counters of every loaded version: name, version, counters.
    pub fn stats(&self) -> Vec<(String, String, StatsSnapshot)> {
        let served = self.read(Catalog::served);
        let line =
            |served: &Arc<Served>| (served.name.clone(), served.version.clone(), served.stats.snapshot());
        served.iter().map(line).collect()
    }

    /// What there is to see of every loaded version. It locks what requests lock, for some microseconds a version.
    pub fn observe(&self) -> Vec<Observed> {
        let served = self.read(Catalog::served);
        let observed = |served: &Arc<Served>| Observed {
            name: served.name.clone(),
            version: served.version.clone(),
            stats: served.stats.snapshot(),
            drift: served.drift(),
            waiting: self.inner.shared.pool_of(served).waiting(served.key),
        };
        served.iter().map(observed).collect()
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
