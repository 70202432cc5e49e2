//! How changes of an application reach its sites.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{InvocationCounts, LabelSelector, Portion, Span, Time, names};

/// How changes of an application reach its sites: in which order, how many at once, and when to stop.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.mandatoryGroups) || self.mandatoryGroups.all(name, has(self.groups) && self.groups.exists(group, group.name == name))",
    "message": "names a group that is none of spec.rollout.groups: name one of them", "fieldPath": ".mandatoryGroups",
}]))]
pub struct Rollout {
    /// In which order.
    #[serde(rename = "type")]
    pub kind: RolloutKind,
    /// At how many sites it is at work at once: a number, or a percentage of those that are reachable; absent for
    /// all, and for one group at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<Portion>,
    /// How many sites may fail before it stops: a number, or a percentage, of all sites, with `ProgressivePerGroup` of
    /// each group; absent for none, with `All` for any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_failures: Option<Portion>,
    /// How long a site has to run what is new before it counts as done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_success_time: Option<Span>,
    /// How long a site may take before it counts as failed; absent for as long as it likes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress_deadline: Option<Span>,
    /// Groups of sites, in their order; a site belongs to the first that selects it, sites of none come last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub groups: Vec<RolloutGroup>,
    /// Groups that come before all others, and in which no site may fail.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 63)))]
    pub mandatory_groups: Vec<String>,
    /// Leaves it to people to go back when too many sites failed; it then only stops.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_rollback: bool,
    /// No further site is changed as long as this is true.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// How many revisions are kept to go back to; absent for 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub revision_history_limit: Option<u32>,
}

/// In which order sites are changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutKind {
    /// All at once.
    #[default]
    All,
    /// Some at a time, by name.
    Progressive,
    /// One group after the other.
    ProgressivePerGroup,
}

/// A group of sites.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RolloutGroup {
    /// The group's name.
    #[schemars(regex(pattern = names::DNS_LABEL), length(max = 63))]
    pub name: String,
    /// Selects its sites by their labels.
    pub site_selector: LabelSelector,
}

/// How a rollout stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutStatus {
    /// The revision that sites are to run, by the name of its ApplicationRevision.
    pub revision: String,
    /// Its number.
    pub number: i64,
    /// The number of the revision that the manifests say, which is another one where it was gone back from.
    pub wanted: i64,
    /// The last revision that sites ran well; where a roll-back goes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_good: String,
    /// Whether that one has been at all of its sites once: before, failures count.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub proven: bool,
    /// The highest number that a revision had so far: numbers are not given twice.
    #[serde(skip_serializing_if = "is_zero")]
    pub newest: i64,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// Whether every site that can be changed runs it.
    pub complete: bool,
    /// What was gone back from, if that is what is wanted still.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Rejected>,
    /// How many sites are how far.
    pub sites: RolloutCounts,
    /// What it waits for, if anything.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// A revision that was gone back from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rejected {
    /// The revision, by the name of its ApplicationRevision.
    pub revision: String,
    /// What runs instead.
    pub instead: String,
    /// `FailureBudgetExceeded` or `Aborted`.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// The `avocet.dev/rollout-undo` annotation at that time; another one is a new word.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub instruction: String,
}

/// How many sites are how far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutCounts {
    /// All sites that are to run it.
    pub total: u32,
    /// Run it, and did so for long enough.
    pub done: u32,
    /// Run it, but not for long enough.
    pub soaking: u32,
    /// Are at it.
    pub progressing: u32,
    /// Wait for their turn.
    pub waiting: u32,
    /// Can't run it.
    pub failed: u32,
    /// Took too long.
    pub timed_out: u32,
    /// Can't be reached; they follow when they are back.
    pub offline: u32,
    /// Don't want to be changed now: outside of their maintenance windows, or opted out.
    pub held: u32,
}

/// How far a site is with what is assigned to it, by the hub's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SiteProgress {
    /// How far it is.
    pub state: SiteState,
    /// The generation of the assignment that this is about.
    pub generation: i64,
    /// Since when.
    pub since: Time,
    /// How many invocations there were when the site ran this generation first: only what came after is this
    /// generation's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocations: Option<InvocationCounts>,
}

/// How far a site is with what is assigned to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SiteState {
    /// It was not heard of it yet.
    ToApply,
    /// It prepares it.
    Progressing,
    /// It runs it.
    Succeeded,
    /// It can't run it.
    Failed,
}
