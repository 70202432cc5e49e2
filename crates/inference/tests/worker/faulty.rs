//! A worker process for tests: gives its input back as `y`, dies of a 13, and never comes back from a 7.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's helper fails by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use avocet_inference::{
    Engine, EngineChoice, EngineError, EngineInfo, Engines, LoadError, LoadOptions, LoadedModel, Signature,
    Tensor, read_signature, serve_worker,
};

struct Faulty;

impl Engine for Faulty {
    fn info(&self) -> EngineInfo {
        EngineInfo { name: "rten", version: "test".into(), path: None }
    }

    fn load(&self, path: &Path, _: &LoadOptions) -> Result<Arc<dyn LoadedModel>, LoadError> {
        let signature =
            read_signature(path).map_err(|source| LoadError::Format { path: path.into(), source })?;
        Ok(Arc::new(FaultyModel(signature)))
    }
}

struct FaultyModel(Signature);

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
            5.0 => return Err(EngineError::Failed("five".into())),
            _ => {}
        }
        let input = &inputs[0];
        let output = Tensor::from_bytes("y", input.datatype(), input.shape(), input.data().clone());
        Ok(vec![output.unwrap()])
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let choice: EngineChoice = arguments.next().unwrap().parse().unwrap();
    let path = arguments.next().unwrap();
    serve_worker(&Engines::with(vec![Arc::new(Faulty)]), choice, Path::new(&path)).unwrap();
}
