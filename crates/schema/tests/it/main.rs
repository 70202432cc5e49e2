//! Schemas enforced: keyword by keyword, rule by rule, kind by kind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod expressions;
mod keywords;
mod kinds;
mod objects;
mod properties;
mod rules;

use avocet_schema::Schema;
use serde_json::{Value, json};

/// A schema whose `spec` has these fields.
fn of_spec(properties: Value) -> Schema {
    compiled(json!({"type": "object", "properties": properties}))
}

/// A schema with this `spec`.
fn compiled(spec: Value) -> Schema {
    Schema::compile(&json!({"type": "object", "properties": {"spec": spec}})).unwrap()
}

/// What is said of an object with this `spec`, each with its field.
fn said(schema: &Schema, spec: Value) -> Vec<String> {
    schema.validate(&json!({"spec": spec}), None).iter().map(ToString::to_string).collect()
}

/// What is said of an object whose `spec` changes.
fn said_of_change(schema: &Schema, new: Value, old: Value) -> Vec<String> {
    let (new, old) = (json!({"spec": new}), json!({"spec": old}));
    schema.validate(&new, Some(&old)).iter().map(ToString::to_string).collect()
}
