//! Many requests on one connection, for those who are there in their tens of thousands and mostly wait: agents.
//!
//! HTTP/2 does the same, and keeps some 40 KB for each connection at rest, most of it in buffers that can't be smaller.
//! Here nothing is kept but what is on its way, and the fields that all requests have. It is spoken where both sides offer it when they shake
//! hands (ALPN); what is asked and answered are requests and responses of HTTP.
//!
//! A connection carries frames, each with a head of eight bytes: its kind, its length and the stream that it belongs to.
//!
//! | kind | from | stream | payload |
//! |---|---|---|---|
//! | 1 fields | client | 0 | fields of HTTP/1.1 that all later requests have |
//! | 2 request | client | new | a request as HTTP/1.1 writes it, with its whole body |
//! | 3 cancel | client | open | none: nobody waits for the rest any more |
//! | 4 head | server | open | status and fields of the answer, as HTTP/1.1 writes them |
//! | 5 data | server | open | some of its body |
//! | 6 end | server | open | none: that was all |
//! | 7 broken | server | open | why there is no more, as text |
//! | 8 ping, 9 pong | both | 0 | none |
//! | 10 going away | server | 0 | none: what is open goes on, what is new needs another connection |
//!
//! Kinds that a side doesn't know it leaves out. What is large goes elsewhere: there are no windows of flow control.

mod client;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod server;

use std::io;
use std::time::Duration;

pub use client::{Answer, Multiplexed};
pub use server::{Refusal, serve};

/// How many requests may be open at once on a connection.
pub const STREAMS: usize = 64;
/// How large a request may be, in bytes, and one frame of its answer.
pub const LARGEST: usize = 1 << 20;
/// How large the head of a request may be, and the fields that all requests have, in bytes.
const LARGEST_HEAD: usize = 64 << 10;
const LARGEST_COMMON: usize = 8 << 10;

/// How much of a body is in one frame, in bytes.
const CHUNK: usize = 16 << 10;
/// How many fields a head may have.
const FIELDS: usize = 64;
/// How long a frame may take once it has begun, be it read or written.
const FRAME: Duration = Duration::from_secs(60);

/// How long the other side may say nothing.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until it is asked whether it is there.
    pub asks_after: Duration,
    /// And how long it has to answer.
    pub waits: Duration,
}

impl Patience {
    /// How long nothing may come now.
    fn left(self, is_asked: bool) -> Duration {
        if is_asked { self.waits } else { self.asks_after }
    }
}

fn broken(problem: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}
