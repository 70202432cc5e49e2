//! Tells the hub above how what it assigned stands on the sites below.

use std::collections::HashMap;
use std::time::Duration;

use api::{Report, Reports, Unreported};
use planner::branch;
use reqwest::Method;
use tracing::debug;
use types::{Assignment, AssignmentSpec, AssignmentStatus, Condition, ConditionStatus, Kind};

use super::{Clash, Up};
use crate::Error;

/// How soon after a change it is told; changes in between are told together.
const GATHER: Duration = Duration::from_millis(250);
/// How often what the hub above did not know is told again.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// How many reports one request carries.
const AT_ONCE: usize = 200;
const LONGEST_ANSWER: Duration = Duration::from_secs(60);

/// By site and name.
type Place = (String, String);

/// Tells whatever changes, until the hub above can't be told.
pub(super) async fn tell(up: &Up) -> Result<(), Error> {
    let store = &up.hub.store;
    let mut told: HashMap<Place, Report> = HashMap::new();
    let mut seen: HashMap<Place, u64> = HashMap::new();
    let mut clashed = up.clashed.subscribe();
    loop {
        clashed.borrow_and_update();
        let (objects, version) = store.list(AssignmentSpec::PLURAL, None);
        let mut due = Vec::new();
        let mut there = HashMap::new();
        for object in objects.iter().filter(|object| up.is_relayed(object)) {
            let place = (object.key.namespace.clone(), object.key.name.clone());
            if seen.get(&place) != Some(&object.version())
                && let Ok(assignment) = object.resource::<AssignmentSpec>()
                && let Some(report) = report(&assignment)
                && told.get(&place) != Some(&report)
            {
                due.push(report);
            }
            there.insert(place, object.version());
        }
        let clashes: Vec<_> = up.clashes().iter().map(|(place, clash)| refusal(place, clash)).collect();
        due.retain(|report| {
            !clashes.iter().any(|clash| clash.site == report.site && clash.name == report.name)
        });
        due.extend(clashes.into_iter().filter(|report| told.get(&place(report)) != Some(report)));
        told.retain(|place, _| there.contains_key(place) || up.clashes().contains_key(place));
        seen = there;
        let mut unknown = 0;
        for reports in due.chunks(AT_ONCE) {
            let answer = send(up, reports).await?;
            unknown += answer.unknown.len();
            for report in reports {
                let place = place(report);
                if answer.unknown.contains(&place) {
                    seen.remove(&place);
                } else {
                    told.insert(place, report.clone());
                }
            }
        }
        if unknown > 0 {
            debug!(unknown, "the hub above does not know what is reported; it is told again");
            tokio::time::sleep(GATHER).await;
        }
        let Ok(mut changes) = store.watch_kind(AssignmentSpec::PLURAL, version) else { continue };
        tokio::select! {
            _ = changes.next() => {}
            _ = clashed.changed() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        tokio::time::sleep(GATHER).await;
    }
}

fn place(report: &Report) -> Place {
    (report.site.clone(), report.name.clone())
}

async fn send(up: &Up, reports: &[Report]) -> Result<Unreported, Error> {
    let path = format!("/avocet/v1/sites/{}/reports", up.membership.site);
    let reports = Reports { reports: reports.to_vec() };
    let request = up.client.request(Method::POST, &path).timeout(LONGEST_ANSWER).json(&reports);
    Ok(up.client.json(request).await?)
}

/// What is told of an Assignment; nothing until the site reported on what is wanted now.
fn report(assignment: &Assignment) -> Option<Report> {
    let (uid, status) = branch::report(assignment)?;
    Some(Report { site: assignment.namespace().to_owned(), name: assignment.name().to_owned(), uid, status })
}

/// What is told of an Assignment that was not taken.
fn refusal((site, name): &Place, clash: &Clash) -> Report {
    let condition = Condition {
        kind: "Available".into(),
        status: ConditionStatus::False,
        observed_generation: clash.generation,
        last_transition_time: clash.since,
        reason: "NameTaken".into(),
        message: clash.message.clone(),
    };
    let status = AssignmentStatus {
        conditions: vec![condition],
        observed_generation: clash.generation,
        ..AssignmentStatus::default()
    };
    Report { site: site.clone(), name: name.clone(), uid: clash.uid.clone(), status }
}
