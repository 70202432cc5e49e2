//! How busy the machine's processors are.

use std::fs::read_to_string;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Looks that come sooner get the last one's answer: the kernel counts in hundredths of seconds.
const LEAST: Duration = Duration::from_secs(1);

/// Remembers the last look.
pub(crate) struct Processors(Mutex<Look>);

struct Look {
    at: Option<Instant>,
    times: Times,
    share: Option<f64>,
}

/// Ticks of all processors since the machine started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Times {
    busy: u64,
    all: u64,
}

impl Processors {
    pub fn begin() -> Processors {
        Processors(Mutex::new(Look { at: None, times: Times::default(), share: None }))
    }

    /// The busy share since the last look, from 0 to 1; at the first one since the machine started. `None` where the
    /// system doesn't tell.
    pub fn share(&self) -> Option<f64> {
        let mut look = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if look.at.is_some_and(|at| at.elapsed() < LEAST) {
            return look.share;
        }
        let now = Times::read(&read_to_string("/proc/stat").ok()?)?;
        let share = now.busy_since(look.times).or(look.share);
        *look = Look { at: Some(Instant::now()), times: now, share };
        share
    }
}

impl Times {
    /// The first line is of all processors: user, nice, system, idle, waiting for disks, interrupts of two kinds, stolen.
    fn read(stat: &str) -> Option<Times> {
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> =
            line.split_ascii_whitespace().take(8).map_while(|word| word.parse().ok()).collect();
        let all = ticks.iter().fold(0_u64, |sum, ticks| sum.saturating_add(*ticks));
        let idle = ticks.get(3)?.saturating_add(ticks.get(4).copied().unwrap_or(0));
        Some(Times { busy: all.saturating_sub(idle), all })
    }

    #[expect(clippy::cast_precision_loss, reason = "a share needs no more than a double's digits")]
    fn busy_since(self, before: Times) -> Option<f64> {
        let all = self.all.checked_sub(before.all).filter(|all| *all > 0)?;
        Some((self.busy.saturating_sub(before.busy) as f64 / all as f64).clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busy_share_is_that_of_the_time_between_two_looks() {
        let before = Times::read("cpu  100 0 50 800 50 0 0 0 7 7\ncpu0 1 1 1 1\n").unwrap();
        assert_eq!(before, Times { busy: 150, all: 1000 });
        let after = Times::read("cpu  125 25 75 850 75 10 10 5 9 9\n").unwrap();
        assert_eq!(after.busy_since(before), Some(100.0 / 175.0));
        assert_eq!(before.busy_since(before), None);
        for nonsense in ["", "cpu0 1 2 3 4", "cpu  1 2 x 4", "intr 5"] {
            assert_eq!(Times::read(nonsense), None, "{nonsense}");
        }
    }
}
