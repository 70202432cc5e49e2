//! New objects become invocations.

use daemon::Shutdown;
use objects::{ChangeKind, List, Objects};
use tracing::debug;
use types::Assignment;

use crate::Error;
use crate::assignments::Assignments;
use crate::invocations::{Input, Invocation, Invocations, Mark, trigger_key};

/// How many changes are taken in one commit.
const BATCH: usize = 256;

/// Follows the changes of the site's objects, and arms the triggers of new assignments, until the shutdown.
pub(crate) async fn run(
    objects: Objects,
    assignments: Assignments,
    invocations: Invocations,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let mut assigned = assignments.subscribe();
    let triggers = assignments.all().iter().map(|known| trigger_key(&known.assignment)).collect();
    invocations.disarm_others(triggers).await?;
    loop {
        assigned.borrow_and_update();
        let cursor = look(&objects, &assignments, &invocations).await?;
        tokio::select! {
            () = shutdown.wait() => return Ok(()),
            _ = objects.changed_after(cursor) => {}
            _ = assigned.changed() => {}
        }
    }
}

/// Arms what is to be armed and takes in all changes; answers which was the last.
pub(crate) async fn look(
    objects: &Objects,
    assignments: &Assignments,
    invocations: &Invocations,
) -> Result<u64, Error> {
    for known in assignments.all() {
        arm(objects, known.effective(), invocations).await?;
    }
    let mut cursor = invocations.cursor()?;
    loop {
        let changes = objects.changes(cursor, BATCH).await?;
        let Some(last) = changes.last().map(|change| change.sequence) else { return Ok(cursor) };
        let mut new = Vec::new();
        for change in changes.iter().filter(|change| change.kind == ChangeKind::Put) {
            for known in assignments.all() {
                let (bucket, key, etag) = (change.bucket.clone(), change.key.clone(), change.etag.clone());
                new.extend(invocation_for(known.effective(), Input { bucket, key, etag }));
            }
        }
        debug!(count = new.len(), "events");
        invocations.admit(new, Mark::Cursor(last)).await?;
        objects.trim_changes(last).await?;
        cursor = last;
    }
}

fn invocation_for(assignment: &Assignment, input: Input) -> Option<Invocation> {
    let matches = assignment.spec.inputs.iter().any(|path| path.matches(&input.bucket, &input.key));
    if matches { Invocation::new(assignment, input, daemon::now()) } else { None }
}

/// When a component comes to the site for the first time, objects may lie in its inputs already: put there by
/// hand, or delivered by a site that was faster. They are events, too. When it comes back, those are that came since it
/// left, and what it had not run by then.
async fn arm(objects: &Objects, assignment: &Assignment, invocations: &Invocations) -> Result<(), Error> {
    if assignment.spec.inputs.is_empty() {
        return Ok(());
    }
    let Some(since) = invocations.unarmed_since(assignment)? else { return Ok(()) };
    invocations.bring_back(assignment).await?;
    let mut found = Vec::new();
    for path in &assignment.spec.inputs {
        let mut list = List { prefix: path.key_prefix(), ..List::default() };
        loop {
            let page = match objects.list(path.bucket(), list.clone()).await {
                Err(objects::Error::NoSuchBucket(_)) => {
                    // People put objects into the inputs of what they deployed; the bucket should be there.
                    objects.ensure_bucket(path.bucket()).await?;
                    break;
                }
                page => page?,
            };
            let new = page.objects.into_iter().filter(|info| info.sequence > since);
            found.extend(new.filter_map(|info| {
                let input = Input { bucket: info.bucket, key: info.key, etag: info.etag };
                invocation_for(assignment, input)
            }));
            match page.next {
                Some(next) => list.after = next,
                None => break,
            }
        }
    }
    invocations.admit(found, Mark::armed(assignment)).await?;
    Ok(())
}
