//! `Site`: ready while heartbeats arrive.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use types::{Condition, ConditionStatus, OutputsStatus, Site, Taint, Time, condition, set_condition};

use crate::application::Moment;
use crate::instances::{Duplicate, Instances};
use crate::{Occurrence, Snapshot, Write};

/// A site's clock counts as right while it differs from the hub's by no more than this, in seconds.
const RIGHT: f64 = 10.0;
/// The conditions that a site's own complaints become.
const COMPLAINTS: [&str; 1] = ["StoragePressure"];
/// By how much the difference must have changed to be told again: by this factor of it.
const CHANGED: f64 = 0.2;

/// What a heartbeat tells. Agents of older versions tell nothing.
#[derive(Debug, Clone, Default)]
pub struct Beat {
    /// A random name of the agent's process; empty if it has none.
    pub instance: String,
    /// The name that the process before it had.
    pub previous: String,
    /// By how many seconds the site's clock is ahead of the hub's.
    pub skew: Option<f64>,
}

/// A clock that nobody can set, but tests.
#[derive(Clone, Default)]
pub(crate) enum Clock {
    #[default]
    Machine,
    #[cfg(test)]
    Set(Arc<Mutex<Instant>>),
}

impl Clock {
    fn now(&self) -> Instant {
        match self {
            Self::Machine => Instant::now(),
            #[cfg(test)]
            Self::Set(now) => *now.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

#[cfg(test)]
impl Clock {
    pub fn set_to(now: Instant) -> Self {
        Self::Set(Arc::new(Mutex::new(now)))
    }

    pub fn set(&self, time: Instant) {
        if let Self::Set(now) = self {
            *now.lock().unwrap_or_else(PoisonError::into_inner) = time;
        }
    }
}

/// When each site was last heard, on this process's monotonic clock: no clock of another machine, and no jump
/// of our own, makes a site silent.
#[derive(Clone)]
pub struct Heartbeats {
    clock: Clock,
    started: Instant,
    began: Time,
    grace: Duration,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Default)]
struct Heard {
    at: HashMap<String, Instant>,
    instances: Instances,
    /// By how many seconds clocks are ahead, as it was last told.
    skews: HashMap<String, f64>,
    /// Sites whose credentials were revoked.
    revoked: HashSet<String>,
    /// Sites that joined a hub below this one, as that hub tells of them.
    told: HashMap<String, Told>,
}

/// What a hub below says of one of its sites.
struct Told {
    /// The site that says it, a child of this hub.
    by: String,
    /// Why it is not ready; none if it is.
    problem: Option<String>,
}

impl Heartbeats {
    /// Sites count as silent once nothing was heard of them for `grace`. After a start of the hub, all get that
    /// long to be heard first.
    pub fn new(grace: Duration) -> Self {
        Self::by(Clock::default(), daemon::now(), grace)
    }

    pub(crate) fn by(clock: Clock, began: Time, grace: Duration) -> Self {
        Self { started: clock.now(), began, clock, grace, heard: Arc::default() }
    }

    /// The time by this clock, which began as the machine's: leases and rollouts measure by it.
    pub fn steady(&self) -> Time {
        let elapsed = self.clock.now().saturating_duration_since(self.started);
        self.began.0.checked_add(elapsed).map_or(self.began, Time)
    }

    /// The time by all clocks, at which the machine's shows `wall`.
    pub(crate) fn moment(&self, wall: Time) -> Moment {
        Moment { now: self.steady(), began: self.began, wall }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A machine joined as a site now: whichever was that site before is not any more.
    pub fn join(&self, site: &str) {
        let mut heard = self.heard();
        heard.instances.forget(site);
        heard.told.remove(site);
        heard.at.insert(site.to_owned(), self.clock.now());
    }

    /// A child of this hub says how a site stands that is below it: `problem` is why it is not ready, if so.
    pub fn tell(&self, site: &str, by: &str, problem: Option<String>) {
        self.heard().told.insert(site.to_owned(), Told { by: by.to_owned(), problem });
    }

    /// These are all sites that a child of this hub knows: of others that it told of before, nothing is known.
    pub fn tell_all(&self, by: &str, all: &HashSet<&str>) {
        let mut heard = self.heard();
        let lost = heard.told.iter_mut().filter(|(site, told)| told.by == by && !all.contains(site.as_str()));
        for (site, told) in lost {
            told.problem =
                Some(format!("`{by}` does not know `{site}` any more; join it there again, or delete it"));
        }
    }

    /// A site is gone that a child of this hub told of.
    pub fn forget(&self, site: &str) {
        self.heard().told.remove(site);
    }

    /// A site was heard now.
    pub fn hear(&self, site: &str) {
        self.heard().at.insert(site.to_owned(), self.clock.now());
    }

    /// A site says that it lives, and more.
    ///
    /// # Errors
    /// If it is the second machine that claims to be that site.
    pub fn take(&self, site: &str, beat: Beat) -> Result<(), Duplicate> {
        let (mut heard, now) = (self.heard(), self.clock.now());
        if !beat.instance.is_empty() {
            heard.instances.hear(site, &beat.instance, &beat.previous, now, self.grace)?;
        }
        heard.at.insert(site.to_owned(), now);
        if let Some(skew) = beat.skew {
            let told = heard.skews.entry(site.to_owned()).or_insert(skew);
            if (skew.abs() > RIGHT) != (told.abs() > RIGHT)
                || (skew - *told).abs() > CHANGED * told.abs().max(RIGHT)
            {
                *told = skew;
            }
        }
        Ok(())
    }

    /// Whether a machine may act for a site.
    ///
    /// # Errors
    /// If another one is that site.
    pub fn check(&self, site: &str, instance: &str) -> Result<(), Duplicate> {
        self.heard().instances.check(site, instance, self.clock.now(), self.grace)
    }

    /// A site's credentials were revoked, or it has new ones.
    pub fn revoked(&self, site: &str, is_revoked: bool) {
        let mut heard = self.heard();
        if is_revoked {
            heard.revoked.insert(site.to_owned());
        } else {
            heard.revoked.remove(site);
        }
    }
}

impl Heard {
    /// Whether a site is heard, silent, or not yet known, and why. Of one that is below another, both must be.
    fn ready(
        &self,
        site: &str,
        heartbeats: &Heartbeats,
        now: Instant,
    ) -> Option<(ConditionStatus, &'static str, String)> {
        let Some(Told { by, problem }) = self.told.get(site) else {
            return self.heard(site, heartbeats, now);
        };
        let (status, ..) = self.heard(by, heartbeats, now)?;
        Some(match problem {
            _ if status != ConditionStatus::True => {
                let message =
                    format!("nothing is heard of `{by}`, by which it is reached; what runs there goes on");
                (status, "ParentSilent", message)
            }
            Some(problem) => (ConditionStatus::Unknown, "Silent", problem.clone()),
            None => (ConditionStatus::True, "HeardByParent", String::new()),
        })
    }

    fn heard(
        &self,
        site: &str,
        heartbeats: &Heartbeats,
        now: Instant,
    ) -> Option<(ConditionStatus, &'static str, String)> {
        if self.revoked.contains(site) {
            let message = format!(
                "its certificates were revoked; what runs there goes on. To let a machine be this site again, make a \
                 token with `avocet join-token create --site {site}`"
            );
            return Some((ConditionStatus::Unknown, "Revoked", message));
        }
        let grace = heartbeats.grace;
        match self.at.get(site) {
            Some(heard) if now.duration_since(*heard) <= grace => {
                Some((ConditionStatus::True, "HeartbeatsArrive", String::new()))
            }
            None if now.duration_since(heartbeats.started) <= grace => None,
            _ => {
                let seconds = grace.as_secs();
                let message = format!(
                    "no heartbeat for over {seconds} s; what runs there goes on, and reports when it is back"
                );
                Some((ConditionStatus::Unknown, "Silent", message))
            }
        }
    }

    /// Whether a site's clock is right. Nothing depends on it but people who compare times.
    fn clock(&self, site: &str) -> Option<(ConditionStatus, &'static str, String)> {
        let skew = *self.skews.get(site)?;
        if skew.abs() <= RIGHT {
            return Some((ConditionStatus::True, "ClockIsRight", String::new()));
        }
        let (seconds, side) = (skew.abs().round(), if skew > 0.0 { "ahead of" } else { "behind" });
        let message =
            format!("its clock is {seconds} s {side} the hub's; times that it tells are as much off");
        Some((ConditionStatus::False, "ClockIsOff", message))
    }

    /// Whether two machines are one site; not told of sites that were never two.
    fn duplicate(
        &self,
        site: &Site,
        now: Instant,
        grace: Duration,
    ) -> Option<(ConditionStatus, &'static str, String)> {
        if self.instances.is_duplicate(site.name(), now, grace) {
            let message = "a second machine shows this site's credential and is refused; stop it, or give it an empty \
                           data folder and a join token for a name of its own";
            return Some((ConditionStatus::True, "TwoMachines", message.to_owned()));
        }
        condition(&site.status.conditions, "DuplicateIdentity")?;
        Some((ConditionStatus::False, "OneMachine", String::new()))
    }
}

/// What a site complains of, as conditions; not told of what it never complained of.
fn complaints(site: &Site) -> impl Iterator<Item = (&'static str, ConditionStatus, &'static str, String)> {
    COMPLAINTS.into_iter().filter_map(|kind| {
        let made = site.status.complaints.iter().find(|complaint| complaint.kind == kind);
        match made {
            Some(made) => Some((kind, ConditionStatus::True, "ToldBySite", made.message.clone())),
            None => condition(&site.status.conditions, kind)
                .map(|_| (kind, ConditionStatus::False, "ToldBySite", String::new())),
        }
    })
}

pub(crate) fn reconcile(snapshot: &Snapshot, heartbeats: &Heartbeats, moment: Moment) -> Vec<Write> {
    let mut writes = Vec::new();
    let (heard, now) = (heartbeats.heard(), heartbeats.clock.now());
    for site in &snapshot.sites {
        if site.spec.taints.iter().any(|taint| !is_dated(taint, moment.now)) {
            writes.push(Write::spec(&with_times(site, moment.now)));
            continue;
        }
        let Some((status, reason, message)) = heard.ready(site.name(), heartbeats, now) else {
            continue;
        };
        let told = tell(site, status, &message);
        let facts = [
            Some(("Ready", status, reason, message)),
            heard
                .clock(site.name())
                .map(|(status, reason, message)| ("ClockSynced", status, reason, message)),
            heard
                .duplicate(site, now, heartbeats.grace)
                .map(|(status, reason, message)| ("DuplicateIdentity", status, reason, message)),
            outputs(site).map(|(status, reason, message)| ("OutputsDelivered", status, reason, message)),
        ];
        let generation = site.metadata.generation;
        let is_news = |(kind, status, reason, message): &(&str, ConditionStatus, &str, String)| {
            condition(&site.status.conditions, kind).is_none_or(|known| {
                (known.status, known.reason.as_str(), &known.message) != (*status, *reason, message)
                    || known.observed_generation != generation
            })
        };
        let mut news = facts.into_iter().flatten().chain(complaints(site)).filter(is_news).peekable();
        if news.peek().is_none() {
            continue;
        }
        let mut changed = site.clone();
        for (kind, status, reason, message) in news {
            let condition = Condition {
                kind: kind.into(),
                status,
                observed_generation: generation,
                last_transition_time: moment.now,
                reason: reason.into(),
                message,
            };
            set_condition(&mut changed.status.conditions, condition);
        }
        writes.push(Write::status(&changed).telling(told));
    }
    writes
}

/// Whether a site gets rid of what it makes for others; not told of sites that always did.
fn outputs(site: &Site) -> Option<(ConditionStatus, &'static str, String)> {
    let OutputsStatus { late, refused, reason, .. } = &site.status.outputs;
    if *refused > 0 {
        let message = format!(
            "the hub refused {refused} of its outputs, which it keeps and tries again; of one it said: {reason}"
        );
        return Some((ConditionStatus::False, "Refused", message));
    }
    if *late > 0 {
        // How many changes all the time; that is in the status.
        let message =
            "outputs for other sites wait there for more than ten minutes; `status.outputs` has how many";
        return Some((ConditionStatus::False, "Late", message.to_owned()));
    }
    condition(&site.status.conditions, "OutputsDelivered")?;
    Some((ConditionStatus::True, "Delivered", String::new()))
}

/// Whether it is noted since when a site has a taint. A time to come is none: who noted it had another clock.
fn is_dated(taint: &Taint, now: Time) -> bool {
    taint.time_added.is_some_and(|added| added <= now)
}

/// Taints without a time came just now; tolerations with a limit count from then.
fn with_times(site: &Site, now: Time) -> Site {
    let mut changed = site.clone();
    for taint in changed.spec.taints.iter_mut().filter(|taint| !is_dated(taint, now)) {
        taint.time_added = Some(now);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write::Action;

    const GRACE: Duration = Duration::from_secs(30);

    fn reason(heartbeats: &Heartbeats, site: &str) -> Option<(ConditionStatus, &'static str)> {
        let now = heartbeats.clock.now();
        heartbeats.heard().ready(site, heartbeats, now).map(|(status, reason, _)| (status, reason))
    }

    /// So long ago that who was not heard is silent.
    fn started_long_ago() -> Heartbeats {
        let now = Instant::now();
        let clock = Clock::set_to(now);
        let heartbeats = Heartbeats::by(clock.clone(), daemon::now(), GRACE);
        clock.set(now + GRACE * 2);
        heartbeats
    }

    #[test]
    fn a_site_below_a_child_is_ready_while_the_child_is_heard_and_hears_it() {
        let heartbeats = started_long_ago();
        heartbeats.tell("line", "plant", None);
        assert_eq!(reason(&heartbeats, "line"), Some((ConditionStatus::Unknown, "ParentSilent")));
        heartbeats.hear("plant");
        assert_eq!(reason(&heartbeats, "line"), Some((ConditionStatus::True, "HeardByParent")));
        heartbeats.tell("line", "plant", Some("no heartbeat".to_owned()));
        assert_eq!(reason(&heartbeats, "line"), Some((ConditionStatus::Unknown, "Silent")));
        heartbeats.tell("line", "plant", None);
        heartbeats.revoked("plant", true);
        assert_eq!(reason(&heartbeats, "line"), Some((ConditionStatus::Unknown, "ParentSilent")));
    }

    #[test]
    fn what_a_site_complains_of_is_a_condition_until_it_is_over_and_no_other_is() {
        let mut site: Site = serde_json::from_value(serde_json::json!({
            "apiVersion": types::API_VERSION, "kind": "Site", "metadata": {"name": "edge"}, "spec": {"tier": "edge"},
        }))
        .unwrap();
        assert_eq!(complaints(&site).count(), 0);
        let complaint = |kind: &str| types::Complaint { kind: kind.to_owned(), message: "full".to_owned() };
        site.status.complaints = vec![complaint("Ready"), complaint("StoragePressure")];
        let told: Vec<_> = complaints(&site).collect();
        assert_eq!(told, [("StoragePressure", ConditionStatus::True, "ToldBySite", "full".to_owned())]);
        let known = Condition {
            kind: "StoragePressure".to_owned(),
            status: ConditionStatus::True,
            observed_generation: 0,
            last_transition_time: daemon::now(),
            reason: String::new(),
            message: String::new(),
        };
        set_condition(&mut site.status.conditions, known);
        site.status.complaints.clear();
        let told: Vec<_> = complaints(&site).collect();
        assert_eq!(told, [("StoragePressure", ConditionStatus::False, "ToldBySite", String::new())]);
    }

    #[test]
    fn a_site_that_does_not_get_rid_of_its_outputs_has_a_condition_that_says_so() {
        let mut site = Site::new(types::ObjectMeta::named("plant"), types::SiteSpec::default());
        let heartbeats = started_long_ago();
        let seen = |site: &Site| {
            let snapshot = Snapshot { sites: vec![site.clone()], ..Snapshot::default() };
            let written = reconcile(&snapshot, &heartbeats, heartbeats.moment(heartbeats.steady()));
            let [Write { action: Action::Status(manifest), .. }] = &*written else { panic!("{written:?}") };
            manifest["status"]["conditions"].as_array().cloned().unwrap_or_default()
        };
        let told = |site: &Site| {
            let conditions = seen(site);
            let told = conditions.iter().find(|known| known["type"] == "OutputsDelivered");
            told.map(|known| (known["status"].clone(), known["reason"].clone(), known["message"].clone()))
        };
        assert_eq!(told(&site), None);
        site.status.outputs = OutputsStatus {
            refused: 2,
            reason: "sites \"shop\" not found".into(),
            ..OutputsStatus::default()
        };
        let (status, reason, message) = told(&site).unwrap();
        assert_eq!((status, reason), ("False".into(), "Refused".into()));
        assert!(
            message.as_str().unwrap().contains("refused 2") && message.as_str().unwrap().contains("shop")
        );
        let conditions = serde_json::from_value(seen(&site).into()).unwrap();
        site.status.conditions = conditions;
        site.status.outputs = OutputsStatus::default();
        let (status, reason, _) = told(&site).unwrap();
        assert_eq!((status, reason), ("True".into(), "Delivered".into()));
    }

    #[test]
    fn a_site_that_the_child_knows_no_more_is_not_ready_for_it() {
        let heartbeats = started_long_ago();
        heartbeats.hear("plant");
        heartbeats.hear("shop");
        for (site, by) in [("line", "plant"), ("lost", "plant"), ("other", "shop")] {
            heartbeats.tell(site, by, None);
        }
        heartbeats.tell_all("plant", &HashSet::from(["line"]));
        let all = ["line", "lost", "other"].map(|site| reason(&heartbeats, site).unwrap().1);
        assert_eq!(all, ["HeardByParent", "Silent", "HeardByParent"]);
        heartbeats.tell("lost", "plant", None);
        assert_eq!(reason(&heartbeats, "lost").unwrap().1, "HeardByParent");
        heartbeats.join("lost");
        assert_eq!(reason(&heartbeats, "lost").unwrap().1, "HeartbeatsArrive", "it joined this hub itself");
    }
}
