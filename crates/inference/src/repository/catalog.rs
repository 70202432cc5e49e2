//! What is loaded, loading and failed: plain state behind the repository's lock.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::served::Served;
use super::traffic::{Route, Trial, Verdicts};
use super::{LoadRequest, Routing};
use crate::kept::Kept;
use crate::{Error, LoadError, Name, Signature, Tried};

/// How long requests for a version that is loaded on request are refused after its load failed.
const RETRY: Duration = Duration::from_secs(5);

/// Where a version is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Loading,
    /// Known, to be loaded when a request asks for it.
    Idle,
    Ready,
    /// The last load failed and nothing is served under this version.
    Failed {
        reason: String,
    },
}

/// One version of one model.
#[derive(Clone, Debug, PartialEq)]
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
    /// What `auto` measured, engine by engine; empty unless ready, where the engine was asked for by name, and where a
    /// process of its own chose.
    pub tried: Vec<Tried>,
    /// Bytes that the process grew by when it was loaded; 0 unless ready.
    pub memory: u64,
    /// Further names of this version.
    pub aliases: Vec<String>,
    /// Percentage of the requests without a version that it gets, where they are split.
    pub share: Option<u32>,
    /// Why it lost its share.
    pub rolled_back: Option<String>,
    /// How long loading took.
    pub load_time: Duration,
    /// Inputs and outputs; `None` unless ready.
    pub signature: Option<Signature>,
    /// Why a later attempt to replace this version failed while it goes on serving.
    pub last_error: Option<String>,
}

#[derive(Default)]
pub(super) struct Catalog {
    kept: Arc<Kept>,
    models: BTreeMap<String, Versions>,
    /// Counts loads and new entries, to know which came last.
    count: u64,
}

/// The result of a load on request, for all who wait for it.
pub(super) type Flight = watch::Receiver<Option<Result<Arc<Served>, Arc<str>>>>;
/// Where it is told.
pub(super) type Landing = watch::Sender<Option<Result<Arc<Served>, Arc<str>>>>;

/// The place of a load that was begun. Whoever takes the version away meanwhile makes it void.
#[derive(Clone, Copy)]
pub(super) struct Ticket {
    /// The version's entry.
    entry: u64,
    /// The default version was last chosen then.
    chosen: u64,
}

/// Why a version is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It was asked for by name, and stays.
    ForGood,
    /// It is loaded on request, and replaces another content right away.
    Registered,
    /// A request needs it.
    OnRequest,
}

/// What is to be done once it is a load's turn.
pub(super) enum Turn {
    Load,
    /// It is served already.
    Done(Arc<Served>),
    /// It failed a moment ago.
    Failed(String),
    /// It was taken away meanwhile.
    Void,
}

#[derive(Default)]
struct Versions {
    default: Option<String>,
    /// Grows with each choice of the default version.
    chosen: u64,
    versions: BTreeMap<String, Version>,
    aliases: BTreeMap<String, String>,
    route: Route,
}

#[derive(Default)]
struct Version {
    served: Option<Arc<Served>>,
    /// Loads going on.
    pending: usize,
    /// The last load's failure.
    failed: Option<Failure>,
    /// How to load it when it is asked for.
    lazy: Option<LoadRequest>,
    /// The load on request that is going on, if its other end still is.
    flight: Option<Flight>,
    path: PathBuf,
    file_bytes: u64,
    /// Tells this entry from earlier ones of the same name.
    entry: u64,
    order: u64,
}

struct Failure {
    reason: String,
    /// When a request may try again.
    retry: Instant,
}

impl Version {
    /// Why the last load failed, while no other one is going on.
    fn failure(&self) -> Option<&Failure> {
        self.failed.as_ref().filter(|_| self.pending == 0)
    }
}

/// A version that answers a request, and what goes with it.
#[derive(Clone)]
pub(super) struct Chosen {
    pub served: Arc<Served>,
    /// Where it is tried out.
    pub trial: Option<Arc<Trial>>,
    /// Gets a copy of the request.
    pub shadow: Option<Arc<Served>>,
}

impl Chosen {
    /// A version that was named.
    pub fn only(served: Arc<Served>) -> Chosen {
        Chosen { served, trial: None, shadow: None }
    }
}

/// What answers a request.
pub(super) enum Found {
    Ready(Chosen),
    /// Load this first.
    Idle(Box<LoadRequest>),
}

impl Catalog {
    /// Verdicts on versions outlive the process there.
    pub fn keeping(kept: Arc<Kept>) -> Catalog {
        Catalog { kept, ..Catalog::default() }
    }

