//! `model-worker`: the confined process of a model that isn't trusted, or isn't yet. Hidden: a server starts it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use inference::{EngineChoice, EngineOptions, Engines, WorkerCommand};

pub const SUBCOMMAND: &str = "model-worker";

/// How a server starts such processes.
pub fn command(allow_unconfined: bool) -> WorkerCommand {
    let unconfined = allow_unconfined.then_some("--allow-unconfined");
    let words = ["/proc/self/exe", SUBCOMMAND].into_iter().chain(unconfined);
    WorkerCommand(words.map(OsString::from).collect())
}

#[derive(Parser)]
struct WorkerOptions {
    #[arg(long)]
    allow_unconfined: bool,
    #[arg(long)]
    onnxruntime: Option<PathBuf>,
    #[arg(long)]
    tensorflow: Option<PathBuf>,
    /// Tries the model with each engine, in so many bytes, instead of serving it.
    #[arg(long)]
    rehearse: Option<u64>,
    /// One, or to rehearse several with commas between.
    engines: String,
    path: PathBuf,
    /// Of one run; 0 for as many as the engine takes.
    threads: usize,
    /// What the model's owner says that it takes and gives, as JSON.
    signature: String,
    /// What it may read beside `path`.
    others: Vec<PathBuf>,
}

/// Call it before any thread is started.
pub fn main() -> ExitCode {
    match work(WorkerOptions::parse_from(std::env::args_os().skip(1))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: the process of a model ended: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn work(options: WorkerOptions) -> anyhow::Result<()> {
    let WorkerOptions {
        allow_unconfined,
        onnxruntime,
        tensorflow,
        rehearse,
        engines: names,
        path,
        threads,
        signature,
        others,
    } = options;
    let choices: Vec<EngineChoice> = names.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let declared = serde_json::from_str(&signature).context("the signature can't be read")?;
    let path = std::path::absolute(path)?;
    // Libraries are found now and opened when they are needed, which is behind the fence.
    let engines = Engines::discover(&EngineOptions { onnxruntime, tensorflow, ..EngineOptions::default() });
    let mut read: Vec<PathBuf> = others.into_iter().map(std::path::absolute).collect::<Result<_, _>>()?;
    read.push(path.clone());
    read.extend(engines.list().iter().filter_map(|engine| engine.path.as_deref()).flat_map(folders));
    // What isn't there can't be read; the load says so.
    read.retain(|path| path.exists());
    be_killed_first();
    // A rehearsal spares the server crashes where the kernel can't confine it, too.
    let allow_unconfined = allow_unconfined || rehearse.is_some();
    let memory = rehearse.unwrap_or_else(memory_limit);
    runtimes::confine_this_process(&read, memory, allow_unconfined).map_err(anyhow::Error::msg)?;
    let choice = choices.first().copied().unwrap_or_default();
    match rehearse {
        Some(_) => inference::rehearse_in_worker(&engines, &choices, &path, &declared),
        None => inference::serve_worker(&engines, choice, &path, threads, &declared),
    }
    .context("its socket failed")
}

/// Where a library's file is, and where it is if that is a link.
fn folders(library: &Path) -> Vec<PathBuf> {
    let real = library.canonicalize().ok();
    [Some(library), real.as_deref()]
        .into_iter()
        .flatten()
        .filter_map(Path::parent)
        .map(Path::to_owned)
        .collect()
}

/// Where memory runs out, the kernel ends this process before the server and others: it is one model, and is started
/// again. Where it can't be said, it is one among others.
fn be_killed_first() {
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
}

/// Bytes of data that one model may hold: a quarter of the memory stays for the server. No limit where it isn't known
/// how much there is.
fn memory_limit() -> u64 {
    daemon::usable_memory().map_or(u64::MAX, |bytes| bytes / 4 * 3)
}
