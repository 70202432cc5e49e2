//! Waiting longer after each failure, with jitter so that many who failed together don't return together.

use std::time::Duration;

/// Exponential backoff with full jitter in the upper half: each wait is 50–100 % of a doubling ceiling.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Begins at `first` and doubles up to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// After a success: the next wait is the first again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after one more failure.
    pub fn next_wait(&mut self) -> Duration {
        let ceiling = self.first.saturating_mul(1_u32 << self.failures.min(20)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        let mut random = [0; 1];
        // Without randomness the wait is still right, only less spread.
        let _ = getrandom::fill(&mut random);
        ceiling.mul_f64(0.5 + f64::from(random[0]) / 510.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let waits: Vec<Duration> = (0..20).map(|_| backoff.next_wait()).collect();
        assert!(waits[0] <= Duration::from_millis(100) && waits[0] >= Duration::from_millis(50));
        assert!(
            waits[10..]
                .iter()
                .all(|wait| *wait >= Duration::from_millis(500) && *wait <= Duration::from_secs(1))
        );
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_millis(100));
    }
}
