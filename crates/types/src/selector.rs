//! Label selectors: as manifests state them, and as query strings write them.

use std::collections::BTreeMap;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Selects by labels: every entry of `matchLabels` and every requirement must hold; empty selects all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LabelSelector {
    /// Labels that must be there with exactly these values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub match_labels: BTreeMap<String, String>,
    /// Requirements that must hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub match_expressions: Vec<Requirement>,
}

/// How a requirement compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operator {
    /// The label is there and its value is one of `values`.
    In,
    /// The label is missing, or its value is none of `values`.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is missing.
    DoesNotExist,
}

/// One requirement on a label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!(self.operator in ['In', 'NotIn']) || (has(self.values) && size(self.values) > 0)",
        "message": "is needed: In and NotIn need at least one value", "fieldPath": ".values",
        "reason": "FieldValueRequired",
    },
    {
        "rule": "!(self.operator in ['Exists', 'DoesNotExist']) || !has(self.values) || size(self.values) == 0",
        "message": "has no meaning for Exists and DoesNotExist: leave it out", "fieldPath": ".values",
        "reason": "FieldValueForbidden",
    },
]))]
pub struct Requirement {
    /// The label's key.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// How to compare.
    pub operator: Operator,
    /// Values for In and NotIn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub values: Vec<String>,
}

impl Requirement {
    /// Whether these labels meet the requirement. A missing label meets NotIn, as in Kubernetes.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl LabelSelector {
    /// Whether these labels are selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.matches(labels))
    }
}

/// A selector in query form: `tier=edge,env in (prod, test),!legacy`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selector(pub Vec<Requirement>);

/// Not a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a label selector; write for example `tier=edge,env in (a,b),!legacy`")]
pub struct InvalidSelector(String);

impl Selector {
    /// Whether these labels are selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }
}

impl FromStr for Selector {
    type Err = InvalidSelector;

    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        split_outside_brackets(text)
            .into_iter()
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| {
                parse_requirement(part).ok_or_else(|| InvalidSelector(part.chars().take(80).collect()))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn split_outside_brackets(text: &str) -> Vec<&str> {
    let mut depth = 0_u32;
    text.split(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

fn parse_requirement(part: &str) -> Option<Requirement> {
    let requirement = |key: &str, operator, values: Vec<&str>| {
        let key = key.trim();
        let values: Vec<String> = values.into_iter().map(|value| value.trim().to_owned()).collect();
        let valid =
            crate::names::is_label_key(key) && values.iter().all(|value| crate::names::is_label_value(value));
        valid.then(|| Requirement { key: key.to_owned(), operator, values })
    };
    let list = |text: &'_ str| -> Option<Vec<String>> {
        let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
        Some(inner.split(',').map(|value| value.trim().to_owned()).collect())
    };
    if let Some((key, value)) = part.split_once("!=") {
        return requirement(key, Operator::NotIn, vec![value]);
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return requirement(key, Operator::In, vec![value]);
    }
    if let Some(key) = part.strip_prefix('!') {
        return requirement(key, Operator::DoesNotExist, vec![]);
    }
    for (word, operator) in [(" notin ", Operator::NotIn), (" in ", Operator::In)] {
        if let Some((key, values)) = part.split_once(word) {
            let values = list(values)?;
            return requirement(key, operator, values.iter().map(String::as_str).collect());
        }
    }
    requirement(part, Operator::Exists, vec![])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn query_selectors_select_as_kubectl_users_expect() {
        let site = labels(&[("tier", "edge"), ("env", "prod")]);
        for (text, expected) in [
            ("", true),
            ("tier=edge", true),
            ("tier==edge,env in (prod, test)", true),
            ("tier!=edge", false),
            ("missing!=x", true),
            ("env notin (prod)", false),
            ("tier", true),
            ("!legacy", true),
            ("!tier", false),
        ] {
            assert_eq!(
                text.parse::<Selector>().map(|selector| selector.matches(&site)),
                Ok(expected),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_a_selector_is_refused() {
        for text in ["=x", "a=b=c", "a in b", "a in (b", "é=1", "a b"] {
            assert!(text.parse::<Selector>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,80}") {
            let _ = text.parse::<Selector>();
        }
    }
}
