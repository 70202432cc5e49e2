//! What other schedulers answered, the planner answers too.

#[allow(dead_code)]
#[path = "../../examples/vectors/main.rs"]
mod vectors;

use vectors::{Verdict, run_file};

fn check(text: &str) {
    let mut wrong = Vec::new();
    run_file(text, |id, verdict| {
        if *verdict != Verdict::Pass {
            wrong.push(format!("{id}: {verdict:?}\n"));
        }
    })
    .unwrap();
    assert!(wrong.is_empty(), "{}", wrong.concat());
}