    /// Makes the version visible as loading. `file_bytes` is its file's size.
    ///
    /// # Errors
    /// When a request asked for what is no longer there.
    pub fn begin(
        &mut self,
        request: &LoadRequest,
        purpose: Purpose,
        file_bytes: u64,
    ) -> Result<Ticket, LoadError> {
        if purpose == Purpose::OnRequest && !self.offers(request) {
            return Err(LoadError::Unloaded);
        }
        let version = self.version(request);
        version.pending += 1;
        if version.served.is_none() {
            version.path.clone_from(&request.path);
            version.file_bytes = file_bytes;
        }
        let entry = version.entry;
        let chosen = self.models.get(&request.name).map_or(0, |model| model.chosen);
        Ok(Ticket { entry, chosen })
    }

    /// Whether a request for this version would get just that.
    fn offers(&self, request: &LoadRequest) -> bool {
        let model = self.models.get(&request.name);
        model.and_then(|model| model.versions.get(&request.version)).is_some_and(|version| {
            let serves = version.served.as_ref().is_some_and(|served| served.answers(request));
            serves || version.lazy.as_ref() == Some(request)
        })
    }

    /// Makes a version known that is loaded when it is asked for. `None` where another one serves under its name,
    /// which only a load can replace.
    pub fn register(&mut self, request: &LoadRequest, file_bytes: u64) -> Option<ModelStatus> {
        let version = self.version(request);
        version.lazy = Some(request.clone());
        version.failed = None;
        if version.served.as_ref().is_some_and(|served| !served.answers(request)) {
            return None;
        }
        version.path.clone_from(&request.path);
        version.file_bytes = file_bytes;
        self.choose_default(request);
        self.status(&request.name, &request.version)
    }

    /// What a load that was begun is to do now. If not to load, it is over.
    pub fn turn(&mut self, request: &LoadRequest, ticket: Ticket, purpose: Purpose) -> Turn {
        let Some(version) = self.begun(request, ticket) else { return Turn::Void };
        let turn = match &version.served {
            Some(served) if served.answers(request) => Turn::Done(Arc::clone(served)),
            _ => match &version.failed {
                Some(failure) if purpose == Purpose::OnRequest && failure.retry > Instant::now() => {
                    Turn::Failed(failure.reason.clone())
                }
                _ => return Turn::Load,
            },
        };
        version.pending = version.pending.saturating_sub(1);
        if let Turn::Done(_) = turn {
            self.settle(request, ticket, purpose);
        }
        turn
    }

    /// Swaps the new model in; gives back the old one, to be dropped outside the lock.
    ///
    /// # Errors
    /// When the version was taken away meanwhile.
    pub fn loaded(
        &mut self,
        request: &LoadRequest,
        ticket: Ticket,
        purpose: Purpose,
        served: &Arc<Served>,
    ) -> Result<Option<Arc<Served>>, LoadError> {
        self.count += 1;
        let order = self.count;
        let version = self.begun(request, ticket).ok_or(LoadError::Unloaded)?;
        version.pending = version.pending.saturating_sub(1);
        version.failed = None;
        version.order = order;
        version.path.clone_from(&request.path);
        let old = version.served.replace(Arc::clone(served));
        self.settle(request, ticket, purpose);
        Ok(old)
    }

    pub fn failed(&mut self, request: &LoadRequest, ticket: Ticket, reason: String) {
        if let Some(version) = self.begun(request, ticket) {
            version.pending = version.pending.saturating_sub(1);
            version.failed = Some(Failure { reason, retry: Instant::now() + RETRY });
        }
    }

    /// Makes these the model's versions, all others go: those that are ready with their model, the others are loaded on
    /// request. Gives back what is to be dropped outside the lock.
    ///
    /// # Errors
    /// When one of them was taken away meanwhile; then nothing is changed.
    pub fn replace(
        &mut self,
        made: &[(LoadRequest, Ticket, Option<Arc<Served>>)],
        routing: Routing,
    ) -> Result<Vec<Arc<Served>>, LoadError> {
        if made.iter().any(|(request, ticket, _)| self.begun(request, *ticket).is_none()) {
            return Err(LoadError::Unloaded);
        }
        let mut gone = Vec::new();
        for (request, ticket, served) in made {
            let Some(served) = served else {
                if let Some(version) = self.begun(request, *ticket) {
                    version.pending = version.pending.saturating_sub(1);
                    version.path.clone_from(&request.path);
                    version.lazy = Some(request.clone());
                    version.failed = None;
                }
                continue;
            };
            gone.extend(self.loaded(request, *ticket, Purpose::ForGood, served)?);
            if request.serving.lazy
                && let Some(version) = self.begun(request, *ticket)
            {
                version.lazy = Some(request.clone());
            }
        }
        let Some((first, ..)) = made.first() else { return Ok(gone) };
        if let Some(model) = self.models.get_mut(&first.name) {
            let kept = |name: &String| made.iter().any(|(request, ..)| request.version == *name);
            gone.extend(
                model.versions.extract_if(.., |name, _| !kept(name)).filter_map(|(_, old)| old.served),
            );
            if let Some((default, ..)) = made.iter().find(|(request, ..)| request.default) {
                model.choose(default.version.clone());
            }
            let traffic = routing.traffic.unwrap_or_default();
            let verdicts = Verdicts { kept: &self.kept, model: &first.name };
            model.route = Route::new(traffic, model.default.as_deref(), Some(&model.route), &verdicts);
            model.aliases = routing.aliases;
        }
        Ok(gone)
    }

