//! Which engines this process has, and the choice among them.

mod check;
mod library;
mod native;
mod novices;
mod onnxruntime;
mod rten;
mod tensorflow;
mod trial;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use check::{Checked, CheckedEngine, Measured, check};
pub use library::user_folder;
pub(crate) use novices::Novices;
pub use trial::{Difference, Tried, Verdict};

use types::ModelSignature;

use crate::declared;
use crate::engine::{chain, panic_text};
use crate::isolation::Rehearsed;
use crate::{
    Engine, EngineChoice, EngineOptions, Format, FormatError, LoadError, LoadOptions, LoadedModel, Name,
    Source, read_signature,
};

/// One line of `avocet engines`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineStatus {
    pub name: Name,
    /// Empty where the engine isn't available.
    pub version: String,
    pub available: bool,
    /// What `auto` tries first.
    pub preferred: bool,
    /// Why it is available or not, and what to do.
    pub reason: String,
    /// The library file it runs from, if it is one.
    pub path: Option<PathBuf>,
}

/// The engines of this process, best first. Cheap to clone.
#[derive(Clone)]
pub struct Engines {
    slots: Arc<[Slot]>,
}

struct Slot {
    name: Name,
    /// Why the engine was found or not.
    reason: String,
    engine: Option<Arc<dyn Engine>>,
    /// What it would take if it were there.
    formats: &'static [Format],
}

/// A model and the engine that took it.
pub struct Loaded {
    pub model: Arc<dyn LoadedModel>,
    pub engine: Name,
    /// Why this engine, including what others said about the model.
    pub why: String,
    /// What `auto` measured, engine by engine; empty where the engine was asked for by name.
    pub tried: Vec<Tried>,
}

impl Engines {
    /// Looks for engines: `native` for classical models, ONNX Runtime and TensorFlow where their libraries are found,
    /// and always `rten`. Libraries are opened when a model needs them; one that turns out broken is passed over. Never
    /// fails and never panics: what is missing is listed with its reason.
    pub fn discover(options: &EngineOptions) -> Engines {
        let runtime = match onnxruntime::OnnxRuntime::find(options) {
            Ok((engine, reason)) => Slot::available(Arc::new(engine), reason),
            Err(reason) => Slot::missing("onnxruntime", reason, &[Format::Onnx, Format::TfLite]),
        };
        let tensorflow = match tensorflow::Tensorflow::find(options) {
            Ok((engine, reason)) => Slot::available(Arc::new(engine), reason),
            Err(reason) => Slot::missing("tensorflow", reason, &tensorflow::FORMATS),
        };
        let rten = rten::Rten::new(options.threads_per_run.max(1));
        Engines::from_slots(vec![
            Slot::available(Arc::new(native::Native), "built into avocet, for classical models".into()),
            runtime,
            Slot::available(Arc::new(rten), "built into avocet".into()),
            tensorflow,
        ])
    }

    /// Exactly these engines, best first.
    pub fn with(engines: Vec<Arc<dyn Engine>>) -> Engines {
        let slot = |engine| Slot::available(engine, "given by the program".into());
        Engines::from_slots(engines.into_iter().map(slot).collect())
    }

    fn from_slots(slots: Vec<Slot>) -> Engines {
        Engines { slots: slots.into() }
    }

    /// Every engine that Avocet knows, best first, available or not.
    pub fn list(&self) -> Vec<EngineStatus> {
        let mut all: Vec<EngineStatus> = self.slots.iter().map(Slot::status).collect();
        if let Some(first) = all.iter_mut().find(|status| status.available) {
            first.preferred = true;
        }
        all
    }

    /// Opens every engine's library now, so that [`Engines::list`] says what works, not only what was found. Takes a
    /// second and memory that stays in use.
    pub fn open(&self) {
        for engine in self.slots.iter().filter_map(|slot| slot.engine.as_ref()) {
            // Whatever comes of it is in the list.
            let _ = engine.open();
        }
    }

    /// Loads a model with the chosen engine. `Auto` loads it with each that takes its format, runs a made-up input,
    /// and keeps the fastest whose outputs agree with the first's; see [`Loaded::tried`]. Blocks for seconds with
    /// large models.
    ///
    /// # Errors
    /// When the file is no servable model, or no engine that may be used takes it.
    pub fn load(
        &self,
        choice: EngineChoice,
        path: &Path,
        options: &LoadOptions,
    ) -> Result<Loaded, LoadError> {
        self.load_declared(choice, path, options, &ModelSignature::default())
    }

