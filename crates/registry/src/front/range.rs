//! Ranges: of what is pulled, and of what is pushed.

use std::ops::Range;

use super::Refusal;
use crate::uploads::Chunk;
use crate::{Code, Error};

/// The bytes that a `Range` header means; `None` where there is none, or one that this server need not understand.
pub(super) fn wanted(header: Option<&str>, size: u64) -> Result<Option<Range<u64>>, Refusal> {
    let Some(spec) = header.and_then(|header| header.trim().strip_prefix("bytes=")) else { return Ok(None) };
    let Some((start, end)) = spec.split_once('-') else { return Ok(None) };
    let range = match (start.trim().parse::<u64>(), end.trim().parse::<u64>()) {
        (Ok(start), Ok(end)) if start <= end => start..end.saturating_add(1).min(size),
        (Ok(start), Err(_)) if end.trim().is_empty() => start..size,
        (Err(_), Ok(last)) if start.trim().is_empty() => size.saturating_sub(last)..size,
        (Ok(_), Ok(_)) => 0..0,
        _ => return Ok(None),
    };
    if range.is_empty() {
        let code = Code { word: "RANGE_INVALID", status: 416 };
        let refusal = Refusal::new(code, format!("the blob has {size} bytes; none of them are in {spec}"));
        return Err(refusal.with_header(axum::http::header::CONTENT_RANGE, &format!("bytes */{size}")));
    }
    Ok(Some(range))
}

/// The chunk that a `Content-Range` header announces, `START-END` with both ends within.
pub(super) fn announced(header: Option<&str>) -> Result<Chunk, Error> {
    let Some(text) = header else { return Ok(Chunk::default()) };
    let invalid = || {
        let shown: String = text.chars().take(80).collect();
        Error::ChunkInvalid(format!("its range {shown:?} can't be read; write FIRST-LAST"))
    };
    let range = text.trim();
    let range = range.strip_prefix("bytes").unwrap_or(range).trim_start_matches([' ', '=']);
    let range = range.split('/').next().unwrap_or_default();
    let (start, end) = range.split_once('-').ok_or_else(invalid)?;
    let start: u64 = start.parse().map_err(|_| invalid())?;
    let end: u64 = end.parse().map_err(|_| invalid())?;
    let length = end.checked_sub(start).and_then(|length| length.checked_add(1)).ok_or_else(invalid)?;
    Ok(Chunk { start: Some(start), length: Some(length) })
}

/// What an upload of so many bytes has, as the header `Range` says it. Nothing looks like one byte: the
/// specification has no word for it.
pub(super) fn received(bytes: u64) -> String {
    format!("0-{}", bytes.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_says() {
        let range = |header| wanted(Some(header), 10).map_err(|_| ());
        assert_eq!(range("bytes=0-0"), Ok(Some(0..1)));
        assert_eq!(range("bytes=3-"), Ok(Some(3..10)));
        assert_eq!(range("bytes=-3"), Ok(Some(7..10)));
        assert_eq!(range("bytes=5-99"), Ok(Some(5..10)));
        assert_eq!(range("bytes=-99"), Ok(Some(0..10)));
        assert_eq!(range("bytes=10-"), Err(()));
        assert_eq!(range("bytes=5-3"), Err(()));
        for ignored in ["lines=1-2", "bytes=", "bytes=a-b", "bytes=0-1,3-4"] {
            assert_eq!(range(ignored), Ok(None), "{ignored}");
        }
        assert_eq!(wanted(Some("bytes=0-"), 0).map_err(|_| ()), Err(()));
    }

    #[test]
    fn chunks_announce_their_first_and_last_byte() {
        let chunk = Chunk { start: Some(5), length: Some(3) };
        assert_eq!(announced(Some("5-7")).unwrap(), chunk);
        assert_eq!(announced(Some("bytes 5-7/100")).unwrap(), chunk);
        for bad in ["", "5", "7-5", "a-b", "0-18446744073709551615"] {
            assert!(announced(Some(bad)).is_err(), "{bad}");
        }
    }
}
