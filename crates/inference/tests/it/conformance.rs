//! ONNX's own tests of single operators, on every engine, each engine in a process of its own.
//!
//! What came of each is kept in `docs/conformance/onnx-nodes.tsv`, and may only get better. To keep a new state:
//! `AVOCET_TEST_ONNX=FOLDER AVOCET_CONFORMANCE=keep cargo nextest run -p avocet-inference conformance`, where FOLDER is
//! `onnx/backend/test/data/node` of the Python package `onnx`.

mod proto;
mod report;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use avocet_inference::{EngineChoice, Engines, LoadError, LoadOptions, Tensor};

use crate::support::discovered;

/// Engines that are measured, in the order of the kept table's columns.
const ENGINES: [EngineChoice; 3] = [EngineChoice::OnnxRuntime, EngineChoice::Rten, EngineChoice::Native];

/// What an engine made of a test; each is worse than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Pass,
    /// Another answer than that of a test that is itself in doubt.
    Disputed,
    /// It was refused when it was loaded.
    Unsupported,
    /// It was refused when it was run.
    Fail,
    /// It gave another answer: the one thing that must not be.
    Wrong,
    /// The process died.
    Crash,
}

const VERDICTS: [(Verdict, &str); 6] = [
    (Verdict::Pass, "pass"),
    (Verdict::Disputed, "disputed"),
    (Verdict::Unsupported, "unsupported"),
    (Verdict::Fail, "fail"),
    (Verdict::Wrong, "wrong"),
    (Verdict::Crash, "crash"),
];

impl Verdict {
    fn name(self) -> &'static str {
        VERDICTS.iter().find(|(verdict, _)| *verdict == self).unwrap().1
    }

    fn of(name: &str) -> Verdict {
        VERDICTS.iter().find(|(_, known)| *known == name).unwrap_or_else(|| panic!("verdict {name}")).0
    }
}

/// Tests whose data are not what the operator's definition says, or not what it says today.
const DISPUTED: [(&str, &str); 6] = [
    ("test_qlinearmatmul_", "the 8-bit results of some wrap around; the definition saturates"),
    ("test_l2normalization_axis_0", "expects NaN for a vector of zeros; later versions expect 0"),
    (
        "test_maxunpool_export_with_output_shape",
        "moves indices to another shape than that which they were made for",
    ),
    (
        "test_resize_downsample_scales_linear_align_corners",
        "expects the last pixel of a size that was rounded down",
    ),
    (
        "test_resize_downsample_scales_cubic_align_corners",
        "expects the last pixel of a size that was rounded down",
    ),
    ("test_attention_", "the order of mask, soft cap and the output of the product changed after these data"),
];

/// Tests of random numbers: shapes and types are compared, values are not.
const RANDOM: [&str; 2] = ["test_bernoulli", "test_training_dropout"];

/// Verdicts by test.
type Results = BTreeMap<String, Verdict>;

fn tests_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.retain(|name| folder.join(name).join("model.onnx").is_file());
    names.sort();
    names
}

#[test]
fn no_engine_gets_worse_at_the_node_tests_of_onnx() {
    let Some(folder) = std::env::var_os("AVOCET_TEST_ONNX").map(PathBuf::from) else {
        println!("skipped: AVOCET_TEST_ONNX names no folder of node tests");
        return;
    };
    let keep = std::env::var_os("AVOCET_CONFORMANCE").is_some_and(|wish| wish == "keep");
    let names = tests_in(&folder);
    assert!(!names.is_empty(), "{} holds no node tests", folder.display());
    let available: Vec<&str> =
        discovered().list().into_iter().filter(|engine| engine.available).map(|engine| engine.name).collect();
    let mut all = BTreeMap::new();
    for engine in ENGINES.map(|choice| choice.engine().unwrap()) {
        if available.contains(&engine) {
            all.insert(engine, run_all(engine, &folder, &names));
        } else {
            println!("skipped: {engine} is not here");
        }
    }
    if keep {
        report::write(&folder, &all);
        return;
    }
    let kept = report::read();
    let mut worse = Vec::new();
    for (engine, results) in &all {
        for (test, &verdict) in results {
            let before = kept.get(*engine).and_then(|kept| kept.get(test)).copied();
            // A test that is new here may be anything but wrong.
            if verdict > before.unwrap_or(Verdict::Fail) {
                worse.push(format!("{test} on {engine}: {} after {before:?}", verdict.name()));
            }
        }
    }
    assert!(
        worse.is_empty(),
        "{} worse than docs/conformance/onnx-nodes.tsv:\n{}",
        worse.len(),
        worse.join("\n")
    );
}

