//! `Site`: ready while heartbeats arrive.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use types::{Condition, ConditionStatus, Site, Time, condition, set_condition};

use crate::{Occurrence, Snapshot, Write};

/// When each site was last heard, on this process's monotonic clock: no clock of another machine, and no jump
/// of our own, makes a site silent.
#[derive(Clone)]
pub struct Heartbeats {
    started: Instant,
    grace: Duration,
    heard: Arc<Mutex<HashMap<String, Instant>>>,
}

impl Heartbeats {
    /// Sites count as silent once nothing was heard of them for `grace`. After a start of the hub, all get that
    /// long to be heard first.
    pub fn new(grace: Duration) -> Self {
        Self { started: Instant::now(), grace, heard: Arc::default() }
    }

    /// A site was heard now.
    pub fn hear(&self, site: &str) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(site.to_owned(), Instant::now());
    }

    /// Whether a site is heard, silent, or not yet known.
    fn state(&self, site: &str) -> Option<ConditionStatus> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner).get(site).copied();
        match heard {
            Some(heard) if heard.elapsed() <= self.grace => Some(ConditionStatus::True),
            None if self.started.elapsed() <= self.grace => None,
            _ => Some(ConditionStatus::Unknown),
        }
    }
}

pub(crate) fn reconcile(snapshot: &Snapshot, heartbeats: &Heartbeats, now: Time) -> Vec<Write> {
    let mut writes = Vec::new();
    for site in &snapshot.sites {
        if site.spec.taints.iter().any(|taint| taint.time_added.is_none()) {
            writes.push(Write::spec(&with_times(site, now)));
            continue;
        }
        let Some(status) = heartbeats.state(site.name()) else { continue };
        let (reason, message) = if status == ConditionStatus::True {
            ("HeartbeatsArrive", String::new())
        } else {
            let seconds = heartbeats.grace.as_secs();
            let message = format!(
                "no heartbeat for over {seconds} s; what runs there goes on, and reports when it is back"
            );
            ("Silent", message)
        };
        let told = tell(site, status, &message);
        let mut changed = site.clone();
        let condition = Condition {
            kind: "Ready".into(),
            status,
            observed_generation: site.metadata.generation,
            last_transition_time: now,
            reason: reason.into(),
            message,
        };
        set_condition(&mut changed.status.conditions, condition);
        if changed != *site {
            writes.push(Write::status(&changed).telling(told));
        }
    }
    writes
}

/// Taints without a time came just now; tolerations with a limit count from then.
fn with_times(site: &Site, now: Time) -> Site {
    let mut changed = site.clone();
    for taint in &mut changed.spec.taints {
        taint.time_added.get_or_insert(now);
    }
    changed
}

/// What is to be told of a site that was or wasn't heard.
fn tell(site: &Site, now: ConditionStatus, message: &str) -> Vec<Occurrence> {
    let before = condition(&site.status.conditions, "Ready").map(|ready| ready.status);
    match (before, now) {
        (before, now) if before == Some(now) => vec![],
        (None, ConditionStatus::True) => {
            vec![Occurrence::normal(site, "SiteJoined", "its heartbeats arrive")]
        }
        (_, ConditionStatus::True) => {
            vec![Occurrence::normal(site, "SiteReady", "its heartbeats arrive again")]
        }
        _ => vec![Occurrence::warning(site, "SiteNotReady", message)],
    }
}
