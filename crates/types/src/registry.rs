//! All kinds, as data: what discovery, admission, tables and OpenAPI need to know of them.

mod core;
mod ours;

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::kind::api_version;
use crate::{FieldError, FieldErrors, GROUP, Kind, Plain, Resource, names};

/// What a cell of a table shows.
#[derive(Debug, Clone, Copy)]
pub enum Cell {
    /// What is found there: dots, `[*]`, and `[?(@.type=="X")]` for conditions.
    Path(&'static str),
    /// How long ago the time was that is found at the first of these paths that leads to one.
    Age(&'static [&'static str]),
    /// Worked out from the whole object.
    Computed(fn(&Value) -> Value),
}

/// A column that `kubectl get` shows.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// The heading.
    pub name: &'static str,
    /// `string`, `integer`, `boolean` or `date`.
    pub format: &'static str,
    /// What stands in it.
    pub cell: Cell,
    /// 0 is always shown, 1 only with `-o wide`.
    pub priority: u8,
    /// What the column says.
    pub description: &'static str,
}

/// Where the number of replicas is that `kubectl scale` changes, as JSON paths.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// How many are wanted.
    pub spec_replicas: &'static str,
    /// How many there are.
    pub status_replicas: &'static str,
}

/// What can be done with objects of most kinds.
pub const VERBS: [&str; 8] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// One kind of resource.
#[derive(Debug, Clone, Copy)]
pub struct KindInfo {
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The version of the group.
    pub version: &'static str,
    /// CamelCase singular.
    pub kind: &'static str,
    /// Lower-case plural, unique among all kinds.
    pub plural: &'static str,
    /// Lower-case singular.
    pub singular: &'static str,
    /// Short names for the command line.
    pub short_names: &'static [&'static str],
    /// Words that stand for several kinds.
    pub categories: &'static [&'static str],
    /// What can be done with its objects, in the order in which discovery tells it.
    pub verbs: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Whether others than the writers of specs report on it, at `/status`.
    pub has_status: bool,
    /// What can be scaled, at `/scale`.
    pub scale: Option<Scale>,
    /// Fields that lists can be selected by beside `metadata.name` and `metadata.namespace`.
    pub selectable: &'static [&'static str],
    /// What `kubectl get` shows.
    pub columns: &'static [Column],
    /// The JSON schema of the whole resource.
    pub schema: fn() -> schemars::Schema,
    check: fn(&Value) -> Result<(), FieldErrors>,
    complete: fn(&Value) -> Result<Value, FieldErrors>,
    name_problems: fn(&str) -> Vec<String>,
    alias: Option<&'static Alias>,
}

/// How a kind shows objects that are kept as another one.
#[derive(Debug)]
struct Alias {
    /// As what its objects are kept.
    kept: &'static KindInfo,
    /// Fields that it names otherwise: as kept, and as shown.
    renamed: &'static [(&'static str, &'static str)],
}

