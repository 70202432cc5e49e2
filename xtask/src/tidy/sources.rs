//! Sources are short and finished.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::Problem;

/// Above this many lines a file is worth a thought, …
const LONG: usize = 500;
/// … and above this it is to be divided.
const TOO_LONG: usize = 800;

/// A Rust file.
pub struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Whether a function of that name is in it.
    pub fn has_test(&self, name: &str) -> bool {
        self.text.contains(&format!("fn {name}("))
    }
}

/// All Rust files of the workspace but those that programs write.
pub fn read(root: &Path) -> anyhow::Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut open: Vec<PathBuf> = ["crates", "xtask"].map(|folder| root.join(folder)).to_vec();
    while let Some(folder) = open.pop() {
        let entries =
            std::fs::read_dir(&folder).with_context(|| format!("can't read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                if !path.ends_with("src/generated") {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("can't read {}", path.display()))?;
                let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
                sources.push(Source { path: shown, text });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

pub fn warning(source: &Source) -> Option<Problem> {
    let lines = source.text.lines().count();
    (LONG < lines && lines <= TOO_LONG)
        .then(|| format!("{} has {lines} lines; is it one thing?", source.path))
}

pub fn problems(source: &Source) -> Vec<Problem> {
    // Put together here, so that this file is not what it forbids.
    let leftovers = [["TO", "DO"], ["FIX", "ME"], ["dbg", "!("], ["XX", "X:"]].map(|parts| parts.concat());
    let mut problems = Vec::new();
    let lines = source.text.lines().count();
    if lines > TOO_LONG {
        problems.push(format!("{} has {lines} lines, more than {TOO_LONG}: divide it", source.path));
    }
    for (index, line) in source.text.lines().enumerate() {
        for leftover in leftovers.iter().filter(|leftover| line.contains(leftover.as_str())) {
            problems.push(format!("{}:{}: `{leftover}` is left over", source.path, index + 1));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: String) -> Source {
        Source { path: "crates/a/src/lib.rs".into(), text }
    }

    #[test]
    fn long_files_are_warned_of_and_too_long_ones_refused() {
        let of_lines = |count: usize| source("fn f() {}\n".repeat(count));
        assert!(warning(&of_lines(500)).is_none() && problems(&of_lines(500)).is_empty());
        assert!(warning(&of_lines(501)).is_some() && problems(&of_lines(800)).is_empty());
        assert!(warning(&of_lines(801)).is_none() && problems(&of_lines(801)).len() == 1);
    }

    #[test]
    fn leftovers_are_found_with_their_line() {
        let left = format!("fn f() {{}}\n// {}DO: more\n", "TO");
        assert_eq!(problems(&source(left)), [format!("crates/a/src/lib.rs:2: `{}DO` is left over", "TO")]);
    }
}
