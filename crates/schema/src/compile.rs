//! From an OpenAPI schema to a tree that is quick to check against.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value};

use crate::format::Format;
use crate::path::Path;
use crate::rules::Rule;
use crate::violation::Violation;
use crate::{defaults, pattern, prune, rules, validate};

/// Not a schema that can be enforced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct Error {
    /// Where in the schema.
    pub path: String,
    /// What is wrong there.
    pub problem: String,
}

/// Schemas nested deeper than this are refused.
const MAX_DEPTH: usize = 64;

/// The types of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Boolean,
    Integer,
    Number,
    String,
    Array,
    Object,
    IntOrString,
    /// Not stated.
    Any,
}

/// How entries of a list are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListType {
    /// By nothing: the list is one value.
    Atomic,
    /// By their value.
    Set,
    /// By these fields.
    Map(Vec<String>),
}

/// A limit on a number.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    pub limit: f64,
    pub is_exclusive: bool,
}

/// What one value must be.
#[derive(Debug)]
pub struct Node {
    pub type_: Type,
    pub nullable: bool,
    pub default: Option<Value>,
    pub choices: Vec<Value>,
    pub minimum: Option<Bound>,
    pub maximum: Option<Bound>,
    pub multiple_of: Option<f64>,
    pub min_length: Option<u64>,
    pub max_length: Option<u64>,
    /// As it was written, and compiled.
    pub pattern: Option<(String, Regex)>,
    pub format: Option<Format>,
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
    pub unique_items: bool,
    pub min_properties: Option<u64>,
    pub max_properties: Option<u64>,
    pub required: Vec<String>,
    pub properties: BTreeMap<String, Node>,
    /// Other fields: `Some(None)` takes any value.
    pub additional: Option<Option<Box<Node>>>,
    pub items: Option<Box<Node>>,
    pub list_type: ListType,
    pub preserves_unknown: bool,
    pub is_embedded: bool,
    pub rules: Vec<Rule>,
    /// Whether there are rules here or below.
    pub has_rules: bool,
    /// Whether there are lists with unique entries here or below.
    pub has_lists: bool,
}

impl Node {
    /// What a field must be, known or not.
    pub fn field(&self, name: &str) -> Option<&Node> {
        self.properties.get(name).or_else(|| self.additional.as_ref()?.as_deref())
    }

    /// Whether the type is one that `type` names with this word.
    pub fn type_name(&self) -> &'static str {
        match self.type_ {
            Type::Boolean => "boolean",
            Type::Integer => "integer",
            Type::Number => "number",
            Type::String => "string",
            Type::Array => "array",
            Type::Object => "object",
            Type::IntOrString => "integer,string",
            Type::Any => "",
        }
    }

    fn children(&self) -> impl Iterator<Item = &Node> {
        let additional = self.additional.iter().flatten().map(AsRef::as_ref);
        self.properties.values().chain(additional).chain(self.items.as_deref())
    }

    /// A default must be what its own schema asks for, with nothing that would be pruned.
    pub fn check_defaults(&self, path: &str) -> Result<(), Error> {
        if let Some(default) = &self.default {
            let error = |problem: String| Error { path: format!("{path}.default"), problem };
            let mut pruned = default.clone();
            if let Some(unknown) = prune::prune_below(&mut pruned, self).first() {
                return Err(error(format!("must not have unknown fields: {unknown}")));
            }
            defaults::apply(&mut pruned, Some(self));
            let mut violations: Vec<Violation> = Vec::new();
            validate::validate(self, &pruned, None, &Path::Root, &mut violations);
            if violations.is_empty() {
                rules::check(self, &pruned, None, &mut violations);
            }
            if let Some(violation) = violations.first() {
                return Err(error(violation.to_string()));
            }
        }
        for (name, node) in &self.properties {
            node.check_defaults(&format!("{path}.properties[{name}]"))?;
        }
        for (word, node) in [
            ("additionalProperties", self.additional.iter().flatten().next()),
            ("items", self.items.as_ref()),
        ] {
            node.map_or(Ok(()), |node| node.check_defaults(&format!("{path}.{word}")))?;
        }
        Ok(())
    }
}

/// What is said of a value and not checked.
const IGNORED: [&str; 9] = [
    "description",
    "title",
    "example",
    "externalDocs",
    "$schema",
    "x-kubernetes-group-version-kind",
    "x-kubernetes-map-type",
    "anyOf",
    "writeOnly",
];

