//! Lists that are sets or maps: no entry twice.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::compile::{ListType, Node};
use crate::path::Path;
use crate::violation::{Reason, Violation, shown};

/// Whether an object breaks this already.
pub fn has_duplicates(node: &Node, value: &Value) -> bool {
    let mut violations = Vec::new();
    check(node, value, &Path::Root, &mut violations);
    !violations.is_empty()
}

/// Finds entries that are there twice.
pub fn check(node: &Node, value: &Value, path: &Path<'_>, violations: &mut Vec<Violation>) {
    if !node.has_lists {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(child) = node.properties.get(name) {
                    check(child, value, &Path::Field(path, name), violations);
                } else if let Some(Some(child)) = &node.additional {
                    check(child, value, &Path::Key(path, name), violations);
                }
            }
        }
        Value::Array(entries) => {
            match &node.list_type {
                ListType::Atomic => {}
                ListType::Set => repeated(entries.iter().map(Value::to_string), path, violations, |index| {
                    entries.get(index).map(shown)
                }),
                ListType::Map(keys) => check_keys(entries, keys, path, violations),
            }
            let Some(items) = node.items.as_deref() else { return };
            for (index, entry) in entries.iter().enumerate() {
                check(items, entry, &Path::Index(path, index), violations);
            }
        }
        _ => {}
    }
}

fn check_keys(entries: &[Value], names: &[String], path: &Path<'_>, violations: &mut Vec<Violation>) {
    if let Some((index, entry)) =
        entries.iter().enumerate().find(|(_, entry)| !entry.is_object() && !entry.is_null())
    {
        let field = Path::Index(path, index).field();
        let detail = "must be an object for an array of list-type map";
        violations.push(Violation::new(field, Reason::Invalid, Some(shown(entry)), detail));
        return;
    }
    let keys: Vec<String> = entries.iter().map(|entry| key_of(entry, names).to_string()).collect();
    repeated(keys.iter().cloned(), path, violations, |index| keys.get(index).cloned());
}

/// What tells an entry apart, as an object of its key fields.
pub fn key_of(entry: &Value, names: &[String]) -> Value {
    let fields = names.iter().filter_map(|name| Some((name.clone(), entry.get(name)?.clone())));
    Value::Object(fields.collect::<Map<String, Value>>())
}

/// Tells of the second of each that is there more than once.
fn repeated(
    keys: impl Iterator<Item = String>,
    path: &Path<'_>,
    violations: &mut Vec<Violation>,
    text: impl Fn(usize) -> Option<String>,
) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (index, key) in keys.enumerate() {
        let times = seen.entry(key).or_default();
        *times += 1;
        if *times == 2 {
            violations.push(Violation::new(
                Path::Index(path, index).field(),
                Reason::Duplicate,
                text(index),
                "",
            ));
        }
    }
}
