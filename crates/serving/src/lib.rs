//! The Open Inference Protocol v2 over REST, on a site's [`Repository`](inference::Repository).
//!
//! Clients of Triton, KServe or MLServer (`tritonclient`, `curl`) work unchanged: JSON tensors and the binary
//! tensor extension in both directions, statistics, the repository index. Status codes tell the truth: 400 what
//! the client can correct, 404 unknown, 413 too large, 503 with `Retry-After` when overloaded or not ready, 500 an
//! engine's failure; always with `{"error": "…"}`.
//!
//! Beyond and beside the protocol:
//! - NaN and infinities have no JSON form: they are written as `null`, and `null` in a floating-point input reads
//!   as NaN. Binary tensors carry them exactly.
//! - FP16 and BF16 may be sent and received as JSON numbers too.
//! - `data` may be flat or nested to 32 levels; only the number of elements is compared with `shape`.
//! - Not offered, and refused with 400: shared memory regions and the classification extension.
//!
//! ```no_run
//! # async fn serve(repository: inference::Repository) -> std::io::Result<()> {
//! let state = avocet_serving::ServerState::new(repository).ready_when(|| true);
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8000").await?;
//! axum::serve(listener, avocet_serving::router(state)).await
//! # }
//! ```

mod state;

mod routes;

mod infer;

mod data;
mod decode;
mod encode;

mod compression;

mod error;

mod guard;

pub mod jobs;
pub mod mlbuffet;
pub mod shelf;

pub use guard::{Guard, Unguarded};
pub use jobs::Jobs;
pub use routes::router;
pub use shelf::Shelf;
pub use state::ServerState;
