//! Brings what assignments name onto the site: artifacts, unpacked functions, loaded models.

mod room;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use artifacts::bundle;
use artifacts::signature::{TrustedKeys, cosign};
use daemon::{Backoff, Shutdown};
use futures::StreamExt;
use inference::{EngineChoice, LoadRequest, Repository, Routing};
use registry::Registry;
use serving::Shelf;
use tokio::task::spawn_blocking;
use tracing::{info, warn};
use types::{Artifact, AssignedModel, Assignment, AssignmentSpec, Digest, Engine, ModelSpec, ModelVersion};

use crate::Error;
use crate::assignments::{Assigned, Assignments, Progress};
use crate::bundles::Bundles;
use crate::offload::Guests;
use crate::peers::Peers;
use crate::verified::Verified;

/// What preparing needs.
#[derive(Clone)]
pub(crate) struct Preparer {
    /// Where artifacts come from.
    pub peers: Peers,
    /// The registry, whose blobs the artifacts are kept among.
    pub registry: Registry,
    /// Whose signatures are needed, if any.
    pub signers: Option<TrustedKeys>,
    pub bundles: Bundles,
    /// What runs here for other sites needs its functions, too.
    pub guests: Guests,
    pub repository: Repository,
    pub shelf: Shelf,
    pub assignments: Assignments,
}

/// The name that a model is served under: its own in the namespace `default`, `namespace.name` elsewhere.
pub(crate) fn served_name(namespace: &str, model: &str) -> String {
    if namespace == "default" { model.to_owned() } else { format!("{namespace}.{model}") }
}

/// Whether a model is, or is to be, served under this name because the hub says so.
pub(crate) fn is_assigned(assignments: &Assignments, name: &str) -> bool {
    assignments.all().iter().any(|known| {
        let spec = &known.assignment.spec;
        spec.models.iter().any(|model| served_name(&spec.application_namespace, &model.name) == name)
    })
}

/// The version that an ensemble is served as.
const ENSEMBLE_VERSION: &str = "1";

/// The names of the versions that a model is served as.
fn served_versions(spec: &ModelSpec) -> impl Iterator<Item = &str> {
    let ensemble = spec.ensemble.iter().map(|_| ENSEMBLE_VERSION);
    spec.versions.iter().map(|version| version.name.as_str()).chain(ensemble)
}

/// How many artifacts are fetched at once.
const FETCHES: usize = 4;
/// How often garbage is looked for at most while something is not ready.
const COLLECT: Duration = Duration::from_secs(600);

/// The disk takes or gives nothing.
const DISK_FAILED: &str = "DiskFailed";

/// A problem with one assignment: a word for programs and a sentence for people.
type Problem = (&'static str, String);

/// Prepares whatever is assigned, again whenever that changes or something failed, until the shutdown.
pub(crate) async fn run(preparer: Preparer, shutdown: Shutdown) -> Result<(), Error> {
    let mut changed = preparer.assignments.subscribe();
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    // Content is checked once a process: what changed on disk while nobody looked is found before it is used.
    let mut verified = Verified::default();
    let mut collected: Option<Instant> = None;
    loop {
        changed.borrow_and_update();
        let before = preparer.assignments.all();
        let prepared = preparer.prepare_all(&mut verified).await?;
        let is_due = collected.is_none_or(|collected| collected.elapsed() > COLLECT);
        let made_room = if prepared != Prepared::NotReady || is_due {
            collected = Some(Instant::now());
            preparer.make_room(prepared).await
        } else {
            false
        };
        let retry = match prepared {
            Prepared::Ready => {
                backoff.reset();
                Duration::from_secs(3600)
            }
            Prepared::DiskFailed if made_room => continue,
            _ => backoff.next_wait(),
        };
        loop {
            tokio::select! {
                () = shutdown.wait() => return Ok(()),
                () = tokio::time::sleep(retry) => break,
                _ = changed.changed() => {}
            }
            // Our own notes of progress are no news.
            let now = preparer.assignments.all();
            let same = now.len() == before.len()
                && now
                    .iter()
                    .zip(&before)
                    .all(|(now, old)| std::sync::Arc::ptr_eq(&now.assignment, &old.assignment));
            if !same {
                backoff.reset();
                break;
            }
        }
    }
}

/// How far all assignments are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prepared {
    Ready,
    NotReady,
    /// Something is not ready, perhaps because the disk takes nothing more.
    DiskFailed,
}

