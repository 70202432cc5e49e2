//! Addresses that can't answer now: their jobs wait together, and one tries now and then.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// Which addresses are left alone, and until when.
#[derive(Default)]
pub(super) struct Pauses(HashMap<String, Pause>);

struct Pause {
    until: Instant,
    wait: Duration,
}

impl Pauses {
    /// When the address may be asked again; `None` where that is now.
    pub fn until(&self, address: &str, now: Instant) -> Option<Instant> {
        self.0.get(address).map(|pause| pause.until).filter(|until| *until > now)
    }

    /// Leaves the address alone, twice as long as the last time; answers until when.
    pub fn begin(&mut self, address: &str, now: Instant) -> Instant {
        // Who asked at the same time as another one learns nothing new.
        if let Some(until) = self.until(address, now) {
            return until;
        }
        let before = self.0.get(address).map(|pause| pause.wait * 2);
        let wait = before.unwrap_or(FIRST).min(LONGEST);
        self.0.insert(address.to_owned(), Pause { until: now + wait, wait });
        now + wait
    }

    /// The address answers again.
    pub fn end(&mut self, address: &str) {
        self.0.remove(address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound_and_end_with_an_answer() {
        let (mut pauses, mut now, mut waits) = (Pauses::default(), Instant::now(), Vec::new());
        for _ in 0..9 {
            let until = pauses.begin("a", now);
            assert_eq!(pauses.until("a", now), Some(until));
            assert_eq!(pauses.begin("a", now), until, "once for all who asked");
            assert_eq!(pauses.until("b", now), None);
            waits.push((until - now).as_millis());
            now = until;
            assert_eq!(pauses.until("a", now), None);
        }
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        pauses.end("a");
        assert_eq!(pauses.begin("a", now) - now, FIRST);
    }
}
