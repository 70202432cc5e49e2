//! What an application says of its rollouts, as [`super::advance`] follows it.

use types::{Portion, Rollout, RolloutKind, Span};

use super::{Budget, Stage};

/// Why a rollout is less careful than it is said to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Haste {
    /// It is to reach all sites as fast as it can.
    pub is_fast: bool,
    /// Failures are no reason to stop: there is nothing better to go back to.
    pub may_fail: bool,
}

impl Budget {
    /// What a rollout may cost.
    pub fn of(rollout: &Rollout, haste: Haste) -> Self {
        let span = |span: &Option<Span>| span.as_ref().map(Span::duration);
        let failures = match (&rollout.max_failures, rollout.kind) {
            (None, RolloutKind::All) => None,
            (None, _) => Some(Portion::Number(0)),
            (Some(amount), _) => Some(amount.clone()),
        };
        Self {
            concurrency: rollout.max_concurrency.clone().filter(|_| !haste.is_fast),
            failures: failures.filter(|_| !haste.may_fail),
            failures_per_stage: rollout.kind == RolloutKind::ProgressivePerGroup,
            soak: span(&rollout.min_success_time).filter(|_| !haste.is_fast).unwrap_or_default(),
            deadline: span(&rollout.progress_deadline),
            leaving: vec![],
        }
    }
}

/// The stages of a rollout: mandatory groups, the other groups where each has its turn, and the rest.
pub fn stages(rollout: &Rollout, haste: Haste) -> Vec<Stage> {
    if haste.is_fast {
        return vec![Stage::default()];
    }
    let mandatory = rollout.mandatory_groups.iter();
    let mut stages: Vec<Stage> =
        mandatory.map(|name| Stage { name: name.clone(), mandatory: !haste.may_fail }).collect();
    if rollout.kind == RolloutKind::ProgressivePerGroup {
        let others = rollout.groups.iter().filter(|group| !rollout.mandatory_groups.contains(&group.name));
        stages.extend(others.map(|group| Stage { name: group.name.clone(), mandatory: false }));
    }
    stages.push(Stage::default());
    stages
}

/// The stage of a site that is of that group; the last one for those of none.
pub fn stage_of(group: Option<&str>, stages: &[Stage]) -> usize {
    let named = group.and_then(|group| stages.iter().position(|stage| stage.name == group));
    named.unwrap_or_else(|| stages.len().saturating_sub(1))
}
