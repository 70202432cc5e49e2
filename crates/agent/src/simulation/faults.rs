//! What goes wrong with requests: it follows from a seed, and from how many there were.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// The largest body of a request or an answer, in bytes.
const LARGEST: usize = 1 << 20;

#[derive(Clone)]
pub struct Faults(Arc<Mutex<State_>>);

struct State_ {
    seed: u64,
    are_over: bool,
    met: usize,
}

/// What happens to a request.
#[derive(Debug)]
enum Fault {
    None,
    /// It does not arrive.
    Lost,
    /// It arrives, and its answer does not.
    Unanswered,
    /// It arrives twice.
    Twice,
    /// Only the first half of its answer arrives.
    BreaksOff,
}

impl Faults {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State_ { seed, are_over: false, met: 0 })))
    }

    fn state(&self) -> MutexGuard<'_, State_> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// SplitMix64.
    pub fn below(&self, limit: usize) -> usize {
        let mut state = self.state();
        state.seed = state.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state.seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).unwrap()
    }

    pub fn one_in(&self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Nothing goes wrong any more.
    pub fn end(&self) {
        self.state().are_over = true;
    }

    pub fn are_likely(&self) -> bool {
        !self.state().are_over
    }

    /// How many requests met one.
    pub fn met(&self) -> usize {
        self.state().met
    }

    fn next(&self) -> Fault {
        if !self.are_likely() {
            return Fault::None;
        }
        let fault = match self.below(20) {
            0 => Fault::Lost,
            1 | 2 => Fault::Unanswered,
            3 | 4 => Fault::Twice,
            5 => Fault::BreaksOff,
            _ => return Fault::None,
        };
        self.state().met += 1;
        fault
    }
}

/// Lets a request through, or not quite.
pub async fn meddle(State(faults): State<Faults>, request: Request, next: Next) -> Response {
    let gone = || StatusCode::BAD_GATEWAY.into_response();
    match faults.next() {
        Fault::None => next.run(request).await,
        Fault::Lost => gone(),
        Fault::Unanswered => {
            let _ = next.run(request).await;
            gone()
        }
        Fault::Twice => {
            let (parts, body) = request.into_parts();
            let body = to_bytes(body, LARGEST).await.unwrap();
            let first = Request::from_parts(parts.clone(), Body::from(body.clone()));
            let _ = next.clone().run(first).await;
            next.run(Request::from_parts(parts, Body::from(body))).await
        }
        Fault::BreaksOff => {
            let (parts, body) = next.run(request).await.into_parts();
            let body = to_bytes(body, LARGEST).await.unwrap();
            let half: Bytes = body.slice(..body.len() / 2);
            let broken = [Ok(half), Err(std::io::Error::other("it breaks off"))];
            Response::from_parts(parts, Body::from_stream(futures::stream::iter(broken)))
        }
    }
}
