//! Open Cluster Management: filters, scores, groups, conditions, health.

use super::{Case, Verdict};

/// Runs a case.
///
/// # Errors
/// Why it can't be run.
pub fn run(case: &Case) -> Result<Verdict, String> {
    Err(format!("unknown kind `{}`", case.kind))
}
