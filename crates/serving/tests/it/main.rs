//! The protocol as its clients see it.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail tests by panicking"
)]

mod clients;
mod conformance;
mod ensembles;
mod errors;
mod folder;
mod folder_formats;
mod folder_settings;
mod infer;
mod jobs;
mod jobs_waiting;
mod limits;
mod metadata;
mod metrics;
mod mlbuffet;
mod mlbuffet_client;
mod onnx;
mod payloads;
mod plain;
mod real;
mod replay;
mod shelf;
mod support;
mod traces;
mod traces_grpc;
