//! Whether an object is as it would be if it were applied now.

use serde_json::{Map, Value};

use super::cluster::MANAGER;

/// How many fields are named.
const MOST_FIELDS: usize = 8;
/// What the server says of an object.
const SYSTEM: [&str; 6] =
    ["managedFields", "resourceVersion", "generation", "creationTimestamp", "uid", "deletionTimestamp"];

/// What an apply would do to an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// The fields that would change, by name only: some are secret.
    pub fields: Vec<String>,
    /// Whether others state now what we stated.
    pub is_disowned: bool,
}

impl Difference {
    /// From what is there to what would be.
    pub fn between(live: &Value, wanted: &Value) -> Self {
        let mut fields = Vec::new();
        compare(&stated(live), &stated(wanted), "", &mut fields);
        Self { fields, is_disowned: owned(live) != owned(wanted) }
    }

    pub fn is_none(&self) -> bool {
        self.fields.is_empty() && !self.is_disowned
    }
}

fn stated(object: &Value) -> Value {
    let mut stated = object.clone();
    if let Some(fields) = stated.as_object_mut() {
        fields.remove("status");
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|field, _| !SYSTEM.contains(&field.as_str()));
        }
    }
    stated
}

fn owned(object: &Value) -> Option<&Value> {
    let managers = object.pointer("/metadata/managedFields")?.as_array()?;
    let ours = managers.iter().find(|entry| {
        let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default();
        text("manager") == MANAGER && text("operation") == "Apply"
    });
    ours?.get("fieldsV1")
}

fn compare(live: &Value, wanted: &Value, path: &str, fields: &mut Vec<String>) {
    if live == wanted || fields.len() >= MOST_FIELDS {
        return;
    }
    let (Value::Object(before), Value::Object(after)) = (live, wanted) else {
        fields.push(path.to_owned());
        return;
    };
    for (field, inner) in before {
        let there = after.get(field).unwrap_or(&Value::Null);
        compare_field(inner, there, path, field, fields);
    }
    let new: Map<String, Value> = after
        .iter()
        .filter(|(field, _)| !before.contains_key(*field))
        .map(|(f, v)| (f.clone(), v.clone()))
        .collect();
    for (field, inner) in &new {
        compare_field(&Value::Null, inner, path, field, fields);
    }
}

fn compare_field(live: &Value, wanted: &Value, path: &str, field: &str, fields: &mut Vec<String>) {
    if fields.len() < MOST_FIELDS {
        compare(live, wanted, &format!("{path}.{field}"), fields);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_that_differ_are_named_without_their_values() {
        let live = json!({
            "metadata": {"name": "a", "resourceVersion": "7", "labels": {"x": "1"}},
            "spec": {"list": [1, 2], "same": true, "gone": 1}, "status": {"ready": true},
        });
        let wanted = json!({
            "metadata": {"name": "a", "labels": {"x": "2", "y": "3"}}, "spec": {"list": [1], "same": true},
        });
        let found = Difference::between(&live, &wanted);
        assert_eq!(found.fields, [".metadata.labels.x", ".metadata.labels.y", ".spec.gone", ".spec.list"]);
        assert!(Difference::between(&live, &live).is_none());
    }

    #[test]
    fn what_others_state_now_is_seen_although_its_value_is_the_same() {
        let object = |manager: &str| {
            json!({"metadata": {"managedFields": [
                {"manager": manager, "operation": "Apply", "fieldsV1": {"f:spec": {}}},
            ]}})
        };
        let found = Difference::between(&object("kubectl"), &object(MANAGER));
        assert_eq!(found, Difference { fields: vec![], is_disowned: true });
    }
}