    /// What a load that succeeded changes beside the model.
    fn settle(&mut self, request: &LoadRequest, ticket: Ticket, purpose: Purpose) {
        match purpose {
            Purpose::OnRequest => return,
            Purpose::Registered => {}
            Purpose::ForGood => {
                if let Some(version) = self.begun(request, ticket) {
                    version.lazy = None;
                }
            }
        }
        // Who chose a default meanwhile had the later word.
        if self.models.get(&request.name).is_some_and(|model| model.chosen == ticket.chosen) {
            self.choose_default(request);
        }
    }

    /// The entry for which a load was begun.
    fn begun(&mut self, request: &LoadRequest, ticket: Ticket) -> Option<&mut Version> {
        let version = self.models.get_mut(&request.name)?.versions.get_mut(&request.version)?;
        (version.entry == ticket.entry).then_some(version)
    }

    /// The load on request of a version: the one that is going on, or the place to tell a new one's result at, too.
    /// `None` if the version is gone.
    pub fn flight(&mut self, request: &LoadRequest) -> Option<(Flight, Option<Landing>)> {
        let version = self.models.get_mut(&request.name)?.versions.get_mut(&request.version)?;
        if let Some(flight) = version.flight.as_ref().filter(|flight| flight.has_changed().is_ok()) {
            return Some((flight.clone(), None));
        }
        let (landing, flight) = watch::channel(None);
        version.flight = Some(flight.clone());
        Some((flight, Some(landing)))
    }

