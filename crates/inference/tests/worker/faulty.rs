//! A worker process for tests: gives its input back as `y`, dies of a 13, never comes back from a 7, and for a 33 gives the
//! number of threads that it may use. It dies while it loads a file called `crash`, and refuses one called `refuse`; it
//! notes each rehearsal in a file `rehearsals` beside the model.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's helper fails by panicking")]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use avocet_inference::{
    Engine, EngineChoice, EngineError, EngineInfo, Engines, LoadError, LoadOptions, LoadedModel, Signature,
    Tensor, read_signature, rehearse_in_worker, serve_worker,
};

struct Faulty;

impl Engine for Faulty {
    fn info(&self) -> EngineInfo {
        EngineInfo { name: "rten", version: "test".into(), path: None }
    }

    fn load(&self, path: &Path, options: &LoadOptions) -> Result<Arc<dyn LoadedModel>, LoadError> {
        let signature =
            read_signature(path).map_err(|source| LoadError::Format { path: path.into(), source })?;
        match path.file_stem().unwrap().to_str().unwrap() {
            "crash" => std::process::abort(),
            "refuse" => {
                return Err(LoadError::Engine { engine: "rten", reason: "refused".into() });
            }
            _ => {}
        }
        Ok(Arc::new(FaultyModel(signature, options.threads)))
    }
}

struct FaultyModel(Signature, usize);

impl LoadedModel for FaultyModel {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn instances(&self) -> usize {
        1
    }

    fn run(&self, inputs: &[Tensor], _: &[&str]) -> Result<Vec<Tensor>, EngineError> {
        match inputs[0].elements::<f32>().unwrap()[0] {
            13.0 => std::process::abort(),
            7.0 => std::thread::sleep(Duration::from_secs(3600)),
            33.0 => {
                let threads = f32::from(u8::try_from(self.1).unwrap());
                return Ok(vec![Tensor::from_vec("y", inputs[0].shape().to_vec(), vec![threads]).unwrap()]);
            }
            5.0 => return Err(EngineError::Failed("five".into())),
            _ => {}
        }
        let input = &inputs[0];
        let output = Tensor::from_bytes("y", input.datatype(), input.shape(), input.data().clone());
        Ok(vec![output.unwrap()])
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).peekable();
    let rehearses = arguments.next_if(|argument| argument == "--rehearse").is_some();
    if rehearses {
        arguments.next().unwrap().parse::<u64>().unwrap();
    }
    let choices = arguments.next().unwrap();
    let choices: Vec<EngineChoice> =
        choices.split(',').map(|choice| choice.parse().unwrap_or_default()).collect();
    let path = arguments.next().unwrap();
    let threads = arguments.next().unwrap().parse().unwrap();
    let declared = serde_json::from_str(&arguments.next().unwrap()).unwrap();
    let engines = Engines::with(vec![Arc::new(Faulty)]);
    if rehearses {
        let log = Path::new(&path).with_file_name("rehearsals");
        // Only a model in a folder of the test's own.
        if let Ok(mut log) = std::fs::OpenOptions::new().append(true).open(log) {
            log.write_all(b"x").unwrap();
        }
        rehearse_in_worker(&engines, &choices, Path::new(&path), &declared).unwrap();
        return;
    }
    serve_worker(&engines, choices[0], Path::new(&path), threads, &declared).unwrap();
}
