//! Which requests are traced.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Decides by the caller's decision and the trace's id.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// Of the traces that begin here, and of all where callers aren't followed.
    pub ratio: Ratio,
    /// Whether a caller's decision stands.
    pub follows_caller: bool,
}

/// A share from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio(f64);

impl Ratio {
    pub const ALL: Ratio = Ratio(1.0);
    pub const NONE: Ratio = Ratio(0.0);

    /// `None` for what is no share.
    pub fn new(share: f64) -> Option<Ratio> {
        (0.0..=1.0).contains(&share).then_some(Ratio(share))
    }

    /// The share as it was given.
    pub fn get(self) -> f64 {
        self.0
    }

    /// Whether a trace is within the share, as OpenTelemetry's SDKs decide it: so all services agree on a trace.
    fn takes(self, trace: u128) -> bool {
        #[expect(clippy::cast_possible_truncation, reason = "the lower half of the id decides")]
        let place = (trace as u64) >> 1;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share from 0 to 1 of 63 bits"
        )]
        let bound = (self.0 * (1_u64 << 63) as f64) as u64;
        place < bound
    }
}

impl Sampler {
    pub(super) fn takes(&self, trace: u128, caller: Option<bool>) -> bool {
        match caller {
            Some(decision) if self.follows_caller => decision,
            _ => self.ratio.takes(trace),
        }
    }
}

/// Makes ids that no other process makes: a counter, mixed, from a random beginning. No lock, no system call.
pub(super) struct Ids(AtomicU64);

impl Default for Ids {
    fn default() -> Ids {
        Ids(AtomicU64::new(RandomState::new().hash_one(std::process::id())))
    }
}

impl Ids {
    pub fn trace(&self) -> u128 {
        (u128::from(self.span()) << 64) | u128::from(self.span())
    }

    /// Never 0, which stands for none.
    pub fn span(&self) -> u64 {
        crate::scramble(self.0.fetch_add(1, Relaxed)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(share: f64, follows_caller: bool) -> Sampler {
        Sampler { ratio: Ratio::new(share).unwrap(), follows_caller }
    }

    #[test]
    fn a_share_of_the_traces_is_taken_and_the_same_ones_each_time() {
        let (ids, tenth) = (Ids::default(), sampler(0.1, true));
        let traces: Vec<u128> = (0..10_000).map(|_| ids.trace()).collect();
        let taken = || traces.iter().filter(|trace| tenth.takes(**trace, None)).count();
        assert!((800..1200).contains(&taken()), "{}", taken());
        assert!(traces.iter().all(|trace| sampler(1.0, true).takes(*trace, None)));
        assert!(!traces.iter().any(|trace| sampler(0.0, true).takes(*trace, None)));
    }

    #[test]
    fn the_callers_decision_stands_where_it_is_followed() {
        for decision in [true, false] {
            assert_eq!(sampler(0.0, true).takes(1, Some(decision)), decision);
            assert!(sampler(1.0, false).takes(1, Some(decision)));
        }
    }

    #[test]
    fn a_ratio_is_from_0_to_1() {
        assert!([-0.1, 1.1, f64::NAN].iter().all(|share| Ratio::new(*share).is_none()));
    }
}
