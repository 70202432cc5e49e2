//! gzip and deflate in both directions; "deflate" means the zlib format, as browsers and Triton's client have it.

use std::io::{Read, Write};

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};

use crate::error::ApiError;

/// Shorter answers than this gain nothing from compression.
const WORTH_IT: usize = 1024;

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

/// Unpacks a body, up to `limit` bytes.
///
/// # Errors
/// When the data is damaged or the result too large.
pub(crate) fn unpack(encoding: Option<Encoding>, body: Bytes, limit: usize) -> Result<Bytes, ApiError> {
    match encoding {
        None => Ok(body),
        Some(Encoding::Gzip) => read_all(GzDecoder::new(body.as_ref()), limit),
        Some(Encoding::Deflate) => read_all(ZlibDecoder::new(body.as_ref()), limit),
    }
}

fn read_all(source: impl Read, limit: usize) -> Result<Bytes, ApiError> {
    let mut unpacked = Vec::new();
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    source.take(bound).read_to_end(&mut unpacked).map_err(|error| {
        ApiError::BadRequest(format!("the compressed body is damaged: {error}; compress it again"))
    })?;
    if unpacked.len() > limit {
        return Err(ApiError::BodyTooLarge { limit });
    }
    Ok(unpacked.into())
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

    fn headers(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn what_is_packed_unpacks() {
        let body = b"0123456789".repeat(1000);
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let (packed, used) = pack(Some(encoding), body.clone().into());
            assert_eq!(used, Some(encoding));
            assert_eq!(unpack(used, packed.clone(), body.len()).unwrap(), body);
            let error = unpack(used, packed, body.len() - 1).unwrap_err();
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
        let error = unpack(Some(Encoding::Gzip), Bytes::from_static(b"no"), 9);
        assert!(matches!(error, Err(ApiError::BadRequest(_))));
    }
}
