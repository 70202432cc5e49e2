//! Which of the machines that show one site's credential is the site.
//!
//! Each process of an agent has a random name, its instance, and tells which instance before it last reached the hub.
//! So a restart is told from a copy: after a restart the one before is never heard again. If it is, there are two,
//! and the later one is refused until the first has been silent for the grace.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Two machines are one site.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "another machine is site `{site}` already, heard {} s ago, and two can't be one site: stop one of them; if this is a \
     copy of the other's disk, give it an empty data folder and a join token for a name of its own",
    heard.as_secs()
)]
pub struct Duplicate {
    /// The site.
    pub site: String,
    /// How long ago the machine was heard that is obeyed.
    pub heard: Duration,
}

/// How often an instance is heard after its successor until it is no restart any more: a request may be late.
const ENOUGH: u32 = 2;

/// The machines of one site.
struct Machines {
    /// The one that is obeyed.
    obeyed: String,
    heard: Instant,
    /// The one that the obeyed one says it follows, and how often it was heard since.
    before: Option<(String, u32)>,
    /// The one that was refused last, and when.
    refused: Option<(String, Instant)>,
}

/// The machines of all sites.
#[derive(Default)]
pub struct Instances {
    sites: HashMap<String, Machines>,
}

impl Instances {
    /// An instance of a site says that it lives, and which it follows.
    ///
    /// # Errors
    /// If another one is obeyed.
    pub fn hear(
        &mut self,
        site: &str,
        instance: &str,
        previous: &str,
        now: Instant,
        grace: Duration,
    ) -> Result<(), Duplicate> {
        let obey = |before| Machines { obeyed: instance.to_owned(), heard: now, before, refused: None };
        let Some(machines) = self.sites.get_mut(site) else {
            self.sites.insert(site.to_owned(), obey(None));
            return Ok(());
        };
        if machines.obeyed == instance {
            machines.heard = now;
            return Ok(());
        }
        let silence = now.saturating_duration_since(machines.heard);
        if silence > grace {
            *machines = obey(None);
            return Ok(());
        }
        if let Some((before, heard)) = &mut machines.before
            && before == instance
        {
            *heard += 1;
            if *heard >= ENOUGH {
                let refused = Some((std::mem::take(&mut machines.obeyed), now));
                *machines = Machines { refused, ..obey(None) };
            }
            return Ok(());
        }
        let is_refused = machines.refused.as_ref().is_some_and(|(refused, _)| refused == instance);
        if previous == machines.obeyed && !is_refused {
            *machines = Machines { refused: machines.refused.take(), ..obey(Some((previous.to_owned(), 0))) };
            return Ok(());
        }
        machines.refused = Some((instance.to_owned(), now));
        Err(Duplicate { site: site.to_owned(), heard: silence })
    }

    /// Whether an instance may act for a site.
    ///
    /// # Errors
    /// If it was refused, and the one that is obeyed is still there.
    pub fn check(&self, site: &str, instance: &str, now: Instant, grace: Duration) -> Result<(), Duplicate> {
        let Some(machines) = self.sites.get(site) else { return Ok(()) };
        let heard = now.saturating_duration_since(machines.heard);
        match &machines.refused {
            Some((refused, _)) if refused == instance && heard <= grace => {
                Err(Duplicate { site: site.to_owned(), heard })
            }
            _ => Ok(()),
        }
    }

    /// Whether a second machine was refused within the grace.
    pub fn is_duplicate(&self, site: &str, now: Instant, grace: Duration) -> bool {
        let refused = self.sites.get(site).and_then(|machines| machines.refused.as_ref());
        refused.is_some_and(|(_, at)| now.saturating_duration_since(*at) <= grace)
    }

    /// A site joined anew: whichever machine comes first now is obeyed.
    pub fn forget(&mut self, site: &str) {
        self.sites.remove(site);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    struct Hub {
        instances: Instances,
        start: Instant,
    }

    impl Hub {
        fn new() -> Self {
            Self { instances: Instances::default(), start: Instant::now() }
        }

        fn hear(&mut self, second: u64, instance: &str, previous: &str) -> bool {
            let now = self.start + Duration::from_secs(second);
            let heard = self.instances.hear("plant", instance, previous, now, GRACE).is_ok();
            assert_eq!(heard, self.instances.check("plant", instance, now, GRACE).is_ok());
            heard
        }
    }

    #[test]
    fn a_machine_that_restarts_goes_on_at_once() {
        let mut hub = Hub::new();
        assert!(hub.hear(0, "a", ""));
        assert!(hub.hear(1, "b", "a"));
        assert!(hub.hear(2, "c", "b"));
        // A request of the process that was killed may be late.
        assert!(hub.hear(2, "b", "a"));
        assert!(hub.hear(3, "c", "b"));
        assert!(!hub.instances.is_duplicate("plant", hub.start, GRACE));
    }

    #[test]
    fn a_copy_of_a_machine_is_refused_while_the_first_is_heard() {
        let mut hub = Hub::new();
        assert!(hub.hear(0, "first", ""));
        assert!(hub.hear(1, "copy", "first"), "it may be a restart");
        assert!(hub.hear(5, "first", ""));
        assert!(hub.hear(10, "first", ""));
        assert!(!hub.hear(11, "copy", "first"));
        let now = hub.start + Duration::from_secs(11);
        assert!(hub.instances.is_duplicate("plant", now, GRACE));
        // The first may restart all the same; the copy doesn't become right by that.
        assert!(hub.hear(12, "first again", "first"));
        assert!(!hub.hear(13, "copy", "first"));
        // Once the first is gone for good, the copy is the site.
        assert!(hub.hear(12 + 31, "copy", "first"));
        assert!(!hub.hear(44, "first again", "first"));
    }

    #[test]
    fn an_old_copy_is_refused_at_once() {
        let mut hub = Hub::new();
        assert!(hub.hear(0, "now", "long ago"));
        assert!(!hub.hear(1, "copy of long ago", "long ago"));
        hub.instances.forget("plant");
        assert!(hub.hear(2, "joined anew", ""));
    }
}
