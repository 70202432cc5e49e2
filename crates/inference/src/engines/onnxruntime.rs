//! ONNX Runtime through its shared library, where one is found.
//!
//! The library is loaded at run time and stays for the life of the process: the first one that works is the only
//! one. Nothing here fails the process: a missing or broken library is a reason in a list.

mod values;

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{OutputSelector, RunOptions, Session};

use super::library::{self, Places};
use crate::engine::{chain, panic_text};
use crate::{
    Engine, EngineError, EngineInfo, EngineOptions, LoadError, LoadOptions, LoadedModel, Signature, Tensor,
    read_signature,
};

const NAME: &str = "onnxruntime";

/// Model bytes that may be spent on copies of a session. A session runs one request at a time, so a small model
/// gets one per worker; a large one gets one, and its requests wait for each other.
const COPIES_BUDGET: u64 = 32 << 20;

pub(super) struct OnnxRuntime {
    library: Arc<Library>,
    threads: usize,
}

/// The library of this process, kept so that a second discovery finds the first one's.
static LIBRARY: Mutex<Option<Arc<Library>>> = Mutex::new(None);

struct Library {
    path: PathBuf,
    version: String,
    environment: Environment,
}

impl OnnxRuntime {
    /// The engine and why it is available, or why not.
    pub fn find(options: &EngineOptions) -> Result<(OnnxRuntime, String), String> {
        let candidates = Places::of_this_process(options.onnxruntime.as_deref()).candidates()?;
        let mut library = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = match library.as_ref() {
            Some(loaded) if candidates.contains(&loaded.path) => Arc::clone(loaded),
            Some(loaded) => {
                return Err(format!("this process runs `{}` already; restart it", loaded.path.display()));
            }
            None => {
                let loaded = Arc::new(load_first(&candidates)?);
                *library = Some(Arc::clone(&loaded));
                loaded
            }
        };
        let reason = format!("found {}", loaded.path.display());
        Ok((OnnxRuntime { library: loaded, threads: options.threads_per_run.max(1) }, reason))
    }
}

fn load_first(candidates: &[PathBuf]) -> Result<Library, String> {
    let mut failures = Vec::new();
    for path in candidates {
        match catch_unwind(|| load_library(path)) {
            Ok(Ok(library)) => return Ok(library),
            Ok(Err(failure)) => failures.push(failure),
            Err(payload) => {
                let text = panic_text(payload.as_ref());
                failures.push(format!("`{}` is unusable: {text}", path.display()));
            }
        }
    }
    failures
        .push("install a matching ONNX Runtime (1.17 or newer) or set AVOCET_ONNXRUNTIME to its file".into());
    Err(failures.join("; "))
}

fn load_library(path: &Path) -> Result<Library, String> {
    let builder = ort::init_from(path).map_err(|error| chain(&error))?;
    let environment = builder
        .with_name("avocet")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|error| format!("`{}` doesn't start: {error}", path.display()))?;
    environment.set_log_level(LogLevel::Warning);
    let version = library::version(path).or_else(|| branch_version(ort::info())).unwrap_or_default();
    Ok(Library { path: path.into(), version, environment })
}

/// `1.31.1` out of `… git-branch=rel-1.31.1, …`.
fn branch_version(info: &str) -> Option<String> {
    let (_, rest) = info.split_once("git-branch=rel-")?;
    let end = rest.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..end).map(str::to_owned)
}

fn log(level: LogLevel, category: &str, _id: &str, place: &str, message: &str) {
    match level {
        LogLevel::Fatal | LogLevel::Error => tracing::warn!(category, place, "onnxruntime: {message}"),
        _ => tracing::debug!(category, place, "onnxruntime: {message}"),
    }
}

impl Engine for OnnxRuntime {
    fn info(&self) -> EngineInfo {
        let Library { path, version, .. } = self.library.as_ref();
        EngineInfo { name: NAME, version: version.clone(), path: Some(path.clone()) }
    }

    fn load(&self, path: &Path, options: &LoadOptions) -> Result<Arc<dyn LoadedModel>, LoadError> {
        let format = |source| LoadError::Format { path: path.into(), source };
        let signature = read_signature(path).map_err(format)?;
        let length = path.metadata().map_or(u64::MAX, |metadata| metadata.len()).max(1);
        let affordable = usize::try_from(COPIES_BUDGET / length).unwrap_or(1);
        let sessions = (0..affordable.clamp(1, options.workers.max(1)))
            .map(|_| self.session(path).map(Mutex::new))
            .collect::<ort::Result<Vec<_>>>()
            .map_err(|error| LoadError::Engine { engine: NAME, reason: error.to_string() })?;
        let _keep = Arc::clone(&self.library);
        Ok(Arc::new(OrtModel { sessions, signature, _keep }))
    }
}

impl OnnxRuntime {
    fn session(&self, path: &Path) -> ort::Result<Session> {
        Session::builder(&self.library.environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(self.threads)?
            .with_intra_op_spinning(false)?
            .with_inter_threads(1)?
            .commit_from_file(path)
    }
}

struct OrtModel {
    sessions: Vec<Mutex<Session>>,
    signature: Signature,
    _keep: Arc<Library>,
}

impl OrtModel {
    /// A session that nobody uses, or a wait for the first one.
    fn session(&self) -> Result<MutexGuard<'_, Session>, EngineError> {
        for session in &self.sessions {
            match session.try_lock() {
                Ok(session) => return Ok(session),
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        let first = self.sessions.first().ok_or_else(|| EngineError::Failed("no session".into()))?;
        Ok(first.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl LoadedModel for OrtModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn instances(&self) -> usize {
        self.sessions.len()
    }

    fn run(&self, inputs: &[Tensor], outputs: &[&str]) -> Result<Vec<Tensor>, EngineError> {
        let held = inputs.iter().map(values::hold).collect::<Result<Vec<_>, _>>()?;
        let mut given = Vec::with_capacity(inputs.len());
        for (tensor, held) in inputs.iter().zip(&held) {
            given.push((tensor.name(), held.value(tensor.shape())?));
        }
        let mut session = self.session()?;
        let selector =
            outputs.iter().fold(OutputSelector::no_default(), |selector, name| selector.with(*name));
        let options = RunOptions::new().map_err(EngineError::failed)?.with_outputs(selector);
        let results = session.run_with_options(given, &options).map_err(EngineError::failed)?;
        outputs
            .iter()
            .map(|&name| {
                let missing = || EngineError::Output { output: name.into(), given: "nothing".into() };
                let spec = self.signature.output(name).ok_or_else(missing)?;
                values::give(name, spec.datatype, results.get(name).ok_or_else(missing)?)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_build_info() {
        let info = "ORT Build Info: git-branch=rel-1.19.0, git-commit-id=26250ae, build type=Release";
        assert_eq!(branch_version(info).as_deref(), Some("1.19.0"));
        assert_eq!(branch_version("git-branch=main"), None);
    }
}
