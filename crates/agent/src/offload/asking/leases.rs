//! Who has what, and when they were last heard: by this process's own steady clock, so that no clock that is set matters.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use types::Offload;

/// One attempt at another site.
#[derive(Debug)]
pub(super) struct Lease {
    pub invocation: String,
    pub site: String,
    patience: Duration,
    heard: Instant,
    /// Its input is on its way to the hub, which has a time limit of its own.
    is_sending: bool,
}

impl Lease {
    pub(super) fn new(invocation: String, site: String, offload: &Offload, is_sending: bool) -> Self {
        let patience = Duration::from_secs(offload.patience_seconds.into());
        Self { invocation, site, patience, heard: Instant::now(), is_sending }
    }
}

/// Leases by attempt. Who takes one out has the say about its invocation. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Leases(Arc<Mutex<BTreeMap<String, Lease>>>);

impl Leases {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Lease>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, attempt: String, lease: Lease) {
        self.lock().insert(attempt, lease);
    }

    /// Takes a lease out if it is that site's.
    pub(super) fn take(&self, attempt: &str, site: &str) -> Option<Lease> {
        let mut leases = self.lock();
        leases.get(attempt).filter(|lease| lease.site == site)?;
        leases.remove(attempt)
    }

    /// Takes a lease out, whoever has it.
    pub(super) fn take_any(&self, attempt: &str) -> Option<Lease> {
        self.lock().remove(attempt)
    }

    pub(super) fn is_of(&self, attempt: &str, site: &str) -> bool {
        self.lock().get(attempt).is_some_and(|lease| lease.site == site)
    }

    /// The site was heard of an attempt just now; answers whether the attempt is its.
    pub(super) fn heard(&self, attempt: &str, site: &str) -> bool {
        let mut leases = self.lock();
        let Some(lease) = leases.get_mut(attempt).filter(|lease| lease.site == site) else { return false };
        lease.heard = Instant::now();
        lease.is_sending = false;
        true
    }

    /// Attempts of which nothing was heard for too long.
    pub(super) fn silent(&self) -> Vec<String> {
        let leases = self.lock();
        let is_silent = |lease: &Lease| !lease.is_sending && lease.heard.elapsed() > lease.patience;
        leases.iter().filter(|(_, lease)| is_silent(lease)).map(|(attempt, _)| attempt.clone()).collect()
    }

    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(is_sending: bool) -> Lease {
        let lease = Lease::new("i".into(), "b".into(), &Offload::default(), is_sending);
        Lease { patience: Duration::ZERO, ..lease }
    }

    #[test]
    fn a_lease_is_taken_once_and_by_nobody_elses_result() {
        let leases = Leases::default();
        leases.put("1".into(), lease(false));
        assert!(leases.take("1", "c").is_none() && leases.take("2", "b").is_none());
        assert!(leases.is_of("1", "b") && !leases.is_of("1", "c"));
        assert_eq!(leases.take("1", "b").unwrap().invocation, "i");
        assert!(leases.take("1", "b").is_none() && leases.take_any("1").is_none());
        assert!(!leases.heard("1", "b"), "what was taken out does not live on");
    }

    #[test]
    fn who_is_silent_for_longer_than_its_patience_is_told_but_not_while_the_input_is_sent() {
        let leases = Leases::default();
        leases.put("1".into(), lease(true));
        assert_eq!(leases.silent(), [] as [String; 0]);
        assert!(leases.heard("1", "b"));
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(leases.silent(), ["1"]);
        leases.put("2".into(), Lease { patience: Duration::from_secs(3600), ..lease(false) });
        assert_eq!(leases.silent(), ["1"]);
    }
}
