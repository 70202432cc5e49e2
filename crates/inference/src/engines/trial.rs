//! The race that `auto` is: engines that load a model run the same made-up input; who disagrees is out, who is
//! fastest wins.
//!
//! The first candidate (ONNX Runtime where it is there) is the reference for what is right. A run can't be cut off, so
//! the bound on time holds between runs: a model that takes a second runs once on each engine.

mod compare;
pub(super) mod sample;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::{Candidate, Engines, Loaded};
use crate::repository::zeros;
use crate::{EngineError, LoadedModel, Name, Tensor};

pub use compare::Difference;

/// What all measured runs of one trial may take together; the first run of each engine comes on top.
const BUDGET: Duration = Duration::from_millis(200);
/// Runs that are measured at most for one engine.
const RUNS: usize = 50;
/// How much faster than the reference another engine must be to win; less is noise.
const MARGIN: f64 = 0.9;
/// The largest made-up input that is tried.
const MAXIMUM_ELEMENTS: usize = 16 << 20;

/// How one engine did with a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Tried {
    pub engine: Name,
    /// How long it took to load; `None` where it refused.
    pub load: Option<Duration>,
    /// Median of the measured runs with a batch of one, `None` where there was no race.
    pub run: Option<Duration>,
    pub verdict: Verdict,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It did not load the model, or is not there.
    Refused(String),
    /// It was the only one, or the made-up input is not one that the model takes.
    Untested(String),
    /// The run failed where the reference's did not.
    Failed(String),
    /// It can't take or give every value of the declared types, and the reference can.
    Narrow(String),
    /// Its outputs are not the reference's.
    Wrong(Difference),
    /// Its outputs are those of the reference, which is itself among them.
    Agrees(Difference),
}

impl Tried {
    pub(super) fn refused(engine: Name, reason: String) -> Tried {
        Tried { engine, load: None, run: None, verdict: Verdict::Refused(reason) }
    }
}

/// Chooses among candidates, best first; an error is what all engines said.
pub(super) fn choose(
    engines: &Engines,
    mut candidates: Vec<Candidate>,
    mut tried: Vec<Tried>,
) -> Result<Loaded, String> {
    let refusals = refusals(&tried);
    if candidates.len() < 2 {
        let Some(only) = candidates.pop() else { return Err(refusals) };
        let why = match refusals.as_str() {
            "" => "the only engine here for it".into(),
            refusals => format!("fell back to it; {refusals}"),
        };
        tried.push(Tried::untested(&only, "no other engine takes it"));
        return Ok(Loaded { model: only.model, engine: only.name, why, tried });
    }
    // Only a broken `Engine::enter` leaves the work undone.
    let race = run_in_threads_of(engines, || race(&candidates)).unwrap_or_else(|| race(&candidates));
    let winner = race.winner;
    tried.extend(race.tried);
    let index = candidates.iter().position(|candidate| candidate.name == winner).unwrap_or(0);
    let chosen = candidates.swap_remove(index);
    let mut why = race.why;
    if !refusals.is_empty() {
        why = format!("{why}; {refusals}");
    }
    Ok(Loaded { model: chosen.model, engine: chosen.name, why, tried })
}

impl Tried {
    fn untested(candidate: &Candidate, reason: &str) -> Tried {
        let verdict = Verdict::Untested(reason.into());
        Tried { engine: candidate.name, load: Some(candidate.took), run: None, verdict }
    }
}

fn refusals(tried: &[Tried]) -> String {
    let said = tried.iter().filter_map(|tried| match &tried.verdict {
        Verdict::Refused(reason) => Some(reason.as_str()),
        _ => None,
    });
    said.collect::<Vec<_>>().join("; ")
}

/// Where a served model's runs are, so that they cost here what they will cost there.
pub(super) fn run_in_threads_of<T: Send>(engines: &Engines, work: impl FnOnce() -> T + Send) -> Option<T> {
    let mut result = None;
    std::thread::scope(|scope| {
        scope.spawn(|| engines.enter(Box::new(|| result = Some(work()))));
    });
    result
}

/// Runs a model as the race and the warm-up will. What it doesn't take is no defect of it, but an error is that it
/// got no memory for that.
pub(super) fn rehearse(model: &dyn LoadedModel) -> Result<(), EngineError> {
    let starved = RefCell::new(None);
    let run = |inputs: &[Tensor]| match first_run(model, inputs) {
        Err(error) if is_for_want_of_memory(&error) => {
            let reason = error.to_string();
            starved.replace(Some(error));
            Err(EngineError::Failed(reason))
        }
        outcome => outcome,
    };
    let _ = sample::working(model, MAXIMUM_ELEMENTS, run);
    if let Some(zeros) = zeros(model.signature()) {
        let _ = run(&zeros.inputs);
    }
    starved.into_inner().map_or(Ok(()), Err)
}

