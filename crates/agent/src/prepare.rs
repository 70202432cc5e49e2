//! Brings what assignments name onto the site: artifacts, unpacked functions, loaded models.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use api::Client;
use artifacts::Source;
use artifacts::signature::TrustedKeys;
use bytes::Bytes;
use daemon::{Backoff, Shutdown};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use inference::{EngineChoice, LoadRequest, Repository, Routing};
use registry::{Garbage, Registry};
use reqwest::Method;
use serving::Shelf;
use tokio::task::spawn_blocking;
use tracing::{info, warn};
use types::{Artifact, AssignedModel, Assignment, Digest, Engine, ModelSpec};

use crate::Error;
use crate::assignments::{Assignments, Progress};

/// What preparing needs.
#[derive(Clone)]
pub(crate) struct Preparer {
    pub client: Client,
    /// The registry, whose blobs the artifacts are kept among.
    pub registry: Registry,
    /// Whose signatures are needed, if any.
    pub signers: Option<TrustedKeys>,
    pub functions: PathBuf,
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

/// How many artifacts are fetched at once.
const FETCHES: usize = 4;
/// How long a blob that nothing names any more is kept, for the assignment that comes back.
const KEEP_UNUSED: Duration = Duration::from_secs(3600);

/// A problem with one assignment: a word for programs and a sentence for people.
type Problem = (&'static str, String);

/// Prepares whatever is assigned, again whenever that changes or something failed, until the shutdown.
pub(crate) async fn run(preparer: Preparer, shutdown: Shutdown) -> Result<(), Error> {
    let mut changed = preparer.assignments.subscribe();
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    // Content is checked once a process: what changed on disk while nobody looked is found before it is used.
    let mut verified = HashSet::new();
    loop {
        changed.borrow_and_update();
        let before = preparer.assignments.all();
        let all_ready = preparer.prepare_all(&mut verified).await?;
        let retry = if all_ready {
            backoff.reset();
            Duration::from_secs(3600)
        } else {
            backoff.next_wait()
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

impl Preparer {
    /// Answers whether everything is ready.
    async fn prepare_all(&self, verified: &mut HashSet<Digest>) -> Result<bool, Error> {
        let all = self.assignments.all();
        let needed: BTreeMap<Digest, u64> =
            all.iter().flat_map(|known| artifacts_of(&known.assignment)).collect();
        let fetched = self.bring(&needed, verified).await;
        let mut all_ready = true;
        let mut models = BTreeSet::new();
        for known in all {
            let problem = match self.make_ready(&known.assignment, &fetched, &mut models).await {
                Ok(bundle) => {
                    self.assignments.note(&known.assignment, Progress::Ready { bundle });
                    continue;
                }
                Err(problem) => problem,
            };
            all_ready = false;
            let (reason, message) = problem;
            warn!(assignment = known.assignment.name(), reason, message, "not ready; it is tried again");
            let bundle = known.progress.bundle().cloned();
            self.assignments.note(&known.assignment, Progress::Blocked { reason, message, bundle });
        }
        self.unload_others(&models);
        if all_ready {
            let keep: HashSet<Digest> = needed.into_keys().collect();
            let garbage = Garbage { needed: keep, minimum_age: KEEP_UNUSED, dry_run: false };
            self.registry.collect_garbage(&garbage).await?;
        }
        Ok(all_ready)
    }

    /// Fetches and verifies artifacts; answers what went wrong with which.
    async fn bring(
        &self,
        needed: &BTreeMap<Digest, u64>,
        verified: &mut HashSet<Digest>,
    ) -> HashMap<Digest, Problem> {
        let unknown: Vec<(Digest, u64)> = needed
            .iter()
            .filter(|(digest, _)| !verified.contains(*digest))
            .map(|(digest, size)| (*digest, *size))
            .collect();
        let fetches = unknown
            .into_iter()
            .map(|(digest, size)| async move { (digest, self.bring_one(&digest, size).await) });
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
                        artifacts::Error::Io { .. } => "DiskFailed",
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
                Ok(()) => return Ok(()),
                Err(error @ artifacts::Error::Corrupt { .. }) => {
                    let aside = self.registry.blobs().quarantine(digest)?;
                    warn!(%digest, %error, aside = %aside.display(), "a stored artifact was damaged; fetching it again");
                }
                Err(error) => return Err(error),
            }
        }
        artifacts::fetch(self.registry.blobs(), digest, size, &Hub(&self.client)).await?;
        info!(%digest, size, "artifact fetched");
        Ok(())
    }

    /// Loads models and unpacks the function; answers the function's bundle.
    async fn make_ready(
        &self,
        assignment: &Assignment,
        fetched: &HashMap<Digest, Problem>,
        models: &mut BTreeSet<(String, String)>,
    ) -> Result<Option<PathBuf>, Problem> {
        let spec = &assignment.spec;
        let mut first_problem = None;
        for model in &spec.models {
            let name = served_name(&spec.application_namespace, &model.name);
            models.extend(model.spec.versions.iter().map(|version| (name.clone(), version.name.clone())));
            if let Err(problem) = self.load_model(name, model, fetched).await {
                first_problem.get_or_insert(problem);
            }
        }
        if let Some(problem) = first_problem {
            return Err(problem);
        }
        let Some(function) = &spec.function else { return Ok(None) };
        let digest = self.present(&function.spec.artifact, fetched)?;
        self.unpack(digest).await.map(Some)
    }

    async fn load_model(
        &self,
        name: String,
        model: &AssignedModel,
        fetched: &HashMap<Digest, Problem>,
    ) -> Result<(), Problem> {
        if self.shelf.has(&name) {
            let problem =
                "a model of that name was uploaded to the site; delete that or name this one otherwise";
            return Err(("NameTaken", format!("model `{name}`: {problem}")));
        }
        for version in &model.spec.versions {
            let digest = self.present(&version.artifact, fetched)?;
            let request = LoadRequest {
                name: name.clone(),
                version: version.name.clone(),
                path: self.registry.blobs().path(&digest),
                engine: match model.spec.engine {
                    Engine::Auto => EngineChoice::Auto,
                    Engine::Native => EngineChoice::Native,
                    Engine::OnnxRuntime => EngineChoice::OnnxRuntime,
                    Engine::Rten => EngineChoice::Rten,
                    Engine::TensorFlow => EngineChoice::Tensorflow,
                },
                serving: model.spec.serving.clone(),
                default: model.spec.default_version() == Some(&version.name),
            };
            let repository = self.repository.clone();
            let lazy = request.serving.lazy;
            let load = move || if lazy { repository.register(request) } else { repository.load(request) };
            let loaded = spawn_blocking(load).await;
            let loaded =
                loaded.map_err(|_| ("ModelFailed", format!("loading model `{name}` was cut off")))?;
            loaded.map_err(|error| {
                (
                    "ModelFailed",
                    format!("model `{name}` version `{}`: {}", version.name, daemon::chain(&error)),
                )
            })?;
        }
        let ModelSpec { aliases, traffic, .. } = model.spec.clone();
        let routed = self.repository.set_routing(&name, Routing { aliases, traffic });
        routed.map_err(|error| ("ModelFailed", format!("model `{name}`: {error}")))
    }

    /// The digest of an artifact that is here and may be used.
    fn present(&self, artifact: &Artifact, fetched: &HashMap<Digest, Problem>) -> Result<Digest, Problem> {
        let digest = present(artifact, fetched)?;
        if let Some(signers) = &self.signers {
            let checked = signers.check(&digest, &artifact.signatures);
            checked.map_err(|unsigned| ("ArtifactUnsigned", unsigned.to_string()))?;
        }
        Ok(digest)
    }

    async fn unpack(&self, digest: Digest) -> Result<PathBuf, Problem> {
        let bundle = self.functions.join(digest.hex());
        let (archive, into) = (self.registry.blobs().path(&digest), bundle.clone());
        let unpacked = spawn_blocking(move || artifacts::bundle::unpack(&archive, &into)).await;
        let unpacked = unpacked.map_err(|_| ("FunctionFailed", "unpacking was cut off".to_owned()))?;
        unpacked.map_err(|error| {
            ("FunctionFailed", format!("the function's artifact: {}", daemon::chain(&error)))
        })?;
        Ok(bundle)
    }

    fn unload_others(&self, wanted: &BTreeSet<(String, String)>) {
        for model in self.repository.list() {
            let is_wanted = wanted.contains(&(model.name.clone(), model.version.clone()));
            if !is_wanted && !self.shelf.has(&model.name) {
                // It may be gone already; that is what is wanted.
                let _ = self.repository.unload(&model.name, &model.version);
            }
        }
    }
}

fn artifacts_of(assignment: &Assignment) -> Vec<(Digest, u64)> {
    let spec = &assignment.spec;
    let models = spec.models.iter().flat_map(|model| &model.spec.versions).map(|version| &version.artifact);
    let function = spec.function.iter().map(|function| &function.spec.artifact);
    models.chain(function).filter_map(|artifact| Some((artifact.digest?, artifact.size))).collect()
}

fn present(artifact: &Artifact, fetched: &HashMap<Digest, Problem>) -> Result<Digest, Problem> {
    let digest = artifact.digest.ok_or(("ArtifactUnavailable", "the artifact has no digest".to_owned()))?;
    match fetched.get(&digest) {
        Some(problem) => Err(problem.clone()),
        None => Ok(digest),
    }
}

/// The hub as a source of blobs.
struct Hub<'a>(&'a Client);

impl Source for Hub<'_> {
    async fn open(&self, digest: &Digest, offset: u64) -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
        let mut request = self.0.request(Method::GET, &format!("/avocet/v1/blobs/{digest}"));
        if offset > 0 {
            request = request.header("range", format!("bytes={offset}-"));
        }
        let response = self.0.send(request).await.map_err(io::Error::other)?;
        if offset > 0 && response.status() != reqwest::StatusCode::PARTIAL_CONTENT {
            return Err(io::Error::other("the hub began at the beginning although the rest was asked for"));
        }
        Ok(response.bytes_stream().map_err(io::Error::other).boxed())
    }

    async fn pieces(&self, digest: &Digest) -> io::Result<Option<Vec<Digest>>> {
        let request = self.0.request(Method::GET, &format!("/avocet/v1/blobs/{digest}/pieces"));
        self.0.json(request).await.map(Some).map_err(io::Error::other)
    }
}

/// The folders of unpacked functions that assignments name.
pub(crate) fn function_folders(assignments: &Assignments) -> HashSet<String> {
    let all = assignments.all();
    all.iter().flat_map(|known| artifacts_of(&known.assignment)).map(|(digest, _)| digest.hex()).collect()
}
