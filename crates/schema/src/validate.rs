//! Types, ranges, lengths, choices: all that is said of one value at a time.

use std::collections::HashMap;

use serde_json::{Map, Number, Value};

use crate::compile::{Bound, ListType, Node, Type};
use crate::lists;
use crate::number::{go_float, go_number};
use crate::path::Path;
use crate::values::type_name;
use crate::violation::{Reason, Violation, quoted, shown};

/// Finds what is wrong with a value, unless it is what it was.
pub fn validate(
    node: &Node,
    new: &Value,
    old: Option<&Value>,
    path: &Path<'_>,
    violations: &mut Vec<Violation>,
) {
    let before = violations.len();
    Check { node, path, violations }.value(new, old);
    if violations.len() > before && old == Some(new) {
        violations.truncate(before);
    }
}

struct Check<'c> {
    node: &'c Node,
    path: &'c Path<'c>,
    violations: &'c mut Vec<Violation>,
}

impl Check<'_> {
    fn push(&mut self, reason: Reason, value: Option<String>, detail: &str) {
        self.violations.push(Violation::new(self.path.field(), reason, value, detail));
    }

    /// Says that the value, at its place, `should …`.
    fn invalid(&mut self, value: String, should: &str) {
        let detail = format!("{} in body {should}", self.path.render());
        self.push(Reason::Invalid, Some(value), &detail);
    }

    fn value(&mut self, new: &Value, old: Option<&Value>) {
        self.type_of(new);
        match new {
            Value::String(text) => {
                self.text(text);
                self.format(text);
            }
            Value::Number(number) => self.number(number),
            Value::Array(entries) => self.list(entries, old),
            _ => {}
        }
        self.choice(new);
        if let Value::Object(fields) = new {
            self.object(fields, old);
        }
    }

    fn type_of(&mut self, value: &Value) {
        let found = type_name(value);
        let fits = match self.node.type_ {
            Type::Any => true,
            _ if value.is_null() => self.node.nullable,
            Type::Boolean => value.is_boolean(),
            Type::Integer => is_whole(value),
            Type::Number => value.is_number(),
            Type::String => value.is_string(),
            Type::Array => value.is_array(),
            Type::Object => value.is_object(),
            Type::IntOrString => value.is_string() || is_whole(value),
        };
        if fits {
            return;
        }
        // A number where a text of some format belongs is told by formats on both sides.
        let (wanted, found) = match (&self.node.format, value) {
            (Some(format), Value::Number(_)) => {
                (format.name(), if found == "integer" { "int64" } else { "float64" })
            }
            (Some(format), Value::Bool(_) | Value::Object(_)) => (format.name(), ""),
            _ => (self.node.type_name(), found),
        };
        self.wrong_type(wanted, found);
    }

    fn wrong_type(&mut self, wanted: &str, found: &str) {
        let detail = format!("{} in body must be of type {wanted}: {}", self.path.render(), quoted(found));
        self.push(Reason::TypeInvalid, Some(quoted(found)), &detail);
    }

    fn text(&mut self, text: &str) {
        let node = self.node;
        let length = || text.chars().count() as u64;
        if let Some(most) = node.max_length.filter(|most| text.len() as u64 > *most && length() > *most) {
            return self.push(Reason::TooLong, None, &format!("may not be more than {most} bytes"));
        }
        if let Some(least) = node.min_length.filter(|least| length() < *least) {
            return self.invalid(quoted(text), &format!("should be at least {least} chars long"));
        }
        if let Some((pattern, _)) = node.pattern.as_ref().filter(|(_, regex)| !regex.is_match(text)) {
            self.invalid(quoted(text), &format!("should match '{pattern}'"));
        }
    }

    fn format(&mut self, text: &str) {
        if let Some(format) = self.node.format.as_ref().filter(|format| !format.takes(text)) {
            self.wrong_type(format.name(), text);
        }
    }

    fn number(&mut self, number: &Number) {
        let whole = number.as_i64();
        let float = number.as_f64().unwrap_or(f64::NAN);
        // Whole numbers are compared as such, so that large ones keep their digits.
        let limit_text =
            |limit: f64| if whole.is_some() { (limit as i64).to_string() } else { go_float(limit) };
        if let Some(factor) = self.node.multiple_of {
            let is_multiple = match whole {
                Some(whole) => (factor as i64) > 0 && whole % (factor as i64) == 0,
                None => is_whole_float(if factor < 1.0 { 1.0 / factor * float } else { float / factor }),
            };
            if !is_multiple {
                self.invalid(go_number(number), &format!("should be a multiple of {}", limit_text(factor)));
            }
        }
        if let Some(Bound { limit, is_exclusive }) = self.node.minimum {
            let is_below = match whole {
                Some(whole) => whole < limit as i64 || (is_exclusive && whole == limit as i64),
                None => float < limit || (is_exclusive && float == limit),
            };
            if is_below {
                let than = if is_exclusive { "greater than" } else { "greater than or equal to" };
                self.invalid(go_number(number), &format!("should be {than} {}", limit_text(limit)));
            }
        }
        if let Some(Bound { limit, is_exclusive }) = self.node.maximum {
            let is_above = match whole {
                Some(whole) => whole > limit as i64 || (is_exclusive && whole == limit as i64),
                None => float > limit || (is_exclusive && float == limit),
            };
            if is_above {
                let than = if is_exclusive { "less than" } else { "less than or equal to" };
                self.invalid(go_number(number), &format!("should be {than} {}", limit_text(limit)));
            }
        }
    }

    fn list(&mut self, entries: &[Value], old: Option<&Value>) {
        let node = self.node;
        if let Some(items) = node.items.as_deref() {
            let old_entries = OldEntries::new(node, old);
            for (index, entry) in entries.iter().enumerate() {
                validate(
                    items,
                    entry,
                    old_entries.get(entry),
                    &Path::Index(self.path, index),
                    self.violations,
                );
            }
        }
        let size = entries.len() as u64;
        if let Some(least) = node.min_items.filter(|least| size < *least) {
            self.invalid(size.to_string(), &format!("should have at least {least} items"));
        }
        if let Some(most) = node.max_items.filter(|most| size > *most) {
            self.push(Reason::TooMany, Some(size.to_string()), &format!("must have at most {most} items"));
        }
        if node.unique_items {
            let mut texts: Vec<String> = entries.iter().map(Value::to_string).collect();
            texts.sort_unstable();
            if texts.windows(2).any(|pair| pair.first() == pair.last()) {
                self.invalid(quoted(""), "shouldn't contain duplicates");
            }
        }
    }

    fn choice(&mut self, value: &Value) {
        let choices = &self.node.choices;
        // A null is never one of the choices, not even where it is listed.
        if choices.is_empty() || (!value.is_null() && choices.iter().any(|choice| is_same(choice, value))) {
            return;
        }
        let texts = choices.iter().map(|choice| match choice {
            Value::String(text) => quoted(text),
            other => quoted(&other.to_string()),
        });
        let detail = format!("supported values: {}", texts.collect::<Vec<_>>().join(", "));
        self.push(Reason::NotSupported, Some(shown(value)), &detail);
    }

    fn object(&mut self, fields: &Map<String, Value>, old: Option<&Value>) {
        let node = self.node;
        let size = fields.len() as u64;
        if let Some(least) = node.min_properties.filter(|least| size < *least) {
            self.invalid(size.to_string(), &format!("should have at least {least} properties"));
        }
        if let Some(most) = node.max_properties.filter(|most| size > *most) {
            self.push(Reason::TooMany, Some(size.to_string()), &format!("must have at most {most} items"));
        }
        for (name, value) in fields {
            let Some(child) = node.field(name) else { continue };
            let old = old.and_then(|old| old.get(name)).filter(|_| !is_type_meta(self.path, name));
            validate(child, value, old, &Path::Field(self.path, name), self.violations);
        }
        for name in node.required.iter().filter(|name| !fields.contains_key(*name)) {
            let field = Path::Field(self.path, name).field();
            self.violations.push(Violation::new(field, Reason::Required, None, ""));
        }
    }
}

