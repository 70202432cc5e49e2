//! Defaults, and nulls that mean "the default".

use serde_json::Value;

use crate::compile::Node;

/// Removes the nulls that are neither allowed nor followed by a default.
pub fn drop_nulls(value: &mut Value, node: Option<&Node>) {
    match value {
        Value::Object(fields) => fields.retain(|name, value| {
            let child = node.and_then(|node| node.field(name));
            let is_stray = |child: &Node| value.is_null() && !child.nullable && child.default.is_none();
            if child.is_some_and(is_stray) {
                return false;
            }
            drop_nulls(value, child);
            true
        }),
        Value::Array(entries) => {
            let items = node.and_then(|node| node.items.as_deref());
            entries.iter_mut().for_each(|entry| drop_nulls(entry, items));
        }
        _ => {}
    }
}

/// Fills in what is missing, and what is null where that isn't allowed.
pub fn apply(value: &mut Value, node: Option<&Node>) {
    let Some(node) = node else { return };
    match value {
        Value::Object(fields) => {
            for (name, child) in &node.properties {
                let Some(default) = &child.default else { continue };
                if fields.get(name).is_none_or(|value| value.is_null() && !child.nullable) {
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in fields.iter_mut() {
                let Some(child) = node.field(name) else { continue };
                replace_null(value, child);
                apply(value, Some(child));
            }
        }
        Value::Array(entries) => {
            let Some(items) = node.items.as_deref() else { return };
            for entry in entries {
                replace_null(entry, items);
                apply(entry, Some(items));
            }
        }
        _ => {}
    }
}

fn replace_null(value: &mut Value, node: &Node) {
    if let Some(default) = node.default.as_ref().filter(|_| value.is_null() && !node.nullable) {
        *value = default.clone();
    }
}