    /// The same for a model whose owner says what it takes and gives; it has to be so.
    ///
    /// # Errors
    /// Those of [`Engines::load`], and when the model isn't as it is declared.
    pub fn load_declared(
        &self,
        choice: EngineChoice,
        path: &Path,
        options: &LoadOptions,
        declared: &ModelSignature,
    ) -> Result<Loaded, LoadError> {
        self.load_wanted(choice, path, Wanted { options, declared, novices: None })
    }

    /// The same; a file that is new here is rehearsed elsewhere first.
    pub(crate) fn load_rehearsed(
        &self,
        choice: EngineChoice,
        path: &Path,
        options: &LoadOptions,
        declared: &ModelSignature,
        novices: Option<&Novices>,
    ) -> Result<Loaded, LoadError> {
        self.load_wanted(choice, path, Wanted { options, declared, novices })
    }

    /// Loads a model and runs it on what is made up for it: what may crash does so here. Where it doesn't take that,
    /// it has been loaded all the same.
    pub(crate) fn rehearse(
        &self,
        choice: EngineChoice,
        path: &Path,
        declared: &ModelSignature,
    ) -> Result<(), LoadError> {
        let options = LoadOptions { workers: 1, threads: 0, instances: 1 };
        let loaded = self.load_declared(choice, path, &options, declared)?;
        let run = trial::run_in_threads_of(self, || trial::rehearse(loaded.model.as_ref()));
        run.unwrap_or(Ok(())).map_err(|error| LoadError::Engine {
            engine: loaded.engine,
            reason: format!(
                "a small request takes more memory than it may: {}; where it has to, serve it with `isolation: process`",
                chain(&error)
            ),
        })
    }

    fn load_wanted(
        &self,
        choice: EngineChoice,
        path: &Path,
        wanted: Wanted<'_>,
    ) -> Result<Loaded, LoadError> {
        let loaded = self.load_chosen(choice, path, wanted)?;
        declared::check(loaded.model.signature(), wanted.declared)?;
        Ok(loaded)
    }

    fn load_chosen(
        &self,
        choice: EngineChoice,
        path: &Path,
        options: Wanted<'_>,
    ) -> Result<Loaded, LoadError> {
        let format = |source| LoadError::Format { path: path.into(), source };
        let source = Source::open(path).map_err(format)?;
        let readable = if source.format.is_onnx() { read_signature(&source.path).map(drop) } else { Ok(()) };
        match (choice.engine(), readable) {
            (Some(name), Ok(())) => self.load_with(name, &source, options),
            (None, Ok(())) => self.load_auto(&source, options),
            // Lists of maps are no outputs for other engines.
            (None | Some("native"), Err(unreadable @ FormatError::NoOutput)) => {
                self.load_with("native", &source, options).map_err(|_| format(unreadable))
            }
            (_, Err(unreadable)) => Err(format(unreadable)),
        }
    }

    fn load_with(&self, name: Name, source: &Source, options: Wanted<'_>) -> Result<Loaded, LoadError> {
        let slot = self.slots.iter().find(|slot| slot.name == name);
        let reason = slot.map_or("this build doesn't have it".into(), |slot| slot.reason.clone());
        let Some(engine) = slot.and_then(|slot| slot.engine.as_ref()) else {
            return Err(LoadError::EngineUnavailable { engine: name, reason });
        };
        if !engine.takes(source.format) {
            let reason = format!("it doesn't take the format {}", source.format);
            return Err(LoadError::Engine { engine: name, reason });
        }
        if let Some(Err(reason)) = options.rehearsed(&[engine.as_ref()], source).pop()
            && engine.defect().is_none()
        {
            return Err(LoadError::Engine { engine: name, reason });
        }
        let model = load_caught(engine.as_ref(), source, options)?;
        Ok(Loaded { model, engine: name, why: "asked for by name".into(), tried: Vec::new() })
    }

