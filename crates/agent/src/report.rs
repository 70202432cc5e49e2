//! Tells the hub how the site's Assignments stand.

use std::collections::BTreeMap;
use std::time::Duration;

use api::Client;
use daemon::Shutdown;
use types::{AssignmentSpec, AssignmentStatus, Condition, ConditionStatus, set_condition};

use crate::assignments::{Assigned, Assignments, Progress};
use crate::invocations::Invocations;
use crate::outbox::Outbox;
use crate::{Error, Membership};

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
            status.invocations = invocations.counts(&known.assignment)?;
            status.invocations.undelivered = outbox.count(name);
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
