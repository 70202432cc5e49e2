//! The schemas of all kinds, compiled once.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;
use types::{FieldError, FieldErrors, KindInfo, ObjectMeta, kinds};

use crate::violation::RULES_UNCHECKED;
use crate::{Reason, Schema, Violation, metadata, scale};

/// By group and plural. That each compiles is tested.
static SCHEMAS: LazyLock<HashMap<(&'static str, &'static str), Schema>> = LazyLock::new(|| {
    let compile = |info: &'static KindInfo| {
        Schema::compile(&types::structural_schema(info))
            .ok()
            .map(|schema| ((info.group, info.plural), schema))
    };
    kinds().filter_map(compile).collect()
});

/// The schema of a kind.
pub fn schema_of(info: &KindInfo) -> Option<&'static Schema> {
    SCHEMAS.get(&(info.group, info.plural))
}

/// Fills in defaults and checks everything: metadata, schema and rules, and what no schema can say. `old` is what the
/// object replaces.
///
/// # Errors
/// Every mistake that was found.
pub fn complete(info: &KindInfo, mut object: Value, old: Option<&Value>) -> Result<Value, Vec<Violation>> {
    let metadata = ObjectMeta::deserialize(object.get("metadata").unwrap_or(&Value::Null));
    let mut violations: Vec<Violation> = match metadata {
        Ok(metadata) => metadata::check(info, &metadata),
        Err(error) => vec![FieldError::new("metadata", "", error.to_string()).into()],
    };
    if let Some(schema) = schema_of(info) {
        schema.apply_defaults(&mut object);
        let is_blocked = info.is_ours() && violations.iter().any(|found| found.reason.blocks_rules());
        let mut found = schema.validate(&object, old);
        // Told last, and once.
        let unchecked = found.pop_if(|last| last.field == RULES_UNCHECKED);
        violations.extend(found);
        violations.extend(scale::check(info, &object));
        violations.extend(unchecked.or_else(|| is_blocked.then(Violation::of_unchecked_rules)));
    }
    if violations.is_empty()
        && let Err(FieldErrors(errors)) = info.check(&object)
    {
        violations.extend(errors.into_iter().map(Violation::from));
    }
    if violations.is_empty() { Ok(object) } else { Err(violations) }
}

/// What no schema can say, in the words of those that schemas say.
impl From<FieldError> for Violation {
    fn from(FieldError { field, value, problem }: FieldError) -> Self {
        let value = if value.is_empty() { "\"\"" } else { &value };
        Self { field, reason: Reason::Invalid, message: format!("Invalid value: {value}: {problem}") }
    }
}
