//! Label and field selectors of lists and watches.

use std::collections::HashMap;

use serde_json::Value;
use store::Object;
use types::{KindInfo, Selector};

use crate::ApiError;
use crate::nesting::Branch;

/// Which objects of a list or watch are meant.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    namespace: String,
    labels: Selector,
    fields: Vec<Term>,
    within: Option<Branch>,
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
        let mut terms: Vec<&str> = split_terms(fields).filter(|term| !term.is_empty()).collect();
        terms.sort_unstable();
        let terms = terms.into_iter().map(|term| parse_term(info, fields, term));
        let fields: Vec<Term> = terms.take(MOST_TERMS + 1).collect::<Result<_, _>>()?;
        if fields.len() > MOST_TERMS {
            return Err(ApiError::bad_request(format!("a field selector has at most {MOST_TERMS} terms")));
        }
        Ok(Self { namespace: namespace.to_owned(), labels, fields, within: None })
    }

    /// All that is of the sites of a branch.
    pub fn of_branch(branch: Branch) -> Self {
        Self { within: Some(branch), ..Self::default() }
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
            && self.within.as_ref().is_none_or(|branch| branch.holds(&object.key.namespace))
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

/// Terms between commas; a backslash makes a comma a part of a value.
fn split_terms(selector: &str) -> impl Iterator<Item = &str> {
    let mut is_escaped = false;
    selector.split(move |c| {
        let ends = c == ',' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        ends
    })
}

/// A value without the backslashes that keep its signs from being read as such.
fn unescaped(value: &str) -> Result<String, ApiError> {
    let refuse = |problem: String| ApiError::bad_request(format!("invalid field selector: {problem}"));
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => plain.push(c),
                Some(c) => return Err(refuse(format!("invalid escape sequence: \\{c}"))),
                None => return Err(refuse("invalid escape sequence: \\".to_owned())),
            },
            '=' | ',' => return Err(refuse(format!("unescaped character in value: {c}"))),
            c => plain.push(c),
        }
    }
    Ok(plain)
}

fn parse_term(info: &KindInfo, selector: &str, term: &str) -> Result<Term, ApiError> {
    // The first sign is the one that counts.
    let sign = term.find(['!', '=']).and_then(|start| {
        let (field, rest) = term.split_at(start);
        ["!=", "==", "="].into_iter().find_map(|sign| Some((field, sign, rest.strip_prefix(sign)?)))
    });
    let Some((field, sign, value)) = sign else {
        return Err(ApiError::bad_request(format!(
            "invalid selector: '{selector}'; can't understand '{term}'"
        )));
    };
    let (equal, value) = (sign != "!=", unescaped(value)?);
    let is_known =
        matches!(field, "metadata.name" | "metadata.namespace") || info.selectable.contains(&field);
    if !is_known {
        return Err(ApiError::bad_request(if info.is_ours() || !info.selectable.is_empty() {
            format!("field label not supported: {field}")
        } else {
            format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
        }));
    }
    Ok(Term { field: info.kept_path(field), equal, value })
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
