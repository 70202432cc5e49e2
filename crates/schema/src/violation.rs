//! What is wrong with a value, as `status.details.causes` of the Kubernetes API has it.

use std::fmt;

use serde_json::Value;

use crate::number::go_number;
use crate::values::json_text;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Where: `spec.components[0].name`; `<nil>` for the whole object.
    pub field: String,
    /// Of which sort.
    pub reason: Reason,
    /// What, without the field: `Invalid value: -1: …`.
    pub message: String,
}

/// The sorts of violations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Malformed, out of range, or against a rule.
    Invalid,
    /// Missing.
    Required,
    /// None of the values to choose from.
    NotSupported,
    /// Of another type.
    TypeInvalid,
    /// A text that is too long.
    TooLong,
    /// Too many entries.
    TooMany,
    /// There already.
    Duplicate,
    /// Not allowed here.
    Forbidden,
}

impl Reason {
    /// As causes name it, for example `FieldValueInvalid`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "FieldValueInvalid",
            Self::Required => "FieldValueRequired",
            Self::NotSupported => "FieldValueNotSupported",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
        }
    }

    /// Whether rules have nothing sensible to look at while there is such a violation.
    pub(crate) fn blocks_rules(self) -> bool {
        matches!(
            self,
            Self::NotSupported | Self::Required | Self::TooLong | Self::TooMany | Self::TypeInvalid
        )
    }

    fn title(self) -> &'static str {
        match self {
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::Required => "Required value",
            Self::NotSupported => "Unsupported value",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// What stands in place of a field where rules were not checked.
pub(crate) const RULES_UNCHECKED: &str = "<nil>";

impl Violation {
    /// Tells that rules were not checked, since something else was wrong.
    pub(crate) fn of_unchecked_rules() -> Self {
        let message = "Invalid value: \"null\": some validation rules were not checked because the object was invalid; \
                       correct the existing errors to complete validation";
        Self { field: RULES_UNCHECKED.into(), reason: Reason::Invalid, message: message.into() }
    }

    /// A violation; `value` as messages show it, `detail` empty where there is no more to say.
    pub(crate) fn new(field: String, reason: Reason, value: Option<String>, detail: &str) -> Self {
        let mut message = reason.title().to_owned();
        for part in value.as_deref().into_iter().chain(Some(detail).filter(|detail| !detail.is_empty())) {
            message.push_str(": ");
            message.push_str(part);
        }
        Self { field, reason, message }
    }
}

/// A value as messages show it.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Null => quoted("null"),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => go_number(number),
        Value::String(text) => quoted(text),
        Value::Array(_) | Value::Object(_) => json_text(value),
    }
}

/// A text in double quotes, escaped as Go does.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() || (c.is_whitespace() && c != ' ') => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
