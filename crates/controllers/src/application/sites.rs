//! How far each site is with an application, by what it reported and the hub's clock.

use jiff::Timestamp;
use planner::rollout::{self, State};
use types::{Assignment, Condition, ConditionStatus, Site, SiteProgress, SiteState, Time, condition};

use crate::Write;

/// The time: of a clock that never jumps while the hub runs.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Now.
    pub now: Time,
    /// When the hub began: nobody could report before.
    pub began: Time,
}

/// Reasons of not being available that time may heal.
const PASSING: [&str; 3] = ["Preparing", "ArtifactUnavailable", "DiskFailed"];

/// How far a site is with an assignment, by its last report.
fn observed(assignment: &Assignment) -> SiteState {
    let available = condition(&assignment.status.conditions, "Available");
    match available.filter(|told| told.observed_generation == assignment.metadata.generation) {
        None => SiteState::ToApply,
        Some(told) => match told.status {
            ConditionStatus::True => SiteState::Succeeded,
            ConditionStatus::False if !PASSING.contains(&told.reason.as_str()) => SiteState::Failed,
            _ => SiteState::Progressing,
        },
    }
}

/// How far a site is with an assignment, and since when by the hub's clock; and the note of it, if it is news.
pub(super) fn progress(assignment: &Assignment, now: Time) -> (SiteProgress, Option<Write>) {
    let (state, generation) = (observed(assignment), assignment.metadata.generation);
    let noted = assignment.status.progress.as_ref();
    // Times to come were noted by a clock that was set back.
    let is_news =
        noted.is_none_or(|noted| noted.state != state || noted.generation != generation || noted.since > now);
    match noted {
        Some(noted) if !is_news => (noted.clone(), None),
        _ => {
            let progress = SiteProgress { state, generation, since: now };
            let mut changed = assignment.clone();
            changed.status.progress = Some(progress.clone());
            (progress, Some(Write::status(&changed)))
        }
    }
}

/// How far a site is that was told: as far as the last of its components.
pub(super) fn told(
    site: Option<&Site>,
    components: &[SiteProgress],
    is_whole: bool,
    soak: std::time::Duration,
    moment: Moment,
) -> State {
    let ready = site.and_then(|site| condition(&site.status.conditions, "Ready"));
    let is_heard = is_ready(ready);
    let is_there = |state: SiteState| components.iter().any(|progress| progress.state == state);
    let is_behind = !is_whole || is_there(SiteState::ToApply) || is_there(SiteState::Progressing);
    let since = components.iter().map(|progress| progress.since.0).max().unwrap_or(moment.now.0);
    let heard_since = ready.map_or(moment.now.0, |ready| ready.last_transition_time.0);
    if is_there(SiteState::Failed) || is_behind {
        return match (is_heard, is_there(SiteState::Failed)) {
            (false, _) => State::Offline,
            (true, true) => State::Failed,
            // Its time begins anew when it, or the hub, was away.
            (true, false) => State::Working(since.max(heard_since).max(moment.began.0)),
        };
    }
    if is_heard {
        return State::Running(since);
    }
    // It ran well for long enough before it fell silent, or nobody can tell.
    let soaked = since.checked_add(soak).unwrap_or(Timestamp::MAX) <= heard_since;
    if soaked { State::Running(since) } else { State::Offline }
}

/// How a site stands that was not told yet.
pub(super) fn untold(site: Option<&Site>, minds_windows: bool, moment: Moment) -> State {
    let Some(site) = site else { return State::Offline };
    let windows = &site.spec.maintenance;
    // What never told anything of itself may want to be left alone.
    let is_known = !site.status.version.is_empty();
    if !is_known || !is_ready(condition(&site.status.conditions, "Ready")) {
        State::Offline
    } else if is_opted_out(site) {
        State::Held(None)
    } else if !minds_windows || rollout::is_open(windows, moment.now.0) {
        State::Waiting
    } else {
        State::Held(rollout::opens_at(windows, moment.now.0))
    }
}

/// Whether people there, or here, want nothing changed at a site.
pub(super) fn is_opted_out(site: &Site) -> bool {
    site.spec.rollout_opt_out || site.status.rollout_opt_out
}

fn is_ready(ready: Option<&Condition>) -> bool {
    ready.is_some_and(|ready| ready.status == ConditionStatus::True)
}
