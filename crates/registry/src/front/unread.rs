//! Refusals that are made before a request's body was read.
//!
//! Over HTTP/1.1 nobody can be told to stop sending but by the end of the connection. A client that sends its credentials only
//! when it is asked for them, as oras does, would then find a connection broken that it takes for good.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody};
use axum::extract::Request;
use axum::http::header::{CONNECTION, EXPECT};
use axum::http::{HeaderValue, Version};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt};

/// How much of a body is read that nobody wants, and for how long.
const MOST: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(1);

/// Reads what is left of a request's body once its answer is known, so that the connection is good for another request;
/// says that it isn't where that is too much.
pub async fn read_rest(request: Request, next: Next) -> Response {
    // Who waits to be told to go on has sent nothing yet.
    let waits = request.headers().contains_key(EXPECT);
    if waits || request.version() != Version::HTTP_11 || request.body().is_end_stream() {
        return next.run(request).await;
    }
    let rest = Rest::default();
    let lend = |body: Body| Lent { pieces: Some(body.into_data_stream()), rest: rest.clone() };
    let request = request.map(|body| Body::from_stream(lend(body)));
    let mut response = next.run(request).await;
    let unread = rest.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(unread) = unread
        && !read(unread).await
    {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// What was left of a body by whom it was lent to.
type Rest = Arc<Mutex<Option<BodyDataStream>>>;

/// Whether all could be read within the bounds.
async fn read(mut pieces: BodyDataStream) -> bool {
    let all = async {
        let mut left = MOST;
        while let Some(piece) = pieces.next().await {
            match piece.ok().and_then(|piece| left.checked_sub(piece.len())) {
                Some(less) => left = less,
                None => return false,
            }
        }
        true
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap_or(false)
}

/// A body that comes back when it is dropped before its end.
struct Lent {
    pieces: Option<BodyDataStream>,
    rest: Rest,
}

impl Stream for Lent {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(pieces) = &mut self.pieces else { return Poll::Ready(None) };
        let piece = ready!(pieces.poll_next_unpin(context));
        if !matches!(piece, Some(Ok(_))) {
            self.pieces = None;
        }
        Poll::Ready(piece)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let unread = self.pieces.take();
        *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = unread;
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::middleware::from_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn connect() -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let refuse = Router::new().fallback(|| async { StatusCode::UNAUTHORIZED }).layer(from_fn(read_rest));
        tokio::task::spawn_local(async { axum::serve(listener, refuse).await });
        TcpStream::connect(address).await.unwrap()
    }

    async fn ask(connection: &mut TcpStream, length: usize, body: &[u8]) -> std::io::Result<String> {
        let head = format!("PUT / HTTP/1.1\r\nhost: here\r\ncontent-length: {length}\r\n\r\n");
        connection.write_all(head.as_bytes()).await?;
        // As clients do that write the head and the body one by one.
        tokio::time::sleep(Duration::from_millis(20)).await;
        connection.write_all(body).await?;
        let mut answer = vec![0; 1000];
        let read = connection.read(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
    }

    #[test]
    fn a_connection_is_good_for_another_request_after_a_refusal_or_is_said_not_to_be() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let mut connection = connect().await;
            for _ in 0..3 {
                let answer = ask(&mut connection, 500_000, &vec![1; 500_000]).await.unwrap();
                assert!(
                    answer.starts_with("HTTP/1.1 401") && !answer.contains("connection: close"),
                    "{answer}"
                );
            }
            let answer = ask(&mut connection, 1 << 40, b"the first of many").await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("connection: close"), "{answer}");
        });
    }
}
