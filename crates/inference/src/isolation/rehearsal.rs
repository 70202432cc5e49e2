//! A model file that is new here is loaded and run in a process of its own first: what it does to an engine there, it
//! doesn't do to this process.

use std::ffi::OsString;
use std::time::Duration;

use types::ModelSignature;

use super::{Worker, WorkerCommand, frames};
use crate::format::Source;
use crate::memory::resident;
use crate::repository::file_bytes;
use crate::{EngineInfo, Name};

/// Time for an engine with a small file.
const TIME: Duration = Duration::from_secs(20);
/// Bytes of a model for which there is a further second, and bytes of a library, which may lie on a slow disk.
const BYTES_PER_SECOND: u64 = 1 << 20;
const LIBRARY_BYTES_PER_SECOND: u64 = 20 << 20;
/// Bytes that a small file may take with a made-up request: a file of a few bytes can ask for terabytes.
const MEMORY: u64 = 2 << 30;
/// Bytes that its engine's threads may take, each.
const MEMORY_OF_THREAD: u64 = 64 << 20;
/// Bytes for each of the file's.
const MEMORY_PER_BYTE: u64 = 8;

/// What came of it: an error is what the engine said, or what became of its process.
pub(crate) type Rehearsed = Result<(), String>;

/// Rehearses a model with each of these engines. Those after one that ended the process get another process.
pub(crate) fn rehearse(
    command: &WorkerCommand,
    engines: &[&EngineInfo],
    source: &Source,
    declared: &ModelSignature,
) -> Vec<Rehearsed> {
    let bytes = size(source);
    let memory = memory_limit(bytes);
    let mut verdicts = Vec::new();
    while let Some(left @ [_, ..]) = engines.get(verdicts.len()..) {
        let mut worker = match start(command, left, source, declared, memory) {
            Ok(worker) => worker,
            Err(reason) => {
                let advice = "`--trust-models` loads what can't be tried first";
                verdicts.push(Err(format!("{reason}; {advice}")));
                continue;
            }
        };
        for info in left {
            let name = info.name;
            match worker.within(time_limit(bytes, info), |reader, _| frames::read_verdict(reader)) {
                Ok(verdict) => verdicts.push(verdict.map_err(|reason| said(name, &reason))),
                Err(fate) => {
                    tracing::warn!(path = %source.path.display(), engine = name, "tried in a process of its own, which {fate}");
                    verdicts.push(Err(died(&fate, memory)));
                    break;
                }
            }
        }
    }
    verdicts
}

fn start(
    command: &WorkerCommand,
    engines: &[&EngineInfo],
    source: &Source,
    declared: &ModelSignature,
    memory: u64,
) -> Result<Worker, String> {
    let names: Vec<_> = engines.iter().map(|info| info.name).collect();
    let declared = serde_json::to_string(declared).map_err(|error| error.to_string())?;
    let mut words: Vec<OsString> =
        vec!["--rehearse".into(), memory.to_string().into(), names.join(",").into()];
    words.extend([source.path.clone().into(), "0".into(), declared.into()]);
    words.extend(source.around().into_iter().map(OsString::from));
    Worker::start(command, words.into_iter())
}

/// An engine's own words, which begin as our error will.
fn said(engine: Name, reason: &str) -> String {
    let own = format!("engine `{engine}` can't load the model: ");
    reason.strip_prefix(&own).unwrap_or(reason).to_owned()
}

fn died(fate: &str, memory: u64) -> String {
    format!(
        "it was tried in a process of its own first, which {fate} (it could hold {} MiB); export the model again, or where \
         it has to be so, serve it with `isolation: process`",
        memory >> 20
    )
}

fn time_limit(bytes: u64, engine: &EngineInfo) -> Duration {
    let library = engine.path.as_deref().map_or(0, file_bytes);
    TIME + Duration::from_secs(bytes / BYTES_PER_SECOND + library / LIBRARY_BYTES_PER_SECOND)
}

/// Bytes that a model of that size may hold there: never more than three quarters of what is left beside this process,
/// or a quarter of all where that is more.
fn memory_limit(bytes: u64) -> u64 {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let wanted = MEMORY + threads * MEMORY_OF_THREAD + bytes.saturating_mul(MEMORY_PER_BYTE);
    let own = resident(std::process::id());
    let left = |all: u64| (all.saturating_sub(own) / 4 * 3).max(all / 4);
    wanted.min(daemon::usable_memory().map_or(u64::MAX, left))
}

/// Bytes of all that belongs to it.
fn size(source: &Source) -> u64 {
    source.files().unwrap_or_default().iter().map(|(_, file)| file_bytes(file)).sum()
}
