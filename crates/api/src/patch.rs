//! Patches. Strategic ones are in [`strategic`]; here are JSON patches, which can make much of little: limits that
//! keep what they make as small as a manifest.

mod strategic;

use json_patch::{Patch, PatchOperation};
use serde_json::Value;
use tracing::debug;

use crate::server::LARGEST_MANIFEST;
use crate::{ApiError, body};

pub use strategic::apply as apply_strategic;

/// How many operations a JSON patch may have.
const MOST_OPERATIONS: usize = 10_000;
/// How deep a JSON patch may reach, and what it copies or moves may be nested.
const DEEPEST: usize = 64;
/// What a value takes in memory beside its text, about, in bytes.
const VALUE_BYTES: usize = 32;

/// 400 for a patch that is something else than a patch of its form.
pub fn mistyped(patch: &Value, wanted: &str) -> ApiError {
    let found = body::word(patch);
    ApiError::bad_request(format!(
        "error decoding patch: json: cannot unmarshal {found} into Go value of type {wanted}"
    ))
}

/// Operation by operation, so that none can double what the ones before it doubled: what is copied, in all, is no
/// more than a manifest.
pub fn apply_json_patch(manifest: &mut Value, patch: &Value) -> Result<(), ApiError> {
    if !patch.is_array() {
        return Err(mistyped(patch, "[]handlers.jsonPatchOp"));
    }
    let Patch(operations) = serde_json::from_value(patch.clone())
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
    if operations.len() > MOST_OPERATIONS {
        return Err(ApiError::too_large(format!(
            "The allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let mut budget = LARGEST_MANIFEST;
    for operation in &operations {
        let from = match operation {
            PatchOperation::Copy(copy) => Some(&copy.from),
            PatchOperation::Move(shift) => Some(&shift.from),
            _ => None,
        };
        let source = from.and_then(|from| manifest.pointer(from.as_str()));
        let fits = source.is_none_or(|source| spend(source, DEEPEST, &mut budget));
        if !fits || operation.path().count() > DEEPEST {
            let path = operation.path();
            return Err(ApiError::bad_request(format!(
                "the JSON patch can't be applied: `{path}` becomes too large or too deep"
            )));
        }
        json_patch::patch(manifest, std::slice::from_ref(operation)).map_err(|error| {
            debug!(%error, "a JSON patch does not fit");
            ApiError::unfitting_patch()
        })?;
    }
    Ok(())
}

/// Takes the size of a value off a budget; whether it sufficed, and the value is not nested deeper than `depth`.
fn spend(value: &Value, depth: usize, budget: &mut usize) -> bool {
    let text = match value {
        Value::String(text) => text.len(),
        Value::Object(fields) => fields.keys().map(String::len).sum(),
        _ => 0,
    };
    let Some(rest) = budget.checked_sub(VALUE_BYTES + text) else { return false };
    *budget = rest;
    let Some(depth) = depth.checked_sub(1) else { return false };
    match value {
        Value::Array(entries) => entries.iter().all(|entry| spend(entry, depth, budget)),
        Value::Object(fields) => fields.values().all(|field| spend(field, depth, budget)),
        _ => true,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    /// Any JSON, with names that patches give a meaning.
    pub fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            let name = prop_oneof![
                Just("metadata".to_owned()),
                Just("finalizers".to_owned()),
                Just("secrets".to_owned()),
                Just("name".to_owned()),
                Just("$patch".to_owned()),
                Just("$deleteFromPrimitiveList/finalizers".to_owned()),
                "[a-c]",
            ];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(name, inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }
}
