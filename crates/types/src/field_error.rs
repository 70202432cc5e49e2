//! What is wrong with a manifest: the field, its value, the problem with its remedy.

use std::fmt;

use serde_json::Value;

/// One mistake in a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Where, as a path such as `spec.components[0].name`.
    pub field: String,
    /// The value found there, as JSON, cut to a readable length; empty where nothing was given.
    pub value: String,
    /// What is wrong and what to do, in one sentence.
    pub problem: String,
}

const LONGEST_VALUE: usize = 80;

impl FieldError {
    /// A mistake at `field`, whose value reads as `value`.
    pub fn new(field: impl Into<String>, value: impl fmt::Display, problem: impl Into<String>) -> Self {
        let mut value = value.to_string();
        if value.chars().count() > LONGEST_VALUE {
            value = value.chars().take(LONGEST_VALUE).chain("…".chars()).collect();
        }
        Self { field: field.into(), value, problem: problem.into() }
    }

    /// From a failed deserialisation of `document`: finds the value that the path names.
    pub(crate) fn from_serde(
        error: &serde_path_to_error::Error<serde_json::Error>,
        document: &Value,
    ) -> Self {
        use serde_path_to_error::Segment;
        let mut found = Some(document);
        for segment in error.path().iter() {
            found = found.and_then(|value| match segment {
                Segment::Seq { index } => value.get(*index),
                Segment::Map { key } => value.get(key),
                _ => None,
            });
        }
        let value = found.filter(|value| !value.is_object()).map(Value::to_string).unwrap_or_default();
        let path = error.path().to_string();
        Self::new(if path == "." { "the manifest".into() } else { path }, value, error.inner().to_string())
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.field)?;
        if !self.value.is_empty() {
            write!(f, " = {}", self.value)?;
        }
        write!(f, ": {}", self.problem)
    }
}

/// All mistakes of one manifest; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldErrors(pub Vec<FieldError>);

impl fmt::Display for FieldErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for FieldErrors {}
