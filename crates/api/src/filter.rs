//! Label and field selectors of lists and watches.

use std::collections::HashMap;

use serde_json::Value;
use store::Object;
use types::{KindInfo, Selector};

use crate::ApiError;

/// Which objects of a list or watch are meant.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    namespace: String,
    labels: Selector,
    fields: Vec<Term>,
}

/// One condition on a field.
#[derive(Debug, Clone)]
struct Term {
    field: String,
    equal: bool,
    value: String,
}

/// How many conditions a field selector may have.
const MOST_TERMS: usize = 64;

impl Filter {
    /// Reads `labelSelector` and `fieldSelector`.
    ///
    /// # Errors
    /// 400 for what is no selector, or a field that can't be selected by.
    pub fn parse(
        info: &KindInfo,
        namespace: &str,
        query: &HashMap<String, String>,
    ) -> Result<Self, ApiError> {
        let labels = query.get("labelSelector").map_or("", String::as_str);
        let labels = labels.parse::<Selector>().map_err(|error| ApiError::bad_request(error.to_string()))?;
        let fields = query.get("fieldSelector").map_or("", String::as_str);
        let fields = fields.split(',').filter(|term| !term.is_empty()).map(|term| parse_term(info, term));
        let fields: Vec<Term> = fields.take(MOST_TERMS + 1).collect::<Result<_, _>>()?;
        if fields.len() > MOST_TERMS {
            return Err(ApiError::bad_request(format!("a field selector has at most {MOST_TERMS} terms")));
        }
        Ok(Self { namespace: namespace.to_owned(), labels, fields })
    }

    /// The namespace to list, if one.
    pub fn namespace(&self) -> Option<&str> {
        (!self.namespace.is_empty()).then_some(self.namespace.as_str())
    }

    pub fn is_in_namespace(&self, object: &Object) -> bool {
        self.namespace().is_none_or(|namespace| namespace == object.key.namespace)
    }

    pub fn passes(&self, object: &Object) -> bool {
        self.is_in_namespace(object)
            && self.labels.matches(&object.metadata.labels)
            && self.passes_fields(object)
    }
}

impl Filter {
    fn passes_fields(&self, object: &Object) -> bool {
        let is_read = |term: &Term| !term.field.starts_with("metadata.");
        let manifest = if self.fields.iter().any(is_read) { object.manifest() } else { Value::Null };
        self.fields.iter().all(|term| (field(object, &manifest, &term.field) == term.value) == term.equal)
    }
}

/// The value of a field as selectors write it; empty where there is none.
fn field(object: &Object, manifest: &Value, path: &str) -> String {
    match path {
        "metadata.name" => return object.key.name.clone(),
        "metadata.namespace" => return object.key.namespace.clone(),
        _ => {}
    }
    let pointer = match path {
        "source" => "/source/component".to_owned(),
        other => format!("/{}", other.replace('.', "/")),
    };
    match manifest.pointer(&pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string(),
        _ => String::new(),
    }
}

fn parse_term(info: &KindInfo, term: &str) -> Result<Term, ApiError> {
    let (field, equal, value) = if let Some((field, value)) = term.split_once("!=") {
        (field, false, value)
    } else if let Some((field, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (field, true, value)
    } else {
        return Err(ApiError::bad_request(format!(
            "invalid field selector {term:?}; write `metadata.name=x`"
        )));
    };
    let is_known =
        matches!(field, "metadata.name" | "metadata.namespace") || info.selectable.contains(&field);
    if !is_known {
        return Err(ApiError::bad_request(if info.is_ours() || !info.selectable.is_empty() {
            format!("field label not supported: {field}")
        } else {
            format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
        }));
    }
    Ok(Term { field: info.kept_path(field), equal, value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            let query = HashMap::from([("fieldSelector".to_owned(), text)]);
            for info in types::kinds() {
                let _ = Filter::parse(info, "", &query);
            }
        }
    }
}
