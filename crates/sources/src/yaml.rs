//! Files of YAML or JSON with many documents, each of which knows its line.

use serde_json::Value;

use crate::Error;

/// Whether a file is one of manifests, by its name.
pub fn is_manifest(path: &str) -> bool {
    [".yaml", ".yml", ".json"].iter().any(|end| path.ends_with(end))
}

/// The documents of a file, with the lines where they begin. Empty ones are left out.
///
/// # Errors
/// For what is no YAML: file and line.
pub fn documents(path: &str, text: &str) -> Result<Vec<(usize, Value)>, Error> {
    let mut found = Vec::new();
    for (line, part) in parts(text) {
        if part.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            continue;
        }
        let value: Value = serde_saphyr::from_str(&part).map_err(|error| {
            let at = error.location().map_or(1, |location| usize::try_from(location.line()).unwrap_or(1));
            let text = error.without_snippet().to_string();
            let problem = text.lines().next().unwrap_or_default();
            Error::invalid(format!("{path} line {}", line + at.max(1) - 1), format!("no YAML: {problem}"))
        })?;
        if !value.is_null() {
            let begins =
                part.lines().position(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
            found.push((line + begins.unwrap_or(0), value));
        }
    }
    Ok(found)
}

/// The text between the marks of documents, with the line where each begins. A mark at the beginning of a line is one
/// wherever it stands: YAML has no text in which it isn't.
fn parts(text: &str) -> Vec<(usize, String)> {
    let mut parts = vec![(1, String::new())];
    for (index, line) in text.lines().enumerate() {
        let rest = line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
        let ends = line.strip_prefix("...").is_some_and(|rest| rest.trim().is_empty());
        match (rest, parts.last_mut()) {
            (Some(rest), _) => parts.push((index + 1, format!("   {rest}\n"))),
            (None, _) if ends => parts.push((index + 2, String::new())),
            (None, Some((_, part))) => {
                part.push_str(line);
                part.push('\n');
            }
            (None, None) => {}
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_know_their_lines() {
        let text = "# a comment\n---\nkind: A\n---\n# another\n\nkind: B\nx: |\n  ---\n  y\n...\n---\n---\n{\"kind\": \"C\"}\n";
        let found = documents("f.yaml", text).unwrap();
        let kinds: Vec<(usize, &Value)> = found.iter().map(|(line, value)| (*line, &value["kind"])).collect();
        assert_eq!(kinds, [(3, &json!("A")), (7, &json!("B")), (14, &json!("C"))]);
        assert_eq!(found[1].1["x"], "---\ny\n");
    }

    #[test]
    fn mistakes_are_told_with_their_line_in_the_file() {
        let error =
            documents("a/f.yaml", "kind: A\n---\nkind: B\nspec:\n  x: [1, 2\n").unwrap_err().to_string();
        assert!(error.starts_with("a/f.yaml line 5") || error.starts_with("a/f.yaml line 6"), "{error}");
        let error = documents("f.yaml", "a: b\n  c: d\n").unwrap_err().to_string();
        assert!(error.starts_with("f.yaml line 2: no YAML"), "{error}");
    }
}
