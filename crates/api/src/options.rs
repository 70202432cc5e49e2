//! How a write is wanted: the parameters that all writes have, checked and refused as the Kubernetes API does.

use schema::{Reason, Violation};

use crate::ApiError;
use crate::request::RequestInfo;

/// How long the name of a field manager may be, in bytes.
const LONGEST_MANAGER: usize = 128;

/// Whether the parameters of a write make sense; `is_apply` for server-side apply.
///
/// # Errors
/// 422 with every mistake that was found.
pub fn check(info: &RequestInfo, is_apply: bool) -> Result<(), ApiError> {
    let kind = match info.verb {
        "create" => "CreateOptions",
        "update" => "UpdateOptions",
        "patch" => "PatchOptions",
        "delete" | "deletecollection" => "DeleteOptions",
        _ => return Ok(()),
    };
    let mut wrong = Vec::new();
    let mut refuse = |field: &str, reason, message: String| {
        wrong.push(Violation { field: field.to_owned(), reason, message });
    };
    let manager = info.text("fieldManager");
    if is_apply && manager.is_empty() {
        refuse("fieldManager", Reason::Required, "Required value: is required for apply patch".to_owned());
    }
    if !is_apply && kind == "PatchOptions" && !info.text("force").is_empty() {
        let message = "Forbidden: may not be specified for non-apply patch";
        refuse("force", Reason::Forbidden, message.to_owned());
    }
    if manager.len() > LONGEST_MANAGER {
        let message = format!("Too long: may not be more than {LONGEST_MANAGER} bytes");
        refuse("fieldManager", Reason::TooLong, message);
    }
    if let Some((place, unprintable)) = manager.char_indices().find(|(_, c)| c.is_control()) {
        let code = u32::from(unprintable);
        let message =
            format!("Invalid value: {manager:?}: invalid character U+{code:04X} (at position {place})");
        refuse("fieldManager", Reason::Invalid, message);
    }
    for (field, values) in [("dryRun", &["All"][..]), ("fieldValidation", &["Ignore", "Strict", "Warn"])] {
        let value = info.text(field);
        if !value.is_empty() && !values.contains(&value) {
            refuse(field, Reason::NotSupported, unsupported(value, values));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(ApiError::options(kind, &wrong)) }
}

/// What is said of a value that is none of those to choose from.
pub fn unsupported(value: &str, supported: &[&str]) -> String {
    let supported: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
    format!("Unsupported value: {value:?}: supported values: {}", supported.join(", "))
}
