//! ONNX Runtime through its shared library, where one is found.
//!
//! The library is loaded at run time and stays for the life of the process: the first one that works is the only
//! one. Nothing here fails the process: a missing or broken library is a reason in a list.

mod values;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{OutputSelector, RunOptions, Session};

use super::library::{Lazy, Places, Wanted};
use crate::engine::chain;
use crate::memory;
use crate::{
    Engine, EngineError, EngineInfo, EngineOptions, LoadError, LoadOptions, LoadedModel, Signature, Tensor,
    read_signature,
};

const NAME: &str = "onnxruntime";

/// Model bytes that may be spent on copies of a session. A session runs one request at a time, so a small model
/// gets one per worker; a large one gets one, and its requests wait for each other unless more instances are asked for.
const COPIES_BUDGET: u64 = 32 << 20;
/// Bytes that copies may take in memory: a small file may compute large tensors when it is loaded.
const COPIES_MEMORY: u64 = 256 << 20;

static WANTED: Wanted = Wanted {
    stems: &["onnxruntime"],
    variables: &["AVOCET_ONNXRUNTIME", "ORT_DYLIB_PATH"],
    home: "/opt/onnxruntime/lib",
};

pub(super) struct OnnxRuntime {
    library: Lazy<Arc<Library>>,
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
    /// The engine and why it is available, or why not. The library is opened when a model needs it.
    pub fn find(options: &EngineOptions) -> Result<(OnnxRuntime, String), String> {
        let candidates = Places::of_this_process(&WANTED, options.onnxruntime.as_deref()).candidates()?;
        let library = Lazy::new(candidates);
        let reason = format!("found {}", library.first().unwrap_or(Path::new("")).display());
        Ok((OnnxRuntime { library, threads: options.threads_per_run.max(1) }, reason))
    }

    fn library(&self) -> Result<&Arc<Library>, String> {
        self.library.open(open)
    }
}

/// ONNX Runtime can be opened once in a process: a later discovery gets the same library or none.
fn open(candidates: &[PathBuf], path: &Path) -> Result<Arc<Library>, String> {
    let mut library = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
    match library.as_ref() {
        Some(opened) if candidates.contains(&opened.path) => Ok(Arc::clone(opened)),
        Some(opened) => Err(format!("this process runs `{}` already; restart it", opened.path.display())),
        None => Ok(Arc::clone(library.insert(Arc::new(load_library(path)?)))),
    }
}

fn load_library(path: &Path) -> Result<Library, String> {
    let advice = "install a matching ONNX Runtime (1.17 or newer) or set AVOCET_ONNXRUNTIME to its file";
    let builder = ort::init_from(path).map_err(|error| format!("{}; {advice}", chain(&error)))?;
    let environment = builder
        .with_name("avocet")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|error| format!("`{}` doesn't start: {error}", path.display()))?;
    environment.set_log_level(LogLevel::Warning);
    let version = WANTED.version(path).or_else(|| branch_version(ort::info())).unwrap_or_default();
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
        if let Some(Library { path, version, .. }) = self.library.opened().map(Arc::as_ref) {
            return EngineInfo { name: NAME, version: version.clone(), path: Some(path.clone()) };
        }
        let path = self.library.first();
        let version = path.and_then(|path| WANTED.version(path)).unwrap_or_default();
        EngineInfo { name: NAME, version, path: path.map(Path::to_path_buf) }
    }

    fn open(&self) -> Result<(), String> {
        self.library().map(drop)
    }

    fn defect(&self) -> Option<String> {
        self.library.defect()
    }

    fn load(&self, path: &Path, options: &LoadOptions) -> Result<Arc<dyn LoadedModel>, LoadError> {
        let format = |source| LoadError::Format { path: path.into(), source };
        let signature = read_signature(path).map_err(format)?;
        let library =
            self.library().map_err(|reason| LoadError::EngineUnavailable { engine: NAME, reason })?;
        let length = path.metadata().map_or(u64::MAX, |metadata| metadata.len()).max(1);
        let threads = if options.threads == 0 { self.threads } else { options.threads };
        let copies = match options.instances {
            0 => usize::try_from(COPIES_BUDGET / length).unwrap_or(1),
            asked => asked,
        };
        let refused = |error: ort::Error| LoadError::Engine { engine: NAME, reason: error.to_string() };
        let held = || memory::resident(std::process::id());
        let before = held();
        let first = session(library, path, threads).map_err(refused)?;
        let grown = held().saturating_sub(before).max(1);
        let affordable = match options.instances {
            0 => usize::try_from(COPIES_MEMORY / grown).unwrap_or(usize::MAX),
            _ => usize::MAX,
        };
        let mut sessions = vec![Mutex::new(first)];
        for _ in 1..copies.min(affordable).clamp(1, options.workers.max(1)) {
            sessions.push(Mutex::new(session(library, path, threads).map_err(refused)?));
        }
        let _keep = Arc::clone(library);
        Ok(Arc::new(OrtModel { sessions, signature, _keep }))
    }
}

fn session(library: &Library, path: &Path, threads: usize) -> ort::Result<Session> {
    Session::builder(&library.environment)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(threads)?
        .with_intra_op_spinning(false)?
        .with_inter_threads(1)?
        .commit_from_file(path)
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
