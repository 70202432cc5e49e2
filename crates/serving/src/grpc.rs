//! The Open Inference Protocol v2 over gRPC, with Triton's extensions: `inference.GRPCInferenceService`.
//!
//! Raw contents are cut out of the message and handed to the engine without a copy; answers always come raw, as
//! Triton's do. Answers are compressed as the request was, or not at all.

mod contents;
mod front;
pub(crate) mod infer;
mod listen;
mod messages;
mod service;

pub use listen::{serve, serve_behind};
