//! What can go wrong, and the tests that bring it about: those that a page of the documentation names are there.

use std::path::Path;

use anyhow::Context;

use super::Problem;
use super::sources::Source;

const PAGE: &str = "docs/sites.md";
const HEADING: &str = "| what goes wrong | tests |";

pub fn problems(root: &Path, sources: &[Source]) -> anyhow::Result<Vec<Problem>> {
    let page = std::fs::read_to_string(root.join(PAGE)).with_context(|| format!("can't read {PAGE}"))?;
    Ok(missing(&page, |test| sources.iter().any(|source| source.has_test(test))))
}

/// The tests of the table that are not there, and rows that name none.
fn missing(page: &str, is_there: impl Fn(&str) -> bool) -> Vec<Problem> {
    let rows = page.lines().skip_while(|line| *line != HEADING).skip(2);
    let rows: Vec<&str> = rows.take_while(|line| line.starts_with('|')).collect();
    if rows.is_empty() {
        return vec![format!("{PAGE} has no table `{HEADING}`")];
    }
    let mut problems = Vec::new();
    for row in rows {
        let tests: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        if tests.is_empty() {
            problems.push(format!("{PAGE}: no test is named in `{row}`"));
        }
        let gone = tests.into_iter().filter(|test| !is_there(test));
        problems.extend(gone.map(|test| format!("{PAGE} names the test `{test}`, which is not there")));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_that_are_gone_and_rows_without_one_are_told() {
        let page =
            format!("# A\n\n{HEADING}\n|---|---|\n| a | `here`, `gone` |\n| b | |\n\n| c | `other` |\n");
        let problems = missing(&page, |test| test == "here");
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].contains("`gone`") && problems[1].contains("| b | |"));
        assert_eq!(missing("# A\n", |_| true).len(), 1);
    }
}
