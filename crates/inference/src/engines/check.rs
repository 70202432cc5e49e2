//! What a model asks for and what each engine makes of it: measured, for a person who is about to serve it.

mod lacking;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::trial::{run_in_threads_of, sample};
use super::{Engines, Slot, Wanted, load_caught};
use crate::engine::chain;
use crate::onnx::nodes::read_nodes;
use types::ModelSignature;

use crate::{EngineOptions, Format, FormatError, LoadOptions, LoadedModel, Name, Signature, Source, Tensor};

/// How long the runs with one setting are measured.
const BUDGET: Duration = Duration::from_millis(700);
const MAXIMUM_RUNS: usize = 500;
/// Elements of the largest input that is made up.
const MAXIMUM_ELEMENTS: usize = 64 << 20;

/// A model as it was found.
#[derive(Clone, Debug)]
pub struct Checked {
    pub format: Format,
    /// Inputs and outputs, from the file or from the first engine that loaded it.
    pub signature: Option<Signature>,
    /// Operators of an ONNX graph, with how often each is there; others than ONNX's own with their domain. Functions
    /// that the file defines itself are not among them, but what is in those.
    pub operators: BTreeMap<String, usize>,
    /// Those of them that no engine here has; empty where one serves the model, or all refuse it for something else.
    pub unsupported: Vec<String>,
    /// Engines that take the format, whether they are here or not.
    pub engines: Vec<CheckedEngine>,
}

/// What one engine made of it.
#[derive(Clone, Debug, Default)]
pub struct CheckedEngine {
    pub engine: Name,
    /// Why it can't serve the model.
    pub refusal: Option<String>,
    pub load: Duration,
    /// Bytes that the process grew by when it loaded the model once, its library being open already.
    pub memory: u64,
    /// Runs with a batch of one, by number of threads; empty where no input can be made up.
    pub runs: Vec<Measured>,
    /// Why there are no runs.
    pub unmeasured: Option<String>,
}

/// Runs with one setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    pub threads: usize,
    pub p50: Duration,
    pub p99: Duration,
}

impl CheckedEngine {
    /// The setting with the shortest median.
    pub fn best(&self) -> Option<Measured> {
        self.runs.iter().min_by_key(|measured| measured.p50).copied()
    }
}

/// Loads a model with every engine and measures it with 1, 2, 4, … threads, up to the number of cores. Blocks for
/// seconds; other work on the machine shows in the figures.
///
/// # Errors
/// When the file is no servable model.
pub fn check(path: &Path, options: &EngineOptions) -> Result<Checked, FormatError> {
    let source = Source::open(path)?;
    let mut checked = Checked {
        format: source.format,
        signature: None,
        operators: BTreeMap::new(),
        unsupported: Vec::new(),
        engines: Vec::new(),
    };
    if source.format.is_onnx() {
        checked.signature = Some(crate::read_signature(&source.path)?);
        for node in read_nodes(&source.path)?.of_engines() {
            let name = match node.domain.as_str() {
                "" => node.operator,
                domain => format!("{domain}.{}", node.operator),
            };
            *checked.operators.entry(name).or_default() += 1;
        }
    }
    for threads in thread_settings() {
        let engines = Engines::discover(&EngineOptions { threads_per_run: threads, ..options.clone() });
        for slot in engines.slots.iter().filter(|slot| slot.takes(source.format)) {
            let index = checked.engines.iter().position(|known| known.engine == slot.name);
            let known = index.and_then(|index| checked.engines.get_mut(index));
            match known {
                None => {
                    let (found, signature) = first_look(&engines, slot, &source, threads);
                    checked.engines.push(found);
                    checked.signature = checked.signature.or(signature);
                }
                Some(known) if known.refusal.is_none() && known.unmeasured.is_none() => {
                    let model = slot.engine.as_ref().and_then(|engine| load(engine.as_ref(), &source).ok());
                    known
                        .runs
                        .extend(model.and_then(|model| measure(&engines, model.as_ref(), threads).ok()));
                }
                Some(_) => {}
            }
        }
    }
    if source.format.is_onnx() && checked.engines.iter().all(|engine| engine.refusal.is_some()) {
        let engines = Engines::discover(options);
        checked.unsupported = lacking::operators(&engines, &source.path, &checked.operators)?;
    }
    Ok(checked)
}

fn thread_settings() -> impl Iterator<Item = usize> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::iter::successors(Some(1), |threads| Some(threads * 2)).take_while(move |threads| *threads <= cores)
}

fn load(
    engine: &dyn crate::Engine,
    source: &Source,
) -> Result<std::sync::Arc<dyn LoadedModel>, crate::LoadError> {
    let (options, declared) =
        (LoadOptions { workers: 1, threads: 0, instances: 0 }, ModelSignature::default());
    load_caught(engine, source, Wanted { options: &options, declared: &declared, novices: None })
}

fn first_look(
    engines: &Engines,
    slot: &Slot,
    source: &Source,
    threads: usize,
) -> (CheckedEngine, Option<Signature>) {
    let mut found = CheckedEngine { engine: slot.name, ..CheckedEngine::default() };
    let opened = slot.engine.as_ref().ok_or_else(|| slot.reason.clone());
    let engine = match opened.and_then(|engine| engine.open().map(|()| engine)) {
        Ok(engine) => engine,
        Err(reason) => return (CheckedEngine { refusal: Some(reason), ..found }, None),
    };
    let (before, started) = (resident_bytes(), Instant::now());
    let model = match load(engine.as_ref(), source) {
        Ok(model) => model,
        Err(error) => return (CheckedEngine { refusal: Some(chain(&error)), ..found }, None),
    };
    found.load = started.elapsed();
    found.memory = resident_bytes().saturating_sub(before);
    match measure(engines, model.as_ref(), threads) {
        Ok(measured) => found.runs.push(measured),
        Err(reason) => found.unmeasured = Some(reason),
    }
    (found, Some(model.signature().clone()))
}

fn measure(engines: &Engines, model: &dyn LoadedModel, threads: usize) -> Result<Measured, String> {
    let runs = run_in_threads_of(engines, || runs(model));
    let runs = runs.unwrap_or_else(|| Err("no thread ran".into()))?;
    let at = |hundredth: usize| runs.get(runs.len() * hundredth / 100).copied().unwrap_or_default();
    Ok(Measured { threads, p50: at(50), p99: at(99) })
}

/// How long runs took, shortest first; the first one, which warms up, does not count.
fn runs(model: &dyn LoadedModel) -> Result<Vec<Duration>, String> {
    let run = |inputs: &[Tensor]| super::trial::first_run(model, inputs);
    let (inputs, _) = sample::working(model, MAXIMUM_ELEMENTS, run)?;
    let (started, mut runs) = (Instant::now(), Vec::new());
    while runs.is_empty() || (runs.len() < MAXIMUM_RUNS && started.elapsed() < BUDGET) {
        let before = Instant::now();
        run(&inputs).map_err(|error| error.to_string())?;
        runs.push(before.elapsed());
    }
    runs.sort_unstable();
    Ok(runs)
}

/// Memory of this process that is in RAM; 0 where the system doesn't tell.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