/// Runs all tests in children; where one dies, its test is a crash and the next child goes on behind it.
fn run_all(engine: &str, folder: &Path, names: &[String]) -> Results {
    let mut results = Results::new();
    while results.len() < names.len() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["conformance::one_engine_in_a_child", "--exact", "--ignored", "--nocapture"])
            .env("AVOCET_TEST_ONNX", folder)
            .env("AVOCET_CONFORMANCE_ENGINE", engine)
            .env("AVOCET_CONFORMANCE_FROM", results.len().to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let Some((_, said)) = line.split_once("VERDICT ") else { continue };
            let (test, verdict) = said.split_once(' ').unwrap();
            results.insert(test.to_owned(), Verdict::of(verdict));
        }
        let status = child.wait().unwrap();
        if results.len() < names.len() {
            assert!(
                !status.success(),
                "the child of {engine} stopped at {} tests without an error",
                results.len()
            );
            results.insert(names[results.len()].clone(), Verdict::Crash);
        }
    }
    results
}

#[test]
#[ignore = "started by the test above"]
fn one_engine_in_a_child() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let folder = PathBuf::from(variable("AVOCET_TEST_ONNX"));
    let choice: EngineChoice = variable("AVOCET_CONFORMANCE_ENGINE").parse().unwrap();
    let from: usize = variable("AVOCET_CONFORMANCE_FROM").parse().unwrap();
    let engines = discovered();
    for name in tests_in(&folder).iter().skip(from) {
        let (verdict, reason) = match run(&engines, choice, &folder.join(name)) {
            Ok(()) => (Verdict::Pass, String::new()),
            Err(told) => told,
        };
        if verdict >= Verdict::Fail {
            println!("# {name}: {reason}");
        }
        println!("VERDICT {name} {}", verdict.name());
    }
}

fn run(engines: &Engines, choice: EngineChoice, test: &Path) -> Result<(), (Verdict, String)> {
    let unsupported = |reason: String| (Verdict::Unsupported, reason);
    let name = test.file_name().unwrap().to_str().unwrap();
    let options = LoadOptions { workers: 1, threads: 0, instances: 0 };
    let loaded = engines.load(choice, &test.join("model.onnx"), &options);
    let model = loaded.map_err(|error: LoadError| unsupported(error.to_string()))?.model;
    let signature = model.signature();
    for set in (0..).map(|number| test.join(format!("test_data_set_{number}"))).take_while(|set| set.is_dir())
    {
        let inputs = proto::read_all(&set, "input", &signature.inputs).map_err(unsupported)?;
        let outputs = proto::read_all(&set, "output", &signature.outputs).map_err(unsupported)?;
        let names: Vec<&str> = outputs.iter().map(Tensor::name).collect();
        signature.check(&inputs, &names).map_err(|error| (Verdict::Fail, error.to_string()))?;
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| model.run(&inputs, &names)));
        let run = run.map_err(|_| (Verdict::Fail, "it panicked".to_owned()))?;
        let given = run.map_err(|error| (Verdict::Fail, error.to_string()))?;
        for (expected, given) in outputs.iter().zip(&given) {
            let random = RANDOM.iter().any(|prefix| name.starts_with(prefix));
            proto::compare(expected, given, random).map_err(|difference| {
                let disputed = DISPUTED.iter().any(|(prefix, _)| name.starts_with(prefix));
                (if disputed { Verdict::Disputed } else { Verdict::Wrong }, difference)
            })?;
        }
    }
    Ok(())
}