fn is_type_meta(path: &Path<'_>, name: &str) -> bool {
    matches!(path, Path::Root) && matches!(name, "apiVersion" | "kind")
}

fn is_whole(value: &Value) -> bool {
    value.as_i64().is_some() || value.as_f64().is_some_and(is_whole_float)
}

/// Whether a double is a whole number that it holds exactly.
fn is_whole_float(number: f64) -> bool {
    number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_991.0
}

fn is_same(choice: &Value, value: &Value) -> bool {
    choice == value || (choice.is_number() && value.is_number() && choice.as_f64() == value.as_f64())
}

/// The entries of the list before, by what tells them apart; none where nothing does.
pub struct OldEntries<'a> {
    keys: &'a [String],
    entries: HashMap<String, &'a Value>,
}

impl<'a> OldEntries<'a> {
    pub fn new(node: &'a Node, old: Option<&'a Value>) -> Self {
        match (&node.list_type, old) {
            (ListType::Map(keys), Some(Value::Array(old))) => {
                let keyed = old.iter().map(|entry| (lists::key_of(entry, keys).to_string(), entry));
                Self { keys, entries: keyed.collect() }
            }
            _ => Self { keys: &[], entries: HashMap::new() },
        }
    }

    pub fn get(&self, entry: &Value) -> Option<&'a Value> {
        if self.entries.is_empty() {
            return None;
        }
        self.entries.get(&lists::key_of(entry, self.keys).to_string()).copied()
    }
}
