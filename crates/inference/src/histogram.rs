//! Times counted in buckets that grow by a quarter of an octave: percentiles within 19%, no lock, 1 KiB.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Four buckets to each doubling, from 1 µs to over an hour.
const BUCKETS: usize = 4 * 32;

pub(crate) struct Histogram {
    counts: [AtomicU64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: [const { AtomicU64::new(0) }; BUCKETS] }
    }
}

impl Histogram {
    pub fn record(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get(bucket(micros)) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// The time that this share of records (0 to 1) does not exceed; zero without records.
    pub fn quantile(&self, share: f64) -> Duration {
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        if total == 0 {
            return Duration::ZERO;
        }
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let wanted = ((total as f64 * share).ceil() as u64).clamp(1, total);
        let mut seen = 0;
        for (index, count) in counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_micros(upper_bound(index));
            }
        }
        Duration::MAX
    }
}

/// Values below 4 have a bucket each; above, the two bits after the leading one choose among an octave's four.
fn bucket(micros: u64) -> usize {
    if micros < 4 {
        return usize::try_from(micros).unwrap_or_default();
    }
    let octave = 63 - micros.leading_zeros();
    let quarter = (micros >> (octave - 2)) & 3;
    let index = u64::from(octave - 1) * 4 + quarter;
    usize::try_from(index).map_or(BUCKETS - 1, |index| index.min(BUCKETS - 1))
}

/// The largest value of a bucket.
fn upper_bound(index: usize) -> u64 {
    let index = index as u64;
    if index < 4 {
        return index;
    }
    let (octave, quarter) = (index / 4 + 1, index % 4);
    ((5 + quarter) << (octave - 2)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_and_buckets_are_narrow() {
        for micros in (0..10_000).chain((14..31).map(|n| (1 << n) + 12_345)) {
            let index = bucket(micros);
            assert!(micros <= upper_bound(index), "{micros}");
            assert!(index == 0 || micros > upper_bound(index - 1), "{micros}");
            assert!(upper_bound(index) <= micros + micros / 4, "{micros}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_upper_bounds_within_a_quarter() {
        let histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.99), Duration::ZERO);
        for micros in 1..=1000 {
            histogram.record(Duration::from_micros(micros));
        }
        for (share, exact) in [(0.5, 500), (0.99, 990), (1.0, 1000)] {
            let given = histogram.quantile(share).as_micros();
            assert!((exact..=exact * 5 / 4).contains(&given), "{share}: {given}");
        }
    }
}