    /// Forgets the load on request of a version, which has ended.
    pub fn landed(&mut self, name: &str, version: &str) {
        let version = self.models.get_mut(name).and_then(|model| model.versions.get_mut(version));
        if let Some(version) = version {
            version.flight = None;
        }
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

    /// Takes out of memory what was not used for the longest time of that which is loaded again when it is asked
    /// for; `None` when nothing is left of it.
    pub fn evict_one(&mut self) -> Option<Arc<Served>> {
        let versions = self.models.values_mut().flat_map(|model| model.versions.values_mut());
        let evictable = versions.filter(|version| version.lazy.is_some() && version.served.is_some());
        // What is in use comes last: it keeps its memory until its requests end, those of ensembles among them.
        let in_use = |served: &Arc<Served>| Arc::strong_count(served) > 1;
        let used = |version: &&mut Version| {
            version.served.as_ref().map(|served| (in_use(served), served.last_used()))
        };
        evictable.min_by_key(used)?.served.take()
    }

    /// Whether a version answers at once.
    pub fn is_served(&self, name: &str, version: &str) -> bool {
        let model = self.models.get(name).and_then(|model| model.versions.get(version));
        model.is_some_and(|version| version.served.is_some())
    }

    /// Bytes of all that is loaded.
    pub fn memory(&self) -> u64 {
        self.served().iter().map(|served| served.memory).sum()
    }

    pub fn set_routing(&mut self, name: &str, routing: Routing) -> Result<(), Error> {
        let unknown = || Error::UnknownModel { name: name.into() };
        let model = self.models.get_mut(name).ok_or_else(unknown)?;
        let traffic = routing.traffic.unwrap_or_default();
        let split = traffic.split.iter().map(|share| &share.version);
        let shadow = traffic.shadow.iter().map(|shadow| &shadow.version);
        let named = routing.aliases.values().chain(split).chain(shadow);
        if let Some(stranger) = named.into_iter().find(|version| !model.versions.contains_key(*version)) {
            return Err(model.unknown_version(name, stranger));
        }
        let verdicts = Verdicts { kept: &self.kept, model: name };
        model.route = Route::new(traffic, model.default.as_deref(), Some(&model.route), &verdicts);
        model.aliases = routing.aliases;
        Ok(())
    }

    pub fn set_default(&mut self, name: &str, version: &str) -> Result<(), Error> {
        self.find(name, Some(version))?;
        if let Some(model) = self.models.get_mut(name) {
            let version = model.aliases.get(version).map_or(version, String::as_str).to_owned();
            model.choose(version);
        }
        Ok(())
    }

    /// What answers a request for a version or alias; none leaves it to the model's traffic rules.
    pub fn find(&self, name: &str, version: Option<&str>) -> Result<Found, Error> {
        let model = self.models.get(name).ok_or_else(|| Error::UnknownModel { name: name.into() })?;
        let Some(asked) = version else { return model.route(name) };
        let version = model.aliases.get(asked).map_or(asked, String::as_str);
        model.find(name, version)
    }

    /// The models that any version of this one asks, where it is an ensemble.
    pub fn members(&self, name: &str) -> Vec<String> {
        let versions = self.models.get(name).into_iter().flat_map(|model| model.versions.values());
        let requests = versions.flat_map(|version| {
            version.served.as_ref().map(|served| &served.request).into_iter().chain(&version.lazy)
        });
        let steps =
            requests.filter_map(|request| request.ensemble.as_ref()).flat_map(|ensemble| &ensemble.steps);
        steps.map(|step| step.model.clone()).collect()
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
        self.count += 1;
        let entry = self.count;
        let model = self.models.entry(request.name.clone()).or_default();
        let new = || Version { entry, ..Version::default() };
        model.versions.entry(request.version.clone()).or_insert_with(new)
    }

    fn choose_default(&mut self, request: &LoadRequest) {
        let Some(model) = self.models.get_mut(&request.name) else { return };
        if request.default || model.default.is_none() {
            model.choose(request.version.clone());
        }
    }

    pub fn status(&self, name: &str, version: &str) -> Option<ModelStatus> {
        let model = self.models.get(name)?;
        let entry = model.versions.get(version)?;
        let (share, rolled_back) = model.route.share(version);
        let named = model.aliases.iter().filter(|(_, named)| *named == version);
        let of_model = ModelStatus {
            default: model.default.as_deref() == Some(version),
            aliases: named.map(|(alias, _)| alias.clone()).collect(),
            share,
            rolled_back,
            ..unloaded(name, version, entry)
        };
        let Some(served) = &entry.served else { return Some(of_model) };
        Some(ModelStatus {
            state: State::Ready,
            path: served.path.clone(),
            engine: Some(served.engine),
            why: served.why.clone(),
            tried: served.tried.clone(),
            memory: served.memory,
            load_time: served.took,
            signature: Some(served.model.signature().clone()),
            last_error: entry.failed.as_ref().map(|failure| failure.reason.clone()),
            ..of_model
        })
    }
}

fn unloaded(name: &str, version: &str, entry: &Version) -> ModelStatus {
    let state = match entry.failure() {
        Some(failure) => State::Failed { reason: failure.reason.clone() },
        None if entry.pending == 0 && entry.lazy.is_some() => State::Idle,
        _ => State::Loading,
    };
    ModelStatus {
        name: name.into(),
        version: version.into(),
        state,
        default: false,
        path: entry.path.clone(),
        file_bytes: entry.file_bytes,
        engine: None,
        why: String::new(),
        tried: Vec::new(),
        memory: 0,
        aliases: Vec::new(),
        share: None,
        rolled_back: None,
        load_time: Duration::ZERO,
        signature: None,
        last_error: None,
    }
}

impl Versions {
    fn choose(&mut self, version: String) {
        self.default = Some(version);
        self.chosen += 1;
    }

    fn route(&self, name: &str) -> Result<Found, Error> {
        let chosen = self.route.choose();
        // A share of a version that isn't ready goes to the default one.
        let found = chosen.and_then(|version| Some((version, self.find(name, version).ok()?)));
        let last = || self.versions.keys().next_back().map(String::as_str);
        let (version, found) = match found {
            Some(found) => found,
            None => {
                let default = self.default.as_deref().or_else(last);
                let version = default.ok_or_else(|| Error::UnknownModel { name: name.into() })?;
                (version, self.find(name, version)?)
            }
        };
        let Found::Ready(chosen) = found else { return Ok(found) };
        let shadow = self.route.shadow().filter(|shadow| *shadow != version);
        let shadow = shadow.and_then(|shadow| self.versions.get(shadow)?.served.clone());
        Ok(Found::Ready(Chosen { trial: self.route.trial(version), shadow, ..chosen }))
    }

    fn find(&self, name: &str, version: &str) -> Result<Found, Error> {
        let entry = self.versions.get(version).ok_or_else(|| self.unknown_version(name, version))?;
        if let Some(served) = &entry.served {
            served.touch();
            return Ok(Found::Ready(Chosen::only(Arc::clone(served))));
        }
        let failure = entry.failure();
        if let Some(request) = &entry.lazy
            && failure.is_none_or(|failure| failure.retry <= Instant::now())
        {
            return Ok(Found::Idle(Box::new(request.clone())));
        }
        let reason = match failure {
            Some(failure) => format!("loading failed: {}", failure.reason),
            None => "it is being loaded; try again in a moment".into(),
        };
        Err(Error::NotReady { name: name.into(), version: version.into(), reason })
    }

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