impl KindInfo {
    const fn resource<S: Kind>(
        singular: &'static str,
        short_names: &'static [&'static str],
        columns: &'static [Column],
    ) -> Self {
        Self {
            group: S::GROUP,
            version: S::VERSION,
            kind: S::KIND,
            plural: S::PLURAL,
            singular,
            short_names,
            categories: &[],
            verbs: &VERBS,
            namespaced: S::NAMESPACED,
            has_status: true,
            scale: None,
            selectable: &[],
            columns,
            schema: schema_of::<Resource<S>>,
            check: |manifest| parse_resource::<S>(manifest).map(drop),
            complete: |manifest| parse_resource::<S>(manifest).and_then(|resource| write(&resource)),
            name_problems: names::subdomain_problems,
            alias: None,
        }
    }

    const fn plain<B: Kind>(
        singular: &'static str,
        short_names: &'static [&'static str],
        columns: &'static [Column],
    ) -> Self {
        Self {
            schema: schema_of::<Plain<B>>,
            check: |manifest| parse_plain::<B>(manifest).map(drop),
            complete: |manifest| parse_plain::<B>(manifest).and_then(|resource| write(&resource)),
            ..Self::resource::<B>(singular, short_names, columns).without_status()
        }
    }

    const fn selectable_by(self, selectable: &'static [&'static str]) -> Self {
        Self { selectable, ..self }
    }

    const fn scalable(self, scale: Scale) -> Self {
        Self { scale: Some(scale), ..self }
    }

    /// For kinds whose names may have other characters than host names have, for example colons.
    const fn with_free_names(self) -> Self {
        Self { name_problems: names::path_segment_problems, ..self }
    }

    const fn without_status(self) -> Self {
        Self { has_status: false, ..self }
    }

    /// `group/version`, or just the version in the core group.
    pub fn api_version(&self) -> String {
        api_version(self.group, self.version)
    }

    /// Whether the kind is one of Avocet's own.
    pub fn is_ours(&self) -> bool {
        self.group == GROUP
    }

    /// `plural.group`, as messages name kinds; just the plural in the core group.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// What is wrong with the name of an object of this kind, in the words of Kubernetes; nothing if it may be one.
    pub fn name_problems(&self, name: &str) -> Vec<String> {
        (self.name_problems)(name)
    }

    /// Whether its objects are kept as another kind of the same plural, and shown as both.
    pub fn is_alias(&self) -> bool {
        self.alias.is_some()
    }

    /// Checks all of a manifest but its metadata and fills in its defaults; unknown fields are dropped. What is answered is to be kept.
    ///
    /// # Errors
    /// Every mistake that was found, each with field, value and remedy.
    pub fn admit(&self, manifest: &Value) -> Result<Value, FieldErrors> {
        match self.alias {
            Some(alias) => {
                let version = manifest.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
                check_version(version, &self.api_version()).map_err(|error| FieldErrors(vec![error]))?;
                alias.kept.admit(&alias.keep(self, manifest))
            }
            None => (self.complete)(manifest),
        }
    }

    /// Checks all of a manifest but its metadata.
    ///
    /// # Errors
    /// Every mistake that was found, each with field, value and remedy.
    pub fn check(&self, manifest: &Value) -> Result<(), FieldErrors> {
        match self.alias {
            Some(_) => self.admit(manifest).map(drop),
            None => (self.check)(manifest),
        }
    }

    /// A manifest of this kind as it is kept.
    pub fn keep(&self, shown: Value) -> Value {
        match self.alias {
            Some(alias) => alias.keep(self, &shown),
            None => shown,
        }
    }

    /// A manifest that is kept, as this kind shows it.
    pub fn show<'a>(&self, kept: &'a Value) -> Cow<'a, Value> {
        match self.alias {
            Some(alias) => Cow::Owned(alias.show(self, kept)),
            None => Cow::Borrowed(kept),
        }
    }

    /// Names the fields of what is kept, or what is said of them, as this kind shows them.
    pub(crate) fn rename_fields(&self, fields: &mut Map<String, Value>) {
        for (kept, shown) in self.alias.into_iter().flat_map(|alias| alias.renamed) {
            if let Some(value) = fields.remove(*kept) {
                fields.insert((*shown).to_owned(), value);
            }
        }
    }

    /// The path of a field, dots between names, in what is kept.
    pub fn kept_path(&self, shown: &str) -> String {
        let (first, rest) = shown.split_once('.').unwrap_or((shown, ""));
        let renamed = self.alias.into_iter().flat_map(|alias| alias.renamed);
        let kept = renamed.clone().find(|(_, shown)| *shown == first).map_or(first, |(kept, _)| kept);
        if rest.is_empty() { kept.to_owned() } else { format!("{kept}.{rest}") }
    }
}

impl Alias {
    fn keep(&self, info: &KindInfo, shown: &Value) -> Value {
        let names = self.renamed.iter().map(|(kept, shown)| (*shown, *kept));
        rename(shown, names, (&info.api_version(), info.kind), (&self.kept.api_version(), self.kept.kind))
    }

    fn show(&self, info: &KindInfo, kept: &Value) -> Value {
        let names = self.renamed.iter().copied();
        rename(kept, names, (&self.kept.api_version(), self.kept.kind), (&info.api_version(), info.kind))
    }
}

/// A manifest under other names. One that isn't of the expected version or kind keeps it, to be refused.
fn rename(
    manifest: &Value,
    names: impl Iterator<Item = (&'static str, &'static str)>,
    from: (&str, &str),
    to: (&str, &str),
) -> Value {
    let Value::Object(fields) = manifest else { return manifest.clone() };
    let mut fields = fields.clone();
    let renamed: Vec<(&str, Value)> =
        names.filter_map(|(old, new)| Some((new, fields.remove(old)?))).collect();
    fields.extend(renamed.into_iter().map(|(name, value)| (name.to_owned(), value)));
    for (field, from, to) in [("apiVersion", from.0, to.0), ("kind", from.1, to.1)] {
        if fields.get(field).and_then(Value::as_str) == Some(from) {
            fields.insert(field.to_owned(), Value::String(to.to_owned()));
        }
    }
    Value::Object(fields)
}

