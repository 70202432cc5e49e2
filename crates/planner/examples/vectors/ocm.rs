//! Open Cluster Management: filters, scores, groups, conditions, health.

mod decide;
mod health;
mod sets;
mod world;

use super::{Case, Verdict};

/// Runs a case.
///
/// # Errors
/// Why it can't be run.
pub fn run(case: &Case) -> Result<Verdict, String> {
    match case.kind.as_str() {
        "filter.predicate" => decide::filter(case, "Predicate"),
        "filter.taint" => decide::filter(case, "TaintToleration"),
        "selector" => decide::selector(case),
        "cel" => decide::cel(case),
        "score.balance" | "score.steady" | "score.addon" | "score.resource" => decide::score(case),
        "score.normalize" => decide::normalize(case),
        "schedule" | "schedule.full" => decide::schedule(case),
        "groups" => sets::groups(case),
        "reconcile" => sets::reconcile(case),
        "sets.eligible" => sets::eligible(case),
        "sets.available" => sets::available(case),
        "condition.satisfied" => sets::satisfied(case),
        "health.lease" => health::lease(case),
        "health.clock" => health::clock(case),
        "health.taint" => health::taint(case),
        "evict.unmanaged" => health::evict(case),
        other => Err(format!("unknown kind `{other}`")),
    }
}
