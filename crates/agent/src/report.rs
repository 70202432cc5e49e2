//! Tells the hub that the site lives, what it has, and how its Assignments stand.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use api::Client;
use daemon::Shutdown;
use reqwest::Method;
use serde_json::Value;
use types::{
    AssignmentSpec, AssignmentStatus, Condition, ConditionStatus, Kind, Link, SiteSpec, SiteStatus,
    set_condition,
};

use crate::assignments::{Assigned, Assignments, Progress};
use crate::invocations::Invocations;
use crate::outbox::Outbox;
use crate::{Error, Membership};

/// How long the hub may take to answer.
const LONGEST_ANSWER: Duration = Duration::from_secs(15);

/// Asks the hub who it is: an agent obeys only the one that it joined.
pub(crate) async fn check_hub(client: &Client, membership: &Membership) -> Result<(), Error> {
    let path = format!("/avocet/v1/sites/{}/heartbeat", membership.site);
    let answer: Value = client.json(client.request(Method::POST, &path).timeout(LONGEST_ANSWER)).await?;
    let hub = answer.get("hub").and_then(Value::as_str).unwrap_or_default();
    if hub == membership.hub {
        return Ok(());
    }
    Err(Error::AnotherHub {
        url: membership.url.clone(),
        expected: membership.hub.clone(),
        found: hub.to_owned(),
    })
}

/// How many round trips the median is taken of.
const ROUND_TRIPS: usize = 9;

/// Heartbeats until one fails; each is a round trip measured. Tells the site's status when it changed.
pub(crate) async fn beat(
    client: Client,
    membership: Membership,
    facts: SiteStatus,
    every: Duration,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let mut round_trips = VecDeque::new();
    let mut told: Option<SiteStatus> = None;
    loop {
        let started = Instant::now();
        check_hub(&client, &membership).await?;
        round_trips.push_back(started.elapsed().as_secs_f64() * 1000.0);
        if round_trips.len() > ROUND_TRIPS {
            round_trips.pop_front();
        }
        let mut status = facts.clone();
        if membership.parent != membership.site {
            let round_trip_milliseconds = median(&round_trips);
            let site = membership.parent.clone();
            status.links = vec![Link { site, round_trip_milliseconds, ..Link::default() }];
        }
        if told.as_ref().is_none_or(|told| is_news(told, &status)) {
            tell_site(&client, &membership.site, &status).await?;
            told = Some(status);
        }
        // A fifth of jitter, so that sites that started together don't stay together.
        let jitter = every.mul_f64(f64::from(started.elapsed().subsec_nanos() % 200) / 1000.0);
        if !shutdown.sleep(every + jitter).await {
            return Ok(());
        }
    }
}

fn median(values: &VecDeque<f64>) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    (middle * 100.0).round() / 100.0
}

/// A link is news when it became half as slow again, or fast, and by more than a millisecond: noise is not.
fn is_news(told: &SiteStatus, now: &SiteStatus) -> bool {
    let round_trip =
        |status: &SiteStatus| status.links.first().map_or(0.0, |link| link.round_trip_milliseconds);
    let (old, new) = (round_trip(told), round_trip(now));
    let (low, high) = (old.min(new), old.max(new));
    (high > low * 1.5 && high - low > 1.0)
        || SiteStatus { links: vec![], ..told.clone() } != SiteStatus { links: vec![], ..now.clone() }
}

async fn tell_site(client: &Client, site: &str, status: &SiteStatus) -> Result<(), Error> {
    let mut patch = serde_json::to_value(status).map_err(Error::Assignment)?;
    if let Some(fields) = patch.as_object_mut() {
        // Readiness is the hub's to judge.
        fields.remove("conditions");
    }
    let path = format!("{}/status", api::client::path(SiteSpec::PLURAL, "", site));
    let body = serde_json::json!({"status": patch}).to_string();
    let request = client.request(Method::PATCH, &path).header("content-type", "application/merge-patch+json");
    client.send(request.timeout(LONGEST_ANSWER).body(body)).await?;
    Ok(())
}

/// How soon after a change its report follows; changes in between are told together.
const GATHER: Duration = Duration::from_millis(250);
/// How often reports are compared even if nothing is known to have changed.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// Reports how assignments stand, whenever something changed, until the hub can't be told.
pub(crate) async fn report_assignments(
    client: Client,
    membership: Membership,
    assignments: Assignments,
    invocations: Invocations,
    outbox: Outbox,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let mut told: BTreeMap<String, AssignmentStatus> = BTreeMap::new();
    let (mut assigned, mut invoked) = (assignments.subscribe(), invocations.subscribe());
    let mut sent = outbox.subscribe();
    loop {
        let all = assignments.all();
        told.retain(|name, _| all.iter().any(|known| known.assignment.name() == name));
        for known in all {
            let name = known.assignment.name();
            let mut status = told.get(name).cloned().unwrap_or_default();
            describe(&known, &mut status);
            status.invocations = invocations.counts(name)?;
            status.invocations.undelivered = outbox.count(name)?;
            if told.get(name) == Some(&status) {
                continue;
            }
            match client.patch_status::<AssignmentSpec>(&membership.site, name, &status).await {
                // It was taken away meanwhile; the watch will tell.
                Err(error) if error.code() == Some(404) => {}
                other => other?,
            }
            told.insert(name.to_owned(), status);
        }
        tokio::select! {
            () = shutdown.wait() => return Ok(()),
            _ = assigned.changed() => {}
            _ = invoked.changed() => {}
            _ = sent.changed() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        shutdown.sleep(GATHER).await;
    }
}

fn describe(known: &Assigned, status: &mut AssignmentStatus) {
    let (is_available, reason, message) = match &known.progress {
        Progress::New => (ConditionStatus::False, "Preparing", "is being prepared".to_owned()),
        Progress::Ready { .. } => (ConditionStatus::True, "Running", String::new()),
        Progress::Blocked { reason, message, .. } => (ConditionStatus::False, *reason, message.clone()),
    };
    let generation = known.assignment.metadata.generation;
    status.observed_generation = generation;
    let condition = Condition {
        kind: "Available".into(),
        status: is_available,
        observed_generation: generation,
        last_transition_time: daemon::now(),
        reason: reason.into(),
        message,
    };
    set_condition(&mut status.conditions, condition);
}
