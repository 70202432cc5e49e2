//! The entry point for fuzzers: hands bytes to the reader of classical models, and looks at nothing but that it
//! comes back. See `fuzz/` at the top of the repository.

use std::path::Path;

use crate::{Datatype, EngineChoice, Engines, LoadOptions, Signature, Tensor};

/// Loads `bytes` as a model with the native engine, by way of a file at `place`, and runs it on two rows.
///
/// # Panics
/// Where the reader would: that is what is looked for.
#[expect(clippy::panic, reason = "a caught panic is the finding")]
pub fn models(engines: &Engines, place: &Path, bytes: &[u8]) {
    if std::fs::write(place, bytes).is_err() {
        return;
    }
    match engines.load(EngineChoice::Native, place, &LoadOptions { workers: 1, threads: 0, instances: 0 }) {
        Ok(loaded) => {
            let signature = loaded.model.signature();
            let outputs: Vec<&str> = signature.outputs.iter().map(|spec| spec.name.as_str()).collect();
            if let Some(inputs) = two_rows(signature) {
                let _ = loaded.model.run(&inputs, &outputs);
            }
        }
        Err(error) if error.to_string().contains("panicked") => panic!("{error}"),
        Err(_) => {}
    }
}

/// Small inputs that fit; `None` where that can't be.
fn two_rows(signature: &Signature) -> Option<Vec<Tensor>> {
    let inputs = signature.inputs.iter().map(|spec| {
        let sizes = spec.shape.iter().flatten().map(|&size| usize::try_from(size).unwrap_or(2));
        let shape: Vec<usize> = sizes.collect();
        let count = shape.iter().try_fold(1_usize, |count, &size| count.checked_mul(size))?;
        if count > 1 << 20 {
            return None;
        }
        let numbers = (0..count).map(|at| (at % 7) as f32 - 2.5);
        let name = spec.name.as_str();
        let tensor = match spec.datatype {
            Datatype::Fp32 => Tensor::from_vec(name, shape, numbers.collect::<Vec<f32>>()),
            Datatype::Fp64 => Tensor::from_vec(name, shape, numbers.map(f64::from).collect()),
            Datatype::Int64 => Tensor::from_vec(name, shape, numbers.map(|x| x as i64).collect()),
            Datatype::Bytes => Tensor::from_strings(name, shape, numbers.map(|x| x.to_string())),
            _ => return None,
        };
        tensor.ok()
    });
    inputs.collect()
}
