//! The caller's trace, as W3C's `traceparent` and `tracestate` name it.

use std::fmt;

use axum::http::HeaderMap;

/// Longest `tracestate` that is passed on, in bytes: what the standard says must be.
const LONGEST_STATE: usize = 512;

/// The trace that a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceParent {
    pub trace: u128,
    /// The caller's own span.
    pub span: u64,
    /// Whether the caller's spans are recorded.
    pub sampled: bool,
}

impl TraceParent {
    /// Over gRPC the metadata are these headers.
    pub fn of(headers: &HeaderMap) -> Option<TraceParent> {
        TraceParent::read(headers.get("traceparent")?.to_str().ok()?)
    }

    /// `00-TRACE-SPAN-FLAGS`; later versions may have more fields behind. Nonsense is no trace.
    fn read(text: &str) -> Option<TraceParent> {
        let mut fields = text.split('-');
        let [version, trace, span, flags] = [fields.next()?, fields.next()?, fields.next()?, fields.next()?];
        let (version, flags) = (hex(version, 2)?, hex(flags, 2)?);
        let (trace, span) = (hex(trace, 32)?, u64::try_from(hex(span, 16)?).ok()?);
        let known = version < 0xff && (version > 0 || fields.next().is_none());
        (known && trace != 0 && span != 0).then_some(TraceParent { trace, span, sampled: flags & 1 == 1 })
    }
}

/// What other tracing systems want passed on with the trace; empty where that is nothing, or too much.
pub(super) fn state(headers: &HeaderMap) -> String {
    let parts = headers.get_all("tracestate").iter().filter_map(|part| part.to_str().ok());
    let state = parts.collect::<Vec<_>>().join(",");
    if state.len() <= LONGEST_STATE { state } else { String::new() }
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
        let read = |text: &str| TraceParent::read(text);
        let expected = |sampled| {
            let (trace, span) = (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7);
            Some(TraceParent { trace, span, sampled })
        };
        assert_eq!(read(&format!("00-{trace}-00f067aa0ba902b7-01")), expected(true));
        assert_eq!(read(&format!("01-{trace}-00f067aa0ba902b7-02-more")), expected(false));
        assert_eq!(expected(true).unwrap().to_string(), trace);
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

    #[test]
    fn lists_of_states_are_joined_and_too_long_ones_are_dropped() {
        let headers = |states: &[String]| -> HeaderMap {
            states.iter().map(|state| ("tracestate".parse().unwrap(), state.parse().unwrap())).collect()
        };
        assert_eq!(state(&headers(&[])), "");
        assert_eq!(state(&headers(&["a=1".into(), "b=2,c=3".into()])), "a=1,b=2,c=3");
        assert_eq!(state(&headers(&["a=".to_owned() + &"x".repeat(LONGEST_STATE)])), "");
    }
}