impl Preparer {
    async fn prepare_all(&self, verified: &mut Verified) -> Result<Prepared, Error> {
        let needed = self.needed();
        verified.keep(&needed, self.registry.blobs())?;
        self.peers.keep(&needed);
        self.resume(verified).await;
        let all = self.assignments.all();
        let needed: BTreeMap<Digest, u64> = all.iter().flat_map(artifacts_of_both).collect();
        let fetched = self.bring(&needed, verified).await;
        let floating = floating(&all);
        let mut prepared = Prepared::Ready;
        let mut models = BTreeSet::new();
        for known in all {
            let wanted = Wanted { spec: &known.assignment.spec, at_once: known.kept().is_none() };
            models.extend(versions_of(wanted.spec));
            let problem = match self.make_ready(wanted, &fetched, &floating).await {
                Ok(bundle) => {
                    self.assignments.ready(&known.assignment, bundle).await?;
                    continue;
                }
                Err(problem) => problem,
            };
            models.extend(known.kept().map(|kept| versions_of(&kept.spec)).into_iter().flatten());
            let (reason, message) = problem;
            if reason == DISK_FAILED {
                prepared = Prepared::DiskFailed;
            } else if prepared == Prepared::Ready {
                prepared = Prepared::NotReady;
            }
            warn!(assignment = known.assignment.name(), reason, message, "not ready; it is tried again");
            let bundle = known.progress.bundle().cloned();
            self.assignments.note(&known.assignment, Progress::Blocked { reason, message, bundle });
        }
        self.unload_others(&models);
        Ok(prepared)
    }

    /// What assignments name now, be it wanted or running, and how many bytes it has.
    fn needed(&self) -> BTreeMap<Digest, u64> {
        self.assignments.all().iter().flat_map(artifacts_of_both).collect()
    }

    /// After a start: brings back what ran before where something else is wanted, which may not be there for long.
    async fn resume(&self, verified: &mut Verified) {
        let all = self.assignments.all();
        let floating = floating(&all);
        for known in all.iter().filter(|known| known.progress == Progress::New) {
            let Some(kept) = known.kept() else { continue };
            let here = artifacts_of(kept).into_iter().filter(|(digest, _)| self.registry.blobs().has(digest));
            let fetched = self.bring(&here.collect(), verified).await;
            let kept = Wanted { spec: &kept.spec, at_once: true };
            if let Ok(bundle) = self.make_ready(kept, &fetched, &floating).await {
                let message = "what is new is being prepared; what ran before goes on".to_owned();
                let progress = Progress::Blocked { reason: "Preparing", message, bundle };
                self.assignments.note(&known.assignment, progress);
            }
        }
    }

    /// Fetches and verifies artifacts; answers what went wrong with which.
    async fn bring(
        &self,
        needed: &BTreeMap<Digest, u64>,
        verified: &mut Verified,
    ) -> HashMap<Digest, Problem> {
        let unknown: Vec<(Digest, u64)> = needed
            .iter()
            .filter(|(digest, _)| !verified.has(digest))
            .map(|(digest, size)| (*digest, *size))
            .collect();
        let fetches = unknown.into_iter().map(|(digest, size)| async move {
            let brought = self.bring_one(&digest, size).await;
            if brought.is_ok() {
                self.peers.give(&digest);
            }
            (digest, brought)
        });
        let outcomes: Vec<_> = futures::stream::iter(fetches).buffer_unordered(FETCHES).collect().await;
        let mut problems = HashMap::new();
        for (digest, outcome) in outcomes {
            match outcome {
                Ok(()) => {
                    verified.insert(digest);
                }
                Err(error) => {
                    let reason = match error {
                        artifacts::Error::Corrupt { .. } => "ArtifactCorrupt",
                        artifacts::Error::Io { .. } => DISK_FAILED,
                        _ => "ArtifactUnavailable",
                    };
                    problems.insert(digest, (reason, daemon::chain(&error)));
                }
            }
        }
        problems
    }

    async fn bring_one(&self, digest: &Digest, size: u64) -> Result<(), artifacts::Error> {
        if self.registry.blobs().has(digest) {
            match self.registry.blobs().verify(digest).await {
                Ok(()) => {
                    // From a start on it is as if it had come just now: nothing tells since when it is of no use.
                    self.registry.blobs().touch(digest)?;
                    return Ok(());
                }
                Err(error @ artifacts::Error::Corrupt { .. }) => {
                    let aside = self.registry.blobs().quarantine(digest)?;
                    warn!(%digest, %error, aside = %aside.display(), "a stored artifact was damaged; fetching it again");
                }
                Err(error) => return Err(error),
            }
        }
        self.peers.bring(self.registry.blobs(), digest, size).await?;
        info!(%digest, size, "artifact fetched");
        Ok(())
    }

