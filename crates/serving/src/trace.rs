//! The caller's trace, as W3C's `traceparent` names it.

use std::fmt;

use axum::http::HeaderMap;
use tonic::metadata::MetadataMap;

const HEADER: &str = "traceparent";

/// The trace that a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceParent {
    trace: u128,
}

impl TraceParent {
    pub fn of_http(headers: &HeaderMap) -> Option<TraceParent> {
        TraceParent::read(headers.get(HEADER)?.to_str().ok()?)
    }

    pub fn of_grpc(metadata: &MetadataMap) -> Option<TraceParent> {
        TraceParent::read(metadata.get(HEADER)?.to_str().ok()?)
    }

    /// `00-TRACE-SPAN-FLAGS`; later versions may have more fields behind. Nonsense is no trace.
    fn read(text: &str) -> Option<TraceParent> {
        let mut fields = text.split('-');
        let [version, trace, span, flags] = [fields.next()?, fields.next()?, fields.next()?, fields.next()?];
        let version = hex(version, 2)?;
        hex(flags, 2)?;
        let (trace, span) = (hex(trace, 32)?, hex(span, 16)?);
        let known = version < 0xff && (version > 0 || fields.next().is_none());
        (known && trace != 0 && span != 0).then_some(TraceParent { trace })
    }
}

/// The trace's id.
impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.trace)
    }
}

/// Exactly so many digits, in lower case as the standard demands.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let fits = text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    u128::from_str_radix(text, 16).ok().filter(|_| fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_is_read_and_nonsense_is_none() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let read = |text: &str| TraceParent::read(text).map(|parent| parent.to_string());
        assert_eq!(read(&format!("00-{trace}-00f067aa0ba902b7-01")).as_deref(), Some(trace));
        assert_eq!(read(&format!("01-{trace}-00f067aa0ba902b7-00-more")).as_deref(), Some(trace));
        for nonsense in [
            String::new(),
            format!("00-{trace}-00f067aa0ba902b7"),
            format!("00-{trace}-00f067aa0ba902b7-01-more"),
            format!("ff-{trace}-00f067aa0ba902b7-01"),
            format!("00-{trace}-0000000000000000-01"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
            format!("00-{}-00f067aa0ba902b7-01", "+".repeat(32)),
        ] {
            assert_eq!(read(&nonsense), None, "{nonsense}");
        }
    }
}
