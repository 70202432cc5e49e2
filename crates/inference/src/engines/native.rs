//! The engine for classical machine learning: trees, linear models, support vectors and the pipelines around them.
//!
//! These are arithmetic rather than inference: no library is needed, and a request costs little more than its
//! comparisons and sums. It takes ONNX graphs that have an operator of `ai.onnx.ml` and nothing that is not in
//! [`operators`], and the model files of XGBoost and LightGBM. Anything else is refused before it is read.
//!
//! Outputs that ONNX declares as a list of maps (scikit-learn's `ZipMap`) are given as the table that they are made
//! of: FP32 `[rows, classes]`, and [`LoadedModel::labels`] says which class each column is. What goes in and out of
//! XGBoost's and LightGBM's models says [`boosted`].

mod array;
mod boosted;
mod forest;
mod graph;
mod lightgbm;
mod node;
mod onnx;
mod operators;
mod ubjson;
mod xgboost;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use crate::format::Format;
use crate::{Engine, EngineError, EngineInfo, InvalidInput, LoadError, LoadOptions, LoadedModel};

const NAME: &str = "native";

pub(super) struct Native;

impl Engine for Native {
    fn info(&self) -> EngineInfo {
        EngineInfo { name: NAME, version: env!("CARGO_PKG_VERSION").into(), path: None }
    }

    fn takes(&self, format: Format) -> bool {
        matches!(format, Format::Onnx | Format::XgboostJson | Format::XgboostUbj | Format::Lightgbm)
    }

    /// What it computes is checked against the libraries that made such models.
    fn withstands_any_file(&self) -> bool {
        true
    }

    fn is_exact(&self) -> bool {
        true
    }

    fn load(&self, path: &Path, _: &LoadOptions) -> Result<Arc<dyn LoadedModel>, LoadError> {
        load(path).map_err(|refused| LoadError::Engine { engine: NAME, reason: refused.0 })
    }
}

/// Whether it computes an operator, in models that it takes.
pub(super) fn knows(domain: &str, operator: &str) -> bool {
    operators::builder(domain, operator).is_some()
}

fn load(path: &Path) -> Result<Arc<dyn LoadedModel>, Refused> {
    Ok(match Format::of(path).map_err(|error| Refused::new(error.to_string()))? {
        Format::XgboostJson => Arc::new(xgboost::from_json(&read(path)?)?),
        Format::XgboostUbj => Arc::new(xgboost::from_ubj(&read(path)?)?),
        Format::Lightgbm => Arc::new(lightgbm::load(&read(path)?)?),
        _ => Arc::new(graph::load(path)?),
    })
}

/// Largest file that is read as a whole, 1 GiB.
const MAX_FILE: u64 = 1 << 30;

fn read(path: &Path) -> Result<Vec<u8>, Refused> {
    let unreadable = |error: std::io::Error| Refused::new(format!("can't read the file: {error}"));
    let mut content = Vec::new();
    File::open(path).map_err(unreadable)?.take(MAX_FILE + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > MAX_FILE {
        return Err(Refused::new(format!("the file has more than {MAX_FILE} bytes")));
    }
    Ok(content)
}

/// Why a model is not taken.
#[derive(Debug)]
struct Refused(String);

impl Refused {
    fn new(reason: impl Into<String>) -> Refused {
        Refused(reason.into())
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Refused {
        Refused(fault.to_string())
    }
}

/// Why a step failed.
#[derive(Debug)]
enum Fault {
    /// The values' fault: other values may pass.
    Input(String),
    /// The model's fault: it does what is not done here.
    Unsupported(String),
}

impl Fault {
    fn input(problem: impl Into<String>) -> Fault {
        Fault::Input(problem.into())
    }

    fn unsupported(what: impl Into<String>) -> Fault {
        Fault::Unsupported(what.into())
    }

    /// As the error of a run, told of the model's first input.
    fn into_error(self, input: &str) -> EngineError {
        match self {
            Fault::Input(problem) => EngineError::Input(InvalidInput::Value { input: input.into(), problem }),
            Fault::Unsupported(what) => EngineError::Failed(what),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Fault::Input(text) | Fault::Unsupported(text)) = self;
        f.write_str(text)
    }
}
