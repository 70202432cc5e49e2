//! Models in, tensors through, tensors out: what a site needs to answer predictions, without HTTP.
//!
//! A [`Repository`] holds loaded models by name and version and runs requests on its own few threads,
//! so that a caller (an async server, a function, a test) only waits. Which library does the arithmetic is an
//! [`Engine`]: `native` computes classical models itself, pure-Rust `rten` is always there, ONNX Runtime and TensorFlow
//! where their shared libraries are found; [`Engines::discover`] says which, and why not.
//!
//! ```no_run
//! use avocet_inference::{EngineOptions, Engines, LoadRequest, Options, Repository, Request, Tensor};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let repository = Repository::new(Engines::discover(&EngineOptions::default()), Options::default())?;
//! repository.load(LoadRequest::new("iris", "1", "iris.onnx"))?;
//! let input = Tensor::from_vec("x", [1, 4], vec![5.1_f32, 3.5, 1.4, 0.2])?;
//! let answer = repository.get("iris", None)?.infer(Request::new([input]))?.wait()?;
//! println!("{:?}", answer.outputs);
//! # Ok(())
//! # }
//! ```

#[cfg(target_endian = "big")]
compile_error!(
    "tensors are little-endian in memory and on the wire; big-endian targets need byte swaps first"
);

mod datatype;
mod tensor;

mod declared;
mod signature;

mod format;
mod onnx;
mod protobuf;
mod tflite;

mod engine;
mod engines;
mod isolation;
mod kept;
mod memory;

mod ensemble;
mod error;
mod fil;
mod repository;

mod batch;
mod cache;
mod pool;
mod queue;

mod drift;
mod histogram;
mod stats;

#[doc(hidden)]
pub mod fuzzing;
pub mod steps;

pub use cache::Body;
pub use datatype::{Datatype, UnknownDatatype};
pub use drift::FeatureDrift;
pub use engine::{
    Engine, EngineChoice, EngineError, EngineInfo, EngineOptions, LoadOptions, LoadedModel, Name,
    UnknownEngine,
};
pub use engines::{
    Checked, CheckedEngine, Difference, EngineStatus, Engines, Loaded, Measured, Tried, Verdict, check,
    user_folder,
};
pub use ensemble::{EnsembleError, Giver};
pub use error::{Error, LoadError};
pub use fil::Fil;
pub use format::{Format, FormatError, Source};
pub use isolation::{WorkerCommand, rehearse_in_worker, serve_worker};
pub use onnx::read_signature;
pub use repository::{
    Answer, LoadRequest, Model, ModelStatus, Observed, Options, Pending, Repository, Request, Routing, State,
    StepTiming, Timing, WarmUp,
};
pub use signature::{InvalidInput, Limits, Signature, TensorSpec};
pub use stats::{BatchStats, Failures, StatsSnapshot, Timed};
pub use tensor::{Element, Tensor, TensorError};
