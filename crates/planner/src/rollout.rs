//! How a change reaches many sites: which of them are next, and when to stop.
//!
//! [`follow`] decides as Open Cluster Management's rollout handler does, to the letter, for those who compare.
//! [`advance`] is what production runs. Both ask [`determine`] what follows for one site: soak and deadline are one
//! mechanism. It keeps the same strategies, and is stricter where the other's budget leaks:
//! all failures count, wherever their sites stand in the order; a site that
//! failed holds no place for ever; no group begins while the one before it is at work; mandatory groups keep to the
//! concurrency; sites that can't be reached or don't want to be changed are neither failures nor in the way.

mod advance;
mod duration;
mod follow;
mod portion;
mod status;
mod strategy;
mod window;

pub use advance::{Budget, Member, Outcome, Stage, State, Step, advance};
pub use duration::{InvalidDuration, deadline, go_duration};
pub use follow::{Entry, Group, Mandatory, Plan, Strategy, follow};
pub use portion::{InvalidPortion, size};
pub use status::{Progress, Verdict, WorkCondition, determine, is_to_apply, progress_of};
pub use strategy::{Haste, stage_of, stages};
pub use window::{is_open, opens_at};
