//! The part of JSONPath that printer columns use: `.a.b`, `[*]`, `[?(@.key=="value")]`.

use serde_json::Value;

/// All values at a path, in order; nothing where the path leads nowhere or can't be read.
pub fn find<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut found = vec![value];
    let mut rest = path;
    while !rest.is_empty() && !found.is_empty() {
        let Some((step, after)) = next_step(rest) else { return vec![] };
        found = found.into_iter().flat_map(|value| take(value, &step)).collect();
        rest = after;
    }
    found
}

enum Step<'a> {
    Field(&'a str),
    All,
    Where(&'a str, &'a str),
}

fn next_step(path: &str) -> Option<(Step<'_>, &str)> {
    if let Some(rest) = path.strip_prefix("[*]") {
        return Some((Step::All, rest));
    }
    if let Some(rest) = path.strip_prefix("[?(@.") {
        let (condition, rest) = rest.split_once(")]")?;
        let (key, value) = condition.split_once("==")?;
        return Some((Step::Where(key, value.strip_prefix('"')?.strip_suffix('"')?), rest));
    }
    let rest = path.strip_prefix('.')?;
    let end = rest.find(['.', '[']).unwrap_or(rest.len());
    let (field, rest) = rest.split_at(end);
    Some((Step::Field(field), rest))
}

fn take<'a>(value: &'a Value, step: &Step) -> Vec<&'a Value> {
    match step {
        Step::Field(field) => value.get(field).into_iter().collect(),
        Step::All => value.as_array().into_iter().flatten().collect(),
        Step::Where(key, wanted) => {
            let matches = |entry: &&Value| entry.get(key).and_then(Value::as_str) == Some(wanted);
            value.as_array().into_iter().flatten().filter(matches).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn printer_columns_find_their_cells() {
        let value = json!({"a": {"b": 1}, "list": [{"type": "Ready", "status": "True"}, {"type": "X"}]});
        assert_eq!(find(&value, ".a.b"), [&json!(1)]);
        assert_eq!(find(&value, ".list[*].type"), [&json!("Ready"), &json!("X")]);
        assert_eq!(find(&value, ".list[?(@.type==\"Ready\")].status"), [&json!("True")]);
        for nothing in [".missing", ".a[*]", "a", ".list[?(@.type==Ready)]", ".list[", "["] {
            assert!(find(&value, nothing).is_empty(), "{nothing}");
        }
    }
}
