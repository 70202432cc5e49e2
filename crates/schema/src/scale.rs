//! Whether numbers of replicas are such, in the words that Kubernetes has for custom resources that can be scaled.

use serde_json::Value;
use types::KindInfo;

use crate::{Reason, Violation};

/// Finds all mistakes.
pub fn check(info: &KindInfo, object: &Value) -> Vec<Violation> {
    let paths = info.scale.map(|scale| [scale.spec_replicas, scale.status_replicas]);
    paths.into_iter().flatten().filter_map(|path| check_number(object, path)).collect()
}

fn check_number(object: &Value, path: &str) -> Option<Violation> {
    let problem = match object.pointer(&path.replace('.', "/"))? {
        Value::Number(number) => match number.as_i64() {
            Some(count @ ..0) => format!("{count}: should be a non-negative integer"),
            Some(count) if count > i64::from(i32::MAX) => {
                format!("{count}: should be less than or equal to {}", i32::MAX)
            }
            Some(_) => return None,
            None => mistyped(path, &number.to_string(), "float64"),
        },
        Value::String(text) => mistyped(path, text, "string"),
        Value::Bool(value) => mistyped(path, &value.to_string(), "bool"),
        _ => return None,
    };
    let message = format!("Invalid value: {problem}");
    Some(Violation { field: path.to_owned(), reason: Reason::Invalid, message })
}

fn mistyped(path: &str, value: &str, kind: &str) -> String {
    format!("0: {path} accessor error: {value} is of the type {kind}, expected int64")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_no_number_of_replicas_is_told() {
        let info = types::kind_named("placement").unwrap();
        let said = |number: Value| {
            let object = json!({"spec": {"numberOfSites": number}});
            check(info, &object).into_iter().map(|found| found.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(said(json!(2)), Vec::<String>::new());
        assert_eq!(
            said(json!(-1)),
            [".spec.numberOfSites: Invalid value: -1: should be a non-negative integer"]
        );
        assert_eq!(
            said(json!("many")),
            [
                ".spec.numberOfSites: Invalid value: 0: .spec.numberOfSites accessor error: many is of the type string, \
              expected int64"
            ]
        );
    }
}
