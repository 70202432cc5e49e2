//! A model file that is new here is loaded and run in a process of its own first: what it does to an engine there, it
//! doesn't do to this process.

use std::ffi::OsString;
use std::time::Duration;

use types::ModelSignature;

use super::{Worker, WorkerCommand, frames};
use crate::Name;
use crate::format::Source;
use crate::memory::resident;
use crate::repository::file_bytes;

/// Time for an engine with a small file: opening a library from a slow disk takes most of it.
const TIME: Duration = Duration::from_secs(60);
/// Bytes of a file for which there is a further second.
const BYTES_PER_SECOND: u64 = 1 << 20;

/// What came of it: an error is what the engine said, or what became of its process.
pub(crate) type Rehearsed = Result<(), String>;

/// Rehearses a model with each of these engines. Those after one that ended the process get another process.
pub(crate) fn rehearse(
    command: &WorkerCommand,
    engines: &[Name],
    source: &Source,
    declared: &ModelSignature,
) -> Vec<Rehearsed> {
    let limit = TIME + Duration::from_secs(size(source) / BYTES_PER_SECOND);
    let mut verdicts = Vec::new();
    while let Some(left @ [_, ..]) = engines.get(verdicts.len()..) {
        let memory = memory_limit();
        let mut worker = match start(command, left, source, declared, memory) {
            Ok(worker) => worker,
            Err(reason) => {
                verdicts.push(Err(reason));
                continue;
            }
        };
        for name in left {
            match worker.within(limit, |reader, _| frames::read_verdict(reader)) {
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
    engines: &[Name],
    source: &Source,
    declared: &ModelSignature,
    memory: u64,
) -> Result<Worker, String> {
    let declared = serde_json::to_string(declared).map_err(|error| error.to_string())?;
    let mut words: Vec<OsString> =
        vec!["--rehearse".into(), memory.to_string().into(), engines.join(",").into()];
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
    let memory = match memory {
        u64::MAX => String::new(),
        bytes => format!(" (it could hold {} MiB)", bytes >> 20),
    };
    format!(
        "it was tried in a process of its own first, which {fate}{memory}; export the model again, or don't load it: it \
         would do the same to the server"
    )
}

/// Bytes that a model may hold there: three quarters of what is left beside this process, and a quarter of all in any
/// case. No limit where it isn't known how much there is.
fn memory_limit() -> u64 {
    let own = resident(std::process::id());
    let left = |all: u64| (all.saturating_sub(own) / 4 * 3).max(all / 4);
    daemon::usable_memory().map_or(u64::MAX, left)
}

/// Bytes of all that belongs to it.
fn size(source: &Source) -> u64 {
    source.files().unwrap_or_default().iter().map(|(_, file)| file_bytes(file)).sum()
}
