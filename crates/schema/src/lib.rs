//! Structural schemas, enforced as Kubernetes enforces those of CustomResourceDefinitions, in its own words:
//! unknown fields are pruned, defaults filled in, values validated, and CEL rules hold.
//!
//! Pure: no I/O, no async, no clock. A schema is compiled once and shared.
#![warn(missing_docs)]

pub mod cel;
pub mod managed_fields;

mod compile;
mod defaults;
mod duplicates;
mod format;
mod kinds;
mod lists;
mod metadata;
mod number;
mod path;
mod pattern;
mod prune;
mod rules;
mod scale;
mod typed;
mod validate;
mod values;
mod violation;

use serde_json::Value;

pub use compile::Error;
pub use duplicates::duplicate_fields;
pub use kinds::{complete, schema_of};
pub use violation::{Reason, Violation};

/// A compiled schema of one kind.
#[derive(Debug)]
pub struct Schema {
    root: compile::Node,
}

impl Schema {
    /// Compiles an OpenAPI v3 structural schema.
    ///
    /// # Errors
    /// [`Error`] for what is not structural, says what is not supported here, or holds a pattern, rule or default
    /// that is wrong.
    pub fn compile(openapi: &Value) -> Result<Self, Error> {
        let schema = Self { root: compile::node(openapi, "openAPIV3Schema", 0)? };
        schema.root.check_defaults("openAPIV3Schema")?;
        Ok(schema)
    }

    /// Removes the fields that the schema doesn't know and answers their paths, sorted. `apiVersion`, `kind` and
    /// `metadata` at the root stay as they are.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        prune::prune(object, &self.root)
    }

    /// What of a server-side apply is of another type than the schema's or unknown to it, in the words of structured
    /// merge and diff, sorted.
    pub fn untyped(&self, applied: &Value) -> Vec<String> {
        let unknown = prune::prune(&mut applied.clone(), &self.root);
        let mut told = typed::mistyped(applied, &self.root);
        told.extend(unknown.iter().map(|field| format!(".{field}: field not declared in schema")));
        told.sort();
        told
    }

    /// Fills in defaults. A null where none is allowed gives way to the default, or goes away.
    pub fn apply_defaults(&self, object: &mut Value) {
        defaults::drop_nulls(object, Some(&self.root));
        defaults::apply(object, Some(&self.root));
    }

    /// What is wrong with an object, given what it replaces. What was wrong already and did not change is let pass,
    /// as Kubernetes does, so that a stricter schema locks nobody out.
    pub fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<Violation> {
        let mut violations = Vec::new();
        validate::validate(&self.root, new, old, &path::Path::Root, &mut violations);
        if !old.is_some_and(|old| lists::has_duplicates(&self.root, old)) {
            lists::check(&self.root, new, &path::Path::Root, &mut violations);
        }
        if violations.iter().any(|violation| violation.reason.blocks_rules()) {
            violations.push(Violation::of_unchecked_rules());
        } else if self.root.has_rules {
            rules::check(&self.root, new, old, &mut violations);
        }
        violations
    }
}
