//! Pure decisions. Everything that a decision depends on arrives as an argument, so the same input always gives
//! the same answer: production, `avocet explain` and simulation run the very same functions.

mod dataflow;
mod distance;
mod placement;
pub mod rollout;

pub use dataflow::{Blocked, ComponentPlan, Resolver, missing, missing_version, plan_application};
pub use distance::Distances;
pub use placement::{Outcome, Verdict, place};
