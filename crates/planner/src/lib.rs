//! Pure decisions. Everything that a decision depends on arrives as an argument, so the same input always gives
//! the same answer: production, `avocet explain` and simulation run the very same functions.
//!
//! Placement: a [`Fleet`] holds what policies ask of sites, a [`Crowd`] what others decided, and a [`Board`] decides for
//! one [`Policy`]. [`place`] does all of it at once and says why. How changes reach sites: [`rollout`]. Who
//! takes work that a busy site offers: [`offload`]. From whom sites fetch what many want: [`distribution`]. What a hub brings
//! from the hub above: [`branch`].

pub mod branch;
pub mod constraint;
pub mod distribution;
pub mod groups;
pub mod health;
pub mod metrics;
pub mod offload;
pub mod retry;
pub mod rollout;

mod board;
mod crowd;
mod dataflow;
mod distance;
mod explain;
mod fleet;
mod policy;
mod words;

pub use board::{Board, Effort, MetricColumn, Selected, Situation, normalized_score};
pub use crowd::{Crowd, PlacementKey};
pub use dataflow::{Blocked, ComponentPlan, Resolver, missing, missing_version, plan_application};
pub use distance::Distances;
pub use explain::{
    Outcome, Question, TermScore, Verdict, answer, explain, metric_column, origins, place, reasons,
};
pub use fleet::{Dialect, Fleet, Slot, holds_all};
pub use policy::{Misconfigured, Policy, taints};
pub use words::first_of;
