//! The Open Inference Protocol v2 over REST and [gRPC](grpc), on a site's [`Repository`](inference::Repository).
//!
//! Clients of Triton, KServe or MLServer (`tritonclient`, `curl`) work unchanged: JSON tensors and the binary
//! tensor extension in both directions, classification, priorities and timeouts, configuration, statistics, the
//! repository. Status codes tell the truth: 400 what
//! the client can correct, 404 unknown, 413 too large, 503 with `Retry-After` when overloaded or not ready, 500 an
//! engine's failure; always with `{"error": "…"}`.
//!
//! Beyond and beside the protocol:
//! - NaN and infinities have no JSON form: they are written as `null`, and `null` in a floating-point input reads
//!   as NaN. Binary tensors carry them exactly.
//! - FP16 and BF16 may be sent and received as JSON numbers too.
//! - `data` may be flat or nested to 32 levels; only the number of elements is compared with `shape`.
//! - Not offered, and refused with 400: shared memory regions.
//! - Models that declare `serving.preprocessing` take pictures (`Content-Type: image/…`), tables (`text/csv`) and
//!   forms with one file at the same address. Those that declare `serving.postprocessing` then answer with `classes`
//!   or `boxes`, and with their outputs only if `?outputs=raw` is added; requests of tensors get such a reading with
//!   the parameter `"reading": true`, and with it the outputs that they name.
//!   The same as tensors, over both protocols: the input `picture` or `table` (BYTES, one element) in the place of the
//!   model's own, and outputs such as `classes.labels`, `classes.scores`, `boxes.places`.
//! - Models that answer as one are ensembles; a [`Folder`] reads Triton's `ensemble_scheduling`.
//! - What was done for a request is told to OpenTelemetry's collectors by a [`Tracer`].
//! - Clients may load and unload models only where a [`Control`] lets them; a [`Folder`] is one.
//! - What may wait is answered later: [`jobs`] are durable, and their results can be sent to who asked.
//! - Clients of [MLBuffet](mlbuffet) work, too; the models that they upload are on a [`Shelf`].
//!
//! ```no_run
//! # async fn serve(repository: inference::Repository, shutdown: daemon::Shutdown) -> std::io::Result<()> {
//! let state = avocet_serving::ServerState::new(repository).ready_when(|| true);
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8000").await?;
//! avocet_serving::serve(listener, avocet_serving::router(state), shutdown).await;
//! # Ok(())
//! # }
//! ```

mod control;
mod model_config;
mod settings;
mod state;

mod views;

mod folder;
#[doc(hidden)]
pub mod fuzzing;
pub mod grpc;
mod lanes;
mod listen;
mod management;
mod metrics;
mod routes;

mod form;
mod infer;
mod payloads;
mod pieces;
mod plain;
mod trace;
mod watch;

mod classify;
mod parameters;

mod data;
mod decode;
mod encode;

mod bodies;
mod compression;

mod error;

mod door;
mod guard;

pub mod jobs;
pub mod mlbuffet;
pub mod shelf;

pub use axum::Router;
pub use control::{Control, ControlError, LoadModel};
pub use door::{Door, Tokens};
pub use folder::{ControlMode, Folder};
pub use guard::{Guard, Unguarded};
pub use jobs::Jobs;
pub use listen::{serve, serve_behind};
pub use metrics::serve_metrics;
pub use model_config::{ConfigError, ModelConfig, VersionPolicy};
pub use payloads::PayloadLog;
pub use routes::router;
pub use shelf::Shelf;
pub use state::ServerState;
pub use trace::{InvalidSetting, Protocol, Ratio, Sampler, TraceSettings, Tracer};

/// Runs long work on a thread that may block.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, error::ApiError> + Send + 'static,
) -> Result<T, error::ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| error::ApiError::Answer(error.to_string()))?
}

/// As good as random for picking requests and naming spans: SplitMix64's mixing of a counter. No two numbers give the
/// same.
fn scramble(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
