//! What other schedulers answered, the planner answers too.

#[allow(dead_code)]
#[path = "../../examples/vectors/main.rs"]
mod program;

use program::{Verdict, run_file};

/// Runs all cases; answers how many there are.
fn check(text: &str) -> usize {
    let mut wrong = Vec::new();
    let totals = run_file(text, |id, verdict| {
        if *verdict != Verdict::Pass {
            wrong.push(format!("{id}: {verdict:?}\n"));
        }
    })
    .unwrap();
    assert!(wrong.is_empty(), "{}", wrong.concat());
    totals.passed
}

#[test]
fn decisions_are_those_of_open_cluster_management() {
    assert_eq!(check(include_str!("../data/ocm_unit.json")), 111);
    assert_eq!(check(include_str!("../data/ocm_random.json")), 59);
    assert_eq!(check(include_str!("../data/ocm_edges.json")), 271);
}

#[test]
fn constraints_and_scores_are_those_of_krake() {
    assert_eq!(check(include_str!("../data/krake.json")), 110);
}
