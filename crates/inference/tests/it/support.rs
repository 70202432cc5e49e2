//! Builders and fakes with defaults.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use avocet_inference::{
    Engine, EngineError, EngineInfo, EngineOptions, Engines, LoadError, LoadOptions, LoadedModel, Options,
    Repository, Signature, Tensor, read_signature,
};

pub fn model(name: &str) -> PathBuf {
    Path::new("tests/data").join(format!("{name}.onnx"))
}

pub fn discovered() -> Engines {
    Engines::discover(&EngineOptions::default())
}

pub fn repository(engines: Engines) -> Repository {
    Repository::new(engines, options(2)).unwrap()
}

/// Without the runs that come before the first request: fakes count theirs.
pub fn options(workers: usize) -> Options {
    Options { workers, warm_up: false, ..Options::default() }
}

pub fn x(rows: usize, values: &[f32]) -> Tensor {
    Tensor::from_vec("x", [rows, values.len() / rows], values.to_vec()).unwrap()
}

/// A copy of a model file under another name.
pub fn copy_of(name: &str, folder: &tempfile::TempDir, copy: &str) -> PathBuf {
    let path = folder.path().join(copy);
    std::fs::copy(model(name), &path).unwrap();
    path
}

type Run = dyn Fn(&str, &[Tensor]) -> Result<Vec<Tensor>, EngineError> + Send + Sync;

/// An engine whose models run a closure; it reads signatures from the real file.
pub struct Fake {
    pub name: &'static str,
    pub instances: usize,
    pub loads: Arc<AtomicUsize>,
    pub alive: Arc<AtomicUsize>,
    pub run: Arc<Run>,
    pub refuse: Option<&'static str>,
    pub on_caller: bool,
    /// Holds loads back until it is opened.
    pub load_gate: Option<Arc<Gate>>,
    /// Only those of files with such a name.
    pub gated: &'static str,
}

impl Fake {
    pub fn new(run: impl Fn(&[Tensor]) -> Result<Vec<Tensor>, EngineError> + Send + Sync + 'static) -> Fake {
        Fake::by_file(move |_, inputs| run(inputs))
    }

    /// Runs differ by the name of the model's file.
    pub fn by_file(
        run: impl Fn(&str, &[Tensor]) -> Result<Vec<Tensor>, EngineError> + Send + Sync + 'static,
    ) -> Fake {
        Fake {
            name: "fake",
            instances: 8,
            loads: Arc::default(),
            alive: Arc::default(),
            run: Arc::new(run),
            refuse: None,
            on_caller: true,
            load_gate: None,
            gated: "",
        }
    }

    /// Gives the input back as `y`.
    pub fn echo() -> Fake {
        Fake::new(|inputs| Ok(vec![renamed(&inputs[0], "y")]))
    }

    pub fn engines(self) -> Engines {
        Engines::with(vec![Arc::new(self)])
    }
}

pub fn renamed(tensor: &Tensor, name: &str) -> Tensor {
    Tensor::from_bytes(name, tensor.datatype(), tensor.shape(), tensor.data().clone()).unwrap()
}

impl Engine for Fake {
    fn info(&self) -> EngineInfo {
        EngineInfo { name: self.name, version: "1".into(), path: None }
    }

    fn load(&self, path: &Path, _: &LoadOptions) -> Result<Arc<dyn LoadedModel>, LoadError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        self.load_gate.iter().filter(|_| file.starts_with(self.gated)).for_each(|gate| gate.pass());
        match self.refuse {
            Some("panic") => panic!("cannot read this"),
            Some(reason) => return Err(LoadError::Engine { engine: self.name, reason: reason.into() }),
            None => {}
        }
        self.alive.fetch_add(1, Ordering::SeqCst);
        let (alive, run) = (Arc::clone(&self.alive), Arc::clone(&self.run));
        let signature = read_signature(path).unwrap();
        let (instances, on_caller) = (self.instances, self.on_caller);
        Ok(Arc::new(FakeModel { signature, file, instances, on_caller, alive, run }))
    }
}

struct FakeModel {
    signature: Signature,
    file: String,
    instances: usize,
    on_caller: bool,
    alive: Arc<AtomicUsize>,
    run: Arc<Run>,
}

impl LoadedModel for FakeModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn instances(&self) -> usize {
        self.instances
    }

    fn runs_on_caller(&self) -> bool {
        self.on_caller
    }

    fn run(&self, inputs: &[Tensor], _: &[&str]) -> Result<Vec<Tensor>, EngineError> {
        (self.run)(&self.file, inputs)
    }
}

impl Drop for FakeModel {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Holds runs back until it is opened.
#[derive(Default)]
pub struct Gate {
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Gate {
    pub fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| !state.1).unwrap());
    }

    pub fn wait_for(&self, arrived: usize) {
        drop(self.changed.wait_while(self.state.lock().unwrap(), |state| state.0 < arrived).unwrap());
    }

    pub fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}