    fn load_auto(&self, source: &Source, options: Wanted<'_>) -> Result<Loaded, LoadError> {
        let (mut candidates, mut tried) = (Vec::new(), Vec::new());
        let mut refused: Option<HashMap<Name, String>> = None;
        for slot in self.slots.iter().filter(|slot| slot.takes(source.format)) {
            let Slot { name, reason, engine, .. } = slot;
            let Some(engine) = engine else {
                tried.push(Tried::refused(name, format!("{name} is not available: {reason}")));
                continue;
            };
            if !engine.withstands_any_file() {
                // All at once: they share a process.
                let refused = refused.get_or_insert_with(|| self.rehearsed(source, options));
                if let Some(reason) = refused.remove(name).filter(|_| engine.defect().is_none()) {
                    let refusal = LoadError::Engine { engine: name, reason };
                    tried.push(Tried::refused(name, refusal.to_string()));
                    continue;
                }
            }
            let started = Instant::now();
            match load_caught(engine.as_ref(), source, options) {
                Ok(model) if engine.is_exact() => {
                    let why = "made for models of this sort".into();
                    return Ok(Loaded { model, engine: name, why, tried });
                }
                Ok(model) => candidates.push(Candidate { name, model, took: started.elapsed() }),
                Err(LoadError::EngineUnavailable { reason, .. }) => {
                    tried.push(Tried::refused(name, format!("{name} is not available: {reason}")));
                }
                Err(error) => tried.push(Tried::refused(name, chain(&error))),
            }
        }
        trial::choose(self, candidates, tried).map_err(|refusals| {
            let format = source.format;
            let none = || format!("this build has none for the format {format}");
            LoadError::NoEngine { reasons: if refusals.is_empty() { none() } else { refusals } }
        })
    }

    /// Which engines may not load it here, and why.
    fn rehearsed(&self, source: &Source, wanted: Wanted<'_>) -> HashMap<Name, String> {
        let engines = self.slots.iter().filter_map(|slot| slot.engine.as_deref());
        let engines: Vec<&dyn Engine> = engines.filter(|engine| engine.takes(source.format)).collect();
        let verdicts = wanted.rehearsed(&engines, source);
        let names =
            engines.iter().filter(|engine| !engine.withstands_any_file()).map(|engine| engine.info().name);
        names.zip(verdicts).filter_map(|(name, verdict)| Some((name, verdict.err()?))).collect()
    }

    /// Runs a thread's whole life inside every engine's thread set-up.
    pub(crate) fn enter(&self, body: Box<dyn FnOnce() + Send + '_>) {
        fn nest(slots: &[Slot], body: Box<dyn FnOnce() + Send + '_>) {
            match slots.split_first() {
                None => body(),
                Some((Slot { engine: None, .. }, rest)) => nest(rest, body),
                Some((Slot { engine: Some(engine), .. }, rest)) => {
                    engine.enter(Box::new(move || nest(rest, body)));
                }
            }
        }
        nest(&self.slots, body);
    }
}

/// How a model is to be loaded.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    options: &'a LoadOptions,
    declared: &'a ModelSignature,
    novices: Option<&'a Novices>,
}

impl Wanted<'_> {
    /// What came of the rehearsals with those of the engines that need them; nothing where none are made.
    fn rehearsed(&self, engines: &[&dyn Engine], source: &Source) -> Vec<Rehearsed> {
        let Some(novices) = self.novices else { return Vec::new() };
        let in_need: Vec<_> =
            engines.iter().copied().filter(|engine| !engine.withstands_any_file()).collect();
        novices.rehearsed(&in_need, source, self.declared)
    }
}

/// A model that an engine loaded, in the race for being served.
struct Candidate {
    name: Name,
    model: Arc<dyn LoadedModel>,
    took: Duration,
}

impl Slot {
    fn available(engine: Arc<dyn Engine>, reason: String) -> Slot {
        Slot { name: engine.info().name, reason, engine: Some(engine), formats: &[] }
    }

    fn missing(name: Name, reason: String, formats: &'static [Format]) -> Slot {
        Slot { name, reason, engine: None, formats }
    }

    fn takes(&self, format: Format) -> bool {
        self.engine.as_ref().map_or(self.formats.contains(&format), |engine| engine.takes(format))
    }

    fn status(&self) -> EngineStatus {
        let (name, preferred) = (self.name, false);
        let defect = self.engine.as_ref().and_then(|engine| engine.defect());
        match &self.engine {
            Some(engine) if defect.is_none() => {
                let info = engine.info();
                let reason = self.reason.clone();
                EngineStatus {
                    name,
                    version: info.version,
                    available: true,
                    preferred,
                    reason,
                    path: info.path,
                }
            }
            _ => {
                let reason = defect.unwrap_or_else(|| self.reason.clone());
                EngineStatus { name, version: String::new(), available: false, preferred, reason, path: None }
            }
        }
    }
}

fn load_caught(
    engine: &dyn Engine,
    source: &Source,
    Wanted { options, declared, .. }: Wanted<'_>,
) -> Result<Arc<dyn LoadedModel>, LoadError> {
    catch_unwind(AssertUnwindSafe(|| engine.load_declared(&source.path, options, declared))).unwrap_or_else(
        |payload| {
            let reason = format!("it panicked: {}", panic_text(payload.as_ref()));
            Err(LoadError::Engine { engine: engine.info().name, reason })
        },
    )
}