/// Engines have no code for it: `bad_alloc`, `Failed to allocate memory`, `OOM when allocating tensor`.
fn is_for_want_of_memory(error: &EngineError) -> bool {
    let text = error.to_string().to_ascii_lowercase();
    text.contains("alloc") || text.contains("out of memory")
}

struct Race {
    winner: Name,
    why: String,
    tried: Vec<Tried>,
}

fn race(candidates: &[Candidate]) -> Race {
    let keep_first = |reason: String| {
        let tried = candidates.iter().map(|candidate| Tried::untested(candidate, &reason)).collect();
        let winner = candidates.first().map_or("", |first| first.name);
        Race { winner, why: format!("the preferred engine here; not compared: {reason}"), tried }
    };
    let Some(reference) = candidates.first() else { return keep_first("there is none".into()) };
    let run = |inputs: &[Tensor]| first_run(reference.model.as_ref(), inputs);
    let (inputs, expected) = match sample::working(reference.model.as_ref(), MAXIMUM_ELEMENTS, run) {
        Ok(working) => working,
        Err(reason) => return keep_first(reason),
    };
    let mut results = Vec::new();
    for candidate in candidates {
        let narrows = candidate.model.narrows().filter(|_| reference.model.narrows().is_none());
        let verdict = match narrows.map_or_else(|| Ok(first_run(candidate.model.as_ref(), &inputs)), Err) {
            Err(reason) => Verdict::Narrow(reason),
            Ok(Err(error)) => Verdict::Failed(error.to_string()),
            Ok(Ok(outputs)) => match compare::compare(&expected, &outputs) {
                Ok(difference) => Verdict::Agrees(difference),
                Err(difference) => Verdict::Wrong(difference),
            },
        };
        results.push((candidate, verdict));
    }
    let agreeing = results.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Agrees(_))).count();
    let budget = BUDGET / u32::try_from(agreeing.max(1)).unwrap_or(1);
    let tried: Vec<Tried> = results
        .into_iter()
        .map(|(candidate, verdict)| {
            let agrees = matches!(verdict, Verdict::Agrees(_));
            let run = if agrees { measure(candidate.model.as_ref(), &inputs, budget) } else { None };
            Tried { engine: candidate.name, load: Some(candidate.took), run, verdict }
        })
        .collect();
    let winner = fastest(&tried).unwrap_or(reference.name);
    Race { winner, why: why(&tried, winner), tried }
}

/// The reference, unless another is clearly faster.
fn fastest(tried: &[Tried]) -> Option<Name> {
    let reference = tried.first()?;
    let bar = reference.run?.mul_f64(MARGIN);
    let faster = tried.iter().filter_map(|tried| Some((tried.run?, tried.engine)));
    faster.filter(|(run, _)| *run < bar).min().map(|(_, engine)| engine)
}

/// `the fastest that agrees: onnxruntime 12 µs, rten 31 µs (differs by 1e-7)`.
fn why(tried: &[Tried], winner: Name) -> String {
    let told = tried.iter().map(|tried| {
        let name = tried.engine;
        let took = tried.run.map_or(String::new(), |run| format!(" {run:.1?}"));
        match &tried.verdict {
            Verdict::Agrees(difference) if difference.is_none() => format!("{name}{took}"),
            Verdict::Agrees(difference) => format!("{name}{took} ({difference})"),
            Verdict::Wrong(difference) => format!("{name} is out, {difference}"),
            Verdict::Narrow(reason) => format!("{name} is out, it {reason}"),
            Verdict::Failed(error) => format!("{name} is out: {error}"),
            Verdict::Refused(reason) | Verdict::Untested(reason) => format!("{name}: {reason}"),
        }
    });
    let told: Vec<String> = told.collect();
    let clear = tried.first().is_some_and(|first| first.engine != winner);
    let how = if clear { "the fastest that agrees" } else { "the preferred engine, none is clearly faster" };
    format!("{how}: {}", told.join(", "))
}

pub(super) fn first_run(model: &dyn LoadedModel, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
    let names: Vec<&str> = model.signature().outputs.iter().map(|spec| spec.name.as_str()).collect();
    catch_unwind(AssertUnwindSafe(|| model.run(inputs, &names)))
        .unwrap_or_else(|payload| Err(EngineError::panicked(payload.as_ref())))
}

/// The median of as many runs as the budget allows, at least one.
fn measure(model: &dyn LoadedModel, inputs: &[Tensor], budget: Duration) -> Option<Duration> {
    let (started, mut runs) = (Instant::now(), Vec::new());
    while runs.len() < RUNS && (runs.is_empty() || started.elapsed() < budget) {
        let run = Instant::now();
        first_run(model, inputs).ok()?;
        runs.push(run.elapsed());
    }
    runs.sort_unstable();
    runs.get(runs.len() / 2).copied()
}
