//! How a write is wanted: the parameters that all writes have, checked and refused as the Kubernetes API does.

use schema::{Reason, Violation};

use crate::ApiError;
use crate::request::RequestInfo;

/// How long the name of a field manager may be, in bytes.
const LONGEST_MANAGER: usize = 128;
/// How the version of a list may be meant.
const NOT_OLDER: &str = "NotOlderThan";
const EXACT: &str = "Exact";

/// Whether the parameters of a write make sense that is no deletion; `is_apply` for server-side apply.
///
/// # Errors
/// 422 with every mistake that was found.
pub fn check(info: &RequestInfo, is_apply: bool) -> Result<(), ApiError> {
    let kind = match info.verb {
        "create" => "CreateOptions",
        "update" => "UpdateOptions",
        "patch" => "PatchOptions",
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
            let message =
                if field == "dryRun" { unsupported_dry_run(value) } else { unsupported(value, values) };
            refuse(field, Reason::NotSupported, message);
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(ApiError::options(kind, &wrong)) }
}

/// Whether the parameters of a list or watch fit together.
///
/// # Errors
/// 422 with every mistake that was found.
pub fn check_list(info: &RequestInfo) -> Result<(), ApiError> {
    let mut wrong = Vec::new();
    let mut refuse = |field: &str, reason, message: String| {
        wrong.push(Violation { field: field.to_owned(), reason, message });
    };
    let matching = info.text("resourceVersionMatch");
    let version = "resourceVersionMatch";
    let mut forbid = |field: &str, problem: &str| {
        refuse(field, Reason::Forbidden, format!("Forbidden: {problem}"));
    };
    let initial_events = info.query.contains_key("sendInitialEvents");
    let is_watch = info.verb == "watch";
    if is_watch {
        if initial_events && matching != NOT_OLDER {
            forbid(version, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
        }
        if !matching.is_empty() && !initial_events {
            forbid(
                version,
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            );
        }
    } else if !matching.is_empty() && info.text("resourceVersion").is_empty() {
        forbid(version, "resourceVersionMatch is forbidden unless resourceVersion is provided");
    }
    if !matching.is_empty() && !info.text("continue").is_empty() {
        forbid(version, "resourceVersionMatch is forbidden when continue is provided");
    }
    if !is_watch && matching == EXACT && info.text("resourceVersion") == "0" {
        forbid(version, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
    }
    if !is_watch && initial_events {
        forbid("sendInitialEvents", "sendInitialEvents is forbidden for list");
    }
    let supported: &[&str] = if is_watch { &[NOT_OLDER] } else { &[EXACT, NOT_OLDER, ""] };
    if !matching.is_empty() && !supported.contains(&matching) {
        refuse(version, Reason::NotSupported, unsupported(matching, supported));
    }
    if wrong.is_empty() { Ok(()) } else { Err(ApiError::options("ListOptions", &wrong)) }
}

/// What is said of a dry run that is none of those that there are.
pub fn unsupported_dry_run(value: &str) -> String {
    format!("Unsupported value: []string{{{value:?}}}: supported values: \"All\"")
}

/// What is said of a value that is none of those to choose from.
pub fn unsupported(value: &str, supported: &[&str]) -> String {
    let supported: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
    format!("Unsupported value: {value:?}: supported values: {}", supported.join(", "))
}