    /// Loads models and unpacks the function; answers the function's bundle. Where something runs already, requests
    /// go to what is new only once all of it is there.
    async fn make_ready(
        &self,
        wanted: Wanted<'_>,
        fetched: &HashMap<Digest, Problem>,
        floating: &BTreeSet<String>,
    ) -> Result<Option<PathBuf>, Problem> {
        let spec = wanted.spec;
        if !wanted.at_once {
            for artifact in artifacts_named(spec) {
                self.present(artifact, fetched)?;
            }
        }
        let mut first_problem = None;
        for model in &spec.models {
            let name = served_name(&spec.application_namespace, &model.name);
            let loaded = self.load_model(&name, &spec.application_namespace, model, fetched).await;
            let done = match loaded {
                Ok(()) if wanted.at_once => self.switch(&name, model, floating),
                loaded => loaded,
            };
            if let Err(problem) = done {
                first_problem.get_or_insert(problem);
            }
        }
        if let Some(problem) = first_problem {
            return Err(problem);
        }
        let bundle = match &spec.function {
            Some(function) => Some(self.unpack(self.present(&function.spec.artifact, fetched)?).await?),
            None => None,
        };
        for model in &spec.models {
            self.switch(&served_name(&spec.application_namespace, &model.name), model, floating)?;
        }
        Ok(bundle)
    }

    /// Sends requests to the versions that a model wants them to go to.
    fn switch(&self, name: &str, model: &AssignedModel, floating: &BTreeSet<String>) -> Result<(), Problem> {
        // Of two components that want the same model, the one that pins no version has the say.
        if model.pinned && floating.contains(name) {
            return Ok(());
        }
        let failed = |error: inference::Error| ("ModelFailed", format!("model `{name}`: {error}"));
        if let Some(version) = model.spec.default_version() {
            self.repository.set_default(name, version).map_err(failed)?;
        }
        let ModelSpec { aliases, traffic, .. } = model.spec.clone();
        self.repository.set_routing(name, Routing { aliases, traffic }).map_err(failed)
    }

    /// Loads all versions of a model beside those that are there.
    async fn load_model(
        &self,
        name: &str,
        namespace: &str,
        model: &AssignedModel,
        fetched: &HashMap<Digest, Problem>,
    ) -> Result<(), Problem> {
        if self.shelf.holds(name) {
            let problem =
                "a model of that name was uploaded to the site; delete that or name this one otherwise";
            return Err(("NameTaken", format!("model `{name}`: {problem}")));
        }
        for request in self.load_requests(name, namespace, &model.spec, fetched)? {
            let version = request.version.clone();
            let repository = self.repository.clone();
            let lazy = request.serving.lazy;
            let load = move || if lazy { repository.register(request) } else { repository.load(request) };
            let loaded = spawn_blocking(load).await;
            let loaded =
                loaded.map_err(|_| ("ModelFailed", format!("loading model `{name}` was cut off")))?;
            loaded.map_err(|error| {
                ("ModelFailed", format!("model `{name}` version `{version}`: {}", daemon::chain(&error)))
            })?;
        }
        Ok(())
    }

    /// What is loaded for a model: its versions, or the ensemble that it is.
    fn load_requests(
        &self,
        name: &str,
        namespace: &str,
        spec: &ModelSpec,
        fetched: &HashMap<Digest, Problem>,
    ) -> Result<Vec<LoadRequest>, Problem> {
        let request = |version: &str, path: PathBuf| LoadRequest {
            engine: match spec.engine {
                Engine::Auto => EngineChoice::Auto,
                Engine::Native => EngineChoice::Native,
                Engine::OnnxRuntime => EngineChoice::OnnxRuntime,
                Engine::Rten => EngineChoice::Rten,
                Engine::TensorFlow => EngineChoice::Tensorflow,
            },
            serving: spec.serving.clone(),
            signature: spec.signature.clone(),
            ..LoadRequest::new(name, version, path)
        };
        if let Some(ensemble) = &spec.ensemble {
            let mut ensemble = ensemble.clone();
            for step in &mut ensemble.steps {
                step.model = served_name(namespace, &step.model);
            }
            let request = request(ENSEMBLE_VERSION, PathBuf::new());
            return Ok(vec![LoadRequest { ensemble: Some(ensemble), ..request }]);
        }
        let of_version = |version: &ModelVersion| {
            let digest = self.present(&version.artifact, fetched)?;
            Ok(LoadRequest { default: false, ..request(&version.name, self.registry.blobs().path(&digest)) })
        };
        spec.versions.iter().map(of_version).collect()
    }