/// Compiles one schema and those in it.
pub fn node(schema: &Value, path: &str, depth: usize) -> Result<Node, Error> {
    let reader =
        Reader { fields: schema.as_object().ok_or_else(|| problem(path, "must be an object"))?, path, depth };
    if depth > MAX_DEPTH {
        return Err(problem(path, format!("must not be nested deeper than {MAX_DEPTH}")));
    }
    reader.node()
}

fn problem(path: &str, problem: impl Into<String>) -> Error {
    Error { path: path.to_owned(), problem: problem.into() }
}

struct Reader<'a> {
    fields: &'a Map<String, Value>,
    path: &'a str,
    depth: usize,
}

impl Reader<'_> {
    fn node(&self) -> Result<Node, Error> {
        self.check_words()?;
        let properties = self.properties()?;
        let rules = match self.fields.get("x-kubernetes-validations") {
            Some(rules) => Rule::compile_all(rules, &format!("{}.x-kubernetes-validations", self.path))?,
            None => Vec::new(),
        };
        let mut node = Node {
            type_: self.type_()?,
            nullable: self.flag("nullable")?,
            default: self.fields.get("default").filter(|default| !default.is_null()).cloned(),
            choices: self.array("enum")?.unwrap_or_default().to_vec(),
            minimum: self.bound("minimum", "exclusiveMinimum")?,
            maximum: self.bound("maximum", "exclusiveMaximum")?,
            multiple_of: self.number("multipleOf")?,
            min_length: self.count("minLength")?,
            max_length: self.count("maxLength")?,
            pattern: self.pattern()?,
            format: self.text("format")?.and_then(Format::named),
            min_items: self.count("minItems")?,
            max_items: self.count("maxItems")?,
            unique_items: self.flag("uniqueItems")?,
            min_properties: self.count("minProperties")?,
            max_properties: self.count("maxProperties")?,
            required: self.words("required")?,
            properties,
            additional: self.additional()?,
            items: self.child("items")?,
            list_type: self.list_type()?,
            preserves_unknown: self.flag("x-kubernetes-preserve-unknown-fields")?,
            is_embedded: self.flag("x-kubernetes-embedded-resource")?,
            rules,
            has_rules: false,
            has_lists: false,
        };
        if !node.properties.is_empty() && node.additional.is_some() {
            return Err(self.problem("additionalProperties", "and properties are mutual exclusive"));
        }
        if node.multiple_of.is_some_and(|factor| factor <= 0.0) {
            return Err(self.problem("multipleOf", "must be positive"));
        }
        if node.type_ == Type::Any && !node.preserves_unknown {
            return Err(self.problem("type", "must not be empty for specified object fields"));
        }
        node.has_rules = !node.rules.is_empty() || node.children().any(|child| child.has_rules);
        node.has_lists = node.list_type != ListType::Atomic || node.children().any(|child| child.has_lists);
        Ok(node)
    }

    fn problem(&self, word: &str, says: impl Into<String>) -> Error {
        problem(&format!("{}.{word}", self.path), says)
    }

    fn check_words(&self) -> Result<(), Error> {
        const KNOWN: [&str; 27] = [
            "type",
            "nullable",
            "default",
            "enum",
            "minimum",
            "exclusiveMinimum",
            "maximum",
            "exclusiveMaximum",
            "multipleOf",
            "minLength",
            "maxLength",
            "pattern",
            "format",
            "minItems",
            "maxItems",
            "uniqueItems",
            "minProperties",
            "maxProperties",
            "required",
            "properties",
            "additionalProperties",
            "items",
            "x-kubernetes-list-type",
            "x-kubernetes-list-map-keys",
            "x-kubernetes-preserve-unknown-fields",
            "x-kubernetes-int-or-string",
            "x-kubernetes-validations",
        ];
        let is_known = |word: &str| {
            KNOWN.contains(&word) || IGNORED.contains(&word) || word == "x-kubernetes-embedded-resource"
        };
        if let Some(word) = self.fields.keys().find(|word| !is_known(word)) {
            return Err(self.problem(word, "is not supported"));
        }
        // The one choice between schemas that is let pass says what x-kubernetes-int-or-string says.
        if self.fields.contains_key("anyOf") && !self.flag("x-kubernetes-int-or-string")? {
            return Err(self.problem("anyOf", "is not supported"));
        }
        Ok(())
    }

    fn type_(&self) -> Result<Type, Error> {
        if self.flag("x-kubernetes-int-or-string")? {
            return Ok(Type::IntOrString);
        }
        Ok(match self.text("type")? {
            None => Type::Any,
            Some("boolean") => Type::Boolean,
            Some("integer") => Type::Integer,
            Some("number") => Type::Number,
            Some("string") => Type::String,
            Some("array") => Type::Array,
            Some("object") => Type::Object,
            Some(other) => return Err(self.problem("type", format!("Unsupported value: {other:?}"))),
        })
    }

    fn list_type(&self) -> Result<ListType, Error> {
        let keys = self.words("x-kubernetes-list-map-keys")?;
        match self.text("x-kubernetes-list-type")? {
            None | Some("atomic") => Ok(ListType::Atomic),
            Some("set") => Ok(ListType::Set),
            Some("map") if keys.is_empty() => Err(self.problem(
                "x-kubernetes-list-map-keys",
                "Required value: must not be empty if list type is map",
            )),
            Some("map") => Ok(ListType::Map(keys)),
            Some(other) => {
                Err(self.problem("x-kubernetes-list-type", format!("Unsupported value: {other:?}")))
            }
        }
    }

    fn properties(&self) -> Result<BTreeMap<String, Node>, Error> {
        let Some(properties) = self.fields.get("properties") else { return Ok(BTreeMap::new()) };
        let properties =
            properties.as_object().ok_or_else(|| self.problem("properties", "must be an object"))?;
        let compiled = properties.iter().map(|(name, schema)| {
            let path = format!("{}.properties[{name}]", self.path);
            Ok((name.clone(), node(schema, &path, self.depth + 1)?))
        });
        compiled.collect()
    }

    fn additional(&self) -> Result<Option<Option<Box<Node>>>, Error> {
        match self.fields.get("additionalProperties") {
            None => Ok(None),
            Some(Value::Bool(true)) => Ok(Some(None)),
            Some(Value::Bool(false)) => {
                Err(self.problem("additionalProperties", "Forbidden: must not be false"))
            }
            Some(_) => self.child("additionalProperties").map(Some),
        }
    }

    fn child(&self, word: &str) -> Result<Option<Box<Node>>, Error> {
        let Some(schema) = self.fields.get(word) else { return Ok(None) };
        node(schema, &format!("{}.{word}", self.path), self.depth + 1).map(|node| Some(Box::new(node)))
    }

    fn pattern(&self) -> Result<Option<(String, Regex)>, Error> {
        let Some(text) = self.text("pattern")? else { return Ok(None) };
        let regex = pattern::compile(text).map_err(|error| self.problem("pattern", error))?;
        Ok(Some((text.to_owned(), regex)))
    }

    /// A limit. Newer OpenAPI writes an exclusive one as a number of its own.
    fn bound(&self, word: &str, exclusive: &str) -> Result<Option<Bound>, Error> {
        let limit = self.number(word)?;
        match self.fields.get(exclusive) {
            None => Ok(limit.map(|limit| Bound { limit, is_exclusive: false })),
            Some(Value::Bool(is_exclusive)) => {
                Ok(limit.map(|limit| Bound { limit, is_exclusive: *is_exclusive }))
            }
            Some(_) => Err(self.problem(exclusive, "must be a boolean")),
        }
    }

    fn flag(&self, word: &str) -> Result<bool, Error> {
        let Some(value) = self.fields.get(word) else { return Ok(false) };
        value.as_bool().ok_or_else(|| self.problem(word, "must be a boolean"))
    }

    fn number(&self, word: &str) -> Result<Option<f64>, Error> {
        let Some(value) = self.fields.get(word) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.problem(word, "must be a number"))
    }

    fn count(&self, word: &str) -> Result<Option<u64>, Error> {
        let Some(value) = self.fields.get(word) else { return Ok(None) };
        value.as_u64().map(Some).ok_or_else(|| self.problem(word, "must be a whole number, at least 0"))
    }

    fn text(&self, word: &str) -> Result<Option<&str>, Error> {
        let Some(value) = self.fields.get(word) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.problem(word, "must be a string"))
    }

    fn array(&self, word: &str) -> Result<Option<&[Value]>, Error> {
        let Some(value) = self.fields.get(word) else { return Ok(None) };
        value
            .as_array()
            .map(|entries| Some(entries.as_slice()))
            .ok_or_else(|| self.problem(word, "must be an array"))
    }

    fn words(&self, word: &str) -> Result<Vec<String>, Error> {
        let entries = self.array(word)?.unwrap_or_default();
        let text = |entry: &Value| {
            entry.as_str().map(str::to_owned).ok_or_else(|| self.problem(word, "must hold strings only"))
        };
        entries.iter().map(text).collect()
    }
}
