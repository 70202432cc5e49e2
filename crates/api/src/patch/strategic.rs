//! Strategic merge patches, which kubectl sends for kinds of Kubernetes itself: merge patches that know which lists
//! have keys, with directives in the patch (`$patch`, `$deleteFromPrimitiveList`, `$setElementOrder`, `$retainKeys`).

use serde_json::{Map, Value};

use crate::ApiError;

/// Lists whose entries are told apart by a field.
const KEYED: [(&str, &str); 4] = [
    ("metadata.ownerReferences", "uid"),
    ("secrets", "name"),
    ("status.conditions", "type"),
    ("spec.conditions", "type"),
];
/// Lists of plain values that are added to.
const SETS: [&str; 1] = ["metadata.finalizers"];
/// How deep a patch may be.
const DEEPEST: usize = 64;

/// Applies a patch to an object.
///
/// # Errors
/// 400 for a patch that is too deep, or that gives an entry of a keyed list without its key.
pub fn apply(object: &mut Value, patch: &Value) -> Result<(), ApiError> {
    merge(object, patch, &mut vec![])
}

fn merge(object: &mut Value, patch: &Value, path: &mut Vec<String>) -> Result<(), ApiError> {
    if path.len() > DEEPEST {
        return Err(ApiError::bad_request(format!("the patch is deeper than {DEEPEST} fields")));
    }
    let Value::Object(changes) = patch else {
        *object = patch.clone();
        return Ok(());
    };
    if changes.get("$patch").is_some_and(|directive| directive == "replace") {
        *object = Value::Object(without_directives(changes));
        return Ok(());
    }
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Some(fields) = object.as_object_mut() else { return Ok(()) };
    if let Some(Value::Array(kept)) = changes.get("$retainKeys") {
        fields.retain(|name, _| kept.iter().any(|key| key == name));
    }
    for (name, change) in changes {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = change.as_array().cloned().unwrap_or_default();
            if let Some(entries) = fields.get_mut(list).and_then(Value::as_array_mut) {
                entries.retain(|entry| !gone.contains(entry));
            }
            continue;
        }
        if name.starts_with('$') {
            continue;
        }
        let is_deletion = change.get("$patch").is_some_and(|directive| directive == "delete");
        if change.is_null() || is_deletion {
            fields.remove(name);
            continue;
        }
        path.push(name.clone());
        let place = fields.entry(name.clone()).or_insert(Value::Null);
        match change {
            Value::Array(entries) => merge_list(place, entries, path)?,
            _ => merge(place, change, path)?,
        }
        path.pop();
    }
    Ok(())
}

fn merge_list(list: &mut Value, changes: &[Value], path: &mut Vec<String>) -> Result<(), ApiError> {
    let dotted = path.join(".");
    if SETS.contains(&dotted.as_str())
        && let Some(entries) = list.as_array_mut()
    {
        for change in changes.iter().filter(|change| !change.is_object()) {
            if !entries.contains(change) {
                entries.push(change.clone());
            }
        }
        return Ok(());
    }
    let replaces =
        changes.iter().any(|change| change.get("$patch").is_some_and(|directive| directive == "replace"));
    let key = KEYED.iter().find(|(known, _)| *known == dotted).map(|(_, key)| *key).filter(|_| !replaces);
    let Some(key) = key else {
        let whole = changes.iter().filter(|change| change.get("$patch").is_none());
        *list = whole.cloned().collect();
        return Ok(());
    };
    if !list.is_array() {
        *list = Value::Array(vec![]);
    }
    let Some(entries) = list.as_array_mut() else { return Ok(()) };
    for change in changes {
        let Some(wanted) = change.get(key) else {
            return Err(ApiError::bad_request(format!(
                "map: {change} does not contain declared merge key: {key}"
            )));
        };
        let index = entries.iter().position(|entry| entry.get(key) == Some(wanted));
        let is_deletion = change.get("$patch").is_some_and(|directive| directive == "delete");
        match (index, is_deletion) {
            (Some(index), true) => drop(entries.remove(index)),
            (None, true) => {}
            (Some(index), false) => {
                if let Some(entry) = entries.get_mut(index) {
                    merge(entry, change, path)?;
                }
            }
            (None, false) => {
                let mut entry = Value::Null;
                merge(&mut entry, change, path)?;
                entries.push(entry);
            }
        }
    }
    Ok(())
}

fn without_directives(fields: &Map<String, Value>) -> Map<String, Value> {
    fields
        .iter()
        .filter(|(name, _)| !name.starts_with('$'))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(object: Value, patch: &Value, expected: &Value) {
        let mut object = object;
        apply(&mut object, patch).unwrap();
        assert_eq!(object, *expected, "{patch}");
    }

    #[test]
    fn maps_are_merged_and_null_takes_away() {
        check(
            json!({"data": {"a": "1", "b": "2"}}),
            &json!({"data": {"a": null, "c": "3"}}),
            &json!({"data": {"b": "2", "c": "3"}}),
        );
        check(
            json!({"data": {"a": "1"}}),
            &json!({"data": {"$patch": "replace", "c": "3"}}),
            &json!({"data": {"c": "3"}}),
        );
        check(json!({"data": {"a": "1"}}), &json!({"data": {"$patch": "delete"}}), &json!({}));
        check(
            json!({"spec": {"a": 1, "b": 2}}),
            &json!({"spec": {"$retainKeys": ["a"], "a": 3}}),
            &json!({"spec": {"a": 3}}),
        );
    }

    #[test]
    fn lists_with_keys_are_merged_and_others_replaced() {
        check(
            json!({"secrets": [{"name": "a", "x": 1}, {"name": "b"}]}),
            &json!({"secrets": [{"name": "a", "y": 2}, {"name": "b", "$patch": "delete"}, {"name": "c"}],
                "$setElementOrder/secrets": [{"name": "a"}, {"name": "c"}]}),
            &json!({"secrets": [{"name": "a", "x": 1, "y": 2}, {"name": "c"}]}),
        );
        check(json!({"rules": [1, 2]}), &json!({"rules": [3]}), &json!({"rules": [3]}));
        check(
            json!({"metadata": {"finalizers": ["a", "b"]}}),
            &json!({"metadata": {"finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"]}}),
            &json!({"metadata": {"finalizers": ["b", "c"]}}),
        );
    }

    #[test]
    fn an_entry_without_its_key_is_refused() {
        let mut object = json!({});
        assert_eq!(apply(&mut object, &json!({"secrets": [{"x": 1}]})).unwrap_err().code, 400);
    }

    proptest::proptest! {
        #[test]
        fn no_patch_makes_it_panic(object in crate::patch::tests::json(), patch in crate::patch::tests::json()) {
            let mut object = object;
            let _ = apply(&mut object, &patch);
        }
    }
}
