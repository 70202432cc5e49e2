//! Messages and services that travel as protobuf, generated from `proto/` and checked in, so that a build needs no
//! protobuf compiler. After a change of a `.proto`, `cargo run` in `generate/` writes them anew. The few messages of
//! [`traces`] are declared in Rust.

pub mod codec;
pub mod traces;

/// The Open Inference Protocol v2 over gRPC, with Triton's extensions.
#[allow(clippy::all, missing_docs, reason = "generated")]
pub mod inference {
    include!("generated/inference.rs");
}
