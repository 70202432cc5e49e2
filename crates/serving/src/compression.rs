//! gzip and deflate in both directions; "deflate" means the zlib format, as browsers and Triton's client have it.

use std::io::{Read, Write};
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};

use crate::bodies::Held;
use crate::error::ApiError;

/// Shorter answers than this gain nothing from compression.
const WORTH_IT: usize = 1024;
/// Bytes that are unpacked before they are counted.
const PIECE: u64 = 64 << 10;

/// A packing that both sides know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Gzip,
    Deflate,
}

impl Encoding {
    /// Tells encodings apart in one byte; 0 is none.
    pub fn tag(self) -> u8 {
        match self {
            Encoding::Gzip => 1,
            Encoding::Deflate => 2,
        }
    }

    /// The name in a header.
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Gzip => "gzip",
            Encoding::Deflate => "deflate",
        }
    }
}

/// How a request's body is packed, as `Content-Encoding` says.
///
/// # Errors
/// When the encoding is unknown.
pub(crate) fn of_request(headers: &HeaderMap) -> Result<Option<Encoding>, ApiError> {
    let Some(encoding) = headers.get(header::CONTENT_ENCODING) else { return Ok(None) };
    let encoding = String::from_utf8_lossy(encoding.as_bytes());
    match encoding.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(None),
        "gzip" | "x-gzip" => Ok(Some(Encoding::Gzip)),
        "deflate" => Ok(Some(Encoding::Deflate)),
        other => Err(ApiError::Encoding(other.chars().take(64).collect())),
    }
}

/// What the answer may be packed with, as `Accept-Encoding` says.
pub(crate) fn for_answer(headers: &HeaderMap) -> Option<Encoding> {
    let accepted = headers.get(header::ACCEPT_ENCODING)?.to_str().ok()?;
    let accepts = |wanted: &Encoding| {
        accepted.split(',').any(|part| {
            let (name, weight) = part.split_once(';').unwrap_or((part, ""));
            let refused = matches!(weight.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000");
            name.trim().eq_ignore_ascii_case(wanted.name()) && !refused
        })
    };
    [Encoding::Gzip, Encoding::Deflate].into_iter().find(accepts)
}

/// Bounds of what is unpacked of one request.
#[derive(Clone)]
pub(crate) struct Room {
    /// Most bytes.
    pub limit: usize,
    /// The request that holds them.
    pub held: Arc<Held>,
}

/// Unpacks a body within its room.
///
/// # Errors
/// When the data is damaged, the result too large, or what others hold leaves no room for it.
pub(crate) fn unpack(encoding: Option<Encoding>, body: Bytes, room: &Room) -> Result<Bytes, ApiError> {
    match encoding {
        None => Ok(body),
        Some(Encoding::Gzip) => read_all(GzDecoder::new(body.as_ref()), room),
        Some(Encoding::Deflate) => read_all(ZlibDecoder::new(body.as_ref()), room),
    }
}

/// Piece by piece, so that what is refused takes no more than a piece.
fn read_all(mut source: impl Read, Room { limit, held }: &Room) -> Result<Bytes, ApiError> {
    let mut unpacked = Vec::new();
    loop {
        let piece = source.by_ref().take(PIECE).read_to_end(&mut unpacked).map_err(|error| {
            ApiError::BadRequest(format!("the compressed body is damaged: {error}; compress it again"))
        })?;
        if unpacked.len() > *limit {
            return Err(ApiError::BodyTooLarge { limit: *limit });
        }
        if piece == 0 {
            return Ok(unpacked.into());
        }
        held.take(piece)?;
    }
}

/// Packs an answer where that is accepted and worth it; gives the encoding used.
pub(crate) fn pack(accepted: Option<Encoding>, body: Bytes) -> (Bytes, Option<Encoding>) {
    let Some(encoding) = accepted.filter(|_| body.len() >= WORTH_IT) else { return (body, None) };
    let fast = Compression::fast();
    let packed = match encoding {
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), fast);
            encoder.write_all(&body).and_then(|()| encoder.finish())
        }
        Encoding::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), fast);
            encoder.write_all(&body).and_then(|()| encoder.finish())
        }
    };
    match packed {
        Ok(packed) => (packed.into(), Some(encoding)),
        Err(_) => (body, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bodies::Bodies;

    fn headers(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    fn room(limit: usize) -> Room {
        Room { limit, held: Bodies::of(limit).begin() }
    }

    #[test]
    fn what_is_unpacked_counts_with_what_others_hold() {
        let zeros = vec![0; 60 << 20];
        let (packed, used) = pack(Some(Encoding::Gzip), zeros.clone().into());
        // Room for 64 MiB in all.
        let bodies = Bodies::of(0);
        let (limit, first, second) = (zeros.len(), bodies.begin(), bodies.begin());
        let room = Room { limit, held: first.clone() };
        assert_eq!(unpack(used, packed.clone(), &room).unwrap().len(), limit);
        assert_eq!(first.bytes(), 60 << 20);
        let refused = unpack(used, packed.clone(), &Room { limit, held: second.clone() }).unwrap_err();
        assert!(matches!(refused, ApiError::Crowded), "{refused}");
        assert!(second.bytes() < 5 << 20, "refused as soon as there is no more room");
        drop((room, first, second));
        assert!(unpack(used, packed, &Room { limit, held: bodies.begin() }).is_ok());
    }

    #[test]
    fn what_is_packed_unpacks() {
        let body = b"0123456789".repeat(1000);
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let (packed, used) = pack(Some(encoding), body.clone().into());
            assert_eq!(used, Some(encoding));
            assert_eq!(unpack(used, packed.clone(), &room(body.len())).unwrap(), body);
            let error = unpack(used, packed, &room(body.len() - 1)).unwrap_err();
            assert!(matches!(error, ApiError::BodyTooLarge { .. }), "a bomb stops at the limit");
        }
        assert_eq!(pack(Some(Encoding::Gzip), vec![0; 9].into()).1, None, "short answers stay as they are");
    }

    #[test]
    fn headers_choose_the_encoding() {
        let accept = |value| for_answer(&headers(header::ACCEPT_ENCODING, value));
        assert_eq!(accept("br, Deflate, gzip;q=0.5"), Some(Encoding::Gzip));
        assert_eq!(accept("gzip;q=0, deflate"), Some(Encoding::Deflate));
        assert_eq!(accept("br"), None);
        assert_eq!(for_answer(&HeaderMap::new()), None);
        let content = |value| of_request(&headers(header::CONTENT_ENCODING, value));
        assert_eq!(content("GZIP").unwrap(), Some(Encoding::Gzip));
        assert_eq!(content("identity").unwrap(), None);
        assert!(matches!(content("br"), Err(ApiError::Encoding(_))));
    }

    #[test]
    fn damaged_data_is_the_clients_to_correct() {
        let error = unpack(Some(Encoding::Gzip), Bytes::from_static(b"no"), &room(9));
        assert!(matches!(error, Err(ApiError::BadRequest(_))));
    }
}
