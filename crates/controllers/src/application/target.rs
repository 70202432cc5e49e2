//! Which revision sites are to run: what is wanted, unless it was gone back from, or somebody says otherwise.

use types::names::annotation::{ABORT, PROMOTE, UNDO};
use types::{Application, ApplicationRevision, Rejected, RolloutStatus};

/// Which revision sites are to run, and how it gets to them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    /// The number of what the manifests say.
    pub wanted: i64,
    /// What sites are to run.
    pub revision: &'a ApplicationRevision,
    /// What would run if nothing had been gone back from.
    pub candidate: &'a ApplicationRevision,
    /// The candidate was gone back from: the target is to reach all sites as fast as it can.
    pub is_rollback: bool,
    /// Somebody wants it everywhere at once.
    pub is_promoted: bool,
    /// Somebody wants the candidate to be gone back from.
    pub is_aborted: bool,
    /// It has been at all sites: those that fail now are no reason to stop.
    pub is_proven: bool,
}

impl<'a> Target<'a> {
    /// Chooses among the revisions, of which `wanted` is what the manifests say.
    pub fn choose(
        application: &Application,
        revisions: &[&'a ApplicationRevision],
        wanted: &'a ApplicationRevision,
    ) -> Self {
        let status = application.status.rollout.clone().unwrap_or_default();
        let named = |name: &str| revisions.iter().copied().find(|revision| revision.name() == name);
        let candidate = undone(application, wanted.spec.number)
            .and_then(|to| revisions.iter().copied().find(|revision| revision.spec.number == to))
            .unwrap_or(wanted);
        let rejected =
            status.rejected.as_ref().filter(|rejected| is_rejected(rejected, application, candidate));
        let instead = rejected.and_then(|rejected| named(&rejected.instead));
        let revision = instead.unwrap_or(candidate);
        let says = |key: &str, number: i64| {
            application.metadata.annotations.get(key).is_some_and(|text| text.trim() == number.to_string())
        };
        Self {
            wanted: wanted.spec.number,
            revision,
            candidate,
            is_rollback: instead.is_some(),
            is_promoted: says(PROMOTE, revision.spec.number),
            is_aborted: instead.is_none() && says(ABORT, candidate.spec.number),
            is_proven: status.proven && status.last_good == revision.name(),
        }
    }
}

/// Whether a revision was gone back from, and nobody asked for it since.
pub(super) fn is_rejected(
    rejected: &Rejected,
    application: &Application,
    revision: &ApplicationRevision,
) -> bool {
    rejected.revision == revision.name() && rejected.instruction == instruction(application)
}

/// Where sites go back to from a revision: the last one that sites ran well. That which ran before this one counts
/// as soon as this one comes, if it was ever through.
pub(super) fn last_good<'a>(
    status: &'a RolloutStatus,
    revisions: &[&ApplicationRevision],
    next: &ApplicationRevision,
) -> &'a str {
    let was_through = |revision: &&ApplicationRevision| {
        revision.name() == status.revision
            && revision.status.succeeded.is_some()
            && revision.status.rejected.is_empty()
    };
    let is_rejected = status.rejected.as_ref().is_some_and(|rejected| rejected.revision == status.revision);
    let is_another = status.revision != next.name();
    if is_another && !is_rejected && revisions.iter().any(was_through) {
        &status.revision
    } else {
        &status.last_good
    }
}

/// What was said last about going back.
pub(super) fn instruction(application: &Application) -> &str {
    application.metadata.annotations.get(UNDO).map_or("", String::as_str)
}

/// The number of the revision that somebody wants instead of that of the manifests.
fn undone(application: &Application, wanted: i64) -> Option<i64> {
    let (numbers, _) = instruction(application).split_once('@').unwrap_or((instruction(application), ""));
    let (from, to) = numbers.split_once(':')?;
    let from: i64 = from.trim().parse().ok()?;
    if from == wanted { to.trim().parse().ok() } else { None }
}
