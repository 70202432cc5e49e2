//! An entry point for fuzzers: bytes as a stranger may send them. See `fuzz/` at the top of the repository.

use std::io::Cursor;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use tokio::io::{join, sink};

use crate::{Multiplexed, Patience, Refusal, serve};

const LONG: Duration = Duration::from_secs(60);

/// What a client sends to a hub, and what a hub answers to a client's request.
pub fn frames(bytes: &[u8]) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
    let patience = Patience { asks_after: LONG, waits: LONG };
    let connection = || join(Cursor::new(bytes.to_vec()), sink());
    runtime.block_on(async {
        let _ = serve(connection(), patience, answer, std::future::pending()).await;
        let client = Multiplexed::begin(connection(), &HeaderMap::new(), patience);
        if let Ok(answer) = client.send(&Request::new(Bytes::new())).await {
            let _ = futures::TryStreamExt::try_collect::<Vec<Bytes>>(answer.into_body()).await;
        }
    });
}

async fn answer(asked: Result<Request<Bytes>, Refusal>) -> Response<http_body_util::Full<Bytes>> {
    Response::new(asked.map(Request::into_body).unwrap_or_default().into())
}
