//! Values of other types than the schema's, as a server-side apply tells them: in the words of structured merge and
//! diff, which looks at a patch before the schema is validated.

use serde_json::Value;

use crate::compile::{Node, Type};
use crate::path::Path;
use crate::prune::META;

/// All that is of another type, as `.spec.tiers: expected list, got &{edge}`. A null is of every type.
pub fn mistyped(object: &Value, root: &Node) -> Vec<String> {
    let mut told = Vec::new();
    for (name, value) in object.as_object().into_iter().flatten() {
        if let Some(node) = root.field(name).filter(|_| !META.contains(&name.as_str())) {
            walk(value, node, &Path::Field(&Path::Root, name), &mut told);
        }
    }
    told
}

fn walk(value: &Value, node: &Node, path: &Path<'_>, told: &mut Vec<String>) {
    let expected = match (&node.type_, value) {
        (_, Value::Null) | (Type::Any | Type::IntOrString, _) => return,
        (Type::Integer | Type::Number, Value::Number(_))
        | (Type::String, Value::String(_))
        | (Type::Boolean, Value::Bool(_)) => return,
        (Type::Array, Value::Array(entries)) => {
            for (index, entry) in entries.iter().enumerate() {
                if let Some(items) = node.items.as_deref() {
                    walk(entry, items, &Path::Index(path, index), told);
                }
            }
            return;
        }
        (Type::Object, Value::Object(fields)) => {
            for (name, value) in fields {
                if let Some(field) = node.field(name) {
                    walk(value, field, &Path::Field(path, name), told);
                }
            }
            return;
        }
        (Type::Integer | Type::Number, _) => format!("numeric (int or float), got {}", go_type(value)),
        (Type::String, _) => format!("string, got &value.valueUnstructured{{Value:{}}}", go(value)),
        (Type::Boolean, _) => format!("boolean, got &{{{}}}", go(value)),
        (Type::Array, _) => format!("list, got &{{{}}}", go(value)),
        (Type::Object, _) => format!("map, got &{{{}}}", go(value)),
    };
    told.push(format!(".{}: expected {expected}", path.render()));
}

/// A value as Go prints it.
fn go(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(entries) => format!("[{}]", entries.iter().map(go).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("{name}:{}", go(value))).collect();
            format!("map[{}]", fields.join(" "))
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
