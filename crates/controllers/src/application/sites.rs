//! How far each site is with an application, by what it reported and the hub's clock.

use jiff::Timestamp;
use planner::rollout::{self, State};
use types::{
    Assignment, Condition, ConditionStatus, InvocationCounts, Site, SiteProgress, SiteState, Time, condition,
};

use crate::Write;

/// The time, by two clocks.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Now, by a clock that never jumps while the hub runs: it measures how long something took.
    pub now: Time,
    /// When the hub began, by the same clock: nobody could report before.
    pub began: Time,
    /// Now, by the clock that people set and read: it opens maintenance windows.
    pub wall: Time,
}

impl Moment {
    /// A time that was noted, by the clock that never jumps. A time to come was noted by a hub before this one, of which the clock
    /// was ahead.
    fn since(&self, noted: Time) -> Timestamp {
        if noted > self.now { self.began.0 } else { noted.0 }
    }

    /// When the clock that never jumps shows what the wall clock shows then.
    fn steady(&self, wall: Timestamp) -> Option<Timestamp> {
        self.now.0.checked_add(wall.duration_since(self.wall.0)).ok()
    }
}

/// Reasons of not being available that time may heal.
const PASSING: [&str; 3] = ["Preparing", "ArtifactUnavailable", "DiskFailed"];

/// Whether a site runs an assignment, by its last report.
pub(super) fn runs(assignment: &Assignment) -> bool {
    observed(assignment) == SiteState::Succeeded
}

/// Whether most invocations since then failed.
fn fails_mostly(assignment: &Assignment, since: &InvocationCounts) -> bool {
    let now = &assignment.status.invocations;
    let failed = now.failed.saturating_sub(since.failed);
    failed > now.succeeded.saturating_sub(since.succeeded)
}

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

/// How far a site is with a generation that it was told of now.
pub(super) fn just_told(generation: i64, now: Time) -> SiteProgress {
    SiteProgress { state: SiteState::ToApply, generation, since: now, invocations: None }
}

/// How far a site is with an assignment, and since when by the hub's clock; and the note of it, if it is news. A site
/// that is `judged` fails, too, if most invocations of its function do.
pub(super) fn progress(assignment: &Assignment, now: Time, is_judged: bool) -> (SiteProgress, Option<Write>) {
    let Some(news) = news(assignment, now, is_judged) else {
        return (assignment.status.progress.clone().unwrap_or_else(|| just_told(0, now)), None);
    };
    let mut changed = assignment.clone();
    changed.status.progress = Some(news.clone());
    (news, Some(Write::status(&changed)))
}

/// Notes how far a site is with what it reports now, in the same write; what it takes more to judge, controllers note.
pub fn note_report(assignment: &mut Assignment, now: Time) {
    // What ran well before may be judged to fail by now.
    let is_new = assignment.status.progress.as_ref().is_some_and(|noted| noted.invocations.is_none());
    if is_new && let Some(news) = news(assignment, now, false) {
        assignment.status.progress = Some(news);
    }
}

/// How far a site is with an assignment, if that is another than what was noted.
fn news(assignment: &Assignment, now: Time, is_judged: bool) -> Option<SiteProgress> {
    let generation = assignment.metadata.generation;
    let noted = assignment.status.progress.as_ref();
    let same = noted.filter(|noted| noted.generation == generation);
    let before = same.and_then(|noted| noted.invocations);
    let mut state = observed(assignment);
    // What is counted may be of what ran there before: what comes after it runs for the first time is its own.
    let invocations = before.or((state == SiteState::Succeeded).then_some(assignment.status.invocations));
    if is_judged
        && state == SiteState::Succeeded
        && before.is_some_and(|before| fails_mostly(assignment, &before))
    {
        state = SiteState::Failed;
    }
    match same {
        // Times to come were noted by a clock that was set back.
        Some(noted) if noted.state == state && noted.since <= now => None,
        _ => Some(SiteProgress { state, generation, since: now, invocations }),
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
    let heard_since = ready.map_or(moment.now.0, |ready| moment.since(ready.last_transition_time));
    if is_there(SiteState::Failed) {
        // It said so before it fell silent, if it did.
        return State::Failed;
    }
    if is_behind {
        // Its time begins anew when it, or the hub, was away.
        let since = since.max(heard_since).max(moment.began.0);
        return if is_heard { State::Working(since) } else { State::Silent(since) };
    }
    let has_soaked = |by: Timestamp| since.checked_add(soak).unwrap_or(Timestamp::MAX) <= by;
    // It ran well for long enough before it fell silent, or nobody can tell. Until then it keeps its place.
    if is_heard || has_soaked(heard_since) || !has_soaked(moment.now.0) {
        State::Running(since)
    } else {
        State::Offline
    }
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
    } else if !minds_windows || rollout::is_open(windows, moment.wall.0) {
        State::Waiting
    } else {
        State::Held(rollout::opens_at(windows, moment.wall.0).and_then(|opens| moment.steady(opens)))
    }
}

/// Whether people there, or here, want nothing changed at a site.
pub(super) fn is_opted_out(site: &Site) -> bool {
    site.spec.rollout_opt_out || site.status.rollout_opt_out
}

fn is_ready(ready: Option<&Condition>) -> bool {
    ready.is_some_and(|ready| ready.status == ConditionStatus::True)
}
