//! What may become of a certificate signing request, and where it is said: `/approval` takes the decision, `/status`
//! what came of it.

use serde_json::{Map, Value, json};

use crate::ApiError;
use crate::resources::Call;
use crate::target::Subresource;

/// The two decisions.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];
/// Conditions that always hold once they are there.
const LASTING: [&str; 3] = ["Approved", "Denied", "Failed"];

/// Keeps what the address of a write is not about, and notes when each condition changed.
pub fn prepare(call: &Call, fields: &mut Map<String, Value>, old: &Value) {
    let new = fields.remove("status").unwrap_or_else(|| json!({}));
    let mut status = match call.target.subresource {
        Subresource::Approval => old.get("status").cloned().unwrap_or_else(|| json!({})),
        _ => new.clone(),
    };
    let mut conditions = conditions(&new).to_vec();
    for condition in &mut conditions {
        note_times(condition, old);
    }
    if let Some(status) = status.as_object_mut() {
        status.insert("conditions".to_owned(), Value::Array(conditions));
    }
    fields.insert("status".to_owned(), status);
}

fn note_times(condition: &mut Value, old: &Value) {
    let now = json!(daemon::now());
    let known = self::conditions(old.get("status").unwrap_or(&Value::Null)).iter();
    let mut same = known
        .filter(|known| ["type", "status"].into_iter().all(|field| known.get(field) == condition.get(field)));
    let since = same.next().and_then(|known| known.get("lastTransitionTime")).unwrap_or(&now).clone();
    let Some(fields) = condition.as_object_mut() else { return };
    for (field, time) in [("lastUpdateTime", now), ("lastTransitionTime", since)] {
        if fields.get(field).is_none_or(Value::is_null) {
            fields.insert(field.to_owned(), time);
        }
    }
}

/// Whether a request may change like this.
///
/// # Errors
/// 422 for decisions that contradict each other, are taken back, or are made at the wrong address.
pub fn check(call: &Call, old: &Value, new: &Value) -> Result<(), ApiError> {
    let refuse =
        |field: &str, problem: &str| ApiError::field(call.target.info, &call.target.name, field, problem);
    let status = |manifest: &Value| manifest.get("status").cloned().unwrap_or_default();
    let (before, after) = (status(old), status(new));
    let find =
        |status: &Value, kind: &str| conditions(status).iter().find(|entry| entry["type"] == kind).cloned();
    for (index, condition) in conditions(&after).iter().enumerate() {
        let is_lasting = LASTING.iter().any(|kind| condition["type"] == *kind);
        if is_lasting && condition["status"] != "True" {
            let shown = &condition["status"];
            let problem = format!("Unsupported value: {shown}: supported values: \"True\"");
            return Err(refuse(&format!("status.conditions[{index}].status"), &problem));
        }
        let other = match condition["type"].as_str() {
            Some("Approved") => "Denied",
            Some("Denied") => "Approved",
            _ => continue,
        };
        if find(&after, other).is_some() {
            let problem = format!(
                "Invalid value: {}: Approved and Denied conditions are mutually exclusive",
                condition["type"]
            );
            return Err(refuse(&format!("status.conditions[{index}].type"), &problem));
        }
    }
    for kind in LASTING {
        let is_decision = DECISIONS.contains(&kind);
        let verb = match (find(&before, kind), find(&after, kind)) {
            (Some(_), None) => "remove",
            (None, Some(_)) if is_decision && call.target.subresource != Subresource::Approval => "add",
            (Some(old), Some(new))
                if is_decision && old != new && call.target.subresource != Subresource::Approval =>
            {
                "modify"
            }
            _ => continue,
        };
        let problem = format!("Forbidden: updates may not {verb} a condition of type {kind:?}");
        return Err(refuse("status.conditions", &problem));
    }
    let certificate = |status: &Value| status.get("certificate").cloned().filter(|text| *text != json!(""));
    match certificate(&before) {
        Some(old) if certificate(&after) != Some(old.clone()) => Err(refuse(
            "status.certificate",
            "Forbidden: updates may not change a certificate that was issued",
        )),
        _ => Ok(()),
    }
}

fn conditions(status: &Value) -> &[Value] {
    status.get("conditions").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