pub(crate) fn schema_of<T: schemars::JsonSchema>() -> schemars::Schema {
    schemars::generate::SchemaSettings::openapi3()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<T>()
}

fn parse_resource<S: Kind>(manifest: &Value) -> Result<Resource<S>, FieldErrors> {
    parse(manifest, |resource: &Resource<S>, errors| {
        check_names::<S>(&resource.api_version, &resource.kind, errors);
        resource.spec.check(errors);
    })
}

fn parse_plain<B: Kind>(manifest: &Value) -> Result<Plain<B>, FieldErrors> {
    parse(manifest, |resource: &Plain<B>, errors| {
        check_names::<B>(&resource.api_version, &resource.kind, errors);
        resource.body.check(errors);
    })
}

fn parse<T: serde::de::DeserializeOwned>(
    manifest: &Value,
    check: impl FnOnce(&T, &mut Vec<FieldError>),
) -> Result<T, FieldErrors> {
    let resource: T = serde_path_to_error::deserialize(manifest)
        .map_err(|error| FieldErrors(vec![FieldError::from_serde(&error, manifest)]))?;
    let mut errors = Vec::new();
    check(&resource, &mut errors);
    if errors.is_empty() { Ok(resource) } else { Err(FieldErrors(errors)) }
}

fn write<T: serde::Serialize>(resource: &T) -> Result<Value, FieldErrors> {
    serde_json::to_value(resource)
        .map_err(|error| FieldErrors(vec![FieldError::new("the manifest", "", error.to_string())]))
}

fn check_version(version: &str, expected: &str) -> Result<(), FieldError> {
    if version == expected {
        return Ok(());
    }
    let problem = format!("is not served here: write {expected}");
    Err(FieldError::new("apiVersion", format!("{version:?}"), problem))
}

fn check_names<K: Kind>(version: &str, kind: &str, errors: &mut Vec<FieldError>) {
    errors.extend(check_version(version, &K::api_version()).err());
    if kind != K::KIND {
        let problem = format!("does not belong here: write {}", K::KIND);
        errors.push(FieldError::new("kind", format!("{kind:?}"), problem));
    }
}

const fn column(
    name: &'static str,
    format: &'static str,
    json_path: &'static str,
    priority: u8,
    description: &'static str,
) -> Column {
    Column { name, format, cell: Cell::Path(json_path), priority, description }
}

const NAME: Column = column("Name", "string", ".metadata.name", 0, "unique in its namespace");
const AGE: Column = Column {
    name: "Age",
    format: "date",
    cell: Cell::Age(&[".metadata.creationTimestamp"]),
    priority: 0,
    description: "time since its creation",
};

/// Lists whose entries are told apart by a field, so that several clients can each state some of them: the path of
/// the list, dots between names, and the field.
pub const KEYED_LISTS: [(&str, &str); 7] = [
    ("spec.components", "name"),
    ("spec.ensemble.steps", "name"),
    ("spec.measure", "location"),
    ("spec.metrics", "name"),
    ("spec.versions", "name"),
    ("status.components", "name"),
    ("status.conditions", "type"),
];

/// All kinds; aliases come after what they are kept as.
pub fn kinds() -> impl Iterator<Item = &'static KindInfo> {
    ours::OURS.iter().chain(&core::CORE).chain(&core::ALIASES)
}

/// The kind that a word means: its kind, plural, singular or a short name, in any case.
pub fn kind_named(word: &str) -> Option<&'static KindInfo> {
    let word = word.to_lowercase();
    let word = word.split_once('.').map_or(word.as_str(), |(plural, _group)| plural);
    kinds().find(|info| info.plural == word || info.singular == word || info.short_names.contains(&word))
}

/// The kind at `/apis/GROUP/VERSION/PLURAL`.
pub fn kind_at(group: &str, version: &str, plural: &str) -> Option<&'static KindInfo> {
    kinds().find(|info| info.plural == plural && info.group == group && info.version == version)
}

/// The kind that a manifest's `apiVersion` and `kind` name.
pub fn kind_of(api_version: &str, kind: &str) -> Option<&'static KindInfo> {
    kinds().find(|info| info.kind == kind && info.api_version() == api_version)
}
