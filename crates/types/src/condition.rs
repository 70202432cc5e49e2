//! Conditions: what is true of a resource now, since when and why.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Time;

/// True, False or Unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody can tell now.
    Unknown,
}

/// One observation of a resource's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What is observed, in CamelCase, for example `Ready`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// The `metadata.generation` that was looked at; 0 where that is of no account.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub observed_generation: i64,
    /// When `status` last changed.
    pub last_transition_time: Time,
    /// A CamelCase word for programs.
    pub reason: String,
    /// A sentence for people.
    #[serde(default)]
    pub message: String,
}

fn is_zero(generation: &i64) -> bool {
    *generation == 0
}

/// The condition of that type.
pub fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.kind == kind)
}

/// Sets a condition, keeping the transition time where its status stays as it was.
pub fn set_condition(conditions: &mut Vec<Condition>, mut new: Condition) {
    match conditions.iter_mut().find(|old| old.kind == new.kind) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time = old.last_transition_time;
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}