    /// The digest of an artifact that is here and may be used.
    fn present(&self, artifact: &Artifact, fetched: &HashMap<Digest, Problem>) -> Result<Digest, Problem> {
        let digest = present(artifact, fetched)?;
        if let Some(signers) = &self.signers {
            let read = |proof: &Digest| std::fs::read(self.registry.blobs().path(proof)).ok();
            let checked = signers.check(&digest, &artifact.signatures, read);
            checked.map_err(|unsigned| ("ArtifactUnsigned", unsigned.to_string()))?;
        }
        Ok(digest)
    }

    async fn unpack(&self, digest: Digest) -> Result<PathBuf, Problem> {
        let folder = self.bundles.folder().join(digest.hex());
        let (archive, into) = (self.registry.blobs().path(&digest), folder.clone());
        let unpacked = spawn_blocking(move || bundle::unpack(&archive, &into)).await;
        let unpacked = unpacked.map_err(|_| ("FunctionFailed", "unpacking was cut off".to_owned()))?;
        unpacked.map_err(|error| {
            let is_full = matches!(&error, bundle::Error::Io { source, .. } if is_full(source));
            let reason = if is_full { DISK_FAILED } else { "FunctionFailed" };
            (reason, format!("the function's artifact: {}", daemon::chain(&error)))
        })?;
        Ok(folder)
    }

    fn unload_others(&self, wanted: &BTreeSet<(String, String)>) {
        for model in self.repository.list() {
            let is_wanted = wanted.contains(&(model.name.clone(), model.version.clone()));
            if !is_wanted && !self.shelf.holds(&model.name) {
                // It may be gone already; that is what is wanted.
                let _ = self.repository.unload(&model.name, &model.version);
            }
        }
    }
}

/// What is to be made ready.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    spec: &'a AssignmentSpec,
    /// Whether each part serves as soon as it can: nothing else does.
    at_once: bool,
}

/// The models that a component wants as they are at any time, by the names that they are served under.
fn floating(all: &[Assigned]) -> BTreeSet<String> {
    let specs = all.iter().map(|known| &known.assignment.spec);
    let models = specs.flat_map(|spec| spec.models.iter().map(move |model| (spec, model)));
    let floating = models.filter(|(_, model)| !model.pinned);
    floating.map(|(spec, model)| served_name(&spec.application_namespace, &model.name)).collect()
}

/// The versions that an assignment serves, by the names that they are served under.
fn versions_of(spec: &AssignmentSpec) -> impl Iterator<Item = (String, String)> {
    spec.models.iter().flat_map(|model| {
        let name = served_name(&spec.application_namespace, &model.name);
        served_versions(&model.spec).map(move |version| (name.clone(), version.to_owned()))
    })
}

fn artifacts_named(spec: &AssignmentSpec) -> impl Iterator<Item = &Artifact> {
    let models = spec.models.iter().flat_map(|model| &model.spec.versions).map(|version| &version.artifact);
    models.chain(spec.function.iter().map(|function| &function.spec.artifact))
}

/// What is to be fetched, and how many bytes it has: artifacts, and what proves who vouches for them.
fn artifacts_of(assignment: &Assignment) -> Vec<(Digest, u64)> {
    let named = |artifact: &Artifact| {
        let proofs = artifact.signatures.iter().filter_map(|signature| cosign::proof_of(signature));
        artifact.digest.map(|digest| (digest, artifact.size)).into_iter().chain(proofs).collect::<Vec<_>>()
    };
    artifacts_named(&assignment.spec).flat_map(named).collect()
}

/// What is wanted, and what runs meanwhile.
fn artifacts_of_both(known: &Assigned) -> Vec<(Digest, u64)> {
    let kept = known.kept().map(|kept| artifacts_of(kept)).unwrap_or_default();
    [artifacts_of(&known.assignment), kept].concat()
}

/// Whether the disk has no space left, or no more of it for us.
fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

fn present(artifact: &Artifact, fetched: &HashMap<Digest, Problem>) -> Result<Digest, Problem> {
    let digest = artifact.digest.ok_or(("ArtifactUnavailable", "the artifact has no digest".to_owned()))?;
    match fetched.get(&digest) {
        Some(problem) => Err(problem.clone()),
        None => Ok(digest),
    }
}

/// The folders of unpacked functions that assignments name.
pub(crate) fn function_folders(assignments: &Assignments) -> HashSet<String> {
    let all = assignments.all();
    all.iter().flat_map(artifacts_of_both).map(|(digest, _)| digest.hex()).collect()
}
