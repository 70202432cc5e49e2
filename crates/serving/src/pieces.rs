//! A request's body as it came, piece by piece.
//!
//! Who knows the answer from what the body hashes to needs no copy of it in one piece; who parses it does.

use std::error::Error;
use std::sync::Arc;

use axum::RequestExt;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use bytes::{BufMut, BytesMut};
use http_body_util::{BodyExt, LengthLimitError};

use crate::bodies::Held;
use crate::error::ApiError;
use crate::state::ServerState;

/// The pieces in their order, none of them empty, and what holds them.
pub(crate) struct Pieces {
    pieces: Vec<Bytes>,
    held: Arc<Held>,
}

impl FromRequest<ServerState> for Pieces {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ServerState) -> Result<Self, ApiError> {
        let held = request.extensions().get().cloned().unwrap_or_else(|| state.bodies.begin());
        Self::read(request.into_limited_body(), held).await.map_err(|error| match is_too_long(&error) {
            true => ApiError::BodyTooLarge { limit: state.body_limit },
            false => ApiError::BadRequest(format!("the body can't be read: {error}")),
        })
    }
}

impl Pieces {
    async fn read(mut body: Body, held: Arc<Held>) -> Result<Self, axum::Error> {
        let mut pieces = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame?.into_data() else { continue };
            if !piece.is_empty() {
                pieces.push(piece);
            }
        }
        Ok(Self { pieces, held })
    }

    pub fn as_slice(&self) -> &[Bytes] {
        &self.pieces
    }

    /// What they hold.
    pub fn held(&self) -> Arc<Held> {
        self.held.clone()
    }

    /// The body in one piece.
    pub fn whole(mut self) -> Bytes {
        match self.pieces.len() {
            0 | 1 => self.pieces.pop().unwrap_or_default(),
            _ => {
                let mut whole = BytesMut::with_capacity(self.pieces.iter().map(Bytes::len).sum());
                self.pieces.into_iter().for_each(|piece| whole.put(piece));
                whole.freeze()
            }
        }
    }
}

fn is_too_long(error: &(dyn Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.any(<dyn Error>::is::<LengthLimitError>)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bodies::Bodies;

    fn held() -> Arc<Held> {
        Bodies::of(9).begin()
    }

    fn body(pieces: &[&'static [u8]]) -> Body {
        let pieces: Vec<_> =
            pieces.iter().map(|piece| Ok::<_, std::io::Error>(Bytes::from(*piece))).collect();
        Body::from_stream(futures::stream::iter(pieces))
    }

    #[tokio::test]
    async fn the_whole_is_all_pieces_in_their_order() {
        for (pieces, whole) in
            [(vec![], ""), (vec![b"abc".as_slice()], "abc"), (vec![b"ab".as_slice(), b"", b"c"], "abc")]
        {
            let read = Pieces::read(body(&pieces), held()).await.unwrap();
            assert!(read.as_slice().iter().all(|piece| !piece.is_empty()));
            assert_eq!(read.whole(), whole);
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_or_is_too_long_is_an_error_that_is_told_apart() {
        let broken =
            Body::from_stream(futures::stream::iter([Err::<Bytes, _>(std::io::Error::other("cut"))]));
        assert!(!is_too_long(&Pieces::read(broken, held()).await.err().unwrap()));
        let long = Body::new(http_body_util::Limited::new(body(&[b"ab", b"c"]), 2));
        assert!(is_too_long(&Pieces::read(long, held()).await.err().unwrap()));
    }
}
