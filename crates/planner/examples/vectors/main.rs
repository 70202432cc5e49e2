//! Runs test vectors of other schedulers through the planner's own functions.
//!
//!     cargo run -p avocet-planner --example vectors -- FILE...
//!
//! Prints `id pass`, `id fail` or `id skip` for each case, why on standard error, and the totals at the end. The exit
//! status is 1 if a case fails, 2 if a file can't be read.

mod krake;
mod ocm;
mod rollout;

use std::process::ExitCode;

use serde::Deserialize;
use serde_json::Value;
use types::Time;

/// A file of cases.
#[derive(Deserialize)]
struct File {
    vectors: Vec<Value>,
}

/// One case: what goes in, and what the other scheduler made of it.
#[derive(Deserialize)]
pub struct Case {
    /// Names the case.
    #[serde(default)]
    pub id: String,
    /// Says what is tested, and so what `input` and `expected` look like.
    #[serde(default)]
    pub kind: String,
    /// What goes in.
    #[serde(default)]
    pub input: Value,
    /// What must come out.
    #[serde(default)]
    pub expected: Value,
    /// The time that it is.
    #[serde(default)]
    pub now: Option<Time>,
}

/// How a case went.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// All that was expected came out.
    Pass,
    /// Something else came out: what, and what was expected.
    Fail(String),
    /// It can't be run: why.
    Skip(String),
}

/// How many cases went how.
#[derive(Debug, Default)]
pub struct Totals {
    /// Cases that passed.
    pub passed: usize,
    /// Cases that failed.
    pub failed: usize,
    /// Cases that were left out.
    pub skipped: usize,
}

impl Verdict {
    /// Passes if both are equal.
    pub fn compare<T: PartialEq + std::fmt::Debug>(what: &str, actual: &T, expected: &T) -> Self {
        if actual == expected {
            Self::Pass
        } else {
            Self::Fail(format!("{what} is {actual:?}, expected {expected:?}"))
        }
    }

    /// The first that does not pass.
    pub fn all(verdicts: impl IntoIterator<Item = Self>) -> Self {
        verdicts.into_iter().find(|verdict| *verdict != Self::Pass).unwrap_or(Self::Pass)
    }
}

/// Runs one case. What can't be read is skipped.
pub fn run_case(case: &Case) -> Verdict {
    let run = match case.kind.split('.').next().unwrap_or_default() {
        "krake" => krake::run(case),
        "rollout" => rollout::run(case),
        _ => ocm::run(case),
    };
    run.unwrap_or_else(Verdict::Skip)
}

/// Runs all cases of a file and tells of each.
///
/// # Errors
/// If the text is no file of cases.
pub fn run_file(text: &str, mut tell: impl FnMut(&str, &Verdict)) -> Result<Totals, serde_json::Error> {
    let file: File = serde_json::from_str(text)?;
    let mut totals = Totals::default();
    for (index, vector) in file.vectors.into_iter().enumerate() {
        let id = vector.get("id").and_then(Value::as_str).map_or(format!("#{index}"), str::to_owned);
        let verdict = match serde_json::from_value::<Case>(vector) {
            Ok(case) => run_case(&case),
            Err(error) => Verdict::Skip(error.to_string()),
        };
        match verdict {
            Verdict::Pass => totals.passed += 1,
            Verdict::Fail(_) => totals.failed += 1,
            Verdict::Skip(_) => totals.skipped += 1,
        }
        tell(&id, &verdict);
    }
    Ok(totals)
}

fn tell(id: &str, verdict: &Verdict) {
    let (word, why) = match verdict {
        Verdict::Pass => ("pass", None),
        Verdict::Fail(why) => ("fail", Some(why)),
        Verdict::Skip(why) => ("skip", Some(why)),
    };
    println!("{id} {word}");
    if let Some(why) = why {
        eprintln!("{id}: {why}");
    }
}

fn main() -> ExitCode {
    let mut totals = Totals::default();
    let mut unreadable = false;
    for path in std::env::args_os().skip(1) {
        let run = std::fs::read_to_string(&path)
            .map_err(|error| error.to_string())
            .and_then(|text| run_file(&text, tell).map_err(|error| error.to_string()));
        match run {
            Ok(file) => {
                totals.passed += file.passed;
                totals.failed += file.failed;
                totals.skipped += file.skipped;
            }
            Err(error) => {
                eprintln!("{}: {error}", path.display());
                unreadable = true;
            }
        }
    }
    println!("total pass={} fail={} skip={}", totals.passed, totals.failed, totals.skipped);
    match (totals.failed, unreadable) {
        (0, false) => ExitCode::SUCCESS,
        (0, true) => ExitCode::from(2),
        _ => ExitCode::FAILURE,
    }
}
