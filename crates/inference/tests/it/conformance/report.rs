//! The kept results: a list for the test and a page for people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::{DISPUTED, ENGINES, RANDOM, Results, VERDICTS, Verdict};

fn kept(name: &str) -> PathBuf {
    Path::new("../../docs/conformance").join(name)
}

/// What is kept, by engine.
pub fn read() -> BTreeMap<String, Results> {
    let text = std::fs::read_to_string(kept("onnx-nodes.tsv")).unwrap();
    let mut all = BTreeMap::<String, Results>::new();
    let mut lines = text.lines();
    let engines: Vec<&str> = lines.next().unwrap().split('\t').skip(1).collect();
    for line in lines {
        let mut columns = line.split('\t');
        let test = columns.next().unwrap();
        for (engine, verdict) in engines.iter().zip(columns).filter(|(_, verdict)| !verdict.is_empty()) {
            all.entry((*engine).to_owned()).or_default().insert(test.to_owned(), Verdict::of(verdict));
        }
    }
    all
}

/// Keeps both files; every engine must have run.
pub fn write(folder: &Path, all: &BTreeMap<&str, Results>) {
    let engines = ENGINES.map(|choice| choice.engine().unwrap());
    assert!(engines.iter().all(|engine| all.contains_key(engine)), "an engine is missing");
    let tests: BTreeSet<&String> = all.values().flat_map(Results::keys).collect();
    let mut list = format!("test\t{}\n", engines.join("\t"));
    for test in &tests {
        let verdicts = engines.map(|engine| all[engine][*test].name());
        writeln!(list, "{test}\t{}", verdicts.join("\t")).unwrap();
    }
    std::fs::create_dir_all(kept("")).unwrap();
    std::fs::write(kept("onnx-nodes.tsv"), list).unwrap();
    std::fs::write(kept("onnx-nodes.md"), page(folder, &engines, all, &tests)).unwrap();
}

fn page(folder: &Path, engines: &[&str], all: &BTreeMap<&str, Results>, tests: &BTreeSet<&String>) -> String {
    let mut page = String::from(
        "# The node tests of ONNX\n\nEach test is a model of one operator with inputs and outputs, from the Python \
         package `onnx`. `cargo xtask test` runs them on every engine, each in a process of its own, and fails when \
         one gets worse than in [onnx-nodes.tsv](onnx-nodes.tsv).\n\n- **unsupported**: refused when it is loaded, \
         with the reason; `auto` then takes another engine\n- **fail**: refused when it is run\n- **wrong**: another \
         answer than ONNX's\n- **crash**: the process died\n- **disputed**: another answer than that of a test that \
         is in doubt, see below\n\nTests whose names end in `_expanded` say the same with simpler operators. Numbers \
         may differ by a thousandth (halves by a hundredth), 8-bit ones by one.\n\n",
    );
    let count = |engine: &str, verdict: Verdict, tests: &[&String]| {
        tests.iter().filter(|test| all[engine][**test] == verdict).count()
    };
    let everything: Vec<&String> = tests.iter().copied().collect();
    writeln!(page, "| engine | {} |", VERDICTS.map(|(_, name)| name).join(" | ")).unwrap();
    writeln!(page, "|---|{}", "---|".repeat(VERDICTS.len())).unwrap();
    for engine in engines {
        let counts = VERDICTS.map(|(verdict, _)| count(engine, verdict, &everything).to_string());
        writeln!(page, "| {engine} | {} |", counts.join(" | ")).unwrap();
    }
    writeln!(page, "\nIn doubt, where an engine differs:\n").unwrap();
    for (prefix, reason) in DISPUTED {
        writeln!(page, "- `{prefix}`: {reason}").unwrap();
    }
    writeln!(page, "\nOf random numbers only shapes and types are compared: `{}`.", RANDOM.join("`, `"))
        .unwrap();
    let mut by_operator = BTreeMap::<String, Vec<&String>>::new();
    for test in tests {
        by_operator.entry(operator(&folder.join(test))).or_default().push(test);
    }
    writeln!(page, "\n## By operator\n\n| operator | tests | {} |", engines.join(" | ")).unwrap();
    writeln!(page, "|---|---|{}", "---|".repeat(engines.len())).unwrap();
    for (operator, tests) in by_operator {
        let cells = engines.iter().map(|engine| {
            let told = VERDICTS.iter().filter_map(|&(verdict, name)| match count(engine, verdict, &tests) {
                0 => None,
                many if many == tests.len() => Some(name.to_owned()),
                many => Some(format!("{many} {name}")),
            });
            told.collect::<Vec<_>>().join(", ")
        });
        let cells: Vec<String> = cells.collect();
        writeln!(page, "| {operator} | {} | {} |", tests.len(), cells.join(" | ")).unwrap();
    }
    page
}

/// The operator of a test's only node, or `(several)`.
fn operator(test: &Path) -> String {
    let model = std::fs::read(test.join("model.onnx")).unwrap();
    let inside = |bytes: &[u8], field: u64| -> Vec<Vec<u8>> {
        let fields = super::proto::fields(bytes).unwrap_or_default();
        fields
            .into_iter()
            .filter(|(number, ..)| *number == field)
            .map(|(.., content)| content.to_vec())
            .collect()
    };
    let nodes: Vec<Vec<u8>> = inside(&model, 7).iter().flat_map(|graph| inside(graph, 1)).collect();
    match nodes.as_slice() {
        [node] => inside(node, 4).pop().map_or_else(String::new, |name| String::from_utf8(name).unwrap()),
        _ => "(several)".into(),
    }
}
