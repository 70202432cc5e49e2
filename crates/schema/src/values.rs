//! What several checks need to know of values.

use serde_json::Value;

/// The name of a value's type, as messages have it.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.as_i64().is_some() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The value as JSON.
pub fn json_text(value: &Value) -> String {
    value.to_string()
}
