//! Which engines this process has, and the choice among them.

mod library;
mod native;
mod onnxruntime;
mod rten;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::engine::{chain, panic_text};
use crate::format::Format;
use crate::{
    Engine, EngineChoice, EngineOptions, FormatError, LoadError, LoadOptions, LoadedModel, Name,
    read_signature,
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
    status: EngineStatus,
    engine: Option<Arc<dyn Engine>>,
}

/// A model and the engine that took it.
pub struct Loaded {
    pub model: Arc<dyn LoadedModel>,
    pub engine: Name,
    /// Why this engine, including what others said about the model.
    pub why: String,
}

impl Engines {
    /// Looks for engines: `native` for classical models, ONNX Runtime where its library is found, and always `rten`.
    /// Never fails and never panics: what is missing is listed with its reason.
    pub fn discover(options: &EngineOptions) -> Engines {
        let runtime = match onnxruntime::OnnxRuntime::find(options) {
            Ok((engine, reason)) => Slot::available(Arc::new(engine), reason),
            Err(reason) => Slot::missing("onnxruntime", reason),
        };
        let rten = rten::Rten::new(options.threads_per_run.max(1));
        let native =
            Slot::available(Arc::new(native::Native), "built into avocet, for classical models".into());
        let rten = Slot::available(Arc::new(rten), "built into avocet".into());
        Engines::from_slots(vec![native, runtime, rten])
    }

    /// Exactly these engines, best first.
    pub fn with(engines: Vec<Arc<dyn Engine>>) -> Engines {
        let slot = |engine| Slot::available(engine, "given by the program".into());
        Engines::from_slots(engines.into_iter().map(slot).collect())
    }

    fn from_slots(mut slots: Vec<Slot>) -> Engines {
        if let Some(first) = slots.iter_mut().find(|slot| slot.status.available) {
            first.status.preferred = true;
        }
        Engines { slots: slots.into() }
    }

    /// Every engine that Avocet knows, best first, available or not.
    pub fn list(&self) -> Vec<EngineStatus> {
        self.slots.iter().map(|slot| slot.status.clone()).collect()
    }

    /// Loads a model with the chosen engine; `Auto` goes through the available ones until one takes it.
    /// Blocks for seconds with large models.
    ///
    /// # Errors
    /// When the file is no servable model, or no engine that may be used takes it.
    pub fn load(
        &self,
        choice: EngineChoice,
        path: &Path,
        options: &LoadOptions,
    ) -> Result<Loaded, LoadError> {
        let format = |source| LoadError::Format { path: path.into(), source };
        let native = Format::of(path).map_err(|error| format(FormatError::Io(error)))?.is_native();
        let readable = if native { Ok(()) } else { read_signature(path).map(drop) };
        match (choice.engine(), readable) {
            (None, Ok(())) if native => self.load_with("native", path, options),
            (Some(name), Ok(())) => self.load_with(name, path, options),
            (None, Ok(())) => self.load_auto(path, options),
            // Lists of maps are no outputs for other engines.
            (None | Some("native"), Err(source @ FormatError::NoOutput)) => {
                self.load_with("native", path, options).map_err(|_| format(source))
            }
            (_, Err(source)) => Err(format(source)),
        }
    }

    fn load_with(&self, name: Name, path: &Path, options: &LoadOptions) -> Result<Loaded, LoadError> {
        let slot = self.slots.iter().find(|slot| slot.status.name == name);
        let reason = slot.map_or("this build doesn't have it".into(), |slot| slot.status.reason.clone());
        let Some(engine) = slot.and_then(|slot| slot.engine.as_ref()) else {
            return Err(LoadError::EngineUnavailable { engine: name, reason });
        };
        let model = load_caught(engine.as_ref(), path, options)?;
        Ok(Loaded { model, engine: name, why: "asked for by name or by the file's format".into() })
    }

    fn load_auto(&self, path: &Path, options: &LoadOptions) -> Result<Loaded, LoadError> {
        let mut refusals = Vec::new();
        for slot in self.slots.iter() {
            let name = slot.status.name;
            let Some(engine) = &slot.engine else {
                refusals.push(format!("{name} is not available: {}", slot.status.reason));
                continue;
            };
            match load_caught(engine.as_ref(), path, options) {
                Ok(model) if refusals.is_empty() => {
                    return Ok(Loaded { model, engine: name, why: "the preferred engine here".into() });
                }
                Ok(model) => {
                    let why = format!("fell back to it; {}", refusals.join("; "));
                    return Ok(Loaded { model, engine: name, why });
                }
                Err(error) => refusals.push(chain(&error)),
            }
        }
        Err(LoadError::NoEngine { reasons: refusals.join("; ") })
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

impl Slot {
    fn available(engine: Arc<dyn Engine>, reason: String) -> Slot {
        let info = engine.info();
        let status = EngineStatus {
            name: info.name,
            version: info.version,
            available: true,
            preferred: false,
            reason,
            path: info.path,
        };
        Slot { status, engine: Some(engine) }
    }

    fn missing(name: Name, reason: String) -> Slot {
        let status = EngineStatus {
            name,
            version: String::new(),
            available: false,
            preferred: false,
            reason,
            path: None,
        };
        Slot { status, engine: None }
    }
}

fn load_caught(
    engine: &dyn Engine,
    path: &Path,
    options: &LoadOptions,
) -> Result<Arc<dyn LoadedModel>, LoadError> {
    catch_unwind(AssertUnwindSafe(|| engine.load(path, options))).unwrap_or_else(|payload| {
        let reason = format!("it panicked: {}", panic_text(payload.as_ref()));
        Err(LoadError::Engine { engine: engine.info().name, reason })
    })
}
