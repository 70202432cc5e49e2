//! The hub: its real controllers, a store that outlives it, and clocks of ours.

use std::time::{Duration, Instant};

use store::Store;

use crate::placement::Planning;
use crate::site::Clock;
use crate::snapshot::Reader;
use crate::testing::at;
use crate::{Heartbeats, Measurements, Write, application, placement, site};

/// For how many seconds a site may be silent.
pub const GRACE: u64 = 15;

/// One process of the hub.
pub struct Hub {
    reader: Reader,
    planning: Planning,
    pub heartbeats: Heartbeats,
    clock: Clock,
    since: Instant,
    /// When it was started.
    pub started: i64,
    /// By how many seconds its clock was ahead then: by so much the clock that nobody sets is, as long as it lives.
    pub ahead: i64,
}

impl Hub {
    pub fn start(now: i64, set_by: i64) -> Self {
        let since = Instant::now();
        let clock = Clock::set_to(since);
        Self {
            reader: Reader::default(),
            planning: Planning::default(),
            heartbeats: Heartbeats::by(clock.clone(), at(now + set_by), Duration::from_secs(GRACE)),
            clock,
            since,
            started: now,
            ahead: set_by,
        }
    }

    /// Its clock, which nobody sets, goes on.
    pub fn tick(&self, now: i64) {
        let age = Duration::from_secs((now - self.started).unsigned_abs());
        self.clock.set(self.since + age);
    }

    /// What the controllers want to write now.
    pub fn look(&mut self, store: &Store, now: i64, set_by: i64) -> Vec<Write> {
        let moment = self.heartbeats.moment(at(now + set_by));
        let (snapshot, _) = self.reader.read(store);
        let mut writes = site::reconcile(snapshot, &self.heartbeats, moment);
        let measured = Measurements::default();
        writes.extend(placement::reconcile(&mut self.planning, snapshot, &measured, moment.now));
        writes.extend(application::reconcile(snapshot, moment));
        writes
    }
}
